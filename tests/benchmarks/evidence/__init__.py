"""Parts of the main evidence in RESULTS.md, measured with the product itself; see `bench.py`."""
