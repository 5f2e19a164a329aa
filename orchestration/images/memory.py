"""Images of Parquet files in memory: read, verified, decoded, split by their keys.

Shapes: N images, C channels, R pixels of a side.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cluster.hardware import usable_cores
from cluster.storage import Storage
from orchestration.data import PARTS, ImageSet
from orchestration.data_settings import DataSettings
from orchestration.images.decode import decode_image
from orchestration.images.keys import hashes_of, is_test
from orchestration.images.parquet import File, ImageFiles, image_files
from orchestration.sources import DataFacts, describe
from orchestration.spec import SpecError

MOST_BAD = 0.001
"""Part of the images that may be undecodable."""
BAD = "bad_samples.csv"


class Row(NamedTuple):
    """An image of a file, or why it is none."""

    key: str
    label: int
    pixels: Tensor | str
    """(C, R, R), uint8."""


def load_parquet(settings: DataSettings, storage: Storage | None) -> tuple[ImageSet, ImageSet]:
    """Training and test images.

    Args:
        settings: which files.
        storage: where decoded images are kept for the next time, if anywhere.

    Raises:
        SpecError: a file or too many images cannot be read, or a part would be without a class.
    """
    facts = describe(settings)
    place = f"data/{facts.fingerprint}/{facts.resolution}x{facts.channels}"
    kept = [f"{place}/{part}-{settings.test_share:g}.npz" for part in PARTS]
    if storage is not None and all(map(storage.exists, kept)):
        train, test = (_from_bytes(storage.read_bytes(key)) for key in kept)
        return train, test
    rows, bad = _rows(image_files(settings), settings, facts.channels)
    if bad and storage is not None:
        storage.write_text(f"{place}/{BAD}", _table(bad))
    _check_bad(bad, facts, None if storage is None else storage.where(f"{place}/{BAD}"))
    train, test = _split(rows, settings.test_share, facts)
    if storage is not None:
        for key, part in zip(kept, (train, test), strict=True):
            storage.write_bytes(key, _to_bytes(part))
    return train, test


def _rows(files: ImageFiles, settings: DataSettings, channels: int) -> tuple[list[Row], list[Row]]:
    """Images that can be decoded, and those that cannot, in the order of the files."""
    sums = {} if files.manifest is None else {s.name: s.sha256 for s in files.manifest.shards}
    found: list[Row] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        decode = partial(_decoded, channels=channels, resolution=settings.resolution)
        for file in files.files:
            keys, labels, images = _columns(files.folder, file, settings, sums.get(file.name))
            pixels = pool.map(decode, images)
            found += map(Row, keys, labels, pixels)
    good = [row for row in found if not isinstance(row.pixels, str)]
    return good, [row for row in found if isinstance(row.pixels, str)]


def _columns(
    folder: Storage, file: File, settings: DataSettings, sha256: str | None
) -> tuple[list[str], list[int], list[bytes]]:
    """Keys, labels and encoded images of a file, verified where it is known what they should be."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data, names = folder.read_bytes(file.name), settings.columns
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise SpecError(
            f"data.path: {folder.where(file.name)} is not what was written (its checksum differs); "
            "convert the images again"
        )
    wanted = [name for name in (names.image, names.label, names.key) if name is not None]
    try:
        source = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = source.read(columns=wanted)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(
            f"data.path: {folder.where(file.name)} cannot be read ({reason}); replace it"
        ) from None
    numbers = [f"{file.name}:{row}" for row in range(table.num_rows)]
    keys = numbers if names.key is None else table.column(names.key).to_pylist()
    return keys, table.column(names.label).to_pylist(), table.column(names.image).to_pylist()


def _decoded(data: bytes | None, channels: int, resolution: int) -> Tensor | str:
    if data is None:
        return "there is none"
    try:
        return decode_image(data, channels, resolution)
    except ValueError as error:
        return str(error)


def _split(rows: Sequence[Row], share: float, facts: DataFacts) -> tuple[ImageSet, ImageSet]:
    hashes = hashes_of([row.key for row in rows])
    whole = ImageSet(
        torch.stack([row.pixels for row in rows if not isinstance(row.pixels, str)]),
        torch.tensor([row.label for row in rows]),
        hashes=torch.from_numpy(hashes.view(np.int64)),
    )
    held = torch.from_numpy(is_test(hashes, share))
    train, test = (whole.subset(some.nonzero().flatten()) for some in (~held, held))
    for part, images in zip(PARTS, (train, test), strict=True):
        missing = set(range(len(facts.classes))) - set(images.labels.tolist())
        if missing:
            name = facts.classes[min(missing)]
            raise SpecError(
                f"data.path: class {name!r} has no image in the {part} part, to which keys belong "
                "by their hash; add images of it, or change data.test_share"
            )
    return train, test


def _check_bad(bad: Sequence[Row], facts: DataFacts, place: str | None) -> None:
    if len(bad) > MOST_BAD * facts.count:
        row = bad[0]
        named = f"; all are in {place}" if place else ""
        raise SpecError(
            f"data.path: {len(bad)} of {facts.count:,} images cannot be decoded, e.g. {row.key}: "
            f"{row.pixels}; expected at most {MOST_BAD:.1%}{named}: mend or remove them"
        )


def _table(bad: Sequence[Row]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([("key", "reason"), *((row.key, row.pixels) for row in bad)])
    return text.getvalue()


def _to_bytes(part: ImageSet) -> bytes:
    """For a file: numpy's `npz`, without pickles."""
    assert part.hashes is not None, "images of files have keys"
    file = io.BytesIO()
    columns = {"images": part.images, "labels": part.labels, "hashes": part.hashes}
    arrays: dict[str, Any] = {name: column.numpy() for name, column in columns.items()}
    np.savez(file, **arrays)
    return file.getvalue()


def _from_bytes(data: bytes) -> ImageSet:
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        columns: dict[str, Any] = {name: torch.from_numpy(found[name]) for name in found.files}
        return ImageSet(columns["images"], columns["labels"], hashes=columns["hashes"])
