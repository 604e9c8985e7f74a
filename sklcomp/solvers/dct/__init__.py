"""Recovery by the DCT norm: exact, sparse and iterative solvers."""
