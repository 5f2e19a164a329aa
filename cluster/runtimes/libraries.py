"""Libraries that runtimes need, and how to install them."""

from __future__ import annotations

from importlib import metadata

from cluster.runtimes.base import MeasurementError

REQUIREMENTS = {
    "torch": "torch>=2.15,<2.16",
    "executorch": "executorch>=1.5.1,<1.6",
    "onnxruntime": "onnxruntime>=1.22,<2",
    "onnx": "onnx>=1.18,<2",
    "onnxscript": "onnxscript>=0.5,<1",
}
"""Requirements for pip; the same as in `pyproject.toml`."""

EXTRAS = {
    "executorch": "executorch",
    "onnxruntime": "onnxruntime",
    "onnx": "onnxruntime",
    "onnxscript": "onnxruntime",
}
"""Extra of this project that installs a library; torch needs none."""


def installed(name: str) -> str:
    """Version of an installed library.

    Raises:
        MeasurementError: it is missing; the message names the extra that installs it.
    """
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError as error:
        way_out = f"pip install '{REQUIREMENTS[name]}'"
        if name in EXTRAS:
            extra = EXTRAS[name]
            way_out = f"install the extra '{extra}': pip install '.[{extra}]' here, or {way_out}"
        raise MeasurementError(f"{name} is not installed; {way_out}") from error
