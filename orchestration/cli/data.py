"""Commands for data sets: `data convert`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import echo

from cluster.storage import Storage
from orchestration.config.data import GlyphSettings
from orchestration.config.loading import SpecError

if TYPE_CHECKING:
    from orchestration.data.parquet.samples import Listing

HELP = "Data sets: convert images to Parquet."

app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False)

SOURCE = "A folder with one folder per class, torchvision:NAME:FOLDER, or glyphs."


@app.callback()
def data() -> None:
    """Data sets: convert images to Parquet."""


@app.command("convert")
def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE)],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="A new folder, or s3://BUCKET/NAME.")],
    count: Annotated[int, typer.Option(help="Glyphs: number of images.")] = 100_000,
    classes: Annotated[int, typer.Option(help="Glyphs: number of characters.")] = 16,
    resolution: Annotated[int, typer.Option(help="Glyphs: side of an image in pixels.")] = 64,
    channels: Annotated[int, typer.Option(help="Glyphs: 1 (grey) or 3 (colour).")] = 1,
    seed: Annotated[int, typer.Option(help="Glyphs: random seed.")] = 0,
    format: Annotated[  # noqa: A002  # the name of the option
        Literal["png", "jpeg"], typer.Option(help="Glyphs: image format.")
    ] = "png",
) -> None:
    """Convert images to Parquet for jobs, in parallel. The same command resumes if stopped."""
    from orchestration.data.parquet.convert import convert as converted

    target = Storage(dest)
    if source == "glyphs":
        listing = _glyphs(count, classes, resolution, channels, seed, format)
    else:
        listing = _listing(source)
    echo(f"{len(listing.keys):,} images of {len(listing.classes)} classes: {source}")
    converted(listing, target, echo)
    echo(f"in a job file: data: {{source: parquet, path: {target.uri}}}")


def _listing(source: str) -> Listing:
    """Listing of an image folder or a torchvision data set on this machine."""
    from orchestration.data.parquet.samples import TORCHVISION, folder_listing, torchvision_listing

    if not source.startswith(TORCHVISION):
        return folder_listing(source)
    name, _, root = source.removeprefix(TORCHVISION).partition(":")
    if not name or not root:
        raise SpecError(f"SOURCE is {source!r}; expected e.g. torchvision:CIFAR10:~/data")
    return torchvision_listing(name, root)


def _glyphs(
    count: int, classes: int, resolution: int, channels: int, seed: int, suffix: str
) -> Listing:
    from orchestration.data.parquet.samples import glyph_listing

    for name, value, right, rule in (
        ("count", count, count >= 4 * classes, f"{4 * classes} or more, four per class"),
        ("resolution", resolution, 8 <= resolution <= 1024, "8 to 1024 pixels"),
        ("channels", channels, channels in (1, 3), "1 or 3"),
    ):
        if not right:
            raise SpecError(f"--{name} is {value}; expected {rule}")
    try:
        settings = GlyphSettings(classes=classes, seed=seed, train=4 * classes, test=4 * classes)
    except ValueError as error:
        raise SpecError(f"--{error}") from None
    return glyph_listing(settings, count, resolution, channels, suffix)
