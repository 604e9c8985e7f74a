"""The one place where the version is stated."""

__version__ = "0.1.0.dev0"
