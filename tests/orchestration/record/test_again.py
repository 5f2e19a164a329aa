from __future__ import annotations

import pytest
from mlflow import MlflowClient

from orchestration.clean import clean
from orchestration.job_folders import job_folder
from orchestration.record import client
from tests.orchestration.job_folder import (
    result,
)
from tests.orchestration.record.place import CASE, REFERENCE, Place

# What MLflow 3.17 does with SQLAlchemy 2.1; recording keeps it from its callers.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


def test_recording_twice_changes_nothing(place):
    links = place.record()
    before = place.state()
    assert place.record() == links
    assert place.state() == before


class Killed(BaseException):
    """The recorder's process ends here."""


def client_that_dies(before_write):
    """An MLflow client that raises Killed before its n-th call that writes."""

    class Dying(MlflowClient):
        writes = 0

        def __getattribute__(self, name):
            if name.startswith(("create_", "log_", "set_", "finalize_")):
                Dying.writes += 1
                if Dying.writes == before_write:
                    raise Killed
            return super().__getattribute__(name)

    return Dying


def killed(place, monkeypatch, before_write):
    """Whether a recording came to its n-th write, and was killed there."""
    with monkeypatch.context() as patch:
        patch.setattr(client, "MlflowClient", client_that_dies(before_write))
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
    attempts = 1
    while killed(place, monkeypatch, before_write=attempts):
        attempts += 1
    assert attempts > 5
    assert place.state() == undisturbed.state()


@pytest.mark.slow
def test_recording_goes_on_from_every_single_write(place, tmp_path, empty_database, monkeypatch):
    place.write([result(CASE)])
    place.record()
    for before_write in range(1, 100):
        again = Place(tmp_path / f"killed{before_write}", empty_database, place.model)
        again.write([result(CASE)])
        if not killed(again, monkeypatch, before_write):
            break
        again.record()
        assert again.state() == place.state(), before_write
    assert before_write > 15


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
