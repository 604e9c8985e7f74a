"""The two pruners, and what their searches share."""
