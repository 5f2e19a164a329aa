"""How the OpenMP threads of a worker wait for each other: spinning or sleeping.

On an idle machine threads that spin are twice as fast in a small network, since sleeping and waking
takes longer than most operations. Beside other busy processes they take the cores that the threads
they wait for need. So a worker looks at the load of its machine before it loads torch, which reads
the policy once. The policy changes no result.
"""

from __future__ import annotations

import os

import psutil

WAIT_POLICY = "OMP_WAIT_POLICY"
"""Environment variable with the policy. Unset, threads spin for a while, then sleep."""

SAMPLES, SAMPLE_S = 6, 0.5
"""Largest number of times the load is observed, and the duration of each, seconds. The processes of
a job that start beside the worker are busy for a moment, other programs all the time."""
ENOUGH = 0.75
"""Least share of the cores that the threads want which has to be idle for them to spin."""


def choose_waiting(threads: int) -> bool:
    """Set the policy of this process; to be called before torch is loaded.

    Args:
        threads: of all workers on this machine that start together.

    Returns:
        Whether they spin. A policy that the user has set is kept.
    """
    if WAIT_POLICY in os.environ:
        return os.environ[WAIT_POLICY].upper() != "PASSIVE"
    if threads < 2:
        return True  # a single thread waits for no other
    cores, idle = psutil.cpu_count() or 1, 0.0
    for _ in range(SAMPLES):
        idle = max(idle, cores * psutil.cpu_times_percent(interval=SAMPLE_S).idle / 100)
        if idle >= ENOUGH * min(threads, cores):
            return True
    os.environ[WAIT_POLICY] = "PASSIVE"
    return False
