"""Find the network of a case: search, sample or read it, measure it, store it.

The network is stored so that a case that is stopped during retraining does not search again.
"""

from __future__ import annotations

from nas_core.architecture import Architecture, Model
from nas_core.baselines.registry import model_from_dict
from orchestration.config.storage_layout import DERIVED_FILE
from orchestration.latency.network import Measured
from orchestration.planning.case import Case, NamedCase, RandomCase, ReferenceCase
from orchestration.planning.named_models import table_latency_ms
from orchestration.stages.candidate import Candidate, measured_together, tried
from orchestration.stages.context import WorkerContext
from orchestration.stages.network_log import finite


def find_network(context: WorkerContext, case: Case) -> Candidate:
    """The network of a case. Called by all workers."""
    if isinstance(case, ReferenceCase):
        return _reference(context)
    stored = _read(context, case)
    if stored is not None:
        return stored
    if isinstance(case, NamedCase):
        candidate = _measured(context, model_from_dict(case.model))
    elif isinstance(case, RandomCase):
        from orchestration.stages.random_search import best_random

        candidate = best_random(context, case)
    else:
        from orchestration.stages.derive import derive
        from orchestration.stages.search import search

        candidate = derive(context, search(context))
    _write(context, case, candidate)
    return candidate


def _measured(context: WorkerContext, model: Model) -> Candidate:
    table_ms = table_latency_ms(model, context.table)
    measured = measured_together(context, model)
    tries = [tried(table_ms, measured)]
    if measured is None:
        return Candidate(model, table_ms, None, None, tries)
    return Candidate(model, table_ms, measured.ms, measured.spread, tries)


def _reference(context: WorkerContext) -> Candidate:
    """The reference network, with the latency from the measure stage."""
    table = context.table
    architecture = Architecture.reference(table.space)
    table_ms = table.latency_ms(architecture)
    if not context.target.is_measured:
        return Candidate(architecture, table_ms, None, None, [tried(table_ms, None)])
    assert table.reference_ms is not None, "the measure stage measures the reference network"
    measured = Measured(table.reference_ms, table.reference_spread, 1.0)
    tries = [tried(table_ms, measured)]
    return Candidate(architecture, table_ms, measured.ms, measured.spread, tries)


def _path(case: Case) -> str:
    return f"{case.folder}/{DERIVED_FILE}"


def _write(context: WorkerContext, case: Case, candidate: Candidate) -> None:
    if context.group.rank == 0:
        values = finite({**vars(candidate), "model": candidate.model.to_dict()})
        context.storage.write_json(_path(case), {"key": case.key, **values})
    context.group.barrier()


def _read(context: WorkerContext, case: Case) -> Candidate | None:
    values = context.group.broadcast_from_first(lambda: context.storage.find_json(_path(case)))
    if values is None or values.pop("key") != case.key:
        return None
    values["model"] = model_from_dict(values["model"])
    return Candidate(**values)
