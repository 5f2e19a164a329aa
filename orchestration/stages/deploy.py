"""The program that goes on the device: loaded back, compared with the network, and measured."""

from __future__ import annotations

from typing import Any

from cluster.runtimes import MeasurementError
from orchestration.latency.device import node_of
from orchestration.latency.network import measure_program
from orchestration.programs.compile_workers import Exported
from orchestration.programs.timing_workers import answered
from orchestration.stages.worker import Crew

LARGEST_ERROR = 1e-3
"""Of any logit, in fp32."""


def checked_program(
    crew: Crew, exported: Exported, budget_ms: float | None = None
) -> dict[str, Any]:
    """Facts of the program of a trained network, for its result; none where nothing is measured.

    Raises:
        MeasurementError: in fp32 it answers otherwise than the network.
    """
    if exported.program is None:
        return {}
    target = crew.target
    node = node_of(crew.table, target)
    answers = answered(exported.program, exported.images, target, node)
    error = float((answers - exported.answers).abs().max())
    if target.precision == "fp32" and not error < LARGEST_ERROR:
        raise MeasurementError(
            f"the program for {target.hardware()} differs from the network by {error:.2g}; "
            f"expected less than {LARGEST_ERROR:g}: leave out the ops that {target.runtime} gets "
            "wrong, or report it there"
        )
    measured = measure_program(
        exported.program, crew.table, target, crew.work.job.measure, budget_ms
    )
    return {
        "program_error": error,
        "measured_ms": measured.ms,
        "measured_spread": measured.spread,
        "measured_drift": measured.drift,
    }
