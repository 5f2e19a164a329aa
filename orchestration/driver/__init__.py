"""The driver process of a job: plans it, runs missing cases on Ray, reports progress."""
