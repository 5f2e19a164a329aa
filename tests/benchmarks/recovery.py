"""Recovery time: seconds from a fault to the next step, on Ray with two nodes on this machine.

Run `python tests/benchmarks/recovery.py`. A search with two one-core workers loses a worker
(SIGKILL), then a node, then gains a node. Each is timed until the first step of the new worker
group. The network is tiny, so that detection, restart and loading the checkpoint dominate.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.benchmarks.lines import keep, line
from tests.support.faults import Rig, job_file, latency_rows, rig

INTERVAL_S = 10.0


def once(made: Rig, job: Path) -> tuple[float, float, float]:
    """Recovery seconds after a killed worker, a lost node and an added node."""
    made.plan()
    made.pace(0.1)
    driver = made.drive(job)
    os.kill(made.wait_for_step(10, rank=1), signal.SIGKILL)
    began = time.monotonic()
    made.wait_for_step(1, attempt=2)
    killed = time.monotonic() - began
    made.wait_for_step(10, attempt=2)
    made.cluster.remove_node(made.nodes.pop(), allow_graceful=False)
    began = time.monotonic()
    made.wait_for_step(1, attempt=3)
    lost = time.monotonic() - began
    made.wait_for_step(10, attempt=3)
    made.nodes.append(made.cluster.add_node(num_cpus=1))
    began = time.monotonic()
    made.wait_for_step(1, attempt=4)
    joined = time.monotonic() - began
    driver.send_signal(signal.SIGTERM)
    driver.communicate(timeout=120)
    return killed, lost, joined


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    search = {"warmup_epochs": 2, "epochs": 500, "batch_size": 128, "architecture_share": 0.2}
    cluster = {"workers": [1, 2], "elastic_resize_monitor_interval_s": INTERVAL_S}
    result = []
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "control.json")
        table.write_text(json.dumps(latency_rows(Path(folder))))
        with rig(Path(folder, "faults"), 1, 1) as made:
            for run in range(options.runs):
                storage = Path(folder, f"run-{run}")
                result.append(once(made, job_file(storage, table, search=search, cluster=cluster)))
    keep(
        "recovery",
        [
            line("seconds from a killed worker to the next step", [item[0] for item in result]),
            line("seconds from a lost node to the next step", [item[1] for item in result]),
            line(
                f"seconds from an added node to the next step, looked for every {INTERVAL_S:g} s",
                [item[2] for item in result],
            ),
        ],
    )


if __name__ == "__main__":
    main()
