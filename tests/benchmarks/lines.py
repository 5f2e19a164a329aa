"""JSON lines that benchmarks print and keep: the figure, its spread, and the machine."""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from cluster.hardware import KEEP_MEMORY, facts

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = "tests/benchmarks/results"
TORCH = metadata.version("torch")
Result = TypeVar("Result")


def line(what: str, values: list[float]) -> dict[str, object]:
    tenths = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else values
    here = facts()
    return {
        "what": what,
        "median": round(statistics.median(values), 3),
        "p10": round(tenths[0], 3),
        "p90": round(tenths[-1], 3),
        "smallest": round(min(values), 3),
        "largest": round(max(values), 3),
        "n": len(values),
        "device": f"{here['cpu']}, {here['cores']} cores",
        "torch": TORCH,
        "commit": commit(),
    }


def commit() -> str:
    """Commit of the checkout, followed by "+" if files other than results were changed."""
    named = _git("describe", "--always", "--exclude=*")
    differs = _git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{RESULTS}")
    return named + ("+" if differs else "") or "unknown"


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True)
    return done.stdout.strip()


def results_file(benchmark: str) -> Path:
    here = facts()
    processor = str(here["cpu"]).replace("(R)", "").lower().split()
    short = "-".join(w for w in processor if w not in {"cpu", "processor", "intel", "amd", "@"})
    version = ".".join(TORCH.split(".")[:2])
    name = f"{benchmark}__{short}-{here['cores']}-cores__torch-{version}__{date.today()}.json"
    return REPOSITORY / RESULTS / name


def keep(benchmark: str, found: Sequence[dict[str, object]], file: Path | None = None) -> None:
    """Print lines and write them to `file`, or to today's result file."""
    text = "\n".join(json.dumps(item) for item in found) + "\n"
    print(text, end="")
    file = file or results_file(benchmark)
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def as_they_come(
    function: Callable[..., Result], jobs: Iterable[tuple[object, ...]], processes: int
) -> Iterator[Result]:
    """Results of `function(*job)`, each in a new process, in the order in which they finish."""
    os.environ |= KEEP_MEMORY
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for run in as_completed([pool.submit(function, *job) for job in jobs]):
            yield run.result()
