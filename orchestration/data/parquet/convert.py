"""Convert a data set to Parquet, in parallel on Ray. The same command resumes a stopped conversion.

One task writes one shard as a whole, and a small JSON file that describes it. The manifest is
written last: a set without one is not finished.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cluster.storage import Storage
from orchestration.config.loading import SpecError
from orchestration.config.storage_layout import (
    BAD_SAMPLES_FILE,
    CONVERSION_FILE,
    MANIFEST_FILE,
    SHARDS,
    shard_file,
    shard_note_file,
)
from orchestration.data.parquet.manifest import Manifest, Shard, find_manifest
from orchestration.data.parquet.samples import BadImageError, Listing, encoded
from orchestration.data.streaming.bad_samples import bad_table, complaint

GROUP_BYTES, SHARD_BYTES = 16 * 1024**2, 128 * 1024**2
"""Approximate size of the images in a row group and in a shard, bytes."""
FEWEST_SHARDS = 8
"""Smallest number of shards of small sets, as long as each has at least `FEWEST_ROWS` rows."""
FEWEST_ROWS = 1024
LOG_EVERY_S = 5.0

Log = Callable[[str], None]


@dataclass(frozen=True)
class ConvertedShard:
    """A shard that was written, and the images that could not be read."""

    shard: Shard
    bad: tuple[tuple[str, str], ...]
    """(key, reason) of images that could not be read."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConvertedShard:
        """The inverse of `asdict`."""
        bad = tuple((str(key), str(reason)) for key, reason in values["bad"])
        return cls(Shard.from_dict(values["shard"]), bad)


def convert(listing: Listing, dest: Storage, log: Log) -> Manifest:
    """Convert a data set, or the shards that are missing.

    Args:
        listing: the images to convert.
        dest: an empty or new folder, or a prefix in S3.
        log: receives lines of text.

    Raises:
        SpecError: `dest` holds other files, or too many images cannot be read.
        StorageError: `dest` cannot be written.
    """
    mark = _mark(listing)
    _check_dest(dest, mark)
    finished = find_manifest(dest)
    if finished is not None:
        log(f"{finished.count:,} images are in {dest.uri} already")
        return finished
    dest.write_json(CONVERSION_FILE, mark)
    spans = spans_of(listing)
    made = _all_made(listing, dest, spans, log)
    return _finish(listing, dest, made, log)


def _mark(listing: Listing) -> dict[str, Any]:
    """Description of the conversion, to recognise whether `dest` holds the same one."""
    content = hashlib.sha256()
    for key, label, size in zip(listing.keys, listing.labels, listing.sizes, strict=True):
        content.update(f"{key}\0{label}\0{size}\n".encode())
    return {"description": dict(listing.description), "content": content.hexdigest()}


def _check_dest(dest: Storage, mark: Mapping[str, Any]) -> None:
    dest.check_writable()
    before = dest.find_json(CONVERSION_FILE)
    if before is None and dest.list():
        raise SpecError(f"{dest.uri} holds other files; name a folder that is empty or not there")
    if before is not None and before != mark:
        raise SpecError(
            f"{dest.uri} holds a conversion of something else ({before['description']}, or its "
            "files have changed); name another folder, or delete that one"
        )


def spans_of(listing: Listing) -> list[tuple[int, int]]:
    """(first row, row after the last) of each shard. Depends on the listing alone."""
    count, total = len(listing.keys), sum(listing.sizes)
    wanted = max(-(-total // SHARD_BYTES), min(FEWEST_SHARDS, count // FEWEST_ROWS), 1)
    rows = -(-count // wanted)
    rows = -(-rows // listing.align) * listing.align
    return [(start, min(start + rows, count)) for start in range(0, count, rows)]


def _all_made(
    listing: Listing,
    dest: Storage,
    spans: Sequence[tuple[int, int]],
    log: Log,
) -> list[ConvertedShard]:
    """All shards in order: those of an earlier run, and those that are converted now."""
    names = [shard_file(number, len(spans)) for number in range(len(spans))]
    made = {name: item for name in names if (item := _there(dest, name)) is not None}
    total, before = len(listing.keys), sum(item.shard.rows for item in made.values())
    if before:
        log(f"{before:,} of {total:,} images are there; going on")
    todo = [(name, span) for name, span in zip(names, spans, strict=True) if name not in made]
    speed = _Speed(log, total)
    for name, item in _made_on_ray(listing, dest, todo):
        made[name] = item
        _check_bad(made.values(), total, dest)
        speed.update(sum(item.shard.rows for item in made.values()))
    return [made[name] for name in names]


class _Speed:
    """Logs progress and speed every few seconds. The time until Ray starts is not counted."""

    def __init__(self, log: Log, total: int) -> None:
        self._log, self._total = log, total
        self._first: tuple[float, int] | None = None
        self._logged = time.monotonic()

    def update(self, done: int) -> None:
        """Log the progress, if it is time: `done` images are converted."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        if now - self._logged < LOG_EVERY_S or now == self._first[0]:
            return
        self._logged = now
        speed = (done - self._first[1]) / (now - self._first[0])
        self._log(f"{done:,} of {self._total:,} images, {speed:,.0f} a second")


def _there(dest: Storage, name: str) -> ConvertedShard | None:
    """A shard of an earlier run; None if it is missing or its size has changed."""
    values = dest.find_json(shard_note_file(name))
    made = None if values is None else ConvertedShard.from_dict(values)
    return made if made is not None and dest.size_bytes(name) == made.shard.bytes else None


def _made_on_ray(
    listing: Listing, dest: Storage, todo: Sequence[tuple[str, tuple[int, int]]]
) -> Iterator[tuple[str, ConvertedShard]]:
    """Shards in the order in which they finish. Only a few more tasks than CPUs are submitted."""
    if not todo:
        return
    import ray

    from cluster.connect import connect

    with connect() as cluster:
        task = ray.remote(make_shard).options(num_cpus=1, max_retries=3)
        waiting, most = list(reversed(todo)), cluster.cpus + 2
        running: dict[Any, str] = {}
        while waiting or running:
            while waiting and len(running) < most:
                name, (start, stop) = waiting.pop()
                pending = task.remote(
                    dest.uri,
                    name,
                    listing.keys[start:stop],
                    listing.labels[start:stop],
                    listing.content(start, stop),
                    len(listing.classes),
                )
                running[pending] = name
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(ready), ConvertedShard.from_dict(ray.get(ready))


def make_shard(
    uri: str,
    name: str,
    keys: Sequence[str],
    labels: Sequence[int],
    content: Mapping[str, Any],
    classes: int,
) -> dict[str, Any]:
    """Encode some images and write them as a shard, with a JSON file that describes it."""
    rows, bad = [], []
    for key, label, image in zip(keys, labels, encoded(content), strict=True):
        if isinstance(image, BadImageError):
            bad.append((key, str(image)))
        else:
            rows.append((image, label, key))
    data, groups = parquet_of(rows)
    counts = [0] * classes
    for _, label, _ in rows:
        counts[label] += 1
    shard = Shard(
        name, len(rows), len(data), hashlib.sha256(data).hexdigest(), groups, tuple(counts)
    )
    dest, made = Storage(uri), asdict(ConvertedShard(shard, tuple(bad)))
    dest.write_bytes(name, data)
    dest.write_json(shard_note_file(name), made)
    return made


def parquet_of(rows: Sequence[tuple[bytes, int, str]]) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """Content of a Parquet file of images, labels and keys; (rows, image bytes) per row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("image", pa.binary()), ("label", pa.int32()), ("key", pa.string())])
    file, groups = io.BytesIO(), []
    # Images are compressed already, and a dictionary of images would store them twice.
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    with pq.ParquetWriter(file, schema, **options) as writer:
        for group in _groups(rows):
            columns = [list(column) for column in zip(*group, strict=True)]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=len(group))
            groups.append((len(group), sum(map(len, columns[0]))))
    return file.getvalue(), tuple(groups)


def _groups(rows: Sequence[tuple[bytes, int, str]]) -> Iterator[list[tuple[bytes, int, str]]]:
    group, size = [], 0
    for row in rows:
        group.append(row)
        size += len(row[0])
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _check_bad(made: Iterable[ConvertedShard], total: int, dest: Storage) -> dict[str, str]:
    """List images that cannot be read in a file; reasons by key.

    Raises:
        SpecError: there are too many.
    """
    bad = {key: reason for item in made for key, reason in item.bad}
    if bad:
        dest.write_bytes(
            BAD_SAMPLES_FILE, bad_table({"key": k, "reason": r} for k, r in bad.items())
        )
    if problem := complaint(bad, total, dest.where(BAD_SAMPLES_FILE)):
        raise SpecError(f"{problem} into another folder")
    return bad


def _finish(listing: Listing, dest: Storage, made: Sequence[ConvertedShard], log: Log) -> Manifest:
    """Write the manifest, and delete the files that only the conversion needed."""
    bad = _check_bad(made, len(listing.keys), dest)
    if bad:
        log(f"{len(bad)} images cannot be read and are left out: {dest.where(BAD_SAMPLES_FILE)}")
    source = str(listing.description.get("path") or listing.description["source"])
    shards = tuple(item.shard for item in made if item.shard.rows)
    manifest = Manifest(listing.classes, shards, source, len(bad))
    empty = [name for name, count in manifest.counts.items() if count == 0]
    if empty:
        raise SpecError(
            f"no image of class {empty[0]!r} can be read; see {dest.where(BAD_SAMPLES_FILE)}"
        )
    dest.write_json(MANIFEST_FILE, manifest.to_dict())
    dest.delete(SHARDS)
    size = manifest.bytes / 1e6
    log(f"{manifest.count:,} images of {len(manifest.classes)} classes, {size:,.1f} MB: {dest.uri}")
    return manifest
