"""Shared helpers: validation, randomness and the door to scikit-learn's internals."""
