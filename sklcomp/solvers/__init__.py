"""Solvers: functions of checked arrays, which the estimators call."""
