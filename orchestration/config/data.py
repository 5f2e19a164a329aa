"""The `data:` section of a job file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nas_core.settings import Section, require

CHARACTERS = "abcdeghnopqsuvyzfijklmrtwx0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Classes of glyphs, in the order of their labels; the first sixteen letters look alike."""

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique"),
    *("DejaVuSansMono-BoldOblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    *("DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
    *("STIXGeneralBolIta", "cmr10", "cmb10", "cmss10", "cmtt10"),
)
"""Those of matplotlib's fonts that have letters and digits."""


@dataclass(frozen=True, kw_only=True)
class GlyphSettings(Section):
    """Which characters are rendered, and how far from the font. Amounts are drawn evenly."""

    train: int = 3200
    """Images to search and train with."""

    test: int = 10_000
    """Images of the test part."""

    classes: int = 16
    """Characters: the first sixteen look alike, then come letters, digits and capitals."""

    rotation: float = 0.4
    """At most this many radians either way."""

    shear: float = 0.4
    """At most this much sideways per pixel of height, either way."""

    stretch: float = 0.3
    """Width and height times 1 - stretch to 1 + stretch, each by itself."""

    shift: float = 0.2
    """At most this part of the image, each way."""

    noise: float = 0.05
    """Standard deviation of what is added to a pixel; black to white is 1."""

    separate_fonts: bool = False
    """Whether the test part has fonts of its own."""

    seed: int = 0
    """Of every draw."""

    def __post_init__(self) -> None:
        require(2 <= self.classes <= 62, "classes", self.classes, "2 to 62 characters")
        for name in ("train", "test"):
            value, least = getattr(self, name), 4 * self.classes
            require(value >= least, name, value, f"{least} images or more, four per class")
        for name, most in (("rotation", 3.2), ("shear", 2), ("stretch", 0.9), ("shift", 0.5)):
            value = getattr(self, name)
            require(0 <= value <= most, name, value, f"0 to {most:g}")
        require(0 <= self.noise <= 1, "noise", self.noise, "0 to 1, e.g. 0.05")
        require(self.seed >= 0, "seed", self.seed, "a whole number of 0 or more")


@dataclass(frozen=True, kw_only=True)
class ColumnSettings(Section):
    """Columns of Parquet files."""

    image: str = "image"
    """Encoded images, e.g. JPEG or PNG: bytes."""

    label: str = "label"
    """Whole numbers from 0."""

    key: str | None = "key"
    """A name of its own for each image, by which it belongs to a part of the data; null: the name
    of its file and its row."""


@dataclass(frozen=True, kw_only=True)
class StreamSettings(Section):
    """How images are read that do not fit into memory."""

    lanes: int = 8
    """Streams that an epoch is dealt to, read side by side: a case may have so many workers at
    most. Another number gives other batches."""

    window_mib: int = 128
    """Decoded images that are shuffled together, of all lanes; 10,000 images at most. Another size
    gives another order."""

    readers: int | Literal["auto"] = "auto"
    """Processes that read and decode for each worker. `auto`: as many as it has cores."""

    ahead_mib: int = 128
    """Decoded images that may wait in Ray's object store for each worker and part."""

    def __post_init__(self) -> None:
        require(1 <= self.lanes <= 4096, "lanes", self.lanes, "1 to 4096, e.g. 8")
        for name in ("window_mib", "ahead_mib"):
            value = getattr(self, name)
            require(1 <= value <= 65536, name, value, "MiB of 1 or more, e.g. 128")
        readers = self.readers
        require(readers == "auto" or readers >= 1, "readers", readers, "'auto' or 1 or more")


@dataclass(frozen=True, kw_only=True)
class DataSettings(Section):
    """Which images. The `data:` section of a job file."""

    source: Literal["digits", "glyphs", "imagefolder", "parquet"]
    """`digits`: 1,797 handwritten digits that scikit-learn ships; `glyphs`: characters, rendered
    from fonts that matplotlib ships; `imagefolder`: own images; `parquet`: own images, as
    `proxyless data convert` writes them, or others' Parquet files."""

    path: str | None = None
    """For `imagefolder`: a folder with one folder per class; held in memory. For `parquet`: a
    folder or s3://<bucket>/<prefix> with the files."""

    columns: ColumnSettings = field(default_factory=ColumnSettings)
    """For `parquet`: how the columns are called."""

    classes: tuple[str, ...] | None = None
    """For `parquet` files that were not written by `proxyless data convert`: names of the classes,
    in the order of the labels; without them they are called by their labels."""

    memory_gib: float = 4.0
    """Decoded images are held in memory by every worker, up to this size. More are streamed where
    `source` is `parquet`, else refused."""

    stream: StreamSettings = field(default_factory=StreamSettings)
    """For `parquet` that does not fit into memory."""

    glyphs: GlyphSettings = field(default_factory=GlyphSettings)
    """For `glyphs`: how many, which, how distorted."""

    resolution: int = 32
    """Height and width that the network sees, pixels."""

    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour; digits and glyphs are grey, own images colour unless this says
    otherwise."""

    test_share: float = 0.25
    """Part of every class that is held out and read once per network, after its last epoch; glyphs
    say themselves how many."""

    augment: Literal["none", "shift", "crop"] = "shift"
    """Of training images. `shift`: moved by `max_shift`; `crop`: a part of the image at random,
    made square, and in the test its middle. Either is mirrored where `flip` says so."""

    max_shift: float = 0.1
    """Training images are moved by up to this part of their size; 0 switches it off."""

    flip: bool = False
    """Training images are mirrored half of the time. Not for digits and letters."""

    crop_area: float = 0.08
    """With `crop`: the smallest part of an image that is cut out."""

    brightness: float = 0.0
    """Of images that a network is retrained on: times 1 - this to 1 + this."""

    contrast: float = 0.0
    """The same of contrast."""

    saturation: float = 0.0
    """The same of saturation."""

    def __post_init__(self) -> None:
        require(8 <= self.resolution <= 1024, "resolution", self.resolution, "8 to 1024 pixels")
        require(
            0 < self.test_share < 1, "test_share", self.test_share, "between 0 and 1, e.g. 0.25"
        )
        require(0 <= self.max_shift <= 0.5, "max_shift", self.max_shift, "0 to 0.5, e.g. 0.1")
        is_own = self.source in ("imagefolder", "parquet")
        require(is_own == (self.path is not None), "path", self.path, PATH_RULE[is_own])
        require(0 <= self.memory_gib <= 1024, "memory_gib", self.memory_gib, "0 or more, e.g. 4")
        require(0 < self.crop_area <= 1, "crop_area", self.crop_area, "above 0, up to 1, e.g. 0.08")
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, value, "0 to 1, e.g. 0.4")
        is_named = self.classes is None or self.source == "parquet"
        require(is_named, "classes", self.classes, "no names, except for source: parquet")


PATH_RULE = {
    True: "the folder of the images, e.g. path: ~/flowers",
    False: "no path, since these images ship with a library; own images are source: imagefolder",
}
