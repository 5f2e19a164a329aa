"""Small sets of images to convert and to read."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.storage import Storage
from orchestration.data.parquet import convert as conversion
from orchestration.data.parquet.convert import Made, convert, make_shard
from orchestration.data.parquet.samples import Listing


def encoded(number: int, kind: str = "PNG", mode: str = "RGB", size: int = 12) -> bytes:
    """An image of noise."""
    rng = np.random.default_rng(number)
    shape = (size, size, 3) if mode == "RGB" else (size, size)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(file, format=kind)
    return file.getvalue()


def image_folder(place: Path, per_class: int = 40) -> Path:
    """Three classes; every tenth file is a GIF."""
    for label, name in enumerate(("cats", "dogs", "mice")):
        (place / name).mkdir(parents=True)
        for i in range(per_class):
            kind, suffix = (
                ("GIF", "gif") if i % 10 == 9 else (("JPEG", "jpg"), ("PNG", "png"))[i % 2]
            )
            data = encoded(1000 * label + i, kind, "L" if kind == "GIF" else "RGB")
            (place / name / f"{i:03d}.{suffix}").write_bytes(data)
    return place


def here(
    listing: Listing, dest: Storage, todo: Sequence[tuple[str, tuple[int, int]]]
) -> Iterator[tuple[str, Made]]:
    """Shards that are made in this process, the last first: on Ray they come in any order."""
    for name, (start, stop) in reversed(todo):
        rows = (listing.keys[start:stop], listing.labels[start:stop])
        words = (*rows, listing.content(start, stop), len(listing.classes))
        yield name, Made.from_dict(make_shard(dest.uri, name, *words))


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions need none, and have small shards and row groups."""
    small_shards(monkeypatch)


def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `without_ray` does."""
    monkeypatch.setattr(conversion, "_made_on_ray", here)
    monkeypatch.setattr(conversion, "FEWEST_ROWS", 20)
    monkeypatch.setattr(conversion, "GROUP_BYTES", 4_000)


def converted(listing: Listing, dest: Storage) -> list[str]:
    """What a conversion says."""
    said: list[str] = []
    convert(listing, dest, said.append)
    return said


Log = Callable[[str], None]
