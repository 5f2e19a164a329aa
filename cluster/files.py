"""Open files of a path or an s3:// address for reading in places, as Parquet is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

from cluster.store import ATTEMPTS, ENDPOINTS, REGIONS, TIMEOUT_S


def open_file(uri: str) -> Any:
    """A pyarrow `NativeFile` of a file, which reads what is asked for and no more.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    import pyarrow.fs

    if uri.startswith("s3://"):
        return _s3(_first(ENDPOINTS), _first(REGIONS)).open_input_file(uri.removeprefix("s3://"))
    return pyarrow.fs.LocalFileSystem().open_input_file(uri)


def _first(names: Sequence[str]) -> str | None:
    """The environment variable that is set."""
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


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
