from __future__ import annotations

import signal

import pytest

from orchestration.cli.clean import clean
from orchestration.state.job_folder import job_folder
from orchestration.tracking import client
from orchestration.tracking.retries import Patience
from tests.support.job_folder import (
    result,
)
from tests.support.recording import CASE, RECORDING, REFERENCE, Place, recorder

# Raised by MLflow 3.17 with SQLAlchemy 2.1; recording hides it from its callers.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]


def test_recording_twice_changes_nothing(place):
    links = place.record()
    before = place.state()
    assert place.record() == links
    assert place.state() == before


class Killed(BaseException):
    """Stands for the end of the recorder's process."""


def patience_that_dies(before_request):
    """Raises Killed before the n-th request, counting uploads of files."""

    class Dying(Patience):
        requests = 0

        def until_done(self, action):
            Dying.requests += 1
            if Dying.requests == before_request:
                raise Killed
            return super().until_done(action)

    return Dying


def killed(place, monkeypatch, before_request):
    """Whether a recording reached its n-th request and was killed there."""
    with monkeypatch.context() as patch:
        patch.setattr(client, "Patience", patience_that_dies(before_request))
        try:
            place.record()
        except Killed:
            return True
    return False


def test_a_recorder_that_is_killed_again_and_again_completes(
    place, tmp_path, empty_database, monkeypatch
):
    undisturbed = Place(tmp_path / "undisturbed", empty_database, place.model)
    undisturbed.record()
    requests = 3
    while killed(place, monkeypatch, before_request=requests):
        requests += 5
    assert requests > 30
    assert place.state() == undisturbed.state()


def test_recording_goes_on_from_every_single_request(place, tmp_path, empty_database, monkeypatch):
    place.write([result(CASE)])
    place.record()
    for request in range(1, 100):
        again = Place(tmp_path / f"killed{request}", empty_database, place.model)
        again.write([result(CASE)])
        if not killed(again, monkeypatch, request):
            break
        again.record()
        assert again.state() == place.state(), request
    assert request > 40


KILLED = f"""
import os, signal
from orchestration.tracking import client
from orchestration.tracking.retries import Patience
from orchestration.tracking.retries import Patience

class Dying(Patience):
    requests = 0
    def until_done(self, action):
        Dying.requests += 1
        if Dying.requests == MOMENT:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().until_done(action)

client.Patience = Dying
{RECORDING}
"""


@pytest.mark.parametrize("moment", [8, 16, 33, 47])
def test_a_process_that_is_killed_leaves_a_database_that_is_completed(place, undisturbed, moment):
    process = recorder(place, KILLED.replace("MOMENT", str(moment)))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert place.recorded() == undisturbed.recorded()


def test_a_job_that_went_on_gets_its_new_cases(place):
    place.write([result(CASE)])
    place.record()
    place.write([result(CASE), result(REFERENCE)])
    place.record()
    assert place.runs("case").keys() == {CASE, REFERENCE}
    assert len(place.runs("job")) == 1


def test_a_case_that_was_done_again_gets_a_run_of_its_own(place):
    place.record()
    place.write([result(CASE, finished="2026-11-23T08:00:00+00:00"), result(REFERENCE)])
    assert place.record().models == ("models:/digits-mobile/2",)


def test_a_job_that_was_cleaned_is_recorded_as_before(place):
    links = place.record()
    before = place.state()
    place.job.write_text("tune/result.json", "{}")
    clean(job_folder(place.job.uri), lambda _line: None, is_sure=True, warmups=True)
    assert not place.job.exists("tune")
    assert place.record() == links
    assert place.state() == before
