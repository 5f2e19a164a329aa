"""Storage under a prefix of an S3 bucket, or of a service with the same API.

Endpoint, region and credentials are those of AWS's own tools: AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID and so on, profiles, roles. Every object carries the SHA-256 of its content, which
is verified on reading. Transient failures (throttling, 5xx, a restarting server) are retried with
exponential backoff.
"""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    FlexibleChecksumError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from urllib3.exceptions import HTTPError

from cluster.store import ATTEMPTS, TIMEOUT_S, StorageError

T = TypeVar("T")

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
EXPECTED = "expected s3://<bucket>/<prefix>; endpoint and credentials are AWS's usual settings"
SHA = "sha256"
"""Name of the checksum in the metadata of an object."""

READS = 5
"""Attempts to read an object whose content is truncated or does not match its checksum."""
PART_BYTES = 16 * 1024**2
"""Objects above this size are uploaded in parts of it, several at once."""
BATCH = 1000
"""Largest number of keys in one delete request."""

GONE = frozenset({"404", "NoSuchKey", "NotFound"})
CHANGED = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
CUT = (
    *(IncompleteReadError, ReadTimeoutError, ResponseStreamingError, FlexibleChecksumError),
    HTTPError,  # from urllib3: botocore does not wrap all errors while a body is read
)


def s3_store(uri: str) -> S3Store:
    """Create the store of an address.

    Raises:
        StorageError: it is not a valid address, or contains something else, e.g. a login.
    """
    parts = urlsplit(uri)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise StorageError(f"storage s3://...: it has a login or options; {EXPECTED}")
    path = parts.path.removeprefix("/").removesuffix("/")
    parts_of_prefix = path.split("/") if path else []
    if not BUCKET.fullmatch(parts.netloc) or any(
        part in ("", ".", "..") for part in parts_of_prefix
    ):
        raise StorageError(f"storage {uri}: no bucket or prefix of this name; {EXPECTED}")
    return S3Store(parts.netloc, "/".join(parts_of_prefix))


class S3Store:
    """Objects below a prefix of a bucket, by key; keys have been validated by the caller."""

    def __init__(self, bucket: str, prefix: str) -> None:
        """Describe the store; nothing is sent."""
        self._bucket, self._prefix = bucket, prefix
        self.uri = self.where()

    def where(self, key: str = "") -> str:
        """Address of a key."""
        return f"s3://{self._bucket}/{self._name(key)}".rstrip("/")

    def exists(self, key: str) -> bool:
        """Whether `key` is an object, or there are objects below it."""
        if key and self.modified(key) is not None:
            return True
        with self._named_errors("cannot list", key):
            response = client().list_objects_v2(
                Bucket=self._bucket, Prefix=self._below(key), MaxKeys=1
            )
        return bool(response.get("Contents"))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Sizes in bytes of the object `prefix`, or of all objects below it, by key."""
        name = self._name(prefix)
        objects = dict(self._objects(prefix, name)) if prefix else dict(self._objects(prefix, ""))
        return {key: size for key, size in objects.items() if not key.endswith("/")}

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below a prefix."""
        below = self._below(prefix)
        with self._named_errors("cannot list", prefix):
            pages = client().get_paginator("list_objects_v2")
            prefixes = [
                entry["Prefix"]
                for page in pages.paginate(Bucket=self._bucket, Prefix=below, Delimiter="/")
                for entry in page.get("CommonPrefixes", ())
            ]
        return [name.removeprefix(below).rstrip("/") for name in prefixes]

    def modified(self, key: str) -> float | None:
        """Time of the last modification, by the clock of S3; None if there is no such object."""
        with self._named_errors("cannot look at", key):
            try:
                head = client().head_object(Bucket=self._bucket, Key=self._name(key))
            except ClientError as error:
                if _code(error) in GONE:
                    return None
                raise
        return float(head["LastModified"].timestamp())

    def find(self, key: str) -> bytes | None:
        """Verified content of an object; None if there is none."""
        stored = self._find(key)
        return None if stored is None else stored[0]

    def write(self, key: str, data: bytes) -> None:
        """Replace an object; large ones are uploaded in parts."""
        with self._named_errors("cannot write", key):
            self._upload(key, BytesIO(data), hashlib.sha256(data).hexdigest())

    def write_folder(self, local: Path, key: str) -> None:
        """Copy a folder below `key`, and remove all other objects there."""
        if not local.is_dir():
            raise StorageError(f"cannot write {self.where(key)}: {local} is not a folder")
        files = sorted(path for path in local.rglob("*") if path.is_file())
        names = {path: f"{key}/{path.relative_to(local).as_posix()}" for path in files}
        for path, name in names.items():
            with self._named_errors("cannot write", name), path.open("rb") as file:
                digest = hashlib.file_digest(file, SHA).hexdigest()
                file.seek(0)
                self._upload(name, file, digest)
        self._delete_all(sorted(set(self.sizes(key)) - set(names.values())))

    def delete(self, key: str) -> None:
        """Remove an object and all objects below it; missing ones are not an error."""
        self._delete_all([key, *self.sizes(key)])

    def unfinished_bytes(self) -> int:
        """Return 0: objects appear atomically, and S3 does not report the size of open uploads."""
        return 0

    def delete_unfinished(self) -> None:
        """Abort the multipart uploads that killed writers left open."""
        with self._named_errors("cannot clean", ""):
            pages = client().get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._below("")):
                for upload in page.get("Uploads", ()):
                    client().abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    def swap(self, key: str, old: bytes | None, new: bytes | None) -> bool:
        """Replace an object if its content is still `old`, by a conditional request."""
        stored = self._find(key)
        if (None if stored is None else stored[0]) != old:
            return False
        if stored is None and new is None:
            return True
        matches = {"IfNoneMatch": "*"} if stored is None else {"IfMatch": stored[1]}
        with self._named_errors("cannot change", key):
            try:
                self._change(key, new, matches)
            except ClientError as error:
                if _code(error) not in CHANGED | GONE:
                    raise
                # True if an earlier attempt succeeded and only its response was lost.
                return self.find(key) == new
        return True

    def check_writable(self) -> None:
        """Write an object and remove it."""
        probe = f".{uuid.uuid4().hex[:8]}.tmp"
        with self._named_errors("cannot write", ""):
            client().put_object(Bucket=self._bucket, Key=self._name(probe), Body=b"")
            client().delete_object(Bucket=self._bucket, Key=self._name(probe))

    def _name(self, key: str) -> str:
        return "/".join(part for part in (self._prefix, key) if part)

    def _below(self, key: str) -> str:
        name = self._name(key)
        return f"{name}/" if name else ""

    def _objects(self, prefix: str, own: str) -> Iterator[tuple[str, int]]:
        """Keys and sizes below a prefix, and of the object `own` itself."""
        below = self._below("")
        with self._named_errors("cannot list", prefix):
            pages = client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=own or below):
                for entry in page.get("Contents", ()):
                    name = entry["Key"]
                    if not own or name == own or name.startswith(f"{own}/"):
                        yield name.removeprefix(below), entry["Size"]

    def _find(self, key: str) -> tuple[bytes, str] | None:
        """Content and ETag of an object; None if there is none."""
        with self._named_errors("cannot read", key):
            try:
                return _with_retries(lambda: self._read(key))
            except ClientError as error:
                if _code(error) in GONE:
                    return None
                raise

    def _read(self, key: str) -> tuple[bytes, str]:
        response = client().get_object(Bucket=self._bucket, Key=self._name(key))
        with response["Body"] as body:
            data: bytes = body.read()
        expected = response["Metadata"].get(SHA)
        if expected is not None and hashlib.sha256(data).hexdigest() != expected:
            raise DamagedError
        return data, response["ETag"]

    def _upload(self, key: str, file: Any, digest: str) -> None:
        client().upload_fileobj(
            file,
            self._bucket,
            self._name(key),
            ExtraArgs={"Metadata": {SHA: digest}, "ChecksumAlgorithm": "SHA256"},
            Config=TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES),
        )

    def _change(self, key: str, new: bytes | None, matches: dict[str, str]) -> None:
        target = {"Bucket": self._bucket, "Key": self._name(key)}
        if new is None:
            client().delete_object(**target, **matches)
            return
        metadata = {SHA: hashlib.sha256(new).hexdigest()}
        client().put_object(**target, Body=new, Metadata=metadata, **matches)

    def _delete_all(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), BATCH):
            names = [{"Key": self._name(key)} for key in keys[start : start + BATCH]]
            with self._named_errors("cannot delete", keys[start]):
                response = client().delete_objects(
                    Bucket=self._bucket, Delete={"Objects": names, "Quiet": True}
                )
            for failure in response.get("Errors", ()):
                raise StorageError(
                    f"cannot delete s3://{self._bucket}/{failure['Key']}: {failure['Message']}"
                )

    @contextmanager
    def _named_errors(self, what: str, key: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError, HTTPError, DamagedError) as error:
            raise StorageError(f"{what} {self.where(key)}: {_reason(error)}") from error


class DamagedError(Exception):
    """Content does not match its checksum."""


def _with_retries(read: Callable[[], T]) -> T:
    """Read again if content is truncated or damaged; botocore only retries the request itself."""
    for attempt in range(1, READS + 1):
        try:
            return read()
        except (*CUT, DamagedError):
            if attempt == READS:
                raise
            time.sleep(0.1 * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


@cache
def client() -> Any:
    """The S3 client of this process; thread-safe."""
    return boto3.session.Session().client(  # the default session is not thread-safe
        "s3",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            connect_timeout=TIMEOUT_S,
            read_timeout=TIMEOUT_S,
            max_pool_connections=32,
        ),
    )


def _code(error: Exception) -> str:
    answer: dict[str, Any] = getattr(error, "response", {})
    return str(answer.get("Error", {}).get("Code", ""))


def _reason(error: Exception) -> str:
    """Reason of a failure, with a remedy."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, EndpointConnectionError):
        return "nobody answers; see AWS_ENDPOINT_URL and AWS_REGION"
    if isinstance(error, DamagedError):
        return "its content is not what its checksum says; delete it"
    if _code(error) == "NoSuchBucket":
        return "there is no such bucket; make it, or name another"
    if _code(error) in ("AccessDenied", "403", "Forbidden", "InvalidAccessKeyId"):
        return f"access is denied ({_code(error)}); these credentials need to read, list and write"
    return " ".join(str(error).split())
