"""A fake phone: a folder, an `adb` that acts on it, and an `executor_runner` to send there.

Both programs are this file, started by short scripts. Commands for the phone's shell run in the
shell of this machine, with the phone's paths replaced by paths in the folder; redirections, exit
codes and permissions are therefore real. `state.json`, which a test changes through `FakePhone`,
determines which phones are attached, how long programs take, and how they end.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
        self.change(**STATE)

    @classmethod
    def plugged_in(cls, folder: Path, setenv: Callable[[str, str], None]) -> FakePhone:
        """Create a phone that `adb` finds, in a new folder; `runner` is in the folder of `adb`."""
        phone = cls(folder / "phone")
        phone.runner.parent.mkdir()
        this = f"{sys.executable} -ISB {__file__}"
        _script(phone.runner.with_name("adb"), f'exec {this} adb "$@"')
        _script(phone.runner, f'exec {this} runner "$@"')
        phone.runner.chmod(0o644)  # as a download leaves it
        setenv("PATH", f"{phone.runner.parent}:/usr/bin:/bin")
        setenv("FAKE_PHONE", str(phone.folder))
        return phone

    def change(self, **state: Any) -> None:
        """Change the behaviour of the phone from now on."""
        (self.folder / "state.json").write_text(json.dumps({**_state(self.folder), **state}))

    def said(self, verb: str) -> list[list[str]]:
        """Arguments of all calls of `adb VERB`, or of the runner."""
        lines = _lines(self.folder / "calls")
        return [words for words in map(json.loads, lines) if verb in words[:3]]

    def masks(self) -> list[str]:
        return _lines(self.folder / "masks")

    def runs(self) -> list[str]:
        return _lines(self.folder / "runs")

    def files(self) -> set[str]:
        return {path.name for path in (self.folder / FOLDER).iterdir()}

    def contents(self) -> list[bytes]:
        return [path.read_bytes() for path in (self.folder / FOLDER).iterdir()]


def adb(folder: Path, words: list[str]) -> int:
    """Run `adb` with these arguments; return its exit code."""
    _note(folder, words)
    phones = _state(folder)["phones"]
    if words == ["devices"]:
        lines = "".join(f"{serial}\t{state}\n" for serial, state in phones.items())
        print(f"* daemon started successfully\nList of devices attached\n{lines}")
        return 0
    option, serial, verb, *rest = words
    assert option == "-s"
    if phones.get(serial) != "device":
        print(f"adb: device '{serial}' not found", file=sys.stderr)
        return 1
    if verb == "shell":
        return _shell(folder, " ".join(rest))
    source, to = (_here(folder, word) for word in rest)
    try:
        shutil.copyfile(source, to)
    except OSError as error:
        print(f"adb: error: failed to copy '{rest[0]}' to '{rest[1]}': {error}", file=sys.stderr)
        return 1
    return 0


def _shell(folder: Path, command: str) -> int:
    state = _state(folder)
    runs = len(_lines(folder / "runs"))
    if "--num_executions" in command and runs == state["leaves_after"]:
        state["phones"] = {}
        (folder / "state.json").write_text(json.dumps(state))
        return 255  # like an unplugged phone: no message, no exit code of the command
    os.environ["PATH"] = f"{folder / 'bin'}:/usr/bin:/bin"
    return os.execv("/bin/sh", ["sh", "-c", _here(folder, command)])  # exits as the command does


def runner(folder: Path, words: list[str]) -> int:
    """Run `executor_runner`: prints the lines of the real one, to the same streams."""
    _note(folder, ["runner", *words])
    state = _state(folder)
    if words == ["--help"]:
        print("executor_runner: Warning: SetUsageMessage() never called\n")
        print("  Flags from executor_runner.cpp:")
        for name, default in state["flags"].items():
            print(f'    -{name} (What it does.) type: string\n      default: "{default}"')
        return 1
    flags = dict(word.removeprefix("--").split("=") for word in words)
    unknown = [name for name in flags if name not in state["flags"]]
    if unknown:
        print(f"ERROR: unknown command line flag '{unknown[0]}'", file=sys.stderr)
        return 1
    return _execute(folder, state, flags)


def _execute(folder: Path, state: dict[str, Any], flags: dict[str, str]) -> int:
    content, images = Path(flags["model_path"]).read_bytes(), Path(flags["inputs"]).read_bytes()
    with (folder / "runs").open("a") as file:
        settings = f"executions {flags['num_executions']} threads {flags['cpu_threads']}"
        file.write(f"{settings} bytes {len(images)}\n")
    _log(state, "Model file model.pte is loaded.")
    if state["exit_code"]:
        _log(state, "assert failed (method.ok()): Loading of method failed with status 0x20", "F")
        return int(state["exit_code"])
    known = (ms for word, ms in state["ms"].items() if word.encode() in content)
    ms = next(known, 1.0) * state["factor"]
    times = int(flags["num_executions"])
    each = [ms * state["first"], *[ms] * (times - 1)]
    for number, iteration_ms in enumerate(each, start=1):
        _log(state, f"Iteration {number} of {times}: {iteration_ms:f} ms")
    _log(state, f"Model executed successfully {times} time(s) in {sum(each):f} ms.")
    _log(state, "1 outputs: ")
    if "output_file" in flags:
        shutil.copyfile(state["answer"], f"{flags['output_file']}-0.bin")
    return 0


def _log(state: dict[str, Any], text: str, level: str = "I") -> None:
    if not state["is_silent"]:
        print(
            f"{level} 00:00:00.000932 executorch:executor_runner.cpp:779] {text}", file=sys.stderr
        )


def _here(folder: Path, text: str) -> str:
    """Replace the phone's paths in a text by paths of this machine."""
    return text.replace("/data/local/", f"{folder}/data/local/").replace("/sys/", f"{folder}/sys/")


def _state(folder: Path) -> dict[str, Any]:
    file = folder / "state.json"
    state: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return state


def _note(folder: Path, words: list[str]) -> None:
    with (folder / "calls").open("a") as file:
        file.write(json.dumps(words) + "\n")


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def _script(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


if __name__ == "__main__":
    program = {"adb": adb, "runner": runner}[sys.argv[1]]
    sys.exit(program(Path(os.environ["FAKE_PHONE"]), sys.argv[2:]))
