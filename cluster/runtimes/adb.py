"""Access to Android phones through `adb`: list them, copy files, run commands.

`adb` is the program of Android's platform-tools. It works with phones that are attached to this
machine and allow USB debugging; nothing is installed on them. Files go into one folder, under names
that contain the hash of their content: each is sent once, and an interrupted transfer is never
mistaken for the file.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.hardware import Phone
from cluster.runtimes.base import MeasurementError

FOLDER = "/data/local/tmp/proxyless"
"""Folder for our files on a phone; only here may `adb` both write and execute."""

READY = "device"
"""State in `adb devices` of a phone that is ready."""

ADVICE = {
    "unauthorized": "unlock it and allow USB debugging for this computer",
    "offline": "unplug it and plug it in again, or restart adb with `adb kill-server`",
    "no permissions": "give your user access to USB devices (udev rules), see `adb devices`",
}
"""Advice for phones that are not ready, by the beginning of their state."""

DONE = "done, exit code "
"""Line printed after the output of a command; if it is missing, the phone was disconnected."""

TIMEOUT_S = 1800
"""Time limit of one command on a phone."""


@dataclass(frozen=True)
class AttachedPhone:
    """A phone or emulator, from a line of `adb devices`."""

    serial: str
    state: str
    """`device`, `unauthorized`, `offline`, `no permissions (...)` or another state of adb."""


@dataclass(frozen=True)
class Answer:
    """Output and exit code of a command on the phone."""

    output: str
    exit_code: int


def attached() -> list[AttachedPhone]:
    """Phones and emulators that are attached to this machine, ready or not.

    Raises:
        MeasurementError: adb is not installed or does not answer.
    """
    done = _adb("devices", [], timeout_s=60)
    if done.returncode:
        raise MeasurementError(
            f"`adb devices` failed ({_last_line(done)}); run it by hand to see why"
        )
    lines = (line.partition("\t") for line in done.stdout.splitlines())
    return [AttachedPhone(serial, state.strip()) for serial, tab, state in lines if tab]


def choose(phone: Phone, target: str = "mobile") -> str:
    """Serial number of the phone to measure: the configured one, or the only one attached.

    Args:
        phone: settings of the target.
        target: name of the target, for messages.

    Raises:
        MeasurementError: there is no such phone, it is not ready, or there are several.
    """
    setting, phones = f"targets.{target}.phone.serial", attached()
    serials = ", ".join(attached_phone.serial for attached_phone in phones) or "none"
    matching = [
        attached_phone for attached_phone in phones if phone.serial in (None, attached_phone.serial)
    ]
    if not matching and phone.serial is not None:
        raise MeasurementError(
            f"{setting} is {phone.serial!r}, which is not attached; attached: {serials}; "
            "connect it, or name another"
        )
    if not matching:
        raise MeasurementError(
            "no phone is attached: `adb devices` lists none; connect one by USB and switch on "
            "USB debugging in its developer options"
        )
    if len(matching) > 1:
        raise MeasurementError(
            f"{len(matching)} phones are attached ({serials}) and none is chosen; set {setting}"
        )
    return _usable(matching[0])


def _usable(phone: AttachedPhone) -> str:
    if phone.state == READY:
        return phone.serial
    matches = (advice for state, advice in ADVICE.items() if phone.state.startswith(state))
    advice = next(matches, f"wait until `adb devices` shows it as '{READY}'")
    raise MeasurementError(f"phone {phone.serial} is {phone.state}: {advice}")


class Adb:
    """One phone. The constructor creates our folder on it and lists the files there."""

    def __init__(self, serial: str) -> None:
        self.serial = serial
        self._sent = set(self.shell(f"mkdir -p {FOLDER} && ls {FOLDER}").output.split())

    def shell(self, command: str) -> Answer:
        """Run a command in the phone's shell.

        The exit code of the command is returned, not checked.

        Raises:
            MeasurementError: the phone was disconnected.
        """
        # adb fails in the same way if the command fails and if the phone is disconnected, so the
        # exit code of the command is appended to its output.
        done = self._adb("shell", f"({command}); printf '\\n{DONE}%d\\n' $?")
        output, mark, code = done.stdout.rpartition(f"\n{DONE}")
        if not mark:
            raise self._failure("shell", _last_line(done))
        return Answer(output, int(code))

    def send(self, content: bytes, kind: str) -> str:
        """Copy a file to the phone, unless it is there already.

        Args:
            content: content of the file; it is made executable.
            kind: suffix of its name, e.g. `.pte`.

        Returns:
            Its name within the folder.
        """
        name = hashlib.sha256(content).hexdigest() + kind
        if name not in self._sent:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / name
                file.write_bytes(content)
                self._copy("push", str(file), f"{FOLDER}/{name}.part")
            moved = self.shell(f"cd {FOLDER} && chmod 755 {name}.part && mv {name}.part {name}")
            if moved.exit_code:
                raise self._failure("shell", f"mv ends with exit code {moved.exit_code}")
            self._sent.add(name)
        return name

    def fetch(self, name: str) -> bytes:
        """Content of a file in the folder."""
        with tempfile.TemporaryDirectory() as folder:
            self._copy("pull", f"{FOLDER}/{name}", f"{folder}/file")
            return (Path(folder) / "file").read_bytes()

    def _copy(self, verb: str, source: str, to: str) -> None:
        done = self._adb(verb, source, to)
        if done.returncode:
            raise self._failure(verb, _last_line(done))

    def _adb(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _adb(verb, arguments, options=["-s", self.serial])

    def _failure(self, verb: str, message: str) -> MeasurementError:
        if AttachedPhone(self.serial, READY) in attached():
            return MeasurementError(
                f"`adb {verb}` failed on phone {self.serial} ({message}); see that it stays awake "
                f"and that {FOLDER} can be written to and has space"
            )
        return MeasurementError(
            f"phone {self.serial} went away during `adb {verb}` ({message}); connect it again, by "
            "a cable that holds, and start again"
        )


def _adb(
    verb: str, arguments: Sequence[str], options: Sequence[str] = (), timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["adb", *options, verb, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise MeasurementError(
            "adb is not installed on this machine, or not in its PATH; phones are measured "
            "through it: install Android's platform-tools (Debian, Ubuntu: apt install adb)"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(
            f"`adb {verb}` did not end within {timeout_s:.0f} s; unlock the phone and keep it "
            "awake, or restart adb with `adb kill-server`"
        ) from error


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Last line that adb printed."""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1] if lines else f"no message, exit code {done.returncode}"
