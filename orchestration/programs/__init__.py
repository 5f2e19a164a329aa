"""Compiled programs: export, compile workers and timing workers."""
