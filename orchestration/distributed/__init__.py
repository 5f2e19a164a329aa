"""Worker processes: collectives, the control actor and the watchdog."""
