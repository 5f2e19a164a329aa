"""The `proxyless` command line: one module per group of commands."""
