"""Runtimes: compile a module for a target and run it there.

To add a runtime, write a class, add a line to `RUNTIMES` and one each to `BACKENDS`, `PRECISIONS`
and `DEVICES` (cluster/hardware.py). The classes import their libraries when used, so that a driver
that only looks up a name needs none of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.runtimes.base import MeasurementError, Runtime

if TYPE_CHECKING:
    from cluster.hardware import Target


def _executorch(target: Target) -> Runtime:
    if target.device == "android":
        from cluster.runtimes.android import AndroidExecuTorch

        return AndroidExecuTorch(target)
    from cluster.runtimes.executorch import ExecuTorch

    return ExecuTorch(target)


def _onnxruntime(target: Target) -> Runtime:
    from cluster.runtimes.onnxruntime import OnnxRuntime

    return OnnxRuntime(target)


def _torch(target: Target) -> Runtime:
    from cluster.runtimes.torch_cpu import TorchCpu

    return TorchCpu(target)


def _torch_cuda(target: Target) -> Runtime:
    from cluster.runtimes.torch_cuda import TorchCuda

    return TorchCuda(target)


RUNTIMES: dict[str, Callable[[Target], Runtime]] = {
    "executorch": _executorch,
    "onnxruntime": _onnxruntime,
    "torch": _torch,
    "torch_cuda": _torch_cuda,
}
"""Constructors of runtimes, by the name used in targets."""


def present(target: Target) -> Target:
    """The target as it can be measured from this machine.

    A phone gets its serial number. If it is missing and `may_stand_in` is set, this host takes its
    place.

    Raises:
        MeasurementError: the phone is missing and may not be replaced, there are several and none
            is chosen, or there is no runner for it.
    """
    if target.device != "android":
        return target
    from cluster.runtimes.android import attached, choose
    from cluster.runtimes.executor_runner import runner_file

    assert target.phone is not None, "a target on Android has settings of its phone"
    try:
        if not target.may_stand_in or attached():
            serial = choose(target.phone, target.name)
            runner_file(target.phone, target.name)
            return replace(target, phone=replace(target.phone, serial=serial))
    except MeasurementError as error:
        if not target.may_stand_in:
            way_out = f"set targets.{target.name}.stand_in: true to measure this host in its place"
            raise MeasurementError(f"{error}; or {way_out}") from None
        if _has_adb():  # there may be a phone that cannot be used
            raise
    return target.on_host()


def _has_adb() -> bool:
    return shutil.which("adb") is not None


def runtime_of(target: Target) -> Runtime:
    """The runtime of a measured target."""
    return RUNTIMES[target.runtime](target)
