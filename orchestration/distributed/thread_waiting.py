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

SAMPLE_S = 0.5
"""Duration for which the load is observed."""
ENOUGH = 0.75
"""Least share of the cores that the threads want which has to be idle for them to spin."""


def choose_waiting(threads: int, sample_s: float = SAMPLE_S) -> str:
    """Set the policy of this process; to be called before torch is loaded.

    Args:
        threads: of all workers on this machine that start together.
        sample_s: duration for which the load is observed, seconds.

    Returns:
        What was decided, for the log.
    """
    if WAIT_POLICY in os.environ:
        return f"{WAIT_POLICY} is {os.environ[WAIT_POLICY]}"
    cores = psutil.cpu_count() or 1
    idle = cores * psutil.cpu_times_percent(interval=sample_s).idle / 100
    if threads < 2 or idle >= ENOUGH * min(threads, cores):
        return f"threads spin: {idle:.1f} of {cores} cores are idle"
    os.environ[WAIT_POLICY] = "PASSIVE"
    return f"threads sleep while they wait: {idle:.1f} of {cores} cores are idle"
