"""System metrics of the machine."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from orchestration.stages.meter import Machine
from orchestration.tracking.metrics import system_values


def test_a_busy_machine_says_so() -> None:
    machine = Machine()
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        pass
    use = machine.use()
    assert 0 < use["cpu_utilization_percentage"] <= 100
    assert 0 < use["system_memory_usage_percentage"] < 100
    assert use["system_memory_usage_megabytes"] > 100


@pytest.mark.parametrize("counters", [[(5e6, 1e6), (7e6, 4e6)], [None, None]])
def test_what_was_sent_and_received_since_is_told_where_there_are_interfaces(
    monkeypatch: pytest.MonkeyPatch, counters: list[tuple[float, float] | None]
) -> None:
    told = [
        counter and SimpleNamespace(bytes_recv=counter[0], bytes_sent=counter[1])
        for counter in counters
    ]
    monkeypatch.setattr("psutil.net_io_counters", lambda: told.pop(0))
    use = Machine().use()
    result = (use.get("network_receive_megabytes"), use.get("network_transmit_megabytes"))
    assert result == ((2.0, 3.0) if counters[0] else (None, None))


def test_they_are_recorded_under_the_names_that_the_ui_looks_for() -> None:
    history = [{"epoch": 0, "time": 10.0}, {"epoch": 1, "time": 12.0, "system": {"cpu": 40.0}}]
    assert system_values(history) == [("system/cpu", 40.0, 12_000, 1)]
