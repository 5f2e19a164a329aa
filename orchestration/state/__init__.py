"""State of a job as its storage tells it. No torch, no Ray."""
