"""Runtimes: compile a module for a target and run it there.

Adding one is a class, a line in `RUNTIMES`, and one each in `BACKENDS`, `PRECISIONS` and `DEVICES`
(cluster/hardware.py). The classes import their libraries late: a driver that only looks a name up
here needs none of them.
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
"""How to get a runtime for a target, by the name that the target gives it."""


def present(target: Target) -> Target:
    """The target as it can be measured from here: with the serial of its phone, or this host in
    place of a phone that is missing, if that is allowed.

    Raises:
        MeasurementError: the phone is not there, and nothing may stand in for it; there are
            several and none is chosen; or there is no runner for it.
    """
    if target.device != "android":
        return target
    from cluster.runtimes.android import attached, choose
    from cluster.runtimes.executor_runner import runner_file

    assert target.phone is not None, "a target on Android has its settings"
    try:
        if not target.may_stand_in or attached():
            serial = choose(target.phone, target.name)
            runner_file(target.phone, target.name)
            return replace(target, phone=replace(target.phone, serial=serial))
    except MeasurementError as error:
        if not target.may_stand_in:
            way_out = f"set targets.{target.name}.stand_in: true to measure this host in its place"
            raise MeasurementError(f"{error}; or {way_out}") from None
        if _has_adb():  # there is a phone, but it cannot be used
            raise
    return target.on_host()


def _has_adb() -> bool:
    return shutil.which("adb") is not None


def runtime_of(target: Target) -> Runtime:
    """The runtime of a target that is measured."""
    return RUNTIMES[target.runtime](target)
