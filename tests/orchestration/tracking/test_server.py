"""Recording in a real tracking server behind a proxy that makes requests fail.

In the end MLflow has exactly the same content as without failures.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from orchestration.tracking import RecordError
from tests.support.faulty_proxy import Proxy, half
from tests.support.job_folder import result
from tests.support.recording import Place, ServerPlace, recorder

pytestmark = [
    # Raised by MLflow 3.17 with SQLAlchemy 2.1; recording hides it from its callers.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.timeout(600),
    pytest.mark.slow,
]


def test_a_server_gets_what_a_database_gets(there: ServerPlace, undisturbed: Place) -> None:
    there.record()
    assert there.state() == undisturbed.recorded()


def test_recording_again_asks_little_and_changes_nothing(there: ServerPlace, proxy: Proxy) -> None:
    there.record()
    before, asked = there.state(), proxy.count
    there.record()
    assert there.state() == before
    assert proxy.count - asked < 12


def test_a_case_takes_few_requests(there: ServerPlace, proxy: Proxy) -> None:
    counts = []
    for cases in (1, 3):
        there.experiment = f"{there.experiment}-{cases}"
        there.write([result(f"mobile-0.{n + 1}ms") for n in range(cases)])
        before = proxy.count
        there.record()
        counts.append(proxy.count - before)
    files = 3 + 8  # of a case and its model: a server takes each by itself
    assert (counts[1] - counts[0]) / 2 <= 14 + files


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_server_that_fails_half_its_requests_gets_everything_once(
    there: ServerPlace, proxy: Proxy, undisturbed: Place, seed: int
) -> None:
    proxy.fault = half(seed, "before", "after", "cut")
    there.record()
    assert there.state() == undisturbed.recorded()
    there.record()
    assert there.state() == undisturbed.state()


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["after", *(pytest.param(name, marks=pytest.mark.long) for name in ("before", "cut"))]
)
def test_every_kind_of_failure_by_itself_is_overcome(
    there: ServerPlace, proxy: Proxy, undisturbed: Place, fault: str
) -> None:
    proxy.fault = half(7, fault)  # type: ignore[arg-type]
    there.record()
    assert there.state() == undisturbed.recorded()


def test_a_server_that_is_down_is_given_up_and_gets_everything_later(
    there: ServerPlace, proxy: Proxy, undisturbed: Place
) -> None:
    proxy.refuse()
    began = time.monotonic()
    with pytest.raises(RecordError, match=f"^MLflow at {there.uri}: .*[Rr]efused"):
        there.record(patience_s=4)
    assert 0.3 < time.monotonic() - began < 4
    proxy.heal()
    there.record()
    assert there.state() == undisturbed.recorded()


def test_a_server_that_is_away_for_a_moment_is_waited_for(
    there: ServerPlace, proxy: Proxy, undisturbed: Place
) -> None:
    def away_at(number: int) -> None:
        if number == 20:
            threading.Thread(target=go_away).start()

    def go_away() -> None:
        proxy.refuse()
        time.sleep(0.5)
        proxy.heal()

    proxy.fault = away_at
    there.record()
    assert there.state() == undisturbed.recorded()


@pytest.mark.slow
def test_what_was_written_before_the_end_of_patience_is_kept(
    there: ServerPlace, proxy: Proxy, undisturbed: Place
) -> None:
    proxy.delay_s = 0.2
    with pytest.raises(
        RecordError, match=r"it is not done after 5 s; [01] of 2 cases are recorded$"
    ):
        there.record(patience_s=1, is_waited_for=True)
    left = proxy.count
    assert left > 5
    proxy.delay_s = 0.0
    there.record()
    assert there.state() == undisturbed.recorded()


@pytest.mark.parametrize("status", [401, 403])
def test_a_login_that_is_refused_is_not_tried_again(
    there: ServerPlace, proxy: Proxy, status: int
) -> None:
    proxy.fault = lambda _number: status
    with pytest.raises(RecordError, match="MLFLOW_TRACKING_PASSWORD"):
        there.record()
    assert proxy.count == 1


def test_a_server_that_always_fails_in_one_place_is_given_up(
    there: ServerPlace, proxy: Proxy
) -> None:
    proxy.fault = lambda number: "before" if number > 8 else None
    began = time.monotonic()
    with pytest.raises(RecordError, match="too many 503 error responses"):
        there.record(patience_s=12)
    assert time.monotonic() - began < 12


@pytest.mark.slow
@pytest.mark.parametrize("what", ["runs/create", "logged-models", "model-versions/create"])
def test_what_a_server_makes_long_after_it_was_asked_is_there_once(
    there: ServerPlace, proxy: Proxy, undisturbed: Place, what: str
) -> None:
    late: list[int] = []

    def one_in_three(number: int) -> str | None:
        is_late = proxy.last == f"POST {what}" and proxy.asked[proxy.last] % 3 == 1
        late.extend([number] * is_late)
        return "late" if is_late else None

    proxy.fault = one_in_three  # type: ignore[assignment]
    there.record(patience_s=12)  # the timeout of a response is 2 s
    time.sleep(proxy.late_s)
    proxy.heal()
    there.record()
    assert late
    assert there.state() == undisturbed.recorded()


@pytest.mark.slow
def test_by_default_a_server_that_is_down_costs_half_a_minute(
    there: ServerPlace, proxy: Proxy
) -> None:
    proxy.refuse()
    began = time.monotonic()
    with pytest.raises(RecordError):
        there.record(is_waited_for=True)
    assert 20 < time.monotonic() - began < 40


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [2, 14, 30, *(pytest.param(number, marks=pytest.mark.long) for number in (5, 9, 20, 50))],
)
def test_a_recorder_that_is_killed_leaves_nothing_twice(
    there: ServerPlace, proxy: Proxy, undisturbed: Place, moment: int
) -> None:
    def kill(number: int) -> None:
        if number == moment:
            os.kill(process.pid, signal.SIGKILL)

    proxy.fault = kill
    process = recorder(there)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    proxy.heal()
    there.record()
    assert there.state() == undisturbed.recorded()
