"""`executor_runner`, ExecuTorch's program that runs and times a `.pte` file on a phone.

Build it once, with Android's NDK, from the sources of the ExecuTorch version that compiles:

    cmake --preset android-arm64-v8a -B build -DEXECUTORCH_BUILD_EXECUTOR_RUNNER=ON \\
        -DCMAKE_TOOLCHAIN_FILE=$ANDROID_NDK/build/cmake/android.toolchain.cmake \\
        -DEXECUTORCH_BUILD_EXTENSION_EVALUE_UTIL=ON -DEXECUTORCH_PAL_DEFAULT=posix
    cmake --build build --target executor_runner

The preset includes XNNPACK and enables log messages. The default PAL of the preset would send them
to Android's log, which drops lines.

Source: examples/portable/executor_runner/executor_runner.cpp of ExecuTorch 1.4 and 1.5.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

from cluster.hardware import Phone
from cluster.runtimes.adb import FOLDER, Adb, Answer
from cluster.runtimes.base import MeasurementError, ProgramError

FLAGS = ("cpu_threads", "inputs", "model_path", "num_executions", "print_output")
"""Flags that the runner must support. `print_output` came with times of single executions."""

WHAT_IT_IS = (
    "ExecuTorch's `executor_runner`, built for Android with XNNPACK and "
    "-DEXECUTORCH_PAL_DEFAULT=posix, see cluster/runtimes/executor_runner.py"
)

WARM_UP = 10
"""Uncounted executions; the first one takes up to 15 times as long as the others."""

ITERATION = re.compile(r"Iteration (\d+) of \d+: ([\d.]+) ms")
TOTAL = re.compile(r"executed successfully (\d+) time\(s\) in ([\d.]+) ms")
"""Lines printed after every execution, and after all. Neither time includes loading the program."""


def runner_file(phone: Phone, target: str = "mobile") -> Path:
    """Path of the runner on this machine.

    Raises:
        MeasurementError: the setting is missing, or is not a file.
    """
    setting = f"targets.{target}.phone.runner"
    if phone.runner is None:
        raise MeasurementError(f"{setting} is not set; expected the path of {WHAT_IT_IS}")
    file = Path(phone.runner).expanduser()
    if not file.is_file():
        raise MeasurementError(
            f"{setting} is {phone.runner!r}, which is no file on this machine; "
            f"expected {WHAT_IT_IS}"
        )
    return file


class Runner:
    """The runner on a phone, pinned to cores."""

    def __init__(self, adb: Adb, file: Path, threads: int, mask: str = "") -> None:
        """Send the runner to the phone and query its flags.

        Args:
            adb: the phone.
            file: the runner.
            threads: threads that one execution may use.
            mask: cores to run on, as a hexadecimal mask; empty: any.

        Raises:
            MeasurementError: it does not run on the phone, or lacks a required flag.
        """
        self.adb = adb
        name = adb.send(file.read_bytes(), "-runner")
        self._command = f"{f'taskset {mask} ' if mask else ''}./{name}"
        self._threads = threads
        self.flags = self._known_flags(name)

    def _known_flags(self, name: str) -> frozenset[str]:
        answer = self.adb.shell(f"cd {FOLDER} && ./{name} --help 2>&1")
        flags = frozenset(re.findall(r"^\s+-(\w+) \(", answer.output, re.MULTILINE))
        if not flags:
            raise MeasurementError(
                f"the runner does not start on phone {self.adb.serial} ({_exit_text(answer)}); "
                f"expected {WHAT_IT_IS}"
            )
        missing = ", ".join(f"--{flag}" for flag in FLAGS if flag not in flags)
        if missing:
            raise MeasurementError(f"the runner does not know {missing}; expected {WHAT_IT_IS}")
        return flags

    def run(self, program: str, images: str, times: int, output: str = "") -> str:
        """Execute a program `times` times in one process.

        Args:
            program: name of the `.pte` file on the phone.
            images: name of the file with its input.
            times: number of executions, at least 1.
            output: prefix of the name of the output file; empty: no output.

        Returns:
            Lines printed by the runner: those of the first `WARM_UP` executions, and the last ones.

        Raises:
            ProgramError: it crashed.
            MeasurementError: the phone was disconnected.
        """
        arguments = [
            f"{self._command} --model_path={program} --inputs={images}",
            f"--num_executions={times} --cpu_threads={self._threads} --print_output=none",
            f"--output_file={output}" if output else "",
        ]
        # Messages go to a file: sending each to this machine would disturb the next execution.
        answer = self.adb.shell(
            f"cd {FOLDER} && {' '.join(arguments)} >run.log 2>&1; code=$?; "
            f"grep Iteration run.log | head -n {WARM_UP}; tail -n 20 run.log; exit $code"
        )
        if answer.exit_code:
            raise ProgramError(
                f"the program crashed on phone {self.adb.serial} with {_exit_text(answer)}; "
                "see that the runner is of the ExecuTorch that compiles, and has XNNPACK"
            )
        return answer.output


def timed_ms(printed: str, times: int) -> float:
    """Milliseconds of `times` executions, without the `WARM_UP` executions before them.

    Raises:
        MeasurementError: the output of the runner does not contain them.
    """
    total = TOTAL.search(printed)
    ms_by_number = {int(number): float(ms) for number, ms in ITERATION.findall(printed)}
    first = [ms_by_number[number] for number in range(1, WARM_UP + 1) if number in ms_by_number]
    if total is None or int(total[1]) != WARM_UP + times or len(first) < WARM_UP:
        raise MeasurementError(
            f"the runner printed no timing of {WARM_UP + times} executions "
            f"({_last_lines(printed)}); expected {WHAT_IT_IS}"
        )
    return float(total[2]) - sum(first)


def _exit_text(answer: Answer) -> str:
    """One-line description of how a command ended."""
    code = answer.exit_code
    is_signal = code - 128 in set(signal.Signals)
    name = f" ({signal.Signals(code - 128).name})" if is_signal else ""
    return f"exit code {code}{name}, {_last_lines(answer.output)}"


def _last_lines(printed: str) -> str:
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return f"last lines: {' | '.join(lines[-3:]) or 'none'}"
