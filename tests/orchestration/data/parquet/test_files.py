"""Data source `parquet`: split by key, and files that cannot be used are named."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cluster.storage import Storage
from orchestration.config.data import ColumnSettings, DataSettings
from orchestration.config.loading import SpecError
from orchestration.data.info import is_streamed
from orchestration.data.loading import load_dataset, split_classes
from orchestration.data.parquet import in_memory
from orchestration.data.sources import describe
from orchestration.data.streaming import bad_samples
from orchestration.data.streaming.dataset import load_streamed
from tests.support.image_sets import converted_folder, encoded
from tests.support.s3 import BUCKET, reached, s3_server


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `images`, and a `set` converted from them, which no test may change."""
    folder = tmp_path_factory.mktemp("made")
    converted_folder(folder)
    return folder


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Storage:
    """A copy of that set."""
    shutil.copytree(made / "set", tmp_path / "set")
    return Storage(str(tmp_path / "set"))


def others(place: Path, rows: int = 60, **changes: Sequence[Any] | None) -> str:
    """Two files that another tool wrote. `changes` replaces columns; None leaves one out."""
    place.mkdir()
    for file in range(2):
        columns: dict[str, Any] = {
            "jpg": [encoded(1000 * file + i) for i in range(rows)],
            "cls": [i % 3 for i in range(rows)],
        }
        columns = {name: item for name, item in (columns | changes).items() if item is not None}
        pq.write_table(pa.table(columns), place / f"{file}.parquet", row_group_size=25)
    return str(place)


def settings(path: str, **more: Any) -> DataSettings:
    return DataSettings(source="parquet", path=path, resolution=12, **more)


OTHERS = {"columns": ColumnSettings(image="jpg", label="cls", key=None)}


def test_a_converted_set_is_described_without_reading_it(own: Storage) -> None:
    result = describe(settings(own.uri))
    assert (result.classes, result.channels, result.count) == (("cats", "dogs", "mice"), 3, 180)
    assert result.test_count == 45
    assert result.fingerprint.startswith("parquet/")


def test_its_images_are_those_of_the_folder(own: Storage, made: Path) -> None:
    data = load_dataset(settings(own.uri, test_share=0.3), seed=0)
    folder = DataSettings(source="imagefolder", path=f"{made}/images", resolution=12)
    same = load_dataset(folder, seed=0)
    mine = sorted(bytes(image.numpy()) for part in (data.train, data.test) for image in part.images)
    theirs = sorted(bytes(i.numpy()) for part in (same.train, same.test) for i in part.images)
    assert mine == theirs
    assert data.classes == same.classes


def test_parts_follow_from_keys_whatever_the_seed(own: Storage) -> None:
    one, two = (load_dataset(settings(own.uri), seed=seed) for seed in (0, 1))
    assert torch.equal(one.train.images, two.train.images)
    held, rest = split_classes(one.train, 0.4, 0, "architecture split", 0.25)
    again, _ = split_classes(one.train, 0.4, 1, "another purpose", 0.25)
    assert torch.equal(held.images, again.images)
    assert len(held) + len(rest) == len(one.train)
    assert 0.2 < len(held) / len(one.train) < 0.6


def test_decoded_images_are_kept_for_the_next_time(
    own: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(str(tmp_path / "storage"))
    first = load_dataset(settings(own.uri), 0, storage)
    monkeypatch.setattr(in_memory, "unchanged_files", lambda *_: pytest.fail("read again"))
    second = load_dataset(settings(own.uri), 0, storage)
    assert torch.equal(first.test.images, second.test.images)
    assert torch.equal(first.train.labels, second.train.labels)
    monkeypatch.undo()
    other = load_dataset(settings(own.uri, test_share=0.5), 0, storage)
    assert len(other.test) > len(first.test)


def test_files_of_others_are_read_by_their_columns(tmp_path: Path) -> None:
    asked = settings(others(tmp_path / "set"), **OTHERS)
    result, data = describe(asked), load_dataset(asked, 0)
    assert (result.classes, result.count) == (("0", "1", "2"), 120)
    assert len(data.train) + len(data.test) == 120
    assert describe(settings(str(asked.path), classes=("a", "b", "c"), **OTHERS)).classes[0] == "a"


@pytest.mark.slow
def test_sets_in_s3_are_read_as_those_in_folders(
    own: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as server, reached(monkeypatch, server.environment()):
        there = Storage(f"s3://{BUCKET}/images/set")
        for key in own.list():
            there.write_bytes(key, own.read_bytes(key))
        asked = settings(there.uri)
        assert describe(asked) == describe(settings(own.uri))
        result, here = (load_dataset(item, 0) for item in (asked, settings(own.uri)))
        assert torch.equal(result.test.images, here.test.images)
        there.write_bytes("part-00001-of-00008.parquet", b"PAR1")
        with pytest.raises(
            SpecError, match=r"s3://.*/part-00001-of-00008.parquet has 4 bytes, and"
        ):
            describe(asked)


def test_what_does_not_fit_in_memory_is_streamed(own: Storage) -> None:
    large = settings(own.uri, memory_gib=1e-5)
    assert is_streamed(large, describe(large))
    small = settings(own.uri, memory_gib=1e-3)
    assert not is_streamed(small, describe(small))


@pytest.mark.parametrize("memory_gib", [8.0, 1e-6])
def test_files_that_changed_since_they_were_described_are_refused(
    own: Storage, tmp_path: Path, memory_gib: float
) -> None:
    asked = settings(own.uri, memory_gib=memory_gib)
    facts = replace(describe(asked), fingerprint="parquet/other")
    store = Storage(str(tmp_path / "store"))
    in_memory_load = partial(load_dataset, seed=0)
    load: Callable[..., object] = load_streamed if is_streamed(asked, facts) else in_memory_load
    with pytest.raises(SpecError, match="their fingerprint was parquet/other and is parquet/"):
        load(asked, storage=store, facts=facts)
    assert store.list() == []


def test_a_folder_that_does_not_fit_is_refused_with_the_command_that_converts_it(
    made: Path,
) -> None:
    folder = str(made / "images")
    asked = DataSettings(source="imagefolder", path=folder, resolution=12, memory_gib=1e-5)
    with pytest.raises(SpecError, match=r"180 images of 12 pixels take .* `proxyless data convert"):
        describe(asked)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"jpg": None}, r"0.parquet has no column 'jpg'; it has cls: say which under data.columns"),
        (
            {"jpg": ["text"] * 60},
            r"column 'jpg' is of type string; expected bytes for data.columns",
        ),
        ({"cls": [0.5] * 60}, r"column 'cls' is of type double; expected whole numbers for data"),
        ({"cls": [0, 1, -1] * 20}, r"0.parquet has the label -1; expected whole numbers from 0"),
        ({"cls": [0, 1, None] * 20}, r"0.parquet has no label for some images; expected whole"),
    ],
)
def test_files_that_cannot_serve_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Sequence[Any] | None], complaint: str
) -> None:
    with pytest.raises(SpecError, match=complaint):
        describe(settings(others(tmp_path / "set", **changes), **OTHERS))


def test_labels_out_of_range_are_refused_by_the_name_of_their_file(tmp_path: Path) -> None:
    place = others(tmp_path / "set", cls=[0, 1, 5] * 20)
    with pytest.raises(
        SpecError, match=r"0.parquet has the label 5; expected 0 to 2, for 3 classes"
    ):
        describe(settings(place, classes=("a", "b", "c"), **OTHERS))


def test_a_file_that_was_cut_off_is_refused_by_name(tmp_path: Path) -> None:
    place = others(tmp_path / "set")
    file = Path(place) / "1.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(SpecError, match=r"1.parquet is no whole Parquet file \(.*\); replace it"):
        describe(settings(place, **OTHERS))


def test_files_that_are_missing_or_not_finished_are_named(own: Storage, tmp_path: Path) -> None:
    own.delete("part-00003-of-00008.parquet")
    with pytest.raises(SpecError, match=r"part-00003-of-00008.parquet is missing, which the manif"):
        describe(settings(own.uri))
    own.delete("_manifest.json")
    with pytest.raises(
        SpecError, match=r"the conversion into .* is not finished; the same command"
    ):
        describe(settings(own.uri))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError, match=r"holds no .parquet file; `proxyless data convert` makes"):
        describe(settings(str(tmp_path / "empty")))


def test_content_that_changed_since_it_was_written_is_refused(own: Storage) -> None:
    name = "part-00002-of-00008.parquet"
    data = bytearray(own.read_bytes(name))
    data[200] ^= 1
    own.write_bytes(name, bytes(data))
    with pytest.raises(
        SpecError, match=rf"{name} is not what was written \(its checksum differs\)"
    ):
        load_dataset(settings(own.uri), 0)


def test_images_that_are_none_are_skipped_and_named_or_stop_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [encoded(i) for i in range(60)]
    images[7] = b"no image"
    asked = settings(others(tmp_path / "set", jpg=images), **OTHERS)
    storage = Storage(str(tmp_path / "storage"))
    with pytest.raises(
        SpecError, match=r"2 of 120 images cannot be decoded, e.g. 0.parquet:7: not .*bad_samples"
    ):
        load_dataset(asked, 0, storage)
    monkeypatch.setattr(bad_samples, "MOST_BAD", 0.1)
    data = load_dataset(asked, 0, storage)
    assert len(data.train) + len(data.test) == 118
    place = next(key for key in storage.list() if key.endswith("bad_samples.csv"))
    named = list(csv.DictReader(io.StringIO(storage.read_text(place))))
    assert [item["key"] for item in named] == ["0.parquet:7", "1.parquet:7"]


def test_a_part_without_a_class_is_refused(own: Storage) -> None:
    with pytest.raises(
        SpecError, match=r"class '\w+' has no image in the test part, to which keys"
    ):
        load_dataset(settings(own.uri, test_share=0.001), 0)
