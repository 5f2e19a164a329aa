"""Random-access reading of files on a path or at an s3:// address, e.g. Parquet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

from cluster.store import ATTEMPTS, ENDPOINTS, REGIONS, TIMEOUT_S


def open_file(uri: str) -> Any:
    """Open a file as a pyarrow `NativeFile`, which reads only the requested bytes.

    Raises:
        OSError: the file does not exist, or cannot be read.
    """
    import pyarrow.fs

    if uri.startswith("s3://"):
        return _s3(_first(ENDPOINTS), _first(REGIONS)).open_input_file(uri.removeprefix("s3://"))
    return pyarrow.fs.LocalFileSystem().open_input_file(uri)


def _first(names: Sequence[str]) -> str | None:
    """Value of the first of these environment variables that is set."""
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


@cache
def _s3(endpoint: str | None, region: str | None) -> Any:
    """S3 file system; pyarrow looks up credentials itself, as AWS clients usually do."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    return S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        connect_timeout=TIMEOUT_S,
        request_timeout=TIMEOUT_S,
    )
