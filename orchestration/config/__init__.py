"""Job files: the settings of each section, and reading them."""
