"""Latency tables of the published space: time to measure them, and their accuracy.

Run `python tests/benchmarks/latency_tables.py`: 224 pixels, one measuring thread, `cpu` (ONNX
Runtime) and `mobile` (ExecuTorch with XNNPACK, this host in place of a phone). Each is measured in
a new storage, then read from there once more. The table is fitted to the reference and 12 random
networks, and tested on 24 others. `gpu.py` does the same on a GPU.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))  # the benchmark runs in a checkout, installed or not

from orchestration.cli.measure import MeasureJob, measure
from orchestration.config.loading import check
from tests.benchmarks.lines import keep, line

TARGETS: dict[str, dict[str, Any]] = {"cpu": {}, "mobile": {"mobile": {"stand_in": True}}}


def lines(target: str, storage: Path) -> Iterator[dict[str, object]]:
    """Result lines of one target."""
    values = {
        "target": target,
        "targets": TARGETS[target],
        "space": {"name": "proxyless_imagenet"},
        "baselines": ["mobilenet_v2"],
        "storage": str(storage),
    }
    job = check(MeasureJob, values, "latency_tables")
    said: list[str] = []
    table = measure(job, said.append).table
    print("\n".join(said), file=sys.stderr)
    seconds = re.findall(r"in (\d+) s\b", said[-1])
    began = time.perf_counter()
    measure(job, said.append)
    warm = time.perf_counter() - began
    what = f"{table.hardware}, {table.space.name} at {table.space.resolution} pixels"
    known = table.calibration
    assert known is not None
    assert known.errors is not None
    for name, value in zip(("rows", "whole networks"), seconds, strict=True):
        yield line(f"{what}: {name}, cold, s", [float(value)])
    yield line(f"{what}: once more from storage, s", [warm])
    yield line(f"{what}: spread of a row", [row.spread for row in table.rows])
    for name, value in asdict(known.errors).items():
        yield line(f"{what}: networks not in the fit: {name}", [float(value)])
    yield line(f"{what}: scale", [table.scale])
    yield line(f"{what}: offset, ms", [table.offset_ms])
    for other in known.others:
        yield line(f"{what}: {other.name}, ms", [other.measured_ms])


def main() -> None:
    """Measure the named targets, or all if none is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[])
    options = parser.parse_args()
    for target in options.targets or TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            keep(f"latency_table_{target}", list(lines(target, Path(folder))))


if __name__ == "__main__":
    main()
