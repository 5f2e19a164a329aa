import fcntl
import itertools
import os

import pytest
from mlflow import MlflowClient

from tests.support.faulty_proxy import Proxy
from tests.support.job_folder import baseline_result, result, write_model_files
from tests.support.mlflow_server import mlflow_server
from tests.support.recording import (
    CASE,
    REFERENCE,
    Place,
    ServerPlace,
    describe,
    plan_facts,
)

RANKING = {
    "accuracy": {"spearman": 0.6, "kendall": 0.4},
    "cross_entropy": {"spearman": 0.7, "kendall": 0.5},
    "networks": [],
    "seconds": 1.0,
}
EXPERIMENTS = map("digits{}".format, itertools.count())


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """An empty MLflow database. Creating one takes seconds: all processes of a run share it."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path = folder / "empty.db"
    with open(folder / "empty.db.lock", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not path.exists():
            MlflowClient(f"sqlite:///{path}.part")
            path.with_name("empty.db.part").rename(path)
    return path


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """Files of an exported network, whose program nobody runs: exporting takes seconds."""
    return write_model_files(tmp_path_factory.mktemp("model"))


@pytest.fixture
def place(tmp_path, empty_database, model_folder, monkeypatch):
    """A job with a case and the reference, and an empty MLflow to record it in.

    The working directory is a separate folder, in which nothing may be written.
    """
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return Place(tmp_path / "a storage", empty_database, model_folder)


@pytest.fixture(scope="session")
def standing(tmp_path_factory, empty_database, model_folder):
    """The same job, recorded, for tests that only read."""
    root = tmp_path_factory.mktemp("standing")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        one = Place(root / "a storage", empty_database, model_folder)
        one.record()
    return one


@pytest.fixture(scope="session")
def detailed(tmp_path_factory, empty_database, model_folder):
    """A recorded job with a baseline, a ranking, pictures and facts of its images."""
    one = Place(tmp_path_factory.mktemp("detailed"), empty_database, model_folder)
    one.write([result(CASE, ranking=RANKING), baseline_result("mnasnet"), result(REFERENCE)])
    for end in ("-network.png", "-search.png"):
        one.job.write_bytes(f"comparison/{CASE}{end}", b"picture")
    describe(one, plan=plan_facts())
    one.record()
    return one


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Folder and port of a tracking server, which takes seconds to start."""
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(folder) as port:
        yield folder, port


@pytest.fixture
def proxy(server):
    """Proxy in front of the server that makes requests fail."""
    one = Proxy(server[1])
    yield one
    one.refuse()


@pytest.fixture
def there(proxy, server, model_folder, tmp_path):
    """A job to be recorded through the proxy into an experiment of its own."""
    return ServerPlace(tmp_path / "there", model_folder, server[0], proxy.uri, next(EXPERIMENTS))


@pytest.fixture
def undisturbed(empty_database, model_folder, tmp_path):
    """The same job recorded without failures."""
    return Place(tmp_path / "undisturbed", empty_database, model_folder)
