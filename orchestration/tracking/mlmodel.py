"""Convert a saved model to MLflow's model format.

`mlflow.pytorch.save_model` would export the program again, which takes seconds and needs torch, and
the recorded program would not be the one that was checked against the network. Here the program is
copied byte for byte, and the few files around it are written.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from orchestration.config.storage_layout import EXAMPLE_FILE, MODEL_FACTS_FILE, PROGRAM_FILE
from orchestration.programs.export import ModelFacts

DATA, EXTRA = "data", "extra_files"


def write_mlmodel(files: Path, folder: Path, identity: Mapping[str, str], location: str) -> None:
    """Write a model to `folder` in the format that `mlflow.pytorch` and `mlflow.pyfunc` load.

    Args:
        files: folder written by `export.save_model`; other files in it are copied too.
        folder: existing and empty.
        identity: `model_id` and `run_id` in MLflow.
        location: artifact location of the model in MLflow.

    Raises:
        ValueError: the model's facts cannot be read.
    """
    facts = ModelFacts.from_dict(json.loads((files / MODEL_FACTS_FILE).read_text("utf-8")))
    extra = sorted(
        path.name for path in files.iterdir() if path.name not in (PROGRAM_FILE, EXAMPLE_FILE)
    )
    for name in (DATA, EXTRA):
        (folder / name).mkdir()
    shutil.copy(files / PROGRAM_FILE, folder / DATA)
    for name in extra:
        shutil.copy(files / name, folder / EXTRA)
    description = {
        **identity,
        "artifact_path": location,
        "utc_time_created": str(datetime.now(UTC).replace(tzinfo=None)),
        "mlflow_version": version("mlflow"),
        "flavors": _flavors(extra),
        "signature": _signature(facts),
        "saved_input_example_info": _write_example(files, folder),
        "metadata": _metadata(facts),
    }
    _write_yaml(folder / "MLmodel", description)
    _write_environment(folder)


def _flavors(extra: list[str]) -> dict[str, Any]:
    return {
        "pytorch": {
            "model_data": DATA,
            "pytorch_version": version("torch"),
            "code": None,
            "extra_files": [{"path": f"{EXTRA}/{name}"} for name in extra],
        },
        "python_function": {
            "loader_module": "mlflow.pytorch",
            "python_version": platform.python_version(),
            "data": DATA,
            "pickle_module_name": "mlflow.pytorch.pickle_module",  # required; nothing is pickled
            "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
            "config": {"device": None},
        },
    }


def _signature(facts: ModelFacts) -> dict[str, str]:
    def batch_of(*shape: int) -> str:
        tensor = {"dtype": "float32", "shape": [-1, *shape]}
        return json.dumps([{"type": "tensor", "tensor-spec": tensor}])

    return {"inputs": batch_of(*facts.input_shape), "outputs": batch_of(len(facts.classes))}


def _metadata(facts: ModelFacts) -> dict[str, Any]:
    return {
        "classes": list(facts.classes),
        "input_shape": list(facts.input_shape),
        "mean": list(facts.mean),
        "std": list(facts.std),
    }


def _write_example(files: Path, folder: Path) -> dict[str, str]:
    """Write the example images in the two formats that MLflow reads."""
    images = json.loads((files / EXAMPLE_FILE).read_text("utf-8"))["images"]
    (folder / "input_example.json").write_text(json.dumps(images), "utf-8")
    (folder / "serving_input_example.json").write_text(json.dumps({"inputs": images}), "utf-8")
    return {
        "artifact_path": "input_example.json",
        "serving_input_path": "serving_input_example.json",
        "type": "ndarray",
    }


def _write_environment(folder: Path) -> None:
    """Write the requirements of a model server in the three formats that MLflow reads."""
    # Without the local version part: package registries do not have 2.15.0+cu132.
    needs = [f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", "torch")]
    python = platform.python_version()
    (folder / "requirements.txt").write_text("\n".join(needs) + "\n", "utf-8")
    _write_yaml(
        folder / "python_env.yaml",
        {"python": python, "dependencies": ["-r requirements.txt"]},
    )
    _write_yaml(
        folder / "conda.yaml",
        {
            "name": "mlflow-env",
            "channels": ["conda-forge"],
            "dependencies": [f"python={python}", "pip", {"pip": needs}],
        },
    )


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False), "utf-8")
