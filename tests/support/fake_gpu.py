"""A fake GPU that computes on this machine's processor and has its own clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class FakeEvent:
    """An event that is reached once the device has done the work submitted before `record`."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self._at_ms = 0.0
        self._is_reached = False

    def record(self) -> None:
        self._device.log.append("record")
        self._at_ms = self._device.work_ms

    def synchronize(self) -> None:
        self._device.log.append("wait")
        self._is_reached = True

    def elapsed_time(self, end: FakeEvent) -> float:
        assert end._is_reached, "CUDA raises: the event is not complete"
        return end._at_ms - self._at_ms


class FakeDevice:
    """A GPU whose captures take `replay_ms` to replay; all calls are recorded in `log`."""

    torch_name = "cpu"

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
