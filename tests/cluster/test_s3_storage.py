"""Storage in S3, against a server over HTTP: same guarantees as a folder, and faults."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import s3_store
from cluster.lease import Lease, LeaseHeld, holder
from cluster.storage import Storage, StorageError
from tests.support.faulty_proxy import Proxy, half
from tests.support.s3 import BUCKET, S3, before, reached, s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    """A server that this process reaches; its client takes longer to make than to use."""
    patch = pytest.MonkeyPatch()
    with s3_server() as one, reached(patch, one.environment()):
        yield one


@pytest.fixture
def storage(server: S3, request: pytest.FixtureRequest) -> Storage:
    return Storage(f"s3://{BUCKET}/{request.node.name}/runs")


@pytest.fixture
def proxy(server: S3, monkeypatch: pytest.MonkeyPatch, storage: Storage) -> Iterator[Proxy]:
    """Proxy between this process and the server."""
    with before(server) as one, reached(monkeypatch, server.environment(one.uri)):
        yield one


def test_what_was_written_is_read_back(storage: Storage) -> None:
    storage.write_json("job/cases/a/result.json", {"top1": 0.98, "name": "Ä"})
    assert storage.read_json("job/cases/a/result.json") == {"top1": 0.98, "name": "Ä"}
    assert storage.sub("job/cases").read_text("a/result.json").startswith("{\n")
    assert storage.find_bytes("job/cases/a") is None
    assert (storage.modified("job/cases/a/result.json") or 0) > 1_700_000_000
    assert storage.modified("job/cases/a") is None


def test_files_are_listed_by_folder(storage: Storage) -> None:
    for key in ("b/2.json", "a.json", "b/c/1.json", "bb/3.json"):
        storage.write_text(key, "1")
    assert storage.list() == ["a.json", "b/2.json", "b/c/1.json", "bb/3.json"]
    assert storage.list("b") == ["b/2.json", "b/c/1.json"]
    assert storage.folders() == ["b", "bb"]
    assert storage.folders("b") == ["c"]
    assert [storage.size_bytes(key) for key in ("", "b", "a.json", "x")] == [4, 2, 1, 0]
    assert [storage.exists(key) for key in ("b", "a.json", "b/c", "c", "a")] == [
        *(True, True, True, False, False)
    ]


def test_deleting_takes_files_and_folders_and_forgives_missing_ones(storage: Storage) -> None:
    for key in ("a/1", "a/2/3", "ab", "b"):
        storage.write_text(key, "")
    for key in ("a", "b", "c"):
        storage.delete(key)
    assert storage.list() == ["ab"]


def test_more_files_than_a_request_deletes_or_lists(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "BATCH", 3)
    for number in range(8):
        storage.write_bytes(f"a/{number}", b"")
    storage.delete("a")
    assert storage.list() == []


def test_a_large_file_goes_in_parts_and_is_verified(
    storage: Storage, server: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "PART_BYTES", 5 * 1024**2)  # S3 takes no smaller parts
    data = os.urandom(s3_store.PART_BYTES * 2 + 5)
    storage.write_bytes("large", data)
    assert storage.read_bytes("large") == data
    head = server.client.head_object(Bucket=BUCKET, Key=f"{storage.uri.split('/', 3)[3]}/large")
    assert head["ETag"].strip('"').endswith("-3")


def test_a_folder_is_replaced_by_another(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "new" / "sub").mkdir(parents=True)
    (tmp_path / "new" / "sub" / "a").write_text("a")
    storage.write_text("model/old", "old")
    storage.write_folder(tmp_path / "new", "model")
    assert storage.list() == ["model/sub/a"]
    with pytest.raises(StorageError, match="missing is not a folder"):
        storage.write_folder(tmp_path / "missing", "model")


def test_uploads_that_killed_writers_left_open_are_ended(storage: Storage, server: S3) -> None:
    name = f"{storage.uri.split('/', 3)[3]}/x"
    server.client.create_multipart_upload(Bucket=BUCKET, Key=name)
    server.client.create_multipart_upload(Bucket=BUCKET, Key="elsewhere/x")
    storage.delete_unfinished()
    left = server.client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert [item["Key"] for item in left] == ["elsewhere/x"]
    server.client.abort_multipart_upload(
        Bucket=BUCKET, Key="elsewhere/x", UploadId=left[0]["UploadId"]
    )


def test_a_swap_needs_the_content_that_it_knows(storage: Storage) -> None:
    assert storage.swap("x", None, b"1")
    assert not storage.swap("x", None, b"2")
    assert not storage.swap("x", b"0", b"2")
    assert storage.swap("x", b"1", b"2")
    assert not storage.swap("x", b"1", None)
    assert storage.swap("x", b"2", None)
    assert storage.swap("x", None, None)
    assert not storage.exists("x")


@pytest.mark.slow
def test_of_many_swaps_at_once_one_wins(storage: Storage) -> None:
    for turn in range(5):
        start = threading.Barrier(8)

        def race(number: int, turn: int = turn, start: threading.Barrier = start) -> bool:
            old = None if turn == 0 else storage.read_bytes("x")
            start.wait()
            return storage.swap("x", old, f"{turn} {number}".encode())

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(race, range(8)))
        assert won.count(True) == 1
        assert storage.read_text("x") == f"{turn} {won.index(True)}"


def test_of_two_drivers_one_owns_the_job_and_the_other_says_who(storage: Storage) -> None:
    with Lease(storage, renew_s=0.1, expire_s=1.0):
        result = holder(storage, expire_s=1.0, watch_s=0.5)
        assert result is not None
        assert (result.process, result.is_alive) == (os.getpid(), True)
        with pytest.raises(
            LeaseHeld, match=rf"s3://{BUCKET}/.*/lease.json is held by process {os.getpid()} on"
        ):
            Lease(storage, renew_s=0.1, expire_s=1.0).__enter__()
    assert not storage.exists("lease.json")


@pytest.mark.slow
def test_half_of_all_requests_may_fail(storage: Storage, proxy: Proxy) -> None:
    proxy.fault = half(1, "before", "after", 503, 429)
    for number in range(6):
        storage.write_bytes(f"a/{number}", b"x" * number)
        assert storage.read_bytes(f"a/{number}") == b"x" * number
    assert storage.swap("s", None, b"1")
    assert storage.swap("s", b"1", b"2")
    assert storage.swap("s", b"2", None)
    assert len(storage.list("a")) == 6
    storage.delete("a")
    proxy.heal()
    assert storage.list() == []


def test_an_answer_that_breaks_off_is_asked_for_again(storage: Storage, proxy: Proxy) -> None:
    storage.write_bytes("x", b"0123456789" * 1000)
    begun = proxy.count
    proxy.fault = lambda number: "cut" if number <= begun + 2 else None
    assert storage.read_bytes("x") == b"0123456789" * 1000
    assert proxy.count == begun + 3


def test_a_swap_whose_answer_was_lost_has_happened(storage: Storage, proxy: Proxy) -> None:
    for old, new in ((None, b"1"), (b"1", b"2"), (b"2", None)):
        begun = proxy.count
        proxy.fault = lambda number, begun=begun: "after" if number == begun + 2 else None
        assert storage.swap("x", old, new)
        assert proxy.count > begun + 2  # it was asked again
        assert storage.find_bytes("x") == new


def test_a_server_that_restarts_is_waited_for(storage: Storage, proxy: Proxy) -> None:
    storage.write_bytes("x", b"1")
    proxy.refuse()
    healer = threading.Timer(2.0, proxy.heal)
    healer.start()
    assert storage.read_bytes("x") == b"1"
    healer.join()


def test_content_that_changed_on_its_way_is_refused(
    storage: Storage, server: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store.time, "sleep", lambda _s: None)
    name = f"{storage.uri.split('/', 3)[3]}/x"
    server.client.put_object(Bucket=BUCKET, Key=name, Body=b"2", Metadata={"sha256": "0" * 64})
    with pytest.raises(StorageError, match=r"cannot read s3://.*/x: its content is not what its"):
        storage.read_bytes("x")


def test_what_is_wrong_is_named_with_the_way_out(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, server: S3
) -> None:
    storage.check_writable()
    with pytest.raises(StorageError, match="s3://nowhere/runs: there is no such bucket; make it"):
        Storage("s3://nowhere/runs").check_writable()
    with pytest.raises(StorageError, match=r"cannot read s3://.*/x: No such file"):
        storage.read_bytes("x")
    monkeypatch.setattr(s3_store, "ATTEMPTS", 1)
    nobody = reached(monkeypatch, server.environment("http://127.0.0.1:9"))
    with nobody, pytest.raises(StorageError, match="nobody answers; see AWS_ENDPOINT_URL"):
        storage.read_bytes("x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    nobody = reached(monkeypatch, {"AWS_EC2_METADATA_DISABLED": "true"})
    with nobody, pytest.raises(StorageError, match="no credentials; set AWS_ACCESS_KEY_ID and"):
        storage.check_writable()


@pytest.mark.parametrize(
    "uri", ["s3://", "s3://A/x", "s3://bucket/a/../b", "s3://bucket//b", "s3://bu_cket/x"]
)
def test_addresses_of_no_bucket_are_refused(uri: str) -> None:
    with pytest.raises(StorageError, match=f"storage {uri}: no bucket or prefix of this name"):
        Storage(uri)


@pytest.mark.parametrize(
    "uri", ["s3://key:secret@bucket/x", "s3://bucket/x?secret=y", "s3://b/x#y"]
)
def test_logins_and_options_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(
        StorageError, match="has a login or options; expected s3://<bucket>"
    ) as info:
        Storage(uri)
    assert "secret" not in str(info.value)


def test_a_place_in_s3_is_no_path(storage: Storage) -> None:
    assert not storage.is_local
    assert (storage.name, storage.parent.sub("runs").uri) == ("runs", storage.uri)
    with pytest.raises(StorageError, match=r"runs/x is no path; expected a folder"):
        storage.path("x")
    with pytest.raises(StorageError, match="s3://bucket is a whole bucket"):
        _ = Storage("s3://bucket").parent
