"""Measure the main evidence of RESULTS.md, and of the README, again.

`make bench` takes two and a half hours on two cores. `make bench-quick` runs one seed on short
schedules, to check that everything works; its figures mean nothing else. Parts:

- networks: `jobs/compare_mobilenet.yaml` run as a user would. Networks searched for `cpu` and
  `mobile` at four budgets and for an H100 at three, against MobileNetV2, five seeds. All are timed
  on `cpu` and `mobile`; their latency on the H100 comes from its latency table. Also the cost;
- mobile_table: the networks of the poster's first table, measured on this machine in one run;
- traffic: bytes that two workers send over a link of 1 Gbit/s (`traffic.py`, as root), and DDP;
- steps: time of the steps of a search (`steps.py`), and of other implementations;
- ablations: searches that each change one part of the method, on the tabular benchmark.

`make bench-checks` (another hour) checks two ways in which the networks could look better than they
are:

- random: random networks of the searched space, as slow as the searched ones;
- longer: some of these networks trained four times as long, one seed, in case the others merely
  learn more slowly.

A finished part is kept in `--state` and not repeated; a job or search that was stopped continues
where it was. Results go to `results/`, one file per part; tables.py turns them into tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from cluster.storage import Storage
from orchestration.config.job import Job
from orchestration.planning.plan import make_plan
from orchestration.reports.figures.sweep import sweep_png
from tests.benchmarks import tables
from tests.benchmarks.evidence import cost, curve, markdown, matrix, random_networks
from tests.benchmarks.evidence.networks import (
    JOB,
    Trained,
    networks_of,
    pictured,
    seeds,
    tables_of,
)
from tests.benchmarks.lines import TORCH, commit, line, results_file

Row = dict[str, Any]
TARGETS = ("cpu", "mobile")
LONGER = (
    *("name=compare_mobilenet_longer", "seeds=[20]", "retrain.epochs=24"),
    'cases=[{target: cpu, budgets_ms: ["35%", "50%", "75%", "100%"]}, '
    '{target: mobile, budgets_ms: ["100%"]}, '
    + ", ".join(
        f"{{target: cpu, baseline: mobilenet_v2_{width}}}" for width in (0.35, 0.5, 0.75, 1.0, 1.4)
    )
    + "]",
)
"""Settings of the longer training. The searches are not repeated: finished ones are found by
content. The second target makes all networks be timed in one run."""
QUICK = (
    *("name=compare_mobilenet_quick", "seeds=[10]", "retrain.epochs=1"),
    *("search.warmup_epochs=2", "search.epochs=2", "measure.calibrate_s=10"),
    *("data.glyphs.train=2000", "data.glyphs.test=2000"),
)
EPOCH = -(-(1_281_167 - 50_000) // 256)
"""Weight steps of an ImageNet epoch: 50,000 images are held out for architecture updates."""
PUBLISHED = cost.Steps(40 * EPOCH, 120 * EPOCH, 119 * EPOCH // 5, 300 * -(-1_281_167 // 256))
"""Steps of the published recipe on ImageNet: an update after every five weight steps, none in the
first epoch of the search."""
SEEDS = range(35, 40)
"""Seeds of the ablations. Settings were chosen with other seeds."""


@dataclass(frozen=True)
class Bench:
    """One run of the evidence, or its continuation."""

    state: Path
    """Folder of finished parts and of the job's storage."""
    is_quick: bool

    def networks(self) -> list[Row]:
        """Searched networks and MobileNetV2 on all targets, and the cost of the searches."""
        job, networks = self._of_job(QUICK if self.is_quick else ())
        rows = [*network_rows(networks), *cost.cost_rows(networks, cost.Steps.of(make_plan(job)))]
        picture = self.state if self.is_quick else markdown.FOLDER
        (picture / "evidence_curve.png").write_bytes(sweep_png(pictured(networks), job.name))
        return rows

    def longer(self) -> list[Row]:
        """Searched networks and MobileNetV2 on one target, after a longer training."""
        _, networks = self._of_job((*LONGER, *QUICK[1:]) if self.is_quick else LONGER)
        rows = (curve.width_rows, curve.budget_rows, curve.speed_rows)
        return [row for kind in rows for row in kind(networks, TARGETS[0])]

    def random(self) -> list[Row]:
        """Random networks as slow as the searched ones."""
        quick = QUICK if self.is_quick else ()
        job, networks = self._of_job(quick)
        tables, random = tables_of(Storage(job.storage), job.name), list[Trained]()
        for seed in seeds(networks):
            words = random_networks.write_networks(networks, tables, seed, self.state / "random")
            random += self._of_job((*words, *quick[2:]))[1]
        return random_networks.random_rows(networks, random)

    def _of_job(self, settings: Sequence[str]) -> tuple[Job, list[Trained]]:
        """Run a variant of the job; return it with its trained networks."""
        return networks_of([*settings, f"storage={self.state / 'storage'}"])

    def mobile_table(self) -> list[Row]:
        """Networks of the literature."""
        from tests.benchmarks.evidence import mobile_table

        rows = mobile_table.table(with_cells=not self.is_quick)
        return [*rows, mobile_table.on_pixel1()]

    def ablations(self) -> list[Row]:
        """Searches with one setting changed each, on the tabular benchmark."""
        from tests.benchmarks.evidence import ablations

        seeds, schedule = SEEDS, ablations.SCHEDULE
        if self.is_quick:
            seeds, schedule = SEEDS[:2], ablations.QUICK
        result = ablations.searched(self.state / "ablations.jsonl", seeds, schedule)
        return [*ablations.differences(result), ablations.derivation(result[ablations.BASE])]

    def traffic(self) -> list[Row]:
        """Two workers over a slow link, which only root can set up."""
        return self._of_script("traffic", ["--rounds", "1"])

    def steps(self) -> list[Row]:
        """Step times of a search, and the cost of the published recipe computed from them."""
        rows = self._of_script("steps", ["--rounds", "1", "--networks", "3"])
        seconds = {row["what"].removesuffix(", CPU s"): row["median"] for row in rows}
        return [*rows, cost.published_row(PUBLISHED, seconds)]

    def _of_script(self, name: str, quick: Sequence[str]) -> list[Row]:
        """Run a benchmark in its own process, with the threads that it asks for."""
        file, script = self.state / f"{name}.json", Path(__file__).with_name(f"{name}.py")
        words = [sys.executable, str(script), "--file", str(file)]
        words += quick if self.is_quick else ()
        subprocess.run(words, check=True, stdout=sys.stderr)
        return [json.loads(text) for text in file.read_text().splitlines()]


def network_rows(networks: Sequence[Trained]) -> list[Row]:
    """All rows of the job."""
    rows: list[Row] = []
    for target in TARGETS:
        rows += curve.width_rows(networks, target)
        rows += curve.budget_rows(networks, target)
        rows += curve.speed_rows(networks, target)
    return [
        *rows,
        *matrix.matrix_rows(networks),
        *matrix.equal_rows(networks),
        *matrix.preference_rows(networks),
    ]


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "networks": Bench.networks,
    "mobile_table": Bench.mobile_table,
    "traffic": Bench.traffic,
    "steps": Bench.steps,
    "ablations": Bench.ablations,
    "random": Bench.random,
    "longer": Bench.longer,
}
CHECKS = ("random", "longer")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _kept(part: str, rows: Sequence[Row], given: argparse.Namespace) -> None:
    """Write the lines of a part, each with device, torch version and commit."""
    where = {"device": line("", [0.0])["device"], "torch": TORCH, "commit": commit()}
    has_job = part in ("networks", *CHECKS)
    job = {"job": str(JOB.relative_to(REPOSITORY))} if has_job else {}
    text = "".join(json.dumps({**where, **job, **row}) + "\n" for row in rows)
    file = given.state / f"{part}.done" if given.quick else results_file(f"evidence_{part}")
    file.write_text(text)
    (given.state / f"{part}.done").write_text(text)
    print(text, end="", flush=True)


def main(words: Sequence[str] | None = None) -> None:
    """Run the parts that are not finished."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, to see that it runs")
    parser.add_argument("--again", nargs="*", default=[], choices=list(PARTS), metavar="PART")
    usual = [part for part in PARTS if part not in CHECKS]
    parser.add_argument("--only", nargs="*", default=usual, choices=list(PARTS), metavar="PART")
    parser.add_argument("--state", type=Path, help="default: ~/proxyless/bench, -quick behind it")
    given = parser.parse_args(words)
    given.state = given.state or Path.home() / f"proxyless/bench{'-quick' if given.quick else ''}"
    given.state.mkdir(parents=True, exist_ok=True)
    bench = Bench(given.state, given.quick)
    for part in given.only:
        if (given.state / f"{part}.done").exists() and part not in given.again:
            _say(f"{part} is done already; --again {part} makes it anew")
            continue
        try:
            _kept(part, PARTS[part](bench), given)
        except KeyboardInterrupt:
            _say(f"stopped in {part}; the same command goes on")
            raise SystemExit(130) from None
    if not given.quick:
        tables.main()


if __name__ == "__main__":
    main()
