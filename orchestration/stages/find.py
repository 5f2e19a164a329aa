"""Find the network of a case: search, draw or read it, measure it, keep it in storage.

A search result is kept, so that a case that is stopped while retraining does not search again. The
other networks take no time to find again.
"""

from __future__ import annotations

from nas_core.architecture import Architecture, Model
from nas_core.baselines.registry import model_from_dict
from orchestration.latency.network import Measured
from orchestration.planning.cases import Case
from orchestration.planning.named_models import table_latency_ms
from orchestration.stages.candidate import Found, measured_together, tried
from orchestration.stages.context import Crew
from orchestration.stages.network_log import finite


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
