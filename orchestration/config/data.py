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
"""Fonts of matplotlib that have letters and digits."""


@dataclass(frozen=True, kw_only=True)
class GlyphSettings(Section):
    """Rendered characters and their distortions. Amounts are drawn from uniform distributions."""

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
    """Width and height are scaled independently by factors from 1 - stretch to 1 + stretch."""

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
    """Column with a unique name per image; a hash of it assigns the image to a split. `null`: file
    name and row number are used."""


@dataclass(frozen=True, kw_only=True)
class StreamSettings(Section):
    """Streaming of images that do not fit into memory. The `data.stream:` section of a job file."""

    lanes: int = 8
    """Number of lanes: parts of an epoch that are read in parallel. Also the largest number of
    workers of a case. A different number gives different batches."""

    window_mib: int = 128
    """Size of the shuffle buffers of all lanes together, MiB of decoded images; at most 10,000
    images. A different size gives a different order."""

    readers: int | Literal["auto"] = "auto"
    """Processes per worker that read and decode images. `auto`: one per core of the worker."""

    ahead_mib: int = 128
    """Limit of the images prefetched into Ray's object store, MiB of decoded images per worker and
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
    """Images to search and train on. The `data:` section of a job file."""

    source: Literal["digits", "glyphs", "imagefolder", "parquet"]
    """`digits`: the 1,797 handwritten digits that scikit-learn ships. `glyphs`: characters rendered
    from fonts that matplotlib ships. `imagefolder`: your own images. `parquet`: your own images as
    Parquet files, written by `proxyless data convert` or by other tools."""

    path: str | None = None
    """Location of your own images. `imagefolder`: a folder with one subfolder per class. `parquet`:
    the folder or `s3://<bucket>/<prefix>` with the files."""

    columns: ColumnSettings = field(default_factory=ColumnSettings)
    """Column names of `parquet` files."""

    classes: tuple[str, ...] | None = None
    """Class names in the order of the labels, for `parquet` files that `proxyless data convert` did
    not write. Left out: the labels are the names."""

    memory_gib: float = 4.0
    """Largest size of the decoded images, GiB, for which every worker holds all of them in memory.
    Larger sets are streamed if `source` is `parquet`, and refused otherwise."""

    stream: StreamSettings = field(default_factory=StreamSettings)
    """Streaming of `parquet` sets that do not fit into memory."""

    glyphs: GlyphSettings = field(default_factory=GlyphSettings)
    """Number of images, characters and distortions of `glyphs`."""

    resolution: int = 32
    """Height and width of the network's input, pixels."""

    channels: Literal[1, 3] | None = None
    """1 for greyscale, 3 for colour. Left out: 1 for digits and glyphs, 3 for your own images."""

    test_share: float = 0.25
    """Fraction of every class that is held out as the test split. Each network is tested on it
    once, after its last epoch. Glyphs have `glyphs.test` instead."""

    augment: Literal["none", "shift", "crop"] = "shift"
    """Augmentation of training images. `shift`: shifted by up to `max_shift`. `crop`: a random
    crop, resized to the input size; test images are cropped to their centre. `none`: unchanged, and
    never mirrored."""

    max_shift: float = 0.1
    """Largest shift of `augment: shift`, as a fraction of the image size; 0 switches it off."""

    flip: bool = False
    """Mirror training images with probability 0.5. Not useful for digits and letters."""

    crop_area: float = 0.08
    """Smallest fraction of the image area that a crop of `augment: crop` covers."""

    brightness: float = 0.0
    """Retraining only: brightness is scaled by a factor from 1 - this to 1 + this."""

    contrast: float = 0.0
    """Retraining only: contrast is scaled by a factor from 1 - this to 1 + this."""

    saturation: float = 0.0
    """Retraining only: saturation is scaled by a factor from 1 - this to 1 + this."""

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
