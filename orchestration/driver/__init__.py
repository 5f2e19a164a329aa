"""The driver process of a job: plan, run the missing cases on Ray, report progress."""
