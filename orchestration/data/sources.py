"""Description of a data source: its classes, number of images and fingerprint. Needs no torch.

The driver reads it before anything starts. Content keys contain the fingerprint, so results are
reused only as long as the images are the same.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from orchestration.config.data import CHARACTERS, DataSettings
from orchestration.config.loading import SpecError
from orchestration.data.info import DataFacts, size_gib

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
DIGITS_COUNT = 1797
RENDERER = 1
"""Version of `glyphs.py`. Increase it when the same settings give different images."""


def describe(settings: DataSettings) -> DataFacts:
    """Inspect a data source without decoding its images.

    Raises:
        SpecError: the source is missing or cannot be used as training data.
    """
    if settings.source == "digits":
        version = metadata.version("scikit-learn")
        classes = tuple(str(digit) for digit in range(10))
        channels = settings.channels or 1
        fingerprint = f"digits/scikit-learn-{version}"
        held = round(settings.test_share * DIGITS_COUNT)
        return DataFacts(classes, channels, settings.resolution, DIGITS_COUNT, held, fingerprint)
    if settings.source == "glyphs":
        return _describe_glyphs(settings)
    if settings.source == "parquet":
        from orchestration.data.parquet.files import describe_parquet

        return describe_parquet(settings)
    return _describe_folder(settings)


def check_memory(settings: DataSettings, count: int, channels: int, way_out: str) -> None:
    """Check that the decoded images fit into a worker's memory.

    Raises:
        SpecError: they are larger than `memory_gib`; the message ends with `way_out`.
    """
    size = size_gib(settings, count, channels)
    if size > settings.memory_gib:
        raise SpecError(
            f"data.path: {count:,} images of {settings.resolution} pixels take {size:.1f} GiB; "
            f"they are held in memory, up to data.memory_gib, which is {settings.memory_gib:g}: "
            f"{way_out}"
        )


def _describe_glyphs(settings: DataSettings) -> DataFacts:
    from PIL import features

    asked, channels = settings.glyphs, settings.channels or 1
    drawn = json.dumps([RENDERER, asdict(asked), settings.resolution, channels])
    versions = (metadata.version("matplotlib"), features.version("freetype2"))
    digest = hashlib.sha256(f"{drawn} {versions}".encode()).hexdigest()[:16]
    return DataFacts(
        classes=tuple(CHARACTERS[: asked.classes]),
        channels=channels,
        resolution=settings.resolution,
        count=asked.train + asked.test,
        test_count=asked.test,
        fingerprint=f"glyphs/{digest}",
    )


def class_files(settings: DataSettings) -> dict[str, list[Path]]:
    """Image files of an image folder by class; classes and files are sorted.

    Raises:
        SpecError: the folder is missing, or has fewer than two classes or too few images of one.
    """
    folder = Path(settings.path or "").expanduser()
    if not folder.is_dir():
        raise SpecError(
            f"data.path is {str(folder)!r}; expected a folder with one folder per class"
        )
    classes = {
        sub.name: list(_images_in(sub)) for sub in sorted(folder.iterdir()) if _is_class(sub)
    }
    if len(classes) < 2:
        raise SpecError(
            f"data.path: {folder} has {len(classes)} folders; "
            "expected one folder per class, at least two"
        )
    for name, files in classes.items():
        if len(files) < 4:
            raise SpecError(
                f"data.path: {folder / name} holds {len(files)} images (files that end in "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}); expected at least 4, for the weight, "
                "architecture and test parts"
            )
    return classes


def _is_class(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith((".", "__"))


def _images_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            yield path


def _describe_folder(settings: DataSettings) -> DataFacts:
    files = class_files(settings)
    channels = settings.channels or 3
    count = sum(len(paths) for paths in files.values())
    way_out = (
        f"`proxyless data convert {settings.path} DEST`, whose images need not fit, or raise that"
    )
    check_memory(settings, count, channels, way_out)
    seen = FolderFingerprint()
    for name, paths in files.items():
        for path in paths:
            seen.add(name, path, _image_bytes(path))
    held = round(settings.test_share * count)
    return DataFacts(tuple(files), channels, settings.resolution, count, held, seen.text)


class FolderFingerprint:
    """Fingerprint of an image folder. Files are added in the order of `class_files`."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, name: str, path: Path, content: bytes) -> None:
        """Add a file of the class `name`."""
        of_file = hashlib.sha256(content).hexdigest()
        self._digest.update(f"{name}/{path.name}/{of_file}\n".encode())

    @property
    def text(self) -> str:
        """Fingerprint of the files that were added so far."""
        return f"imagefolder/{self._digest.hexdigest()[:16]}"


def _image_bytes(path: Path) -> bytes:
    """Content of a file, after its header was checked to be that of an image."""
    from PIL import Image, UnidentifiedImageError

    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)):
            return content
    except (UnidentifiedImageError, OSError) as error:
        reason = str(error).partition(" <_io.")[0]  # Pillow names the object that it reads from
        raise SpecError(
            f"data.path: {path} is not an image ({reason}); mend or remove the file"
        ) from None
