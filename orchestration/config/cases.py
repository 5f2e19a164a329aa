"""Entries of `cases:` in a job file: a target and the networks to make for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas_core.settings import Section, require

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Names that are safe for folders in storage."""

FILE_SUFFIX = ".json"

KINDS = {"budgets_ms": "search", "baseline": "baseline", "architecture": "given"}
"""Kind of case that each setting makes. An entry has at most one of these settings."""


@dataclass(frozen=True, kw_only=True)
class CaseSettings(Section):
    """A target and the networks to make for it: searched within budgets, or one that is named.

    An entry of `cases:` in a job file.
    """

    target: str
    """Name of the hardware target to specialize for: a known one, or one from `targets`."""

    budgets_ms: tuple[float | str, ...] | None = None
    """Latency budgets: milliseconds per batch, or a percentage such as "80%" of the reference
    network's latency on the target. Left out, with no baseline or architecture: 60, 80, 100, 125
    and 160 %, clipped to the feasible range."""

    baseline: str | None = None
    """A network from the literature instead of a search, e.g. `mobilenet_v2_0.5`; names are in
    nas_core/baselines/registry.py."""

    architecture: str | None = None
    """A given architecture instead of a search: a JSON file, or a published one, e.g.
    `proxyless_mobile`; names are in nas_core/published/networks.py."""

    def __post_init__(self) -> None:
        is_name = NAME.fullmatch(self.target) is not None and ".." not in self.target
        require(is_name, "target", self.target, "a name of letters, digits, '_', '-' and '.'")
        _check_kinds(self)
        if self.baseline is not None:
            _check_baseline(self.baseline)
        elif self.architecture is not None:
            _check_architecture(self.architecture)
        elif self.budgets_ms is not None:
            _check_budgets(self.budgets_ms)

    @property
    def setting(self) -> str:
        """Name of the setting that says which networks to make."""
        return next((name for name in KINDS if getattr(self, name) is not None), "budgets_ms")

    @property
    def kind(self) -> str:
        """Kind of its cases: "search", "baseline" or "given"."""
        return KINDS[self.setting]

    @property
    def architecture_file(self) -> Path | None:
        """File of the given architecture; None if the entry does not name a file."""
        name = self.architecture
        return Path(name) if name is not None and name.endswith(FILE_SUFFIX) else None

    @property
    def model_name(self) -> str:
        """Second part of the case's name, after the target: name of the network or of its file."""
        file = self.architecture_file
        return file.stem if file is not None else str(self.baseline or self.architecture)

    def wanted(self) -> Iterator[tuple[str, float | str]]:
        """(setting, value) of every network that the entry asks for."""
        for i, budget in enumerate(self.budgets_ms or ()):
            yield f"budgets_ms[{i}]", budget
        if self.budgets_ms is None:
            yield self.setting, getattr(self, self.setting) or "default"


def check_each_once(cases: Sequence[CaseSettings]) -> None:
    """Raise ValueError if two entries ask for the same network on the same target."""
    paths: dict[tuple[str, str, str], str] = {}
    for i, case in enumerate(cases):
        for setting, value in case.wanted():
            path = f"cases[{i}].{setting}"
            first = paths.setdefault((case.target, case.kind, str(value)), path)
            require(first == path, path, value, f"each network once; {first} is the same")


def _check_kinds(case: CaseSettings) -> None:
    present = [name for name in KINDS if getattr(case, name) is not None]
    if len(present) > 1:
        first, extra = present[0], present[-1]
        rule = f"no {extra} beside {first}; make an entry of its own of it"
        require(False, extra, getattr(case, extra), rule)


def _check_baseline(name: str) -> None:
    from nas_core.baselines.registry import check_name

    try:
        check_name(name)
    except ValueError as error:
        raise ValueError(f"baseline: {error}") from None


def _check_architecture(name: str) -> None:
    from nas_core.published import NAMES

    if not name.endswith(FILE_SUFFIX):
        expected = f"a file that ends in {FILE_SUFFIX}, or one of {', '.join(NAMES)}"
        require(name in NAMES, "architecture", name, expected)
        return
    is_name = NAME.fullmatch(Path(name).stem) is not None and ".." not in Path(name).stem
    expected = "a file named with letters, digits, '_', '-' and '.', since it names the case"
    require(is_name, "architecture", name, expected)


def _check_budgets(budgets_ms: tuple[float | str, ...]) -> None:
    require(len(budgets_ms) > 0, "budgets_ms", [], 'at least one, e.g. [0.35] or ["80%"]')
    for i, budget in enumerate(budgets_ms):
        _check_budget(f"budgets_ms[{i}]", budget)
    twice = [budget for budget in budgets_ms if budgets_ms.count(budget) > 1]
    require(not twice, "budgets_ms", list(budgets_ms), "each budget once")


def _check_budget(path: str, budget: float | str) -> None:
    if isinstance(budget, str):
        number = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", budget.strip())
        is_percent = number is not None and float(number[1]) > 0
        require(is_percent, path, budget, 'milliseconds, e.g. 5.1, or a percentage, e.g. "80%"')
    else:
        require(budget > 0, path, budget, "milliseconds greater than 0, e.g. 5.1")
