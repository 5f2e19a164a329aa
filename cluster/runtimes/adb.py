"""Android phones through `adb`: which are attached, and files and commands on one of them.

`adb` is the program of Android's platform-tools. It talks to phones that are attached to this
machine and that allow debugging over USB; nothing is installed on them. Files go into one folder,
under names that hold the hash of their content, so that each is sent once and an interrupted
transfer is never taken for the file.
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
"""Where files lie on a phone: below the only folder that `adb` may both write to and run from."""

READY = "device"
"""What `adb devices` calls a phone that can be used."""

ADVICE = {
    "unauthorized": "unlock it and allow USB debugging for this computer",
    "offline": "unplug it and plug it in again, or restart adb with `adb kill-server`",
    "no permissions": "give your user access to USB devices (udev rules), see `adb devices`",
}
"""What to do about a phone that cannot be used, by the beginning of its state."""

DONE = "done, exit code "
"""Line after the output of a command; if it is missing, the phone went away meanwhile."""

TIMEOUT_S = 1800
"""How long one command on a phone may take."""


@dataclass(frozen=True)
class AttachedPhone:
    """A line of `adb devices`."""

    serial: str
    state: str
    """`device`, `unauthorized`, `offline`, `no permissions (...)` or another word of adb."""


@dataclass(frozen=True)
class Answer:
    """What a command on the phone printed, and how it ended."""

    output: str
    exit_code: int


def attached() -> list[AttachedPhone]:
    """Phones and emulators that this machine sees, usable or not.

    Raises:
        MeasurementError: adb is not installed or does not answer.
    """
    done = _adb("devices", [], timeout_s=60)
    if done.returncode:
        raise MeasurementError(f"`adb devices` failed ({_said(done)}); run it by hand to see why")
    lines = (line.partition("\t") for line in done.stdout.splitlines())
    return [AttachedPhone(serial, state.strip()) for serial, tab, state in lines if tab]


def choose(phone: Phone, target: str = "mobile") -> str:
    """Serial of the phone to measure: the one that is set, or the only one attached.

    Args:
        phone: settings of the target.
        target: its name, for messages.

    Raises:
        MeasurementError: there is no such phone, it cannot be used, or it is one of several.
    """
    setting, phones = f"targets.{target}.phone.serial", attached()
    serials = ", ".join(one.serial for one in phones) or "none"
    found = [one for one in phones if phone.serial in (None, one.serial)]
    if not found and phone.serial is not None:
        raise MeasurementError(
            f"{setting} is {phone.serial!r}, which is not attached; attached: {serials}; "
            "connect it, or name another"
        )
    if not found:
        raise MeasurementError(
            "no phone is attached: `adb devices` lists none; connect one by USB and switch on "
            "USB debugging in its developer options"
        )
    if len(found) > 1:
        raise MeasurementError(
            f"{len(found)} phones are attached ({serials}) and none is chosen; set {setting}"
        )
    return _usable(found[0])


def _usable(phone: AttachedPhone) -> str:
    if phone.state == READY:
        return phone.serial
    known = (advice for state, advice in ADVICE.items() if phone.state.startswith(state))
    advice = next(known, f"wait until `adb devices` shows it as '{READY}'")
    raise MeasurementError(f"phone {phone.serial} is {phone.state}: {advice}")


class Adb:
    """One phone. Connecting makes its folder and looks at what is there."""

    def __init__(self, serial: str) -> None:
        self.serial = serial
        self._there = set(self.shell(f"mkdir -p {FOLDER} && ls {FOLDER}").output.split())

    def shell(self, command: str) -> Answer:
        """Runs a command in the phone's shell.

        Raises:
            MeasurementError: the phone went away. How the command ended is the caller's business.
        """
        # adb ends alike when a command fails and when the phone goes away, so that the command's
        # exit code comes with its output.
        done = self._adb("shell", f"({command}); printf '\\n{DONE}%d\\n' $?")
        output, mark, code = done.stdout.rpartition(f"\n{DONE}")
        if not mark:
            raise self._failure("shell", _said(done))
        return Answer(output, int(code))

    def send(self, content: bytes, kind: str) -> str:
        """Puts a file on the phone, unless it is there already.

        Args:
            content: the file's; executable by whoever can see it.
            kind: end of its name: `.pte`.

        Returns:
            Its name within the folder.
        """
        name = hashlib.sha256(content).hexdigest() + kind
        if name not in self._there:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / name
                file.write_bytes(content)
                self._copy("push", str(file), f"{FOLDER}/{name}.part")
            moved = self.shell(f"cd {FOLDER} && chmod 755 {name}.part && mv {name}.part {name}")
            if moved.exit_code:
                raise self._failure("shell", f"mv ends with exit code {moved.exit_code}")
            self._there.add(name)
        return name

    def fetch(self, name: str) -> bytes:
        """Content of a file in the folder."""
        with tempfile.TemporaryDirectory() as folder:
            self._copy("pull", f"{FOLDER}/{name}", f"{folder}/file")
            return (Path(folder) / "file").read_bytes()

    def _copy(self, verb: str, source: str, to: str) -> None:
        done = self._adb(verb, source, to)
        if done.returncode:
            raise self._failure(verb, _said(done))

    def _adb(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return _adb(verb, words, options=["-s", self.serial])

    def _failure(self, verb: str, said: str) -> MeasurementError:
        if AttachedPhone(self.serial, READY) in attached():
            return MeasurementError(
                f"`adb {verb}` failed on phone {self.serial} ({said}); see that it stays awake "
                f"and that {FOLDER} can be written to and has space"
            )
        return MeasurementError(
            f"phone {self.serial} went away during `adb {verb}` ({said}); connect it again, by a "
            "cable that holds, and start again"
        )


def _adb(
    verb: str, words: Sequence[str], options: Sequence[str] = (), timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["adb", *options, verb, *words],
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


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """Last line that adb printed."""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1] if lines else f"no message, exit code {done.returncode}"
