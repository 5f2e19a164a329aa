"""Record jobs from storage in MLflow. The only package that imports mlflow.

    experiment
      job                    parent run: job file, settings, comparison
        mobile-0.31ms        child: params and metrics of a case, search curves, architecture
          retrain            grandchild: training curves and the model, registered
        mobile-reference     the network to beat; its model is logged but not registered, as are
                             those of baselines and given architectures

Storage is the source of truth: recording reads it and changes nothing there. A run is identified by
its tags and gets the tag `proxyless.recorded` once it is complete. So recording twice yields the
same runs, and an interrupted recording is completed by the next one. Failed requests are retried;
before a request that creates an object, the object is looked up (`retries.py`).
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
