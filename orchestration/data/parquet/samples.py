"""Sources of a conversion: a folder of images, a torchvision data set, or glyphs.

The driver lists the images. Workers receive ranges of the list as JSON values and encode them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from orchestration.config.data import CHARACTERS, DataSettings, GlyphSettings
from orchestration.config.loading import SpecError
from orchestration.data.sources import class_files
from orchestration.data.split import hashes_of

KEPT = ("JPEG", "PNG")
"""Formats of files that are copied unchanged."""
QUALITY = 92
"""Quality of JPEG for rendered images."""
PART = "converted"
"""Name of the part from which the random draws of converted glyphs come."""
TORCHVISION = "torchvision:"


class BadImageError(Exception):
    """An image cannot be read."""


@dataclass(frozen=True)
class Listing:
    """List of the images of a data set, in the order of their rows in the Parquet files."""

    classes: tuple[str, ...]
    keys: Sequence[str]
    labels: Sequence[int]
    sizes: Sequence[int]
    """Approximate size of each encoded image, bytes."""
    description: Mapping[str, Any]
    """JSON values that identify the source and its options."""
    content: Callable[[int, int], dict[str, Any]]
    """Function (start, stop) -> argument of `encoded` for the rows `start` to before `stop`."""
    align: int = 1
    """Ranges start at multiples of this number of rows."""


def folder_listing(folder: str) -> Listing:
    """Images in a folder with one subfolder per class.

    Raises:
        SpecError: the folder is missing, or a class has too few images.
    """
    files = class_files(DataSettings(source="imagefolder", path=folder))
    files_and_labels = [
        (path, label) for label, paths in enumerate(files.values()) for path in paths
    ]
    root = Path(folder).expanduser()
    keys = [path.relative_to(root).as_posix() for path, _ in files_and_labels]
    order = _order(keys)
    paths = [str(files_and_labels[i][0].absolute()) for i in order]
    return Listing(
        classes=tuple(files),
        keys=[keys[i] for i in order],
        labels=[files_and_labels[i][1] for i in order],
        sizes=[Path(path).stat().st_size for path in paths],
        description={"source": "imagefolder", "path": str(root.absolute())},
        content=lambda start, stop: {"kind": "files", "paths": paths[start:stop]},
    )


def torchvision_listing(name: str, root: str) -> Listing:
    """A data set of torchvision that is on this machine. Nothing is downloaded.

    Raises:
        SpecError: torchvision has no such data set, or its files are not in `root`.
    """
    data = _torchvision(name, root)
    labels = _labels_of(data)
    names = getattr(data, "classes", None) or map(str, range(max(labels) + 1))
    keys = [f"{number:09d}" for number in range(len(labels))]
    order = _order(keys)
    some = [len(_png(data[i][0])) for i in order[:8]]
    path = str(Path(root).expanduser().absolute())
    return Listing(
        classes=tuple(map(str, names)),
        keys=[keys[i] for i in order],
        labels=[labels[i] for i in order],
        sizes=[sum(some) // len(some)] * len(keys),
        description={"source": f"{TORCHVISION}{name}", "path": path},
        content=lambda start, stop: {
            "kind": "torchvision",
            "name": name,
            "root": path,
            "numbers": order[start:stop],
        },
    )


def glyph_listing(
    settings: GlyphSettings, count: int, resolution: int, channels: int, suffix: str
) -> Listing:
    """Glyphs, rendered when they are encoded.

    Args:
        settings: characters and distortions; `train` and `test` are ignored.
        count: number of images.
        resolution: pixels of a side.
        channels: 1 for grey, 3 for colour.
        suffix: `png` or `jpeg`.
    """
    from orchestration.data.glyphs import CHUNK, letters

    labels, fonts = (column.tolist() for column in letters(settings, PART, count, resolution))
    keys = [f"{number:09d}" for number in range(count)]
    asked = {"settings": asdict(settings), "resolution": resolution}
    asked |= {"channels": channels, "suffix": suffix}
    return Listing(
        classes=tuple(CHARACTERS[: settings.classes]),
        keys=[keys[i] for i in _order(keys)],
        labels=labels,
        sizes=[resolution**2 * channels] * count,
        description={"source": "glyphs", "count": count, **asked},
        content=lambda start, stop: {
            "kind": "glyphs",
            **asked,
            "first": start // CHUNK,
            "labels": labels[start:stop],
            "fonts": fonts[start:stop],
        },
        align=CHUNK,
    )


def encoded(content: Mapping[str, Any]) -> Iterator[bytes | BadImageError]:
    """Encoded images of a range, in order: JPEG or PNG, or the error if one cannot be read."""
    kinds = {"files": _files, "torchvision": _of_torchvision, "glyphs": _glyphs}
    yield from kinds[content["kind"]](content)


def _order(keys: Sequence[str]) -> list[int]:
    order: list[int] = np.argsort(hashes_of(keys), kind="stable").tolist()
    return order


def _files(content: Mapping[str, Any]) -> Iterator[bytes | BadImageError]:
    for path in content["paths"]:
        try:
            yield _verified(Path(path).read_bytes())
        except (OSError, BadImageError) as error:
            yield BadImageError(getattr(error, "strerror", None) or str(error))


def _verified(data: bytes) -> bytes:
    """Content of a file, unchanged if it is JPEG or PNG, else converted to PNG.

    Raises:
        BadImageError: it is not an image, or truncated.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")
            kind = image.format
            image.draft("RGB", (1, 1))  # reads all of a JPEG, but decodes it at a small size
            image.load()
            return data if kind in KEPT else _png(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImageError(f"not an image: {str(error).partition(' <_io.')[0]}") from None


def _png(image: Any) -> bytes:
    file = io.BytesIO()
    converted = image if image.mode in ("L", "RGB") else image.convert("RGB")
    converted.save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _of_torchvision(content: Mapping[str, Any]) -> Iterator[bytes | BadImageError]:
    data = _torchvision(content["name"], content["root"])
    for number in content["numbers"]:
        try:
            yield _png(data[number][0])
        except (OSError, SyntaxError, ValueError) as error:
            yield BadImageError(str(error))


@cache
def _torchvision(name: str, root: str) -> Any:
    from torchvision import datasets

    kind = getattr(datasets, name, None)
    if not isinstance(kind, type) or not issubclass(kind, datasets.VisionDataset):
        raise SpecError(f"torchvision has no data set {name!r}; expected e.g. CIFAR10")
    try:
        return kind(str(Path(root).expanduser()))
    except (RuntimeError, OSError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(
            f"torchvision's {name} is not in {root} ({reason}); put its files there first: nothing "
            "is loaded"
        ) from None


def _labels_of(data: Any) -> list[int]:
    """Label of every image, from the list that most data sets have, else one by one."""
    known = getattr(data, "targets", None)
    labels = [data[i][1] for i in range(len(data))] if known is None else known
    return [int(label) for label in labels]


def _glyphs(content: Mapping[str, Any]) -> Iterator[bytes | BadImageError]:
    import torch
    from PIL import Image

    from orchestration.data.glyphs import CHUNK, render_chunk

    settings, suffix = GlyphSettings(**content["settings"]), content["suffix"]
    options = {"quality": QUALITY} if suffix == "jpeg" else {"compress_level": 1}
    columns = (torch.tensor(content[name]) for name in ("labels", "fonts"))
    rows = zip(*(torch.split(column, CHUNK) for column in columns), strict=True)
    for number, (labels, fonts) in enumerate(rows, content["first"]):
        size = (content["resolution"], content["channels"])
        for image in render_chunk(settings, PART, number, labels, fonts, *size):
            file = io.BytesIO()
            pixels = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(file, format=suffix.upper(), **options)
            yield file.getvalue()
