from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestration import tracking
from orchestration.tracking import RecordError

# Raised by MLflow 3.17 with SQLAlchemy 2.1; recording hides it from its callers.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.mark.slow
def test_nothing_is_written_to_the_working_directory(place):
    place.record()
    assert not list(Path.cwd().iterdir())


@pytest.mark.slow
def test_a_deleted_experiment_is_named_with_the_way_out(place):
    place.record()
    place.client.delete_experiment("1")
    with pytest.raises(RecordError, match=r"'digits' was deleted .* experiments restore -x 1"):
        place.record()


@pytest.mark.slow
def test_a_database_that_cannot_be_opened_is_one_clear_line(place):
    uri = f"sqlite:///{place.root}/mlflow.db/no-folder/x.db"
    with pytest.raises(RecordError, match=f"^MLflow at {uri}: [^\n]*$"):
        place.record(uri)


def test_a_password_is_in_no_message_and_no_link():
    assert tracking.ui_address("https://me:secret@mlflow.example/") == "https://mlflow.example"


@pytest.mark.slow
def test_recording_prints_nothing_and_needs_no_torch(place):
    code = (
        "import sys; from cluster.storage import Storage; from orchestration.tracking import *\n"
        f"root = Storage({str(place.root)!r})\n"
        "record_job(root.sub('search_mobile'), root.sub('tables'),\n"
        f"    tracking_uri={place.uri!r}, experiment='digits')\n"
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules"
    )
    repository = Path(tracking.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=repository)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
