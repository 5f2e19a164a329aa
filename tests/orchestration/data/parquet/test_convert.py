"""Conversion: every image once, in the order of hashes; resuming; bad images are listed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster.storage import Storage
from orchestration.config.data import GlyphSettings
from orchestration.config.loading import SpecError
from orchestration.data.parquet import convert as conversion
from orchestration.data.parquet.convert import spans_of
from orchestration.data.parquet.manifest import Manifest
from orchestration.data.parquet.samples import folder_listing, glyph_listing, torchvision_listing
from orchestration.data.split import hashes_of
from orchestration.data.streaming import bad_samples
from tests.support.image_sets import converted, encoded, here, image_folder, without_ray

__all__ = ["without_ray"]
pytestmark = pytest.mark.usefixtures("without_ray")


def rows(dest: Storage) -> list[dict[str, Any]]:
    """Rows of all shards, in order."""
    names = [name for name in dest.list() if name.endswith(".parquet")]
    return [row for name in names for row in pq.read_table(dest.path(name)).to_pylist()]


@pytest.fixture
def dest(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "set"))


def test_a_folder_is_there_as_a_whole_in_the_order_of_hashes(tmp_path: Path, dest: Storage) -> None:
    folder = image_folder(tmp_path / "images")
    logged = converted(folder_listing(str(folder)), dest)
    result = rows(dest)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.*")}
    assert {row["key"] for row in result} == files.keys()
    assert len(result) == 120
    hashes = hashes_of([row["key"] for row in result]).tolist()
    assert hashes == sorted(hashes)
    classes = ["cats", "dogs", "mice"]
    for row in result:
        assert classes[row["label"]] == row["key"].split("/")[0]
        kept = files[row["key"]].read_bytes()
        assert row["image"] == kept or (row["key"].endswith("gif") and row["image"][1:4] == b"PNG")
    assert logged[-1].startswith("120 images of 3 classes, ")


def test_the_manifest_says_what_the_shards_hold(tmp_path: Path, dest: Storage) -> None:
    converted(folder_listing(str(image_folder(tmp_path / "images"))), dest)
    manifest = Manifest.from_dict(dest.read_json("_manifest.json"))
    assert json.loads(json.dumps(manifest.to_dict())) == dest.read_json("_manifest.json")
    assert manifest.counts == {"cats": 40, "dogs": 40, "mice": 40}
    assert len(manifest.shards) == 6
    for shard in manifest.shards:
        file = pq.ParquetFile(dest.path(shard.name)).metadata
        groups = [file.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert groups == [count for count, _ in shard.groups]
        assert len(groups) > 1
        assert dest.size_bytes(shard.name) == shard.bytes
    assert not dest.list("_shards")


def test_a_conversion_that_was_stopped_goes_on(
    tmp_path: Path, dest: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = folder_listing(str(image_folder(tmp_path / "images")))

    def two(*words: Any) -> Any:
        for count, item in enumerate(here(*words)):
            if count == 2:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(conversion, "_made_on_ray", two)
    with pytest.raises(KeyboardInterrupt):
        converted(listing, dest)
    assert not dest.exists("_manifest.json")
    monkeypatch.setattr(conversion, "_made_on_ray", here)
    assert converted(listing, dest)[0] == "60 of 120 images are there; going on"
    whole = {name: dest.read_bytes(name) for name in dest.list()}
    other = Storage(f"{dest.uri}-at-once")
    converted(listing, other)
    assert {name: other.read_bytes(name) for name in other.list()} == whole
    assert converted(listing, dest) == [f"120 images are in {dest.uri} already"]


def test_a_shard_that_was_damaged_meanwhile_is_made_again(
    tmp_path: Path, dest: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = folder_listing(str(image_folder(tmp_path / "images")))
    spans = spans_of(listing)
    names = [f"part-{i:05d}-of-{len(spans):05d}.parquet" for i in range(len(spans))]
    dest.write_json("_conversion.json", conversion._mark(listing))
    for name, _ in here(listing, dest, list(zip(names, spans, strict=True))):
        dest.write_bytes(name, b"half")
    assert "going on" not in converted(listing, dest)[0]
    assert len(rows(dest)) == 120


def test_something_else_in_the_way_is_refused(tmp_path: Path, dest: Storage) -> None:
    folder = image_folder(tmp_path / "images")
    dest.write_text("notes.txt", "mine")
    with pytest.raises(SpecError, match="holds other files; name a folder that is empty"):
        converted(folder_listing(str(folder)), dest)
    dest.delete("notes.txt")
    converted(folder_listing(str(folder)), dest)
    (folder / "cats" / "000.jpg").unlink()
    with pytest.raises(SpecError, match=r"holds a conversion of something else \(\{'source'"):
        converted(folder_listing(str(folder)), dest)


def test_images_that_cannot_be_read_are_left_out_and_named(
    tmp_path: Path, dest: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bad_samples, "MOST_BAD", 0.02)
    folder = image_folder(tmp_path / "images")
    jpeg = folder / "cats" / "000.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:200])
    (folder / "dogs" / "001.png").write_bytes(b"no image")
    logged = converted(folder_listing(str(folder)), dest)
    assert logged[0] == f"2 images cannot be read and are left out: {dest.uri}/bad_samples.csv"
    named = list(csv.DictReader(io.StringIO(dest.read_text("bad_samples.csv"))))
    assert {item["key"] for item in named} == {"cats/000.jpg", "dogs/001.png"}
    assert all(item["reason"].startswith("not an image: ") for item in named)
    assert len(rows(dest)) == 118
    assert dest.read_json("_manifest.json")["skipped"] == 2


def test_too_many_of_them_stop_the_conversion(tmp_path: Path, dest: Storage) -> None:
    folder = image_folder(tmp_path / "images")
    (folder / "dogs" / "001.png").write_bytes(b"no image")
    with pytest.raises(
        SpecError, match=r"1 of 120 images cannot be decoded, e.g. dogs/001.png: .*0.1%: mend or"
    ):
        converted(folder_listing(str(folder)), dest)
    assert not dest.exists("_manifest.json")
    assert "dogs/001.png" in dest.read_text("bad_samples.csv")


@pytest.mark.parametrize(("channels", "suffix"), [(1, "png"), (3, "jpeg")])
def test_glyphs_are_rendered_into_shards(dest: Storage, channels: int, suffix: str) -> None:
    settings = GlyphSettings(classes=16)
    converted(glyph_listing(settings, 700, 16, channels, suffix), dest)
    result = rows(dest)
    assert len({row["key"] for row in result}) == 700
    counts = [sum(row["label"] == label for row in result) for label in range(16)]
    assert max(counts) - min(counts) <= 1
    assert {row["image"][:4] for row in result} == {
        b"\x89PNG" if suffix == "png" else b"\xff\xd8\xff\xe0"
    }


def test_glyphs_are_the_same_whatever_shards_they_are_rendered_for(
    dest: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = glyph_listing(GlyphSettings(classes=4), 600, 16, 1, "png")
    converted(listing, dest)
    other = Storage(f"{dest.uri}-one")
    monkeypatch.setattr(conversion, "FEWEST_ROWS", 10_000)
    converted(listing, other)
    assert len(spans_of(listing)) == 1
    assert rows(other) == rows(dest)


def test_a_torchvision_data_set_is_converted_from_this_machine(
    tmp_path: Path, dest: Storage
) -> None:
    for label, name in enumerate(("one", "two")):
        for i in range(20):
            place = tmp_path / "images" / name
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i}.png").write_bytes(encoded(100 * label + i))
    converted(torchvision_listing("ImageFolder", str(tmp_path / "images")), dest)
    assert dest.read_json("_manifest.json")["classes"] == {"one": 20, "two": 20}
    with pytest.raises(SpecError, match=r"torchvision's CIFAR10 is not in .*put its files there"):
        torchvision_listing("CIFAR10", str(tmp_path))
    with pytest.raises(SpecError, match="torchvision has no data set 'Nothing'"):
        torchvision_listing("Nothing", str(tmp_path))
