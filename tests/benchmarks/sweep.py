"""Time of the shipped sweep: its plan, the sweep itself, and a second submission.

Run `python tests/benchmarks/sweep.py` when the machine does nothing else (ten minutes, two cores).
The plan measures the latency tables and times a few steps; the duration of the sweep is compared
with the estimate of the plan. With `--no-plan` the sweep measures the tables itself.
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

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from orchestration.config.loading import load_job
from orchestration.planning.plan import make_plan, search_steps
from tests.benchmarks.lines import keep, line, results_file

JOB = REPOSITORY / "jobs" / "sweep_targets.yaml"
PICTURE = results_file("sweep").with_name("sweep_networks.png")
"""Figure of the networks of the sweep without a plan."""


def timed(*words: str) -> float:
    """Run a command; return its seconds. Its output goes to standard error."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "orchestration", *words]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=sys.stderr)
    return time.perf_counter() - began


def expected_steps() -> dict[str, int]:
    """Expected weight steps: of one warm-up, and of all searches."""
    job = load_job(JOB)
    steps = search_steps(job, make_plan(job).data)
    cases = sum(len(case.budgets_ms or ()) for case in job.cases)
    return {
        "warmup": job.search.warmup_epochs * steps,
        "search": cases * job.search.epochs * steps,
    }


def results(storage: Path) -> list[dict[str, Any]]:
    """Results of the searched cases."""
    paths = (storage / "sweep_targets" / "cases").glob("*/result.json")
    return [item for item in (json.loads(p.read_text()) for p in paths) if item["kind"] == "search"]


def once(storage: Path, *, is_planned: bool) -> list[dict[str, object]]:
    """Result lines of one sweep."""
    place = ("--set", f"storage={storage}")
    plan_s = timed("plan", str(JOB), *place) if is_planned else 0.0
    whole_s, again_s = timed(str(JOB), *place), timed(str(JOB), *place)
    (run,) = json.loads((storage / "sweep_targets" / "job.json").read_text())["runs"]
    result, wanted = results(storage), expected_steps()
    if not is_planned:
        shutil.copy(storage / "sweep_targets" / "comparison" / "networks.png", PICTURE)
    how = "tables there" if is_planned else "from nothing"
    lines = [
        line(f"seconds of a sweep of six, {how}", [whole_s]),
        line("seconds of the finished sweep, submitted again", [again_s]),
        line(f"share of it in which no case trained, tables left out, {how}", [run["idle_share"]]),
        line("weight steps of the warm-up / of one warm-up", [_ratio(run, wanted, "warmup")]),
        line("weight steps of the searches / of six searches", [_ratio(run, wanted, "search")]),
        line("table ms / budget", [item["table_ms"] / item["budget_ms"] for item in result]),
        line("measured ms / budget", [item["measured_ms"] / item["budget_ms"] for item in result]),
    ]
    if is_planned:
        lines.append(line("seconds of the plan, tables measured", [plan_s]))
        lines.append(line("seconds that the plan said / that it took", [1 + run["estimate_error"]]))
    return lines


def _ratio(run: dict[str, Any], wanted: dict[str, int], phase: str) -> float:
    return float(run["steps"][phase]) / wanted[phase]


def main() -> None:
    """Plan and run the sweep, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--no-plan", action="store_true", help="from nothing, without a plan")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = once(Path(folder), is_planned=not given.no_plan)
    keep("sweep_from_nothing" if given.no_plan else "sweep", result)


if __name__ == "__main__":
    main()
