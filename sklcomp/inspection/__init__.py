"""Displays: pictures of what an estimator does. They need the extra ``plot``."""

from sklcomp.inspection._recovery import RecoveryDisplay

__all__ = ["RecoveryDisplay"]
