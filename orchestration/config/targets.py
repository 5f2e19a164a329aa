"""The `targets:` section of a job file: new targets, and changes to built-in ones.

targets:
  my_server: {runtime: onnxruntime, threads: 4, batch: 16, resources: {node_label: {zone: a}}}
  mobile: {stand_in: true, phone: {serial: 1A2B3C, runner: ~/executor_runner}}
  my_phone: {table: my_phone.csv}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from cluster.hardware import BACKENDS, DEVICES, PRECISIONS, TABLE, TARGETS, Phone, Target
from cluster.placement import ACCELERATOR_LABEL
from nas_core.settings import Section, require

RUNTIME_NAMES = tuple(name for name in BACKENDS if name != TABLE)
NODE_LABEL, ACCELERATOR_TYPE = "node_label", "accelerator_type"


@dataclass(frozen=True, kw_only=True)
class PhoneSettings(Section):
    """An Android phone; see `cluster.hardware.Phone`."""

    serial: str | None = None
    """Serial number of the phone, as `adb devices` shows it, if several are attached."""

    runner: str | None = None
    """Path on this machine of ExecuTorch's `executor_runner`, built for Android with XNNPACK."""

    cores: Literal["big", "little", "any"] = "big"
    """Cores that the measurement is pinned to. `any`: not pinned."""

    cool_down_s: float = 2.0
    """Pause between two rounds of samples, seconds."""

    def __post_init__(self) -> None:
        require(self.cool_down_s >= 0, "cool_down_s", self.cool_down_s, "seconds, 0 or more")

    def build(self) -> Phone:
        """The phone as the runtime expects it."""
        runner = None if self.runner is None else str(Path(self.runner).expanduser())
        return Phone(
            serial=self.serial, runner=runner, cores=self.cores, cool_down_s=self.cool_down_s
        )


@dataclass(frozen=True, kw_only=True)
class TargetSettings(Section):
    """One target. Settings that are left out come from the built-in target of the same name."""

    runtime: str | None = None
    """`onnxruntime`, `torch`, `torch_cuda` or `executorch`."""

    device: str | None = None
    """`cpu`, `cuda` or `android`. Left out: that of the built-in target, else the default of the
    runtime."""

    batch: int | None = None
    """Images per call."""

    threads: int | None = None
    """Threads per call."""

    precision: str | None = None
    """`fp32`; on a GPU also `fp16` or `bf16`."""

    resources: dict[str, float | str | dict[str, str]] = field(default_factory=dict)
    """Ray resources of the node to measure on, e.g. {GPU: 1}. `node_label` selects a node by its
    labels, e.g. {node_label: {zone: a}}; `accelerator_type` by Ray's name of its GPU, e.g. H100."""

    stand_in: bool | None = None
    """Whether to measure a host instead if no phone is attached."""

    phone: PhoneSettings | None = None
    """Phone to measure if `device` is `android`, and how to measure it."""

    table: str | None = None
    """File with measured latencies (CSV, YAML or JSON). If given, nothing is measured."""

    def __post_init__(self) -> None:
        if self.runtime is not None:
            require(
                self.runtime in RUNTIME_NAMES,
                "runtime",
                self.runtime,
                f"one of {', '.join(RUNTIME_NAMES)}",
            )
        for name in ("batch", "threads"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "a whole number of 1 or more")
        require(
            self.precision != "int8",
            "precision",
            self.precision,
            "fp32, fp16 or bf16: int8 is not supported, since no quantized export is measured and "
            "its accuracy reported yet",
        )
        for name, value in self.resources.items():
            _check_resource(name, value)
        beside = [f.name for f in fields(self) if f.name != "table" and getattr(self, f.name)]
        is_alone = self.table is None or not beside
        require(is_alone, "table", self.table, "nothing beside it: a table is not measured")

    def build(self, name: str) -> Target:
        """The target of that name.

        Raises:
            ValueError: a setting is missing, or two settings contradict each other.
        """
        if self.table is not None:
            return Target(name=name, runtime=TABLE, table=str(Path(self.table).expanduser()))
        known = TARGETS.get(name)
        if known is None or not known.is_measured:
            require(
                self.runtime is not None,
                "runtime",
                None,
                f"one of {', '.join(RUNTIME_NAMES)}, or a table, since {name!r} is a new target",
            )
            known = Target(name=name, runtime=str(self.runtime))
        runtime = self.runtime or known.runtime
        if runtime != known.runtime:
            known = Target(name=name, runtime=runtime)
        target = replace(known, **self._fields(known))
        _check_together(target)
        return target

    def _fields(self, known: Target) -> dict[str, Any]:
        """Fields of the target: those set in this section, else those of the built-in target."""
        runtime = self.runtime or known.runtime
        is_same = runtime == TARGETS.get(known.name, known).runtime and known.device != "cpu"
        device = self.device or (known.device if is_same else DEVICES[runtime][0])
        amounts = {n: v for n, v in self.resources.items() if isinstance(v, int | float)}
        labels = self.resources.get(NODE_LABEL, {})
        assert isinstance(labels, dict), "checked at construction"
        if ACCELERATOR_TYPE in self.resources:
            labels = {**labels, ACCELERATOR_LABEL: str(self.resources[ACCELERATOR_TYPE])}
        return {
            "runtime": runtime,
            "device": device,
            "batch_size": self.batch or known.batch_size,
            "threads": self.threads or known.threads,
            "precision": self.precision or known.precision,
            "resources": amounts or known.resources,
            "labels": labels or known.labels,
            "may_stand_in": known.may_stand_in if self.stand_in is None else self.stand_in,
            "phone": self._phone(known, device),
        }

    def _phone(self, known: Target, device: str) -> Phone | None:
        if self.phone is not None:
            return self.phone.build()
        return known.phone or Phone() if device == "android" else None


def _check_resource(name: str, value: float | str | dict[str, str]) -> None:
    if name == NODE_LABEL:
        is_right, expected = isinstance(value, dict), "labels, e.g. {zone: a}"
    elif name == ACCELERATOR_TYPE:
        is_right, expected = isinstance(value, str), "a name that Ray knows, e.g. H100"
    else:
        is_right, expected = isinstance(value, int | float) and value > 0, "an amount above 0"
    require(is_right, f"resources.{name}", value, expected)


def _check_together(target: Target) -> None:
    for name, choices in (("device", DEVICES), ("precision", PRECISIONS)):
        allowed = choices[target.runtime]
        value = getattr(target, name)
        rule = f"one of {', '.join(allowed)} with runtime {target.runtime}"
        require(value in allowed, name, value, rule)
    is_phone = target.device == "android"
    require(
        is_phone or target.phone is None, "phone", target.phone, "nothing unless device is android"
    )


def resolve(name: str, settings: Mapping[str, TargetSettings]) -> Target:
    """The target of this name: from the job's `targets:` section, else the built-in one.

    Raises:
        ValueError: there is no such target, or its settings are wrong.
    """
    if name in settings:
        return settings[name].build(name)
    names = dict.fromkeys([*TARGETS, *settings])
    require(name in TARGETS, "target", name, f"one of {', '.join(names)}, or one under targets")
    return TARGETS[name]
