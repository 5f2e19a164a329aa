"""Storage: writes are atomic, and keys stay inside."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from cluster.storage import Storage, StorageError


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "runs"))


def test_what_was_written_is_read_back(storage: Storage) -> None:
    storage.write_json("job/cases/a/result.json", {"top1": 0.98, "name": "Ä"})
    assert storage.read_json("job/cases/a/result.json") == {"top1": 0.98, "name": "Ä"}
    assert storage.sub("job/cases").read_text("a/result.json").startswith("{\n")


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Storage("~/proxyless").uri == f"{tmp_path}/proxyless"


def test_nothing_is_made_before_something_is_written(storage: Storage) -> None:
    assert not storage.exists("x")
    assert storage.list() == []
    storage.check_writable()
    assert not storage.path().exists()


def test_files_are_listed_by_folder(storage: Storage) -> None:
    for key in ("b/2.json", "a.json", "b/c/1.json", "bb/3.json"):
        storage.write_text(key, "")
    assert storage.list() == ["a.json", "b/2.json", "b/c/1.json", "bb/3.json"]
    assert storage.list("b") == ["b/2.json", "b/c/1.json"]


def test_files_follow_the_umask(storage: Storage) -> None:
    old = os.umask(0o022)
    try:
        storage.write_text("x", "")
    finally:
        os.umask(old)
    assert storage.path("x").stat().st_mode & 0o777 == 0o644


def test_deleting_takes_files_and_folders_and_forgives_missing_ones(storage: Storage) -> None:
    storage.write_text("a/1", "")
    storage.write_text("b", "")
    for key in ("a", "b", "c"):
        storage.delete(key)
    assert storage.list() == []


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "", "a\\b"])
def test_keys_stay_inside(storage: Storage, key: str) -> None:
    with pytest.raises(StorageError, match="is no key; expected words between '/'"):
        storage.write_text(key, "")


def test_keys_are_not_temporary_names(storage: Storage) -> None:
    with pytest.raises(StorageError, match=r"kept for writing"):
        storage.write_text("a/.x.tmp", "")


@pytest.mark.parametrize("uri", ["hdfs://bucket/x", "gs://bucket"])
def test_other_places_than_folders_are_refused(uri: str) -> None:
    with pytest.raises(StorageError, match=r":// is not supported; name a folder"):
        Storage(uri)


def test_an_empty_storage_is_refused() -> None:
    with pytest.raises(StorageError, match="storage is empty"):
        Storage("")


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    storage = Storage(str(tmp_path / "file" / "runs"))
    expected = rf"{storage.uri} cannot be written: .*file is not a folder; name a folder that you"
    with pytest.raises(StorageError, match=expected):
        storage.check_writable()
    with pytest.raises(StorageError, match=r"cannot write .*Not a directory"):
        storage.write_text("x", "")


def test_a_folder_that_may_not_be_written_is_named() -> None:
    # No folders can be created in /proc, not even by root.
    with pytest.raises(StorageError, match=r"/proc/runs cannot be written: .*name a folder"):
        Storage("/proc/runs").check_writable()


def test_a_missing_file_is_named(storage: Storage) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*runs/x.json: No such file"):
        storage.read_json("x.json")


def test_what_may_be_missing_is_found_or_not(storage: Storage) -> None:
    storage.write_json("a/b.json", {"x": 1})
    assert storage.find_json("a/b.json") == {"x": 1}
    assert storage.find_json("a/c.json") is None
    assert storage.find_bytes("a/b.json/c") is None  # below a file there is nothing
    with pytest.raises(StorageError, match=f"cannot read {storage.uri}/a: Is a directory"):
        storage.find_bytes("a")


def test_broken_json_is_named(storage: Storage) -> None:
    storage.write_text("x.json", "{")
    with pytest.raises(StorageError, match=r"x.json is not JSON"):
        storage.read_json("x.json")


def test_numbers_that_json_lacks_are_refused(storage: Storage) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json("x.json", float("nan"))
    assert storage.list() == []


def _write_forever(uri: str) -> None:
    storage = Storage(uri)
    for count in range(1_000_000):
        storage.write_bytes("x", bytes([count % 256]) * 1_000_000)


def test_a_killed_writer_leaves_no_part(storage: Storage) -> None:
    for delay_s in (0.003, 0.015):
        writer = multiprocessing.get_context("spawn").Process(
            target=_write_forever, args=(storage.uri,)
        )
        writer.start()
        assert writer.pid is not None
        _wait_for(lambda: storage.exists("x"))
        time.sleep(delay_s)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        content = storage.read_bytes("x")
        assert content == content[:1] * 1_000_000
        assert storage.list() == ["x"]
        storage.delete("x")
    storage.delete_unfinished()
    assert list(storage.path().iterdir()) == []


def test_a_write_that_fails_keeps_the_old_file(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_text("x", "old")
    monkeypatch.setattr(os, "fsync", _no_space)
    with pytest.raises(StorageError, match=r"cannot write .*x: No space left"):
        storage.write_text("x", "new")
    assert storage.read_text("x") == "old"
    assert os.listdir(storage.path()) == ["x"]


def test_a_folder_is_replaced_as_a_whole(storage: Storage, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / name).write_text(name)
        storage.write_folder(tmp_path / name, "model")
    assert storage.list() == ["model/deep/two"]
    assert os.listdir(storage.path()) == ["model"]


def test_a_folder_that_cannot_be_copied_leaves_nothing(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "file").write_text("")
    monkeypatch.setattr(os, "fsync", _no_space)
    with pytest.raises(StorageError, match="No space left"):
        storage.write_folder(tmp_path / "one", "model")
    assert os.listdir(storage.path()) == []


def test_a_swap_needs_the_content_that_it_knows(storage: Storage) -> None:
    assert not storage.swap("x", b"a", b"b")
    assert storage.swap("x", None, b"a")
    assert not storage.swap("x", None, b"b")
    assert storage.swap("x", b"a", b"b")
    assert storage.swap("x", b"b", None)
    assert not storage.exists("x")
    assert storage.list() == []


def _count_up(uri: str, times: int) -> None:
    storage = Storage(uri)
    while times:
        old = storage.read_bytes("count")
        times -= storage.swap("count", old, str(int(old) + 1).encode())


def test_swaps_of_several_processes_lose_nothing(storage: Storage) -> None:
    storage.write_text("count", "0")
    context = multiprocessing.get_context("spawn")
    counters = [context.Process(target=_count_up, args=(storage.uri, 50)) for _ in range(2)]
    for counter in counters:
        counter.start()
    for counter in counters:
        counter.join()
    assert storage.read_text("count") == "100"


def _no_space(_: int) -> None:
    raise OSError(28, "No space left on device")


def _wait_for(condition) -> None:
    while not condition():
        time.sleep(0.001)


def test_files_are_copied_under_their_names_below_a_folder(storage, tmp_path):
    for key in ("a/b/one.json", "a/two.json", "three.json"):
        storage.write_text(key, key)
    storage.copy_to(tmp_path / "there", ["a/b/one.json", "a/two.json"], below="a")
    result = {
        str(path.relative_to(tmp_path / "there")) for path in (tmp_path / "there").rglob("*.json")
    }
    assert result == {"b/one.json", "two.json"}
    assert (tmp_path / "there/b/one.json").read_text() == "a/b/one.json"


def test_a_folder_that_is_removed_while_it_is_listed_is_no_error(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_text("a/kept.txt", "x")
    storage.write_text("b/removed.txt", "x")
    scan = os.scandir

    def removing(path: object = ".") -> object:
        if str(path).endswith("/b"):
            storage.delete("b")
        return scan(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", removing)
    assert storage.list() == ["a/kept.txt"]
