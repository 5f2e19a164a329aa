"""Stages of a case, run inside Ray Train workers: search, derive, retrain, result."""
