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
    """Number of images for search and retraining."""

    test: int = 10_000
    """Number of images in the test split."""

    classes: int = 16
    """Number of characters. The first 16 are letters that look alike; then come the other letters,
    digits and capitals."""

    rotation: float = 0.4
    """Largest rotation in either direction, radians."""

    shear: float = 0.4
    """Largest horizontal shear in either direction, per pixel of height."""

    stretch: float = 0.3
    """Width and height are scaled, each by itself, by 1 - stretch to 1 + stretch."""

    shift: float = 0.2
    """Largest shift in each direction, as a fraction of the image size."""

    noise: float = 0.05
    """Standard deviation of the noise added to each pixel; black to white is 1."""

    separate_fonts: bool = False
    """Whether the test split uses fonts that the training images do not use."""

    seed: int = 0
    """Seed of all random draws while rendering."""

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
    """Column with the encoded images (JPEG, PNG and the like), as bytes."""

    label: str = "label"
    """Column with the labels, whole numbers from 0."""

    key: str | None = "key"
    """Column with a unique name per image, which decides the split that the image belongs to.
    `null`: file name and row number are used."""


@dataclass(frozen=True, kw_only=True)
class StreamSettings(Section):
    """How images are read that do not fit into memory."""

    lanes: int = 8
    """Shards that an epoch is dealt to and that are read in parallel; also the largest number of
    workers of a case. Another number gives other batches."""

    window_mib: int = 128
    """Size of the shuffle buffer, MiB of decoded images of all shards together; 10,000 images at
    most. Another size gives another order."""

    readers: int | Literal["auto"] = "auto"
    """Processes per worker that read and decode images. `auto`: as many as the worker has cores."""

    ahead_mib: int = 128
    """Prefetched images that may wait in Ray's object store, MiB of decoded images per worker and
    split."""

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
    """`digits`: the 1,797 handwritten digits that scikit-learn ships. `glyphs`: characters rendered
    from fonts that matplotlib ships. `imagefolder`: your own images. `parquet`: your own images as
    Parquet files, written by `proxyless data convert` or by other tools."""

    path: str | None = None
    """For `imagefolder`: a folder with one subfolder per class. For `parquet`: the folder or
    `s3://<bucket>/<prefix>` with the files."""

    columns: ColumnSettings = field(default_factory=ColumnSettings)
    """For `parquet`: names of the columns."""

    classes: tuple[str, ...] | None = None
    """For `parquet` files that `proxyless data convert` did not write: class names in the order of
    the labels. Left out: the labels are the names."""

    memory_gib: float = 4.0
    """Every worker holds the decoded images in memory up to this size, GiB. Larger sets are
    streamed if `source` is `parquet`, and refused otherwise."""

    stream: StreamSettings = field(default_factory=StreamSettings)
    """For `parquet` sets that do not fit into memory."""

    glyphs: GlyphSettings = field(default_factory=GlyphSettings)
    """For `glyphs`: how many images, which characters, how distorted."""

    resolution: int = 32
    """Height and width of the network's input, pixels."""

    channels: Literal[1, 3] | None = None
    """1 for greyscale, 3 for colour. Left out: 1 for digits and glyphs, 3 for your own images."""

    test_share: float = 0.25
    """Fraction of every class that is held out as the test split. Each network is tested on it
    once, after its last epoch. Glyphs have `glyphs.test` instead."""

    augment: Literal["none", "shift", "crop"] = "shift"
    """Augmentation of training images. `shift`: moved by up to `max_shift`. `crop`: a random crop,
    resized to the input size; test images are cropped to their centre. `none`: unchanged, and never
    mirrored."""

    max_shift: float = 0.1
    """For `augment: shift`: largest shift, as a fraction of the image size; 0 switches it off."""

    flip: bool = False
    """Mirror training images half of the time. Not for digits and letters."""

    crop_area: float = 0.08
    """For `augment: crop`: smallest fraction of the image area that a crop covers."""

    brightness: float = 0.0
    """Retraining only: brightness is scaled by 1 - this to 1 + this."""

    contrast: float = 0.0
    """Retraining only: contrast is scaled in the same way."""

    saturation: float = 0.0
    """Retraining only: saturation is scaled in the same way."""

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
