"""Solvers of linear models of labels, by dual coordinate descent."""
