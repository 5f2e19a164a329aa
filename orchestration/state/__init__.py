"""State of a job, as read from its storage. Imports neither torch nor Ray."""
