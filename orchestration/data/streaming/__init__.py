"""Image data sets that are streamed from Parquet with Ray Data."""
