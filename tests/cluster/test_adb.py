"""Phones through `adb`: which one is chosen, and errors if it is not ready."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.hardware import TARGETS, Phone
from cluster.runtimes import present
from cluster.runtimes.adb import FOLDER, Adb, AttachedPhone, attached, choose
from cluster.runtimes.base import MeasurementError
from tests.support.fake_adb import SERIAL, FakePhone


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePhone:
    return FakePhone.plugged_in(tmp_path, monkeypatch.setenv)


def refusal(settings: Phone, target: str = "mobile") -> str:
    with pytest.raises(MeasurementError) as refused:
        choose(settings, target)
    return str(refused.value)


def test_phones_are_listed_with_their_state(phone: FakePhone) -> None:
    state = "no permissions (user in plugdev group; are your udev rules wrong?)"
    phone.change(phones={SERIAL: "device", "emulator-5554": "offline", "A": state})
    expected = [(SERIAL, "device"), ("emulator-5554", "offline"), ("A", state)]
    assert attached() == [AttachedPhone(*pair) for pair in expected]


def test_the_only_phone_is_chosen(phone: FakePhone) -> None:
    assert choose(Phone()) == choose(Phone(serial=SERIAL)) == SERIAL


def test_the_phone_that_is_set_is_chosen_of_several(phone: FakePhone) -> None:
    phone.change(phones={"A": "unauthorized", "B": "device"})
    assert choose(Phone(serial="B")) == "B"


def test_no_phone_is_refused(phone: FakePhone) -> None:
    phone.change(phones={})
    assert refusal(Phone()) == (
        "no phone is attached: `adb devices` lists none; connect one by USB and switch on USB "
        "debugging in its developer options"
    )


def test_several_phones_and_none_chosen_are_refused(phone: FakePhone) -> None:
    phone.change(phones={"A": "device", "B": "device"})
    assert refusal(Phone()) == (
        "2 phones are attached (A, B) and none is chosen; set targets.mobile.phone.serial"
    )


@pytest.mark.parametrize("phones", [{"A": "device", "B": "device"}, {}])
def test_a_phone_that_is_set_and_not_attached_is_refused(
    phone: FakePhone, phones: dict[str, str]
) -> None:
    phone.change(phones=phones)
    assert refusal(Phone(serial="C"), "pixel") == (
        "targets.pixel.phone.serial is 'C', which is not attached; attached: "
        f"{', '.join(phones) or 'none'}; connect it, or name another"
    )


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        ("unauthorized", "unlock it and allow USB debugging for this computer"),
        ("offline", "unplug it and plug it in again, or restart adb with `adb kill-server`"),
        ("no permissions (x)", "give your user access to USB devices (udev rules), see `adb"),
        ("recovery", "wait until `adb devices` shows it as 'device'"),
    ],
)
def test_a_phone_that_cannot_be_used_is_refused(phone: FakePhone, state: str, advice: str) -> None:
    phone.change(phones={SERIAL: state})
    assert refusal(Phone()).startswith(f"phone {SERIAL} is {state}: {advice}")


def test_a_machine_without_adb_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert refusal(Phone()) == (
        "adb is not installed on this machine, or not in its PATH; phones are measured through "
        "it: install Android's platform-tools (Debian, Ubuntu: apt install adb)"
    )


def test_an_adb_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(words: list[str], *, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(words, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert refusal(Phone()).startswith("`adb devices` did not end within 60 s; unlock the phone")


def test_an_adb_that_fails_is_quoted(phone: FakePhone) -> None:
    phone.runner.with_name("adb").write_text("#!/bin/sh\necho 'cannot bind port' >&2; exit 1\n")
    assert refusal(Phone()) == (
        "`adb devices` failed (cannot bind port); run it by hand to see why"
    )


def test_commands_tell_what_they_print_and_how_they_end(phone: FakePhone) -> None:
    answer = Adb(SERIAL).shell("echo 'two words'; exit 3")
    assert (answer.output, answer.exit_code) == ("two words\n", 3)


def test_files_come_back_as_they_were_sent(phone: FakePhone) -> None:
    content = bytes(range(256))
    adb = Adb(SERIAL)
    assert adb.fetch(adb.send(content, ".bin")) == content


def test_an_interrupted_transfer_is_sent_again(phone: FakePhone) -> None:
    name = Adb(SERIAL).send(b"content", ".bin")
    file = phone.folder / FOLDER.removeprefix("/") / name
    file.rename(f"{file}.part").write_bytes(b"con")
    adb = Adb(SERIAL)
    assert adb.fetch(adb.send(b"content", ".bin")) == b"content"


def test_a_phone_that_leaves_is_told_from_a_command_that_fails(phone: FakePhone) -> None:
    adb = Adb(SERIAL)
    phone.change(leaves_after=0)
    with pytest.raises(MeasurementError) as left:
        adb.shell("./runner --num_executions=1")
    assert str(left.value) == (
        f"phone {SERIAL} went away during `adb shell` (no message, exit code 255); connect it "
        "again, by a cable that holds, and start again"
    )


def test_a_phone_that_left_takes_no_files(phone: FakePhone) -> None:
    adb = Adb(SERIAL)
    phone.change(phones={})
    with pytest.raises(MeasurementError, match=r"went away during `adb push` \(.* not found\)"):
        adb.send(b"content", ".bin")


def test_a_transfer_that_fails_is_quoted(phone: FakePhone) -> None:
    adb = Adb(SERIAL)
    (phone.folder / FOLDER.removeprefix("/")).rmdir()
    with pytest.raises(MeasurementError, match=r"`adb push` failed on phone R58.*has space"):
        adb.send(b"content", ".bin")


def test_a_target_is_measured_on_the_phone_that_is_there_and_keeps_its_serial(
    phone: FakePhone,
) -> None:
    target = replace(TARGETS["mobile"], phone=Phone(runner=str(phone.runner)))
    result = present(target)
    assert result.phone is not None
    assert result.phone.serial == SERIAL
    assert result.key() != target.key()  # a table of another phone is another


def test_a_phone_without_a_runner_is_refused_before_anything_starts(phone: FakePhone) -> None:
    with pytest.raises(MeasurementError, match=r"targets.mobile.phone.runner is not set"):
        present(TARGETS["mobile"])
