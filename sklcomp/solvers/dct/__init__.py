"""Solvers of the DCT norm: exact, sparse and iterative ones."""
