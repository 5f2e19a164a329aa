"""The stages of a job, on Ray and MLflow. `load_job` and `run` are the Python API."""

from orchestration.pipeline import run
from orchestration.spec import load_job

__all__ = ["load_job", "run"]
