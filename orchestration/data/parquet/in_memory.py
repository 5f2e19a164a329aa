"""Load Parquet files into memory: read, verify and decode images, and split them by key.

Shapes: N images, C channels, R pixels of a side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cluster.hardware import usable_cores
from cluster.storage import Storage
from orchestration.config.data import DataSettings
from orchestration.config.loading import SpecError
from orchestration.config.storage_layout import BAD_SAMPLES_FILE, data_folder, images_file
from orchestration.data.dataset import PARTS, ImageSet
from orchestration.data.decode import decode_image
from orchestration.data.info import DataFacts
from orchestration.data.npz import tensors_from_bytes, tensors_to_bytes
from orchestration.data.parquet.files import (
    File,
    ImageFiles,
    keys_of,
    unchanged_files,
    whole_parquet,
)
from orchestration.data.split import check_classes, hashes_of, is_test
from orchestration.data.streaming.bad_samples import bad_table, complaint


class Row(NamedTuple):
    """An image of a file, decoded."""

    key: str
    label: int
    pixels: Tensor | str
    """(C, R, R), uint8, or the reason why the image cannot be decoded."""


def load_parquet(
    settings: DataSettings, storage: Storage | None, facts: DataFacts
) -> tuple[ImageSet, ImageSet]:
    """Load training and test images.

    Args:
        settings: the `data:` section of the job.
        storage: cache of decoded images; None: not cached.
        facts: facts about the files.

    Raises:
        SpecError: a file or too many images cannot be read, a part would have no image of some
            class, or the files differ from `facts`.
    """
    folder = f"{data_folder(facts.fingerprint)}/{facts.resolution}x{facts.channels}"
    paths = [images_file(folder, f"{part}-{settings.test_share:g}") for part in PARTS]
    if storage is not None and all(map(storage.exists, paths)):
        train, test = (ImageSet(**tensors_from_bytes(storage.read_bytes(key))) for key in paths)
        return train, test
    rows, bad = _rows(unchanged_files(settings, facts), settings, facts.channels)
    _report_bad(bad, facts.count, storage, f"{folder}/{BAD_SAMPLES_FILE}")
    train, test = _split(rows, settings.test_share, facts)
    if storage is not None:
        for key, part in zip(paths, (train, test), strict=True):
            storage.write_bytes(key, _to_bytes(part))
    return train, test


def _rows(files: ImageFiles, settings: DataSettings, channels: int) -> tuple[list[Row], list[Row]]:
    """Images that can be decoded, and images that cannot, each in the order of the files."""
    sums = {} if files.manifest is None else {s.name: s.sha256 for s in files.manifest.shards}
    rows: list[Row] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        decode = partial(_decoded, channels=channels, resolution=settings.resolution)
        for file in files.files:
            keys, labels, images = _columns(files.folder, file, settings, sums.get(file.name))
            pixels = pool.map(decode, images)
            rows += map(Row, keys, labels, pixels)
    good = [row for row in rows if not isinstance(row.pixels, str)]
    return good, [row for row in rows if isinstance(row.pixels, str)]


def _columns(
    folder: Storage, file: File, settings: DataSettings, sha256: str | None
) -> tuple[list[str], list[int], list[bytes]]:
    """Keys, labels and encoded images of a file. Its checksum is verified if it is known."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data, names = folder.read_bytes(file.name), settings.columns
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise SpecError(
            f"data.path: {folder.where(file.name)} is not what was written (its checksum differs); "
            "convert the images again"
        )
    wanted = [name for name in (names.image, names.label, names.key) if name is not None]
    with whole_parquet(folder.where(file.name)):
        source = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = source.read(columns=wanted)
    keys = keys_of(table, names.key, folder.where(file.name))
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
        check_classes(images.labels.numpy(), facts.classes, part)
    return train, test


def _report_bad(bad: Sequence[Row], count: int, storage: Storage | None, key: str) -> None:
    """List images that cannot be decoded in a file.

    Raises:
        SpecError: there are too many.
    """
    reasons = {row.key: str(row.pixels) for row in bad}
    if bad and storage is not None:
        storage.write_bytes(key, bad_table({"key": k, "reason": r} for k, r in reasons.items()))
    path = None if storage is None else storage.where(key)
    if problem := complaint(reasons, count, path):
        raise SpecError(f"data.path: {problem}")


def _to_bytes(part: ImageSet) -> bytes:
    assert part.hashes is not None, "images of files have keys"
    return tensors_to_bytes(images=part.images, labels=part.labels, hashes=part.hashes)
