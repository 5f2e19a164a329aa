"""Stages of a case, which run inside Ray Train workers: search, derive, retrain, result."""
