"""Evidence for the claims of the README, measured by running the product itself; see `bench.py`."""
