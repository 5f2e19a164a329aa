"""Bad samples: listed once for all workers, and too many stop the job."""

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
    first, second = (BadSamples(folder, "parquet/1", 10_000) for _ in range(2))
    first.note([B])
    second.note([A, B])
    first.note([A])
    assert folder.read_text(BAD_SAMPLES_FILE).splitlines() == [
        "set,key,reason",
        "parquet/1,cats/a.jpg,not an image: cut off",
        "parquet/1,cats/b.jpg,not an image: cut off",
    ]
    assert first.named() == {f"cats/{name}.jpg": "not an image: cut off" for name in "ab"}


def test_too_many_are_refused_with_a_way_out(folder: Storage) -> None:
    bad_samples = BadSamples(folder, "parquet/1", 2_000)
    bad_samples.note([A, B])
    with pytest.raises(BadSamplesError) as error:
        bad_samples.note([C])
    assert str(error.value) == (
        "3 of 2,000 images cannot be decoded, e.g. cats/a.jpg: not an image: cut off; expected at "
        f"most 0.1%: mend or remove those in {folder.where(BAD_SAMPLES_FILE)}, "
        "and convert the set again"
    )
    with pytest.raises(BadSamplesError):  # so the next attempt stops at its start
        BadSamples(folder, "parquet/1", 2_000).check()


def test_those_of_a_set_that_was_mended_are_forgotten(folder: Storage) -> None:
    BadSamples(folder, "parquet/1", 10_000).note([A])
    mended = BadSamples(folder, "parquet/2", 10_000)
    mended.check()
    mended.note([C])
    assert list(mended.named()) == ["cats/c.jpg"]


def test_what_another_worker_writes_meanwhile_is_kept(folder: Storage) -> None:
    first, second = (BadSamples(folder, "parquet/1", 10_000) for _ in range(2))
    real, turns = folder.swap, iter([lambda: second.note([A])])

    def swap(key: str, old: bytes | None, new: bytes | None) -> bool:
        next(turns, lambda: None)()
        return real(key, old, new)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(folder), "swap", lambda _self, *args: swap(*args))
        first.note([B])
    assert list(first.named()) == ["cats/a.jpg", "cats/b.jpg"]
