"""Cases of a job, their content keys, and what is left to do."""
