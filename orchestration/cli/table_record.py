"""A measured table beside its picture, and in MLflow."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.storage import Storage
from orchestration.cli.measure import Found
from orchestration.driver.pipeline import tracking_uri
from orchestration.reports.figures.calibration import calibration_png

EXPERIMENT = "latency tables"


def keep_picture_and_record(found: Found, storage: Storage) -> Sequence[str]:
    """Lines that say where they are; what goes wrong with MLflow costs nothing else."""
    from orchestration.tracking import RecordError, record_table

    if found.table.calibration is None:
        return []
    place, picture = f"tables/{found.key}.png", calibration_png(found.table)
    storage.write_bytes(place, picture)
    lines = [f"picture  {storage.where(place)}"]
    uri = tracking_uri(None, storage)
    try:
        link = record_table(
            *(found.table, found.key, picture),
            tracking_uri=uri,
            experiment=EXPERIMENT,
            folder=storage.uri,
        )
    except RecordError as error:
        return [*lines, f"WARNING not recorded: {error}"]
    return [*lines, f"run      {link}"]
