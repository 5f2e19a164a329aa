"""What is told of the machine."""

from __future__ import annotations

import time

from orchestration.machine import Machine
from orchestration.record.metrics import system_values


def test_a_busy_machine_says_so() -> None:
    machine = Machine()
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        pass
    use = machine.use()
    assert 0 < use["cpu_utilization_percentage"] <= 100
    assert 0 < use["system_memory_usage_percentage"] < 100
    assert use["system_memory_usage_megabytes"] > 100
    assert use["network_receive_megabytes"] >= 0


def test_they_are_recorded_under_the_names_that_the_ui_looks_for() -> None:
    history = [{"epoch": 0, "time": 10.0}, {"epoch": 1, "time": 12.0, "system": {"cpu": 40.0}}]
    assert system_values(history) == [("system/cpu", 40.0, 12_000, 1)]
