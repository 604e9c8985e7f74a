"""Linear models of labels by dual coordinate descent."""
