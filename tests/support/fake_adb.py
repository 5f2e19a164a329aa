"""A fake phone: a folder, an `adb` that acts on it, and an `executor_runner` to send there.

Both programs are in `phone_programs.py`. Commands for the phone's shell run in the shell of this
machine, with the phone's paths replaced by paths in the folder; redirections, exit codes and
permissions are therefore real. The file `state`, which a test changes through `FakePhone`,
determines which phones are attached, how long programs take, and how they end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import phone_programs

SERIAL = "R58N12ABCDE"
FOLDER = "data/local/tmp/proxyless"
FLAGS = {
    "cpu_threads": "-1",
    "inputs": "",
    "model_path": "model.pte",
    "num_executions": "1",
    "output_file": "",
    "print_output": "summary",
    "server_mode": "false",
}
GHZ = (1.8, 1.8, 1.8, 1.8, 2.4, 2.4, 2.85, 2.85)
"""Maximum frequencies of eight cores: the last two are the big ones."""

PROPERTIES = {
    "ro.product.model": "Pixel 4",
    "ro.build.version.release": "11",
    "ro.board.platform": "msmnile",
}

STATE: dict[str, Any] = {
    "phones": {SERIAL: "device"},
    "ms": {},
    "factor": 1.0,
    "first": 1.0,
    "exit_code": 0,
    "is_silent": False,
    "leaves_after": None,
    "flags": FLAGS,
    "answer": "",
}
"""State of the fake phone.

`ms` maps a string contained in a program to its milliseconds, which are multiplied by `factor`, and
for the first execution by `first` too. Runs crash with `exit_code`, or print nothing (`is_silent`);
the phone is disconnected after `leaves_after` runs; `answer` is the path of the output.
"""

TOOLS = {
    "taskset": 'echo "$1" >> "$FAKE_PHONE/masks"; shift; exec "$@"',
    "getprop": 'cat "$FAKE_PHONE/properties/$1" 2>/dev/null || echo',
    "dumpsys": 'printf "Current Battery Service state:\\n  level: 80\\n  temperature: 287\\n"',
}


class FakePhone:
    """Control of the fake phone by a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runner = folder.with_name("bin") / "executor_runner"
        for path in ("bin", FOLDER, "properties", "sys"):
            (folder / path).mkdir(parents=True)
        for name, text in TOOLS.items():
            _script(folder / "bin" / name, text)
        for core, ghz in enumerate(GHZ):
            file = folder / f"sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq"
            file.parent.mkdir(parents=True)
            file.write_text(f"{round(ghz * 1e6)}\n")
        for name, value in PROPERTIES.items():
            (folder / "properties" / name).write_text(f"{value}\n")
        phone_programs.keep_state(str(folder), STATE)

    @classmethod
    def plugged_in(cls, folder: Path, setenv: Callable[[str, str], None]) -> FakePhone:
        """Create a phone that `adb` finds, in a new folder; `runner` is in the folder of `adb`."""
        phone = cls(folder / "phone")
        phone.runner.parent.mkdir()
        where = Path(phone_programs.__file__).parent
        code = f"import sys; sys.path.append('{where}'); import phone_programs as p; p.main()"
        this = f'exec {sys.executable} -ISB -c "{code}"'
        _script(phone.runner.with_name("adb"), f'{this} adb "$@"')
        _script(phone.runner, f'{this} runner "$@"')
        phone.runner.chmod(0o644)  # as a download leaves it
        setenv("PATH", f"{phone.runner.parent}:/usr/bin:/bin")
        setenv("FAKE_PHONE", str(phone.folder))
        return phone

    def change(self, **state: Any) -> None:
        """Change the behaviour of the phone from now on."""
        before = phone_programs.state_of(str(self.folder))
        phone_programs.keep_state(str(self.folder), {**before, **state})

    def said(self, verb: str) -> list[list[str]]:
        """Arguments of all calls of `adb VERB`, or of the runner."""
        return [words for words in phone_programs.calls(str(self.folder)) if verb in words[:3]]

    def masks(self) -> list[str]:
        return phone_programs.lines_of(f"{self.folder}/masks")

    def runs(self) -> list[str]:
        return phone_programs.lines_of(f"{self.folder}/runs")

    def files(self) -> set[str]:
        return {path.name for path in (self.folder / FOLDER).iterdir()}

    def contents(self) -> list[bytes]:
        return [path.read_bytes() for path in (self.folder / FOLDER).iterdir()]


def _script(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
