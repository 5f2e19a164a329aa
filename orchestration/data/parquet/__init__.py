"""Images in Parquet: converting a data set, and reading what was converted.

A set is a folder, or a prefix in S3, of shards with encoded images, labels and keys, and a manifest
that says what they hold. Rows stand in the order of a hash of their keys: any stretch of them is a
random sample of the whole, and which part an image belongs to follows from its key alone, for ever.
"""
