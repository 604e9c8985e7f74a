"""Solvers: functions on checked arrays that know nothing about estimators."""
