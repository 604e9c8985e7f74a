"""The two pruners, and the parts of their searches."""
