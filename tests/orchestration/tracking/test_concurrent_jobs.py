"""Two jobs that are recorded in one database concurrently."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.support.job_folder import result
from tests.support.recording import REFERENCE, Place, recorder

pytestmark = [
    # Raised by MLflow 3.17 with SQLAlchemy 2.1; recording hides it from its callers.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.slow,
]
RESULTS = [*(result(f"mobile-0.{n}ms") for n in range(1, 7)), result(REFERENCE)]


@pytest.mark.parametrize("is_new", [True, False])
def test_two_jobs_share_a_database_without_errors(
    undisturbed: Place, empty_database: Path, model_folder: Path, tmp_path: Path, is_new: bool
) -> None:
    uri = f"sqlite:///{tmp_path}/shared.db"
    if not is_new:
        (tmp_path / "shared.db").write_bytes(empty_database.read_bytes())
    places = [Place(tmp_path / item, empty_database, model_folder, item) for item in ("a", "b")]
    for place in [*places, undisturbed]:
        place.write(RESULTS)
    for place in places:
        place.uri = uri
    processes = [recorder(place) for place in places]
    said = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert not [text for text in said if "rror" in text or "locked" in text]
    for place in places:
        place.client = MlflowClient(uri)
        assert place.state() == undisturbed.recorded()
