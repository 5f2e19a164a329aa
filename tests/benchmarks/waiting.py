"""Time of a small weight step by the number of OpenMP threads and how they wait.

Run `python tests/benchmarks/waiting.py`. Every figure is the median step of a process of its own,
on the space and batch size of `jobs/search_mobile.yaml`: two threads that spin for a while before
they sleep (the default of OpenMP), two threads that sleep, and one thread. The variants take turns,
first on a machine that does nothing else, then beside one busy process per core. Workers choose by
the load of their machine, see `orchestration/distributed/thread_waiting.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from cluster.hardware import KEEP_MEMORY, usable_cores
from orchestration.distributed.thread_waiting import WAIT_POLICY
from tests.benchmarks.lines import keep, line

JOB = "jobs/search_mobile.yaml"
VARIANTS = {
    "two threads that spin": (2, {}),
    "two threads that sleep": (2, {WAIT_POLICY: "PASSIVE"}),
    "one thread": (1, {}),
}
WARM_UP_STEPS = 5


def median_step_ms(threads: int, environment: dict[str, str], steps: int) -> float:
    """Median time of a weight step in a new process, milliseconds."""
    others = {name: value for name, value in os.environ.items() if name != WAIT_POLICY}
    count = {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, __file__, "--threads", str(threads), "--steps", str(steps)],
        env={**others, **KEEP_MEMORY, **count, **environment},
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Context manager in which so many other processes compute all the time."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def step_times_ms(threads: int, steps: int) -> list[float]:
    """Times of weight steps on uniformly drawn paths in this process, milliseconds."""
    import torch

    from nas_core.batch import Batch
    from nas_core.gates import uniform_path
    from nas_core.search import start_search, weight_step
    from nas_core.train_step import Trainer
    from nas_core.workers import SingleProcess
    from orchestration.config.loading import load_job

    torch.set_num_threads(threads)
    job = load_job(JOB, [])
    size, pixels = job.search.batch_size, job.data.resolution
    state = start_search(job.space.build(10, 1, pixels), job.search, 0, torch.device("cpu"))
    trainer = Trainer.of(state.weight_optimizer, state.scaler, job.search, SingleProcess())
    batch = Batch(torch.randn(size, 1, pixels, pixels), torch.arange(size) % 10, size)
    state.supernet.train()
    times = []
    for step in range(WARM_UP_STEPS + steps):
        path = uniform_path(state.supernet.choices(), torch.Generator().manual_seed(step))
        began = time.perf_counter()
        weight_step(state, batch, path, trainer, 0.01)
        times.append(1e3 * (time.perf_counter() - began))
    return times[WARM_UP_STEPS:]


def main() -> None:
    """Measure and write the results, or the median of one process with --threads."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes per figure")
    parser.add_argument("--steps", type=int, default=60, help="steps per process")
    parser.add_argument("--threads", type=int, help="measure in this process")
    parser.add_argument("--file", type=Path, help="result file, by default one in results/")
    options = parser.parse_args()
    if options.threads is not None:
        print(json.dumps(statistics.median(step_times_ms(options.threads, options.steps))))
        return
    result = []
    for load, count in (("on an idle machine", 0), ("beside busy processes", usable_cores())):
        times: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for _ in range(options.rounds):
            for name, (threads, environment) in VARIANTS.items():
                with busy_processes(count):
                    times[name].append(median_step_ms(threads, environment, options.steps))
        result += [line(f"ms, {name}, {load}", values) for name, values in times.items()]
    keep("waiting", result, options.file)


if __name__ == "__main__":
    main()
