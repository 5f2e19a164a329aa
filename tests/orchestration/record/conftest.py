import pytest
from mlflow import MlflowClient

from nas_core.architecture import Architecture
from orchestration.export import ModelFacts, save_model
from tests.orchestration.job_folder import (
    OPS,
    SPACE,
)
from tests.orchestration.record.place import Place


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """An MLflow database without content: making one takes seconds, copying does not."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A network, exported."""
    import torch

    torch.manual_seed(0)
    network = Architecture(SPACE, OPS)
    facts = ModelFacts(
        classes=tuple("0123456789"),
        input_shape=(1, 8, 8),
        mean=(0.3,),
        std=(0.4,),
        architecture=network.to_dict(),
    )
    folder = tmp_path_factory.mktemp("model")
    save_model(network.build(), torch.randn(4, 1, 8, 8), facts, folder)
    return folder


@pytest.fixture
def place(tmp_path, empty_database, model_folder, monkeypatch):
    """A job with a case and the reference, an empty MLflow, and the way to record one in the other.

    The working directory is another: nothing may be written there.
    """
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return Place(tmp_path / "a storage", empty_database, model_folder)
