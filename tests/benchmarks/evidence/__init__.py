"""The claims of the README, each made again by the product itself and measured; see `bench.py`."""
