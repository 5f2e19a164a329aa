"""A GPU that is none: computes on this machine's processor and has a time of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class FakeEvent:
    """Comes when the device has done what it had to do when this was recorded."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self._at_ms = 0.0
        self._has_come = False

    def record(self) -> None:
        self._device.log.append("record")
        self._at_ms = self._device.work_ms

    def synchronize(self) -> None:
        self._device.log.append("wait")
        self._has_come = True

    def elapsed_time(self, end: FakeEvent) -> float:
        assert end._has_come, "CUDA raises: the event is not complete"
        return end._at_ms - self._at_ms


class FakeDevice:
    """A GPU that needs `replay_ms` for what it captures; what it is asked for stands in `log`."""

    place = "cpu"

    def __init__(self, replay_ms: float = 0.25, host_s: float = 0.0) -> None:
        self.log: list[str] = []
        self.work_ms = 0.0
        self.replay_ms, self._host_s = replay_ms, host_s

    def facts(self) -> dict[str, str | int | float]:
        return {"gpu": "Stand-in"}

    @contextmanager
    def aside(self) -> Iterator[None]:
        self.log.append("aside")
        yield
        self.log.append("back")

    def capture(self, run: Callable[[], object]) -> Callable[[], object]:
        self.log.append("capture")
        answer, replay_ms = run(), self.replay_ms

        def replay() -> object:
            time.sleep(self._host_s)
            self.log.append("replay")
            self.work_ms += replay_ms
            return answer

        return replay

    def event(self) -> FakeEvent:
        return FakeEvent(self)

    def synchronize(self) -> None:
        self.log.append("synchronize")
