"""Cost of recording a sweep: seconds into SQLite and into a tracking server, requests per case.

Run `python tests/benchmarks/recording.py` (50 cases; `--cases 5` to try it). Cases are made up and
have the content of real ones: curves of 100 epochs of search and of retraining, a model, a figure.
The server is an `mlflow server` with one worker on this host, which shares the CPU with the
recorder. A proxy in front of it counts requests and can delay answers, to simulate a remote server.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from cluster.storage import Storage
from orchestration.tracking import job as recorder
from orchestration.tracking import record_job
from tests.benchmarks.lines import keep, line
from tests.support.faulty_proxy import Proxy
from tests.support.job_folder import (
    START,
    result,
    save_small_network,
    write_job,
)
from tests.support.mlflow_server import mlflow_server

EPOCHS = 100
TARGET_S = 120.0
"""Most seconds that 50 cases may take on SQLite."""
FAR_S = 0.05
"""Delay of the answers of a remote server, seconds."""


def history(**more: Any) -> list[dict[str, Any]]:
    """Training curve with an entry per epoch."""
    return [
        {"epoch": epoch, "loss": 2.0 / (1 + epoch), "top1": 0.9, "seconds": 1.0}
        | {"time": START + epoch, "images_per_s": 1000.0 + epoch, "lr": 0.05}
        | more
        for epoch in range(EPOCHS)
    ]


def made_up(cases: int, folder: Path) -> Storage:
    """Storage of a finished job with so many cases."""
    searched = history(phase="search", latency_ms=0.3, entropy=1.9)
    results = [
        result(
            f"mobile-{0.2 + n / 1000:.3f}ms",
            budget_ms=0.2 + n / 1000,
            measured_ms=0.2 + n / 1000,
            search_history=searched,
            retrain_history=history(),
        )
        for n in range(cases)
    ]
    job = write_job(folder / "storage", results, save_small_network(folder / "model"))
    for item in results:
        job.write_bytes(f"comparison/{item['case']}-network.png", b"p" * 30_000)
    return job


def seconds(job: Storage, uri: str, experiment: str) -> float:
    """Seconds to record the job at this tracking URI."""
    tables = Storage(str(job.path().parent / "tables"))
    began = time.perf_counter()
    record_job(job, tables, tracking_uri=uri, experiment=experiment)
    return time.perf_counter() - began


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of threads that write cases to a server."""
    before, recorder.SERVER_THREADS = recorder.SERVER_THREADS, count
    try:
        yield
    finally:
        recorder.SERVER_THREADS = before


def into_sqlite(job: Storage, folder: Path, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of recording for the first and the second time, in new databases with tables."""
    from mlflow import MlflowClient  # after the import that configures its logging

    first, again = [], []
    for n in range(repeats):
        uri = f"sqlite:///{folder}/{n}.db"
        MlflowClient(uri).search_registered_models()
        first.append(seconds(job, uri, "sweep"))
        again.append(seconds(job, uri, "sweep"))
    return first, again


def into_server(job: Storage, folder: Path, repeats: int, what: str) -> list[dict[str, object]]:
    """Result lines of a local and of a remote server, with one thread and with eight."""
    actual = []
    with mlflow_server(folder) as port:
        proxy = Proxy(port)
        for late_s, count in ((0.0, 1), (0.0, 8), (FAR_S, 1), (FAR_S, 8)):
            how = f"{count} at once" + f", each answer {late_s:.2f} s late" * (late_s > 0)
            proxy.delay_s = late_s
            with threads(count):
                names = [f"{how} {n}" for n in range(repeats)]
                before = proxy.count
                took = [seconds(job, proxy.uri, name) for name in names]
                requests = (proxy.count - before) / repeats
            actual.append(line(f"seconds to record {what} into a server, {how}", took))
        proxy.delay_s = 0.0
        before = proxy.count
        took = [seconds(job, proxy.uri, names[0])]
        actual.append(line(f"seconds to record {what} again into a server", took))
        asked = float(proxy.count - before)
        proxy.refuse()
    actual.append(line(f"requests to record {what}", [requests]))
    actual.append(line(f"requests to record {what} again", [asked]))
    return actual


def main(words: Sequence[str] | None = None) -> None:
    """Measure, write the results and check the time limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--file", type=Path, help="result file, by default one in results/")
    given = parser.parse_args(words)
    what = f"{given.cases} cases"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        job = made_up(given.cases, folder)
        first, again = into_sqlite(job, folder, given.repeats)
        actual = [
            line(f"seconds to record {what} into SQLite", first),
            line(f"seconds to record {what} again into SQLite", again),
        ]
        actual += into_server(job, folder, given.repeats, what)
    keep("recording", actual, given.file)
    assert max(first) < TARGET_S


if __name__ == "__main__":
    main()
