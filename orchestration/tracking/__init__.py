"""Write what lies in storage into MLflow. The only package that imports mlflow.

    experiment
      job                    parent run: job file, settings, comparison
        mobile-0.31ms        child: what was asked and found, search curves, architecture
          retrain            grandchild: training curves and the model, registered
        mobile-reference     the network to beat; its model is logged and not registered, and so
                             are those of baselines and given architectures

Storage is the truth: recording reads it and changes nothing there. A run is found again by its tags
and gets the tag `proxyless.recorded` when all of it is written, so that recording twice gives the
same runs, and one that was killed is completed. A request that failed is sent again, and what it
was to make is looked for first (`patience.py`).
"""

from orchestration.tracking.artifacts import fetch_model
from orchestration.tracking.client import RecordError, ui_address
from orchestration.tracking.job import record_job
from orchestration.tracking.latency_table import record_table
from orchestration.tracking.links import RecordLinks

__all__ = [
    "RecordError",
    "RecordLinks",
    "fetch_model",
    "record_job",
    "record_table",
    "ui_address",
]
