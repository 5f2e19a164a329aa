"""Programs of the fake phone: `adb`, which acts on a folder, and the `executor_runner` on it.

Each call is a process of its own, started by a short script. To start fast, this file imports only
`os` and `sys`, and files hold Python literals.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # that of `typing` costs a third of the start
if TYPE_CHECKING:
    from typing import Any


def adb(folder: str, words: list[str]) -> int:
    """Run `adb` with these arguments; return its exit code."""
    note(folder, words)
    phones = state_of(folder)["phones"]
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
        _copy(source, to)
    except OSError as error:
        print(f"adb: error: failed to copy '{rest[0]}' to '{rest[1]}': {error}", file=sys.stderr)
        return 1
    return 0


def _shell(folder: str, command: str) -> int:
    state = state_of(folder)
    runs = len(lines_of(f"{folder}/runs"))
    if "--num_executions" in command and runs == state["leaves_after"]:
        keep_state(folder, {**state, "phones": {}})
        return 255  # like an unplugged phone: no message, no exit code of the command
    os.environ["PATH"] = f"{folder}/bin:/usr/bin:/bin"
    return os.execv("/bin/sh", ["sh", "-c", _here(folder, command)])  # exits as the command does


def runner(folder: str, words: list[str]) -> int:
    """Run `executor_runner`: prints the lines of the real one, to the same streams."""
    note(folder, ["runner", *words])
    state = state_of(folder)
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


def _execute(folder: str, state: dict[str, Any], flags: dict[str, str]) -> int:
    content, images = _content(flags["model_path"]), _content(flags["inputs"])
    settings = f"executions {flags['num_executions']} threads {flags['cpu_threads']}"
    _append(f"{folder}/runs", f"{settings} bytes {len(images)}")
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
        _copy(state["answer"], f"{flags['output_file']}-0.bin")
    return 0


def _log(state: dict[str, Any], text: str, level: str = "I") -> None:
    if not state["is_silent"]:
        print(
            f"{level} 00:00:00.000932 executorch:executor_runner.cpp:779] {text}", file=sys.stderr
        )


def _here(folder: str, text: str) -> str:
    """Replace the phone's paths in a text by paths of this machine."""
    return text.replace("/data/local/", f"{folder}/data/local/").replace("/sys/", f"{folder}/sys/")


def state_of(folder: str) -> dict[str, Any]:
    """State of the phone, as last kept."""
    state: dict[str, Any] = eval(_content(f"{folder}/state"))
    return state


def keep_state(folder: str, state: dict[str, Any]) -> None:
    """Change the state of the phone."""
    with open(f"{folder}/state", "w", encoding="utf-8") as file:
        file.write(repr(state))


def calls(folder: str) -> list[list[str]]:
    """Arguments of all calls of both programs."""
    return [eval(line) for line in lines_of(f"{folder}/calls")]


def note(folder: str, words: list[str]) -> None:
    """Note a call and its arguments."""
    _append(f"{folder}/calls", repr(words))


def lines_of(path: str) -> list[str]:
    """Lines of a file; none if there is no such file."""
    return _content(path).decode().splitlines() if os.path.exists(path) else []


def _append(path: str, line: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _copy(source: str, to: str) -> None:
    content = _content(source)
    with open(to, "wb") as file:
        file.write(content)


def main() -> None:
    """Run the program that the first argument names."""
    program = {"adb": adb, "runner": runner}[sys.argv[1]]
    sys.exit(program(os.environ["FAKE_PHONE"], sys.argv[2:]))
