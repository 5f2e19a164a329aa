"""A synthetic folder of a finished job, for tests that record and compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster.storage import Storage
from nas_core.architecture import Architecture
from nas_core.baselines.registry import for_space
from nas_core.latency import LatencyEntry, LatencyTable, op_signatures
from nas_core.space import SearchSpace, proxyless_small
from orchestration.config.storage_layout import EXAMPLE_FILE, MODEL_FACTS_FILE, PROGRAM_FILE
from orchestration.programs.export import ModelFacts

HARDWARE = "mobile on host x86-64 (XNNPACK)"
SPACE = proxyless_small(resolution=8)
OPS = ("mbconv_k3_e3", "mbconv_k5_e3", "mbconv_k3_e6", "skip", "mbconv_k7_e3", "mbconv_k3_e3")
START = 1_795_382_000.0
"""Start of the first search, seconds since 1970."""


def latency_table(space: SearchSpace = SPACE) -> LatencyTable:
    """A table in which larger kernels and expansions take longer."""
    rows = [
        LatencyEntry(
            part=part, median_ms=0.004 + 0.001 * n, p10_ms=0.0, p90_ms=0.1, spread=0.01, count=20
        )
        for n, part in enumerate(op_signatures(space))
    ]
    return LatencyTable(
        target="mobile",
        hardware=HARDWARE,
        runtime="executorch",
        runtime_version="1.5.1",
        space=space,
        rows=tuple(rows),
    )


def save_small_network(folder: Path) -> Path:
    """Export an untrained network for ten digits to a folder; always the same one."""
    import torch

    from orchestration.programs.export import save_model

    torch.manual_seed(0)
    network = Architecture(SPACE, OPS)
    folder.mkdir(exist_ok=True)
    save_model(network.build(), torch.randn(4, 1, 8, 8), model_facts(), folder)
    return folder


def write_model_files(folder: Path) -> Path:
    """Write files as `save_small_network` does, with a program that cannot run."""
    images = [[[[0.5] * 8] * 8]] * 4
    (folder / PROGRAM_FILE).write_bytes(b"a program")
    (folder / MODEL_FACTS_FILE).write_text(json.dumps(model_facts().to_dict()))
    (folder / EXAMPLE_FILE).write_text(json.dumps({"images": images}))
    return folder


def model_facts() -> ModelFacts:
    return ModelFacts(
        classes=tuple("0123456789"),
        input_shape=(1, 8, 8),
        mean=(0.3,),
        std=(0.4,),
        architecture=Architecture(SPACE, OPS).to_dict(),
    )


def baseline_result(name: str, **changes: Any) -> dict[str, Any]:
    """Result of a baseline: no search, no table latency."""
    model = for_space(name, SPACE)
    facts = {
        "kind": "baseline",
        "budget": None,
        "budget_ms": None,
        "strategy": None,
        "objective": None,
        "space": None,
        "architecture": model.to_dict(),
        "architecture_hash": model.digest(),
        "table_ms": None,
        "measured_ms": 0.52,
        "total_stride": model.total_stride,
        "search_s": 0.0,
        "search_history": [],
    }
    return result(f"mobile-{name}", **(facts | changes))


def pixel1_result(case: str, **changes: Any) -> dict[str, Any]:
    """Result on a target that is not measured."""
    facts = {"target": "pixel1", "hardware": "pixel1 (published)", "stand_in": False}
    unmeasured = {"measured_ms": None, "measured_spread": None}
    return result(case, **(facts | unmeasured | changes))


def result(case: str, **changes: Any) -> dict[str, Any]:
    """Result of a search, or of the reference if `case` ends with "reference".

    It has the format of earlier versions.
    """
    is_reference = case.endswith("reference")
    network = Architecture.reference(SPACE) if is_reference else Architecture(SPACE, OPS)
    searched = [
        {"phase": phase, "epoch": epoch, "loss": 2.0 / (1 + epoch), "top1": 0.2 * epoch}
        | {"latency_ms": None if phase == "warmup" else 0.4 - 0.02 * epoch, "entropy": 1.9}
        | {"seconds": 2.0, "time": START + 2.0 * (epoch + 1)}
        for epoch, phase in enumerate(["warmup", "warmup", "search", "search"])
    ]
    retrained = [
        {"epoch": epoch, "loss": 1.0 / (1 + epoch), "top1": 0.3 * epoch}
        | {"seconds": 1.0, "time": START + 20.0 + epoch}
        for epoch in range(3)
    ]
    return {
        "format": "case-result/1",
        "key": f"key-of-{case}",
        "job": "search_mobile",
        "case": case,
        "kind": "reference" if is_reference else "search",
        "target": "mobile",
        "hardware": HARDWARE,
        "stand_in": True,
        "budget": None if is_reference else "80%",
        "budget_ms": None if is_reference else 0.31,
        "strategy": None if is_reference else "two_path",
        "objective": None if is_reference else "absolute",
        "space": "proxyless_small",
        "seed": 0,
        "architecture_hash": network.digest(),
        "architecture": network.to_dict(),
        "table_key": "table0",
        "table_ms": 0.38 if is_reference else 0.309,
        "measured_ms": 0.38 if is_reference else 0.312,
        "measured_spread": 0.02,
        "tries": [],
        "top1": 0.985 if is_reference else 0.981,
        "top5": 0.999,
        "params": 123_456,
        "macs": 7_000_000,
        "search_s": None if is_reference else 31.2,
        "search_gpu_hours": 0.0,
        "retrain_s": 40.1,
        "retrain_gpu_hours": 0.0,
        "search_history": [] if is_reference else searched,
        "retrain_history": retrained,
        "classes": list("0123456789"),
        "input_shape": [1, 8, 8],
        "mean": [0.3],
        "std": [0.4],
        "finished": "2026-11-22T21:14:00+00:00",
    } | changes


def write_job(root: Path, results: list[dict[str, Any]], model: Path | None = None) -> Storage:
    """Write a job with these results into `root`; `model` is copied to every case.

    Returns:
        The folder of the job; tables are in `root / "tables"`.
    """
    storage = Storage(str(root))
    storage.write_json("tables/table0.json", latency_table().to_dict())
    job = storage.sub("search_mobile")
    for values in results:
        folder = f"cases/{values['case']}"
        job.write_json(f"{folder}/architecture.json", values["architecture"])
        job.write_json(f"{folder}/result.json", values)
        if model is not None:
            job.write_folder(model, f"{folder}/model")
    job.write_json(
        "job.json",
        {
            "format": "job/1",
            "name": "search_mobile",
            "job_file": "name: search_mobile\n",
            "key": "key-of-the-job",
            "settings": {"search": {"epochs": 6}, "cases": [{"target": "mobile"}], "retrain": None},
            "plan": {},
            "experiment": "digits",
            "registered_prefix": "digits",
            "git_commit": "3f1c2ab",
            "submitted": "2026-11-22T21:13:00+00:00",
            "hardware": {"cores": 2},
        },
    )
    return job
