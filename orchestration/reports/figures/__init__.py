"""Figures of a job, drawn with matplotlib."""
