"""Images that cannot be decoded: named once, by all workers together, and too many refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.storage import Storage
from orchestration.config.storage_layout import BAD_SAMPLES_FILE
from orchestration.data.streaming.bad_samples import BadSamples, BadSamplesError

A, B, C = (f"cats/{name}.jpg\tnot an image: cut off" for name in "abc")


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "job"))


def test_images_are_named_once_whoever_meets_them(folder: Storage) -> None:
    one, other = (BadSamples(folder, "parquet/1", 10_000) for _ in range(2))
    one.note([B])
    other.note([A, B])
    one.note([A])
    assert folder.read_text(BAD_SAMPLES_FILE).splitlines() == [
        "set,key,reason",
        "parquet/1,cats/a.jpg,not an image: cut off",
        "parquet/1,cats/b.jpg,not an image: cut off",
    ]
    assert one.named() == {f"cats/{name}.jpg": "not an image: cut off" for name in "ab"}


def test_too_many_are_refused_with_a_way_out(folder: Storage) -> None:
    damage = BadSamples(folder, "parquet/1", 2_000)
    damage.note([A, B])
    with pytest.raises(BadSamplesError) as error:
        damage.note([C])
    assert str(error.value) == (
        "3 of 2,000 images cannot be decoded, e.g. cats/a.jpg: not an image: cut off; expected at "
        f"most 0.1%: mend or remove those in {folder.where(BAD_SAMPLES_FILE)}, "
        "and convert the set again"
    )
    with pytest.raises(BadSamplesError):  # so the next attempt stops before it begins
        BadSamples(folder, "parquet/1", 2_000).check()


def test_those_of_a_set_that_was_mended_are_forgotten(folder: Storage) -> None:
    BadSamples(folder, "parquet/1", 10_000).note([A])
    mended = BadSamples(folder, "parquet/2", 10_000)
    mended.check()
    mended.note([C])
    assert list(mended.named()) == ["cats/c.jpg"]


def test_what_another_worker_writes_meanwhile_is_kept(folder: Storage) -> None:
    one, other = (BadSamples(folder, "parquet/1", 10_000) for _ in range(2))
    real, turns = folder.swap, iter([lambda: other.note([A])])

    def swap(key: str, old: bytes | None, new: bytes | None) -> bool:
        next(turns, lambda: None)()
        return real(key, old, new)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(folder), "swap", lambda _self, *words: swap(*words))
        one.note([B])
    assert list(one.named()) == ["cats/a.jpg", "cats/b.jpg"]
