"""Cost of a checkpoint to training: the copy blocks it, the write runs in the background.

Run `python tests/benchmarks/checkpoint_cost.py`. The supernet of the published space trains with
two threads on two cores, 96 pixels, batch 16: runs of steps with and without a checkpoint,
interleaved. The extra time is reported as a share of `checkpoint_every_s` (300 s).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch

from cluster.storage import Storage
from nas_core.workers import SingleProcess
from orchestration.config.job import ClusterSettings
from orchestration.stages.checkpoint import Checkpoints, snapshot
from tests.benchmarks.lines import keep, line
from tests.benchmarks.traffic import Bench

STEPS = 24
EVERY_S = ClusterSettings().checkpoint_every_s


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(2)
    bench = Bench(0, 16, 96)
    step = bench.ours(bench.part(16, 16), SingleProcess())
    state = bench.state
    extra, still, background = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Storage(folder))

        def stretch(saves: bool) -> float:
            began = time.perf_counter()
            if saves:
                optimizers = [state.weight_optimizer, state.alpha_optimizer]
                checkpoints.save(
                    snapshot(state, state.supernet, optimizers, counters={}, history=[])
                )
                still.append(time.perf_counter() - began)
            for i in range(STEPS):
                step(i % len(bench.paths))
            seconds = time.perf_counter() - began
            checkpoints.finish()
            background.append(time.perf_counter() - began - seconds)
            return seconds

        for _ in range(3):
            stretch(saves=True)  # momentum for most ops
        still.clear()
        background.clear()
        for _ in range(options.rounds):
            plain = stretch(saves=False)
            extra.append(stretch(saves=True) - plain)
        newest = checkpoints.complete()[0]
        size = sum(p.stat().st_size for p in Path(folder, newest).iterdir()) / 1e6
    keep(
        "checkpoint_cost",
        [
            line("megabytes of a checkpoint", [size]),
            line("seconds for which training stands still", still),
            line("seconds that a checkpoint costs training in all", extra),
            line("seconds that writing went on after the stretch", background[1::2]),
            line("percent of training at one in 300 s", [100 * item / EVERY_S for item in extra]),
        ],
    )


if __name__ == "__main__":
    main()
