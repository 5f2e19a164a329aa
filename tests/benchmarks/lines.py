"""JSON lines that benchmarks print and keep: the figure, its spread, and where it holds."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Sequence
from datetime import date
from importlib import metadata
from pathlib import Path

from cluster.hardware import facts

REPOSITORY = Path(__file__).resolve().parents[2]
TORCH = metadata.version("torch")


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
    """Of the checkout; "+" where files differ from it."""
    words = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def results_file(benchmark: str) -> Path:
    here = facts()
    processor = str(here["cpu"]).replace("(R)", "").lower().split()
    short = "-".join(w for w in processor if w not in {"cpu", "processor", "intel", "amd", "@"})
    version = ".".join(TORCH.split(".")[:2])
    name = f"{benchmark}__{short}-{here['cores']}-cores__torch-{version}__{date.today()}.json"
    return Path(__file__).parent / "results" / name


def keep(benchmark: str, found: Sequence[dict[str, object]], file: Path | None = None) -> None:
    """Print lines and write them to `file`, or to the results of today."""
    text = "\n".join(json.dumps(one) for one in found) + "\n"
    print(text, end="")
    file = file or results_file(benchmark)
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
