"""Time, accuracy and latency of the main job, `make search`.

Each run has a new storage, so that nothing is reused; then the finished job is submitted again.
Installation is not included. Run it when the machine does nothing else.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from orchestration.config.storage_layout import NETWORK_PICTURE
from tests.benchmarks.lines import REPOSITORY, keep, line, results_file

JOB = "jobs/search_mobile.yaml"
PICTURE = "search_mobile.png"


def submit(storage: str) -> float:
    """Run the job; return its seconds. Its output goes to standard error."""
    words = [sys.executable, "-m", "orchestration", "submit", JOB, "--set", f"storage={storage}"]
    began = time.perf_counter()
    subprocess.run(words, cwd=REPOSITORY, check=True, stdout=sys.stderr)
    return time.perf_counter() - began


def run_once() -> dict[str, float]:
    """Figures of one run."""
    with tempfile.TemporaryDirectory() as storage:
        first, again = submit(storage), submit(storage)
        folder = Path(storage) / "search_mobile"
        results = [json.loads(p.read_text()) for p in folder.glob("cases/*/result.json")]
        by_kind: dict[str, dict[str, Any]] = {result["kind"]: result for result in results}
        searched, reference = by_kind["search"], by_kind["reference"]
        kept = results_file("x").parent / PICTURE
        shutil.copy(folder / "comparison" / f"{searched['case']}{NETWORK_PICTURE}", kept)
    return {
        "first submission, s": first,
        "submission of the finished job, s": again,
        "top-1 of the specialized network": searched["top1"],
        "top-1 of the reference network": reference["top1"],
        "table_ms / budget_ms": searched["table_ms"] / searched["budget_ms"],
        "measured_ms / budget_ms": searched["measured_ms"] / searched["budget_ms"],
        "measured_ms / table_ms": searched["measured_ms"] / searched["table_ms"],
        "measured_ms / that of the reference": searched["measured_ms"] / reference["measured_ms"],
        "seconds of search": searched["search_s"],
        "seconds of retraining": searched["retrain_s"],
    }


def main() -> None:
    """Run the job several times and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="whole runs, one after the other")
    options = parser.parse_args()
    runs = [run_once() for _ in range(options.runs)]
    keep("main_job", [{**line(what, [r[what] for r in runs]), "job": JOB} for what in runs[0]])


if __name__ == "__main__":
    main()
