"""ExecuTorch with XNNPACK on the cores of an Android phone.

Programs are compiled on the host, as for the host, and executed on the phone by ExecuTorch's
`executor_runner`. Every sample is a separate process there; its start, loading the program and
warm-up executions are not counted.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cluster.hardware import Phone
from cluster.runtimes.adb import Adb, attached, choose
from cluster.runtimes.base import MeasurementError
from cluster.runtimes.executor_runner import WARM_UP, Runner, runner_file, timed_ms
from cluster.runtimes.executorch import ExecuTorch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cluster.hardware import Target

__all__ = ["AndroidExecuTorch", "attached", "choose"]

MAX_KHZ = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq"
PROPERTIES = (
    "ro.product.model",
    "ro.build.version.release",
    "ro.soc.model",
    "ro.board.platform",
)
"""Properties with model, Android version and SoC; older phones only have the last for the SoC."""


class AndroidExecuTorch:
    """XNNPACK programs, timed on a phone. The phone is looked up when it is first used."""

    name = "executorch"
    file_name = "model.pte"

    def __init__(self, target: Target, sleep: Callable[[float], None] = time.sleep) -> None:
        self._target = target
        self._phone = target.phone or Phone()
        self._host = ExecuTorch(target)
        self._sleep = sleep

    def version(self) -> str:
        return self._host.version()

    def compile(self, module: nn.Module, example: Tensor) -> bytes:
        """A `.pte` program, the same as for the host."""
        return self._host.compile(module, example)

    def load(self, program: bytes) -> PhoneProgram:
        """Send the program to the phone.

        Raises:
            MeasurementError: it is not a `.pte` program, or no phone can run it.
        """
        if program[4:6] != b"ET":
            raise MeasurementError("this is no program of ExecuTorch's; compile it again")
        name = self._runner.adb.send(program, ".pte")
        return PhoneProgram(self._runner, self._host, program, name)

    def run_ms(self, call: Callable[[], object], times: int) -> float:
        """Milliseconds by the phone's clock, in one process, after warm-up executions."""
        assert isinstance(call, PhoneCall), "a phone times its own programs only"
        return timed_ms(call.run(WARM_UP + times), times)

    def rest(self) -> None:
        """Let the phone cool down."""
        self._sleep(self._phone.cool_down_s)

    def facts(self) -> Mapping[str, str | int | float]:
        """Model, Android version, SoC, core frequencies, pinned cores and battery temperature."""
        queries = "; ".join(f"getprop {name}" for name in PROPERTIES)
        printed = self._adb.shell(f"{queries}; dumpsys battery").output
        model, android, soc, platform, *battery = printed.splitlines()
        tenths = re.search(r"^\s*temperature: (\d+)", "\n".join(battery), re.MULTILINE)
        return {
            "phone": model,
            "android": android,
            "soc": soc or platform,
            "core_ghz": _counted(self._max_khz),
            "pinned_cores": ",".join(map(str, self._pinned)) or "none",
            **({"battery_c": int(tenths[1]) / 10} if tenths else {}),
        }

    @cached_property
    def _adb(self) -> Adb:
        return Adb(choose(self._phone, self._target.name))

    @cached_property
    def _max_khz(self) -> dict[int, int]:
        """Maximum frequency of each core."""
        printed = self._adb.shell(f"grep -H . {MAX_KHZ}").output
        return {int(core): int(khz) for core, khz in re.findall(r"/cpu(\d+)/.*:(\d+)", printed)}

    @cached_property
    def _pinned(self) -> list[int]:
        """Cores that the runner is pinned to; empty if it is not pinned."""
        setting = f"targets.{self._target.name}.phone.cores"
        pinned = pinned_cores(self._max_khz, self._phone.cores)
        if self._phone.cores != "any" and not pinned:
            raise MeasurementError(
                f"{setting} is '{self._phone.cores}', but phone {self._adb.serial} does not tell "
                f"the frequencies of its cores; set {setting} to any"
            )
        if pinned and self._target.threads > len(pinned):
            raise MeasurementError(
                f"targets.{self._target.name}.threads is {self._target.threads}, but phone "
                f"{self._adb.serial} has {len(pinned)} {self._phone.cores} cores; lower it, "
                f"or set {setting} to any"
            )
        return pinned

    @cached_property
    def _runner(self) -> Runner:
        file = runner_file(self._phone, self._target.name)
        return Runner(self._adb, file, self._target.threads, core_mask(self._pinned))


@dataclass(frozen=True)
class PhoneProgram:
    """A `.pte` program on the phone."""

    runner: Runner
    host: ExecuTorch
    data: bytes
    name: str
    """File name on the phone."""

    def __call__(self, images: Tensor) -> Tensor:
        """Output of the phone, with the shape of the output that this host computes.

        Raises:
            MeasurementError: the runner cannot write outputs, or its output has another size.
        """
        import torch

        if "output_file" not in self.runner.flags:
            raise MeasurementError(
                "the runner does not know --output_file, so that it times programs but does not "
                "tell their answers; build it from ExecuTorch 1.5"
            )
        reference = self.host.load(self.data)(images)
        self.prepared(images).run(1, output="answer")
        answer = bytearray(self.runner.adb.fetch("answer-0.bin"))
        if len(answer) != reference.nbytes:
            raise MeasurementError(
                f"the phone answers {len(answer)} bytes, this host {reference.nbytes}; "
                "build the runner from the ExecuTorch that compiles"
            )
        return torch.frombuffer(answer, dtype=reference.dtype).as_strided(
            reference.shape, reference.stride()
        )

    def prepared(self, images: Tensor) -> PhoneCall:
        """Send `images` to the phone and return a call of the program on them."""
        data = images.detach().cpu().contiguous().numpy().tobytes()
        return PhoneCall(self.runner, self.name, self.runner.adb.send(data, ".bin"))


@dataclass(frozen=True)
class PhoneCall:
    """A program and its input on the phone."""

    runner: Runner
    program: str
    images: str

    def __call__(self) -> None:
        """Execute once."""
        self.run(1)

    def run(self, times: int, output: str = "") -> str:
        """Execute in a separate process and return its output; see `Runner.run`."""
        return self.runner.run(self.program, self.images, times, output)


def pinned_cores(max_khz: Mapping[int, int], cores: str) -> list[int]:
    """Cores with the highest ("big") or lowest ("little") maximum frequency; none for "any"."""
    if cores == "any" or not max_khz:
        return []
    khz = max(max_khz.values()) if cores == "big" else min(max_khz.values())
    return sorted(core for core, maximum in max_khz.items() if maximum == khz)


def core_mask(cores: Sequence[int]) -> str:
    """Cores as a hexadecimal mask for toybox's taskset, without `0x`; empty for no cores."""
    return f"{sum(1 << core for core in cores):x}" if cores else ""


def _counted(max_khz: Mapping[int, int]) -> str:
    counts = sorted(Counter(max_khz.values()).items())
    return ", ".join(f"{count} x {khz / 1e6:.2f}" for khz, count in counts) or "unknown"
