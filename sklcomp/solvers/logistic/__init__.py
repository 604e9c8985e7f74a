"""Logistic regressions of many labels on the same rows, and what couples them."""
