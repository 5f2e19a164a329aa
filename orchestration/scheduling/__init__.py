"""Order, duration and early stopping of the cases of a job."""
