"""Images of a job: sources, splits, transforms and loaders."""
