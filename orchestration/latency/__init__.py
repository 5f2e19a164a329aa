"""Latency measurement: tables, calibration and whole networks."""
