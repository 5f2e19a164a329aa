"""The network of a case, with its latency: searched, drawn, named by the job, or the reference.

What a search found is kept in storage, so that a case that is stopped in its retraining is not
searched again. The other networks take no time to find again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from nas_core.architecture import Architecture, Model
from nas_core.baselines.registry import model_from_dict
from orchestration.latency.network import Measured, measure_network
from orchestration.planning.cases import Case
from orchestration.planning.named_models import table_latency_ms
from orchestration.stages.finite import finite
from orchestration.stages.worker import Crew


@dataclass(frozen=True)
class Found:
    """A network with its latency, by the table and measured."""

    model: Model
    table_ms: float | None
    """None for what is no member of the space."""
    measured_ms: float | None
    """None on a target that is not measured; so is the spread."""
    measured_spread: float | None
    tries: list[dict[str, float | None]]
    """Every network that was measured to find this one."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Of the search; empty where there was none."""
    alphas: list[str] = field(default_factory=list)
    """Digest of the architecture parameters that each worker ended with; all equal."""
    search: dict[str, Any] = field(default_factory=dict)
    """What else the search says; goes into the result as it is."""


def tried(table_ms: float | None, measured: Measured | None) -> dict[str, float | None]:
    """One network that was measured, for `Found.tries`."""
    if measured is None:
        return {"table_ms": table_ms, "measured_ms": None, "drift": None}
    return {"table_ms": table_ms, "measured_ms": measured.ms, "drift": measured.drift}


def found_for(crew: Crew, case: Case) -> Found:
    """The network of a case; all workers take part in finding it."""
    if case.kind == "reference":
        return _reference(crew)
    stored = _stored(crew, case)
    crew.team.wait()  # until all have looked, or one would see what another has just written
    if stored is not None:
        return stored
    if case.model is not None:
        found = _measured(crew, model_from_dict(case.model))
    elif case.kind == "random":
        from orchestration.stages.random_search import best_random

        found = best_random(crew, case)
    else:
        from orchestration.stages.derive import derive
        from orchestration.stages.search import search

        found = derive(crew, search(crew))
    _store(crew, case, found)
    return found


def measured_together(crew: Crew, model: Model, budget_ms: float | None = None) -> Measured | None:
    """Latency of a whole network, equal on all workers; None where nothing is measured.

    The first worker measures, the others wait for it; twice where a budget is missed.
    """
    if not crew.target.is_measured:
        return None
    facts = torch.zeros(3, dtype=torch.float64, device=crew.device)
    if crew.team.rank == 0:
        settings = crew.work.job.measure
        found = measure_network(model, crew.table, crew.target, settings, budget_ms)
        facts += facts.new_tensor([found.ms, found.spread, found.drift])
    crew.team.sum([facts])
    return Measured(*facts.tolist())


def _measured(crew: Crew, model: Model) -> Found:
    table_ms = table_latency_ms(model, crew.table)
    measured = measured_together(crew, model)
    tries = [tried(table_ms, measured)]
    if measured is None:
        return Found(model, table_ms, None, None, tries)
    return Found(model, table_ms, measured.ms, measured.spread, tries)


def _reference(crew: Crew) -> Found:
    """The reference network; the measure stage has measured it."""
    table = crew.table
    architecture = Architecture.reference(table.space)
    table_ms = table.latency_ms(architecture)
    if not crew.target.is_measured:
        return Found(architecture, table_ms, None, None, [tried(table_ms, None)])
    assert table.reference_ms is not None, "the measure stage measures the reference network"
    measured = Measured(table.reference_ms, table.reference_spread, 1.0)
    tries = [tried(table_ms, measured)]
    return Found(architecture, table_ms, measured.ms, measured.spread, tries)


def _place(case: Case) -> str:
    return f"{case.folder}/derived.json"


def _store(crew: Crew, case: Case, found: Found) -> None:
    if crew.team.rank == 0:
        values = finite({**vars(found), "model": found.model.to_dict()})
        crew.storage.write_json(_place(case), {"key": case.key, **values})
    crew.team.wait()


def _stored(crew: Crew, case: Case) -> Found | None:
    values = crew.storage.find_json(_place(case))
    if values is None or values.pop("key") != case.key:
        return None
    values["model"] = model_from_dict(values["model"])
    return Found(**values)
