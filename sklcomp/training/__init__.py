"""What the fit of every torch estimator is made of: skeleton, state, loop, nets."""
