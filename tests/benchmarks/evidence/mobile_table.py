"""Networks of the poster's first table, built at 224 pixels and measured here in one run.

Accuracies and Pixel 1 latencies in the table are the published ones: nothing is trained on ImageNet
here. Latency is that of the whole network at batch 1 on one thread, less that of an empty call.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY))

from cluster.hardware import Target
from cluster.runtimes import present
from nas_core.architecture import Architecture, Model
from nas_core.baselines.registry import Baseline
from nas_core.published import PUBLISHED, architecture
from nas_core.settings import MeasureSettings
from nas_core.space import proxyless_imagenet
from orchestration.config.targets import TargetSettings, resolve
from orchestration.latency.table_store import SHIPPED
from tests.benchmarks.evidence.poster import MOBILE_TABLE

Row = dict[str, Any]
TARGETS = {"cpu": TargetSettings(), "mobile": TargetSettings(stand_in=True)}
CELLS = ("nasnet_a", "amoebanet_a")
"""Networks built from cells, which take minutes to compile."""


def model_of(name: str) -> Model:
    """A published specialized network, or a baseline from the literature."""
    return architecture(name) if name in PUBLISHED else Baseline(name)


def measured_together(target: Target, models: Sequence[Model]) -> list[float]:
    """Latencies of whole networks in milliseconds, interleaved in one run."""
    from cluster.connect import connect
    from cluster.placement import cores_reserved, node_for, nodes
    from orchestration.latency.calibrate import timed_networks
    from orchestration.latency.measurement_setup import MeasurementSetup
    from orchestration.programs.compile_workers import compile_workers_running, lower

    space = proxyless_imagenet()
    with connect():
        node = node_for(target, nodes())
        with compile_workers_running([node]), cores_reserved(node, print):
            programs = lower(space, target, [*models, None])
            bench = MeasurementSetup(space, target, MeasureSettings(), node)
            *timings, empty = timed_networks(bench, programs)
    return [timing.without(empty.median_ms).median_ms for timing in timings]


def table(*, with_cells: bool) -> list[Row]:
    """A row per network of the poster; the latency is None if it was not measured."""
    names = [item.model for item in MOBILE_TABLE if item.model is not None]
    names = [name for name in dict.fromkeys(names) if with_cells or name not in CELLS]
    models = [model_of(name) for name in names]
    result: dict[str, dict[str, float]] = {}
    for name, settings in TARGETS.items():
        target = present(resolve(name, {name: settings}))
        result[target.hardware()] = dict(zip(names, measured_together(target, models), strict=True))
    return [
        {
            "what": item.title,
            "published top1": item.top1,
            "published pixel1 ms": item.pixel1_ms,
            "published search, GPU hours": item.gpu_hours,
            "params": model_of(item.model).num_params() if item.model else None,
            "macs": model_of(item.model).macs() if item.model else None,
            "ms": {where: ms.get(item.model or "") for where, ms in result.items()},
        }
        for item in MOBILE_TABLE
    ]


def on_pixel1() -> Row:
    """Latency of Proxyless-Mobile by the Pixel 1 latency model shipped with the project."""
    network = architecture("proxyless_mobile")
    assert isinstance(network, Architecture)
    return {
        "what": "Proxyless-Mobile by the table of a Pixel 1, ms",
        "ms": round(SHIPPED["pixel1"](network.space).latency_ms(network), 1),
        "published": 78,
    }
