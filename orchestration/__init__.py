"""Architecture search on Ray and MLflow. `load_job`, `run` and `sweep` are the Python API."""

import os

# MLflow reads these when it is imported, and Ray imports it before `orchestration.tracking`.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

from orchestration.api import sweep
from orchestration.config.loading import load_job
from orchestration.driver.pipeline import run

__all__ = ["load_job", "run", "sweep"]
