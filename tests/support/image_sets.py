"""Small image sets for conversion and reading."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.storage import Storage
from orchestration.data.parquet import convert as conversion
from orchestration.data.parquet.convert import ConvertedShard, convert, make_shard
from orchestration.data.parquet.samples import Listing, folder_listing


def encoded(number: int, kind: str = "PNG", mode: str = "RGB", size: int = 12) -> bytes:
    """An encoded image of noise."""
    rng = np.random.default_rng(number)
    shape = (size, size, 3) if mode == "RGB" else (size, size)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(file, format=kind)
    return file.getvalue()


def image_folder(folder: Path, per_class: int = 40) -> Path:
    """Create a folder of images with three classes; every tenth file is a GIF."""
    for label, name in enumerate(("cats", "dogs", "mice")):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            kind, suffix = (
                ("GIF", "gif") if i % 10 == 9 else (("JPEG", "jpg"), ("PNG", "png"))[i % 2]
            )
            data = encoded(1000 * label + i, kind, "L" if kind == "GIF" else "RGB")
            (folder / name / f"{i:03d}.{suffix}").write_bytes(data)
    return folder


def here(
    listing: Listing, dest: Storage, todo: Sequence[tuple[str, tuple[int, int]]]
) -> Iterator[tuple[str, ConvertedShard]]:
    """Make shards in this process, in reverse order: on Ray they may come in any order."""
    for name, (start, stop) in reversed(todo):
        rows = (listing.keys[start:stop], listing.labels[start:stop])
        args = (*rows, listing.content(start, stop), len(listing.classes))
        yield name, ConvertedShard.from_dict(make_shard(dest.uri, name, *args))


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions run without Ray, with small shards and row groups."""
    small_shards(monkeypatch)


def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply what the fixture `without_ray` sets."""
    monkeypatch.setattr(conversion, "_made_on_ray", here)
    monkeypatch.setattr(conversion, "FEWEST_ROWS", 20)
    monkeypatch.setattr(conversion, "GROUP_BYTES", 4_000)


def converted(listing: Listing, dest: Storage) -> list[str]:
    """Log lines of a conversion."""
    lines: list[str] = []
    convert(listing, dest, lines.append)
    return lines


def converted_folder(folder: Path) -> Storage:
    """A set of 180 images in `folder/set`, converted from the files in `folder/images`."""
    dest = Storage(str(folder / "set"))
    with pytest.MonkeyPatch.context() as patch:
        small_shards(patch)
        converted(folder_listing(str(image_folder(folder / "images", 60))), dest)
    return dest


Log = Callable[[str], None]
