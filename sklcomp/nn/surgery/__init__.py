"""The parts of the surgery on networks: tracing, order, cut, repair and cost."""
