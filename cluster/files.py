"""Open files of a path or an s3:// address for reading in places, as Parquet is read."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

ATTEMPTS, TIMEOUT_S = 10, 20.0
"""Of a request to S3."""


def open_file(uri: str) -> Any:
    """A pyarrow `NativeFile` of a file, which reads what is asked for and no more.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    import pyarrow.fs

    if uri.startswith("s3://"):
        names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        endpoint = next((os.environ[name] for name in names if os.environ.get(name)), None)
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return _s3(endpoint, region).open_input_file(uri.removeprefix("s3://"))
    return pyarrow.fs.LocalFileSystem().open_input_file(uri)


@cache
def _s3(endpoint: str | None, region: str | None) -> Any:
    """Credentials are AWS's usual settings, which pyarrow looks up itself."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    return S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        connect_timeout=TIMEOUT_S,
        request_timeout=TIMEOUT_S,
    )
