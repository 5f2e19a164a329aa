"""Image data sets in Parquet: conversion and reading.

A set is a folder, or a prefix in S3, of shards with encoded images, labels and keys, and a manifest
that describes them. Rows are sorted by a hash of their keys, so any range of rows is a random
sample of the set. The part that an image belongs to follows from its key alone.
"""
