"""`executor_runner`: the program of ExecuTorch's that runs a `.pte` on a phone and times it.

It is built once, with Android's NDK, from the sources of the version that compiles:

    cmake --preset android-arm64-v8a -B build -DEXECUTORCH_BUILD_EXECUTOR_RUNNER=ON \\
        -DCMAKE_TOOLCHAIN_FILE=$ANDROID_NDK/build/cmake/android.toolchain.cmake \\
        -DEXECUTORCH_BUILD_EXTENSION_EVALUE_UTIL=ON -DEXECUTORCH_PAL_DEFAULT=posix
    cmake --build build --target executor_runner

The preset brings XNNPACK and switches messages on. Its own choice of PAL would send them to
Android's log, which drops lines.

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
"""What it must take. The last came together with the times of single executions."""

WHAT_IT_IS = (
    "ExecuTorch's `executor_runner`, built for Android with XNNPACK and "
    "-DEXECUTORCH_PAL_DEFAULT=posix, see cluster/runtimes/executor_runner.py"
)

WARM_UP = 10
"""Executions before those that count: the first takes up to 15 times as long as the others."""

ITERATION = re.compile(r"Iteration (\d+) of \d+: ([\d.]+) ms")
TOTAL = re.compile(r"executed successfully (\d+) time\(s\) in ([\d.]+) ms")
"""What it prints after every execution, and after all. Loading the program is in neither."""


def runner_file(phone: Phone, target: str = "mobile") -> Path:
    """Where the program lies on this machine.

    Raises:
        MeasurementError: the setting is missing, or names no file.
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
    """The program on a phone, pinned to cores."""

    def __init__(self, adb: Adb, file: Path, threads: int, mask: str = "") -> None:
        """Sends the program to the phone and asks for its flags.

        Args:
            adb: the phone.
            file: the program.
            threads: threads that one execution may use.
            mask: cores to run on, as a hexadecimal number; any where empty.

        Raises:
            MeasurementError: it does not run on the phone, or does not take what is needed.
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
                f"the runner does not start on phone {self.adb.serial} ({_end(answer)}); "
                f"expected {WHAT_IT_IS}"
            )
        missing = ", ".join(f"--{flag}" for flag in FLAGS if flag not in flags)
        if missing:
            raise MeasurementError(f"the runner does not know {missing}; expected {WHAT_IT_IS}")
        return flags

    def run(self, program: str, images: str, times: int, output: str = "") -> str:
        """Executes a program `times` times in one process.

        Args:
            program: name of the `.pte` on the phone.
            images: name of the file with its input.
            times: executions, at least 1.
            output: beginning of the name of the file for its output; none where empty.

        Returns:
            Lines that the runner printed: those of the first `WARM_UP` executions, and the last.

        Raises:
            ProgramError: it crashed.
            MeasurementError: the phone went away.
        """
        words = [
            f"{self._command} --model_path={program} --inputs={images}",
            f"--num_executions={times} --cpu_threads={self._threads} --print_output=none",
            f"--output_file={output}" if output else "",
        ]
        # Its messages go to a file: sending each to this machine would disturb the next execution.
        answer = self.adb.shell(
            f"cd {FOLDER} && {' '.join(words)} >run.log 2>&1; code=$?; "
            f"grep Iteration run.log | head -n {WARM_UP}; tail -n 20 run.log; exit $code"
        )
        if answer.exit_code:
            raise ProgramError(
                f"the program crashed on phone {self.adb.serial} with {_end(answer)}; "
                "see that the runner is of the ExecuTorch that compiles, and has XNNPACK"
            )
        return answer.output


def timed_ms(printed: str, times: int) -> float:
    """Milliseconds of the executions after the first `WARM_UP`, of which there were `times`.

    Raises:
        MeasurementError: they are not in what the runner printed.
    """
    total = TOTAL.search(printed)
    of = {int(number): float(ms) for number, ms in ITERATION.findall(printed)}
    first = [of[number] for number in range(1, WARM_UP + 1) if number in of]
    if total is None or int(total[1]) != WARM_UP + times or len(first) < WARM_UP:
        raise MeasurementError(
            f"the runner printed no timing of {WARM_UP + times} executions "
            f"({_last_lines(printed)}); expected {WHAT_IT_IS}"
        )
    return float(total[2]) - sum(first)


def _end(answer: Answer) -> str:
    """How a command ended, in one line."""
    code = answer.exit_code
    known = code - 128 in set(signal.Signals)
    name = f" ({signal.Signals(code - 128).name})" if known else ""
    return f"exit code {code}{name}, {_last_lines(answer.output)}"


def _last_lines(printed: str) -> str:
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return f"last lines: {' | '.join(lines[-3:]) or 'none'}"
