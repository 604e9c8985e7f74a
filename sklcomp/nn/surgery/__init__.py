"""Channels removed from any network: tracing, order, cut, repair, cost."""
