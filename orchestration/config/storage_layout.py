"""Layout of a storage: the paths of all files in it, and the names of their formats.

    <storage>/
      mlflow.db                           runs, unless another MLflow server is named
      tables/<key>.json                   latency table; .rows.json while it is measured
             <key>.png                    figure of its calibration
             <key>-widths.json            latencies of MobileNetV2 in several widths
      timings/<key>.json                  step times, for estimates
      data/<fingerprint>/                 decoded images, index and statistics of a data set
      warmups/<key>/                      checkpoints of a warm-up, shared by all jobs
      <job>/
        job.json                          written at the end of a run
        plan.json                         only while a run has not ended
        asha.json                         scores of searches that may be stopped early
        bad_samples.csv                   images that cannot be decoded
        cases/<case>/                     result.json, architecture.json, model/ and others
        checkpoints/<case>-<key>/         search/ and retrain/ of a case that is not finished
        searches/<key>/                   checkpoints of a search that several budgets share
        across/<target>.json              latencies of the networks on another target
        comparison/                       tables, figures and the HTML report
        renamed/, renamed.json            results that are being renamed
        tune/, train/                     scratch of Ray Tune and Ray Train

`lease.json`, in the folder of a job or a warm-up, belongs to `cluster/lease.py`. Formats that
`nas_core` writes (architecture, space, latency table, baseline) are named there.
"""

from __future__ import annotations

import re

# Folders of a storage.
TABLES = "tables"
TIMINGS = "timings"
DATA = "data"
WARMUPS = "warmups"
MLFLOW_FILE = "mlflow.db"

# Folders of a job.
CASES = "cases"
CHECKPOINTS = "checkpoints"
SEARCHES = "searches"
ACROSS = "across"
COMPARISON = "comparison"
RENAMED = "renamed"
TUNE = "tune"
TRAIN = "train"

# Files of a job.
JOB_FILE = "job.json"
PLAN_FILE = "plan.json"
RUNGS_FILE = "asha.json"
RENAMED_FILE = "renamed.json"
BAD_SAMPLES_FILE = "bad_samples.csv"

JOB_FORMAT = "job/1"
PLAN_FORMAT = "job-plan/1"
RUNGS_FORMAT = "asha/1"

# Files in the folder of a case.
RESULT_FILE = "result.json"
ARCHITECTURE_FILE = "architecture.json"
PROBABILITIES_FILE = "probabilities.json"
DERIVED_FILE = "derived.json"
RANDOM_FILE = "random.json"
RANKING_FILE = "ranking.json"
STEP_TIMES_FILE = "timing.json"
MODEL = "model"
"""Folder of the exported network."""

RESULT_FORMAT = "case-result/1"
PROBABILITIES_FORMAT = "probabilities/1"
RANDOM_FORMAT = "random-networks/1"
RANKING_FORMAT = "ranking/1"

# Files of an exported network.
PROGRAM_FILE = "model.pt2"
MODEL_FACTS_FILE = "model.json"
EXAMPLE_FILE = "example.json"

MODEL_FORMAT = "model/1"

# Stages of a case, below the folder of its checkpoints.
SEARCH = "search"
RETRAIN = "retrain"

# Files of a checkpoint, in a folder <epochs>-<steps>; the end of a stage lies beside them.
CHECKPOINT_STATE_FILE = "state.json"
CHECKPOINT_SHARED_FILE = "shared.pt"
STAGE_END_FILE = "end.json"

CHECKPOINT_FORMAT = "checkpoint/2"
STAGE_END_FORMAT = "stage-end/1"

# Files of a comparison.
COMPARISON_STEM = "comparison"
"""Name of the table without its suffix."""
REPORT_FILE = "report.html"
PICTURES_FILE = "pictures.json"
ACCURACY_PICTURE = "accuracy.png"
MATRIX_PICTURE = "matrix.png"
NETWORKS_PICTURE = "networks"
"""Stem of the figures that show networks side by side."""
NETWORK_PICTURE = "-network.png"
SEARCH_PICTURE = "-search.png"
LATENCY_PICTURE = "-latency.png"
"""Ends of the names of figures of one case or target. They differ, so that no two names clash."""

COMPARISON_FORMAT = "comparison/1"
CROSS_TARGET_FORMAT = "across/1"

# Files beside latency tables, and step times.
ROWS_FORMAT = "latency-rows/2"
EARLIER_ROWS_FORMATS = ("latency-rows/1",)
"""Earlier formats, which do not name the device. Their rows are ignored."""
WIDTHS_FORMAT = "widths/1"
TIMINGS_FORMAT = "timings/3"

# Files of a data set.
INDEX_FILE = "index.parquet"

INDEX_FORMAT = "image-index/1"
STATISTICS_FORMAT = "image-statistics/1"

# Folder of converted images, which may lie anywhere.
MANIFEST_FILE = "_manifest.json"
CONVERSION_FILE = "_conversion.json"
"""Description of a conversion, written at its start. The manifest marks its end."""
SHARDS = "_shards"
"""Folder of notes on finished shards, until the manifest is written."""

MANIFEST_FORMAT = "images/1"


def table_file(key: str) -> str:
    """Path of a latency table in the storage."""
    return f"{TABLES}/{table_name(key)}"


def table_name(key: str) -> str:
    """Name of a latency table in the folder of tables."""
    return f"{key}.json"


def is_table_name(name: str) -> bool:
    """Whether a file in the folder of tables is a table; the folder also holds rows and widths."""
    return re.fullmatch(r"[0-9a-f]+\.json", name) is not None


def table_rows_file(key: str) -> str:
    """Path of the rows of a latency table while it is measured."""
    return f"{TABLES}/{key}.rows.json"


def table_widths_file(key: str) -> str:
    """Path of the latencies of MobileNetV2 in several widths."""
    return f"{TABLES}/{key}-widths.json"


def table_picture_file(key: str) -> str:
    """Path of the figure of the calibration of a latency table."""
    return f"{TABLES}/{key}.png"


def timings_folder(key: str) -> str:
    """Folder for the checkpoints of timed steps, deleted afterwards."""
    return f"{TIMINGS}/{key}"


def timings_file(key: str) -> str:
    """Path of step times in the storage."""
    return f"{timings_folder(key)}.json"


def warmup_folder(key: str) -> str:
    """Folder of a warm-up in the storage, where all jobs find it."""
    return f"{WARMUPS}/{key}"


def data_folder(fingerprint: str) -> str:
    """Folder of the prepared files of a data set."""
    return f"{DATA}/{fingerprint}"


def statistics_file(fingerprint: str, settings: str) -> str:
    """Path of mean and deviation of the images under these settings."""
    return f"{data_folder(fingerprint)}/statistics-{settings}.json"


def images_file(folder: str, part: str) -> str:
    """Path of the decoded images of a part of a data set."""
    return f"{folder}/{part}.npz"


def case_folder(name: str) -> str:
    """Folder of a case in the storage of its job."""
    return f"{CASES}/{name}"


def result_file(name: str) -> str:
    """Path of the result of a case in the storage of its job."""
    return f"{case_folder(name)}/{RESULT_FILE}"


def case_of_result(path: str) -> str | None:
    """Name of the case whose result has this path; None for other files of a job."""
    match = re.fullmatch(rf"{CASES}/([^/]+)/{re.escape(RESULT_FILE)}", path)
    return None if match is None else match[1]


def is_result_format(name: str) -> bool:
    """Whether a format is that of a result, of any version."""
    return name.startswith(RESULT_FORMAT.partition("/")[0] + "/")


def checkpoints_folder(name: str, key: str) -> str:
    """Folder of the checkpoints of a case in the storage of its job, until it is finished."""
    return f"{CHECKPOINTS}/{name}-{key}"


def case_of_checkpoints(folder: str) -> tuple[str, str] | None:
    """Name and key of the case that owns a folder in `checkpoints/`; None for other folders."""
    match = re.fullmatch(r"(.+)-([0-9a-f]{16})", folder)
    return None if match is None else (match[1], match[2])


def search_folder(key: str) -> str:
    """Folder of a search that several cases share, in the storage of their job."""
    return f"{SEARCHES}/{key}"


def cross_target_file(target: str) -> str:
    """Path of the latencies of all networks of a job on one target."""
    return f"{ACROSS}/{target}.json"


def comparison_file(name: str) -> str:
    """Path of a table, a figure or the report in the storage of a job."""
    return f"{COMPARISON}/{name}"


def rank_file(checkpoint: str, rank: int) -> str:
    """Path of the sizes and checksums of a worker's files in a checkpoint; written last."""
    return f"{checkpoint}/rank-{rank}.json"


def buffers_file(rank: int) -> str:
    """Name of the file with a worker's buffers in a checkpoint."""
    return f"buffers-{rank}.pt"


def shard_file(number: int, count: int) -> str:
    """Name of a shard of converted images."""
    return f"part-{number:05d}-of-{count:05d}.parquet"


def shard_note_file(shard: str) -> str:
    """Path of the JSON file that describes a finished shard."""
    return f"{SHARDS}/{shard}.json"
