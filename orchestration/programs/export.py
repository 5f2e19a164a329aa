"""Export a trained network to files that run without this project, and load them again.

`model.pt2` is a `torch.export` program with a dynamic batch size, `model.json` describes inputs and
outputs, `example.json` holds a few normalised images. No pickles are written, and programs that
contain pickles of anything but tensors are refused.
Shapes: N = batch, C = channels, H, W = height and width.
"""

from __future__ import annotations

import copy
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.config.storage_layout import (
    EXAMPLE_FILE,
    MODEL_FACTS_FILE,
    MODEL_FORMAT,
    PROGRAM_FILE,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCH_SIZES = (1, 2, 7)
"""Batch sizes for which a saved program is compared with its network."""
LARGEST_ERROR = 1e-3
EXAMPLE_IMAGES = 4


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts needed to use a model: preprocessing of images and meaning of the outputs."""

    classes: tuple[str, ...]
    """Name of every output, in order."""

    input_shape: tuple[int, int, int]
    """(C, H, W) of one image."""

    mean: tuple[float, ...]
    """Mean per channel of pixels in [0, 1]."""

    std: tuple[float, ...]
    """Standard deviation per channel. The input of the model is (pixel - mean) / std."""

    architecture: Mapping[str, Any]
    """JSON of the architecture, or of the baseline."""

    is_cropped: bool = False
    """Whether the input is a centre crop. False: the whole image, resized to a square."""

    def __post_init__(self) -> None:
        channels = self.input_shape[0]
        if len(self.mean) != channels or len(self.std) != channels:
            raise ValueError(
                f"{len(self.mean)} means and {len(self.std)} standard deviations for images of "
                f"{channels} channels; expected one of each per channel"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelFacts:
        """Facts from the content of `model.json`.

        Raises:
            ValueError: the format is another one, or a field is missing.
        """
        if values.get("format") != MODEL_FORMAT:
            raise ValueError(f"not a model of format {MODEL_FORMAT!r}: {values.get('format')!r}")
        try:
            channels, height, width = values["input_shape"]
            return cls(
                classes=tuple(values["classes"]),
                input_shape=(channels, height, width),
                mean=tuple(values["mean"]),
                std=tuple(values["std"]),
                architecture=values["architecture"],
                is_cropped=values.get("is_cropped", False),
            )
        except KeyError as error:
            raise ValueError(f"the facts of this model lack {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"format": MODEL_FORMAT, **asdict(self)}


def save_model(network: nn.Module, example: Tensor, facts: ModelFacts, folder: Path) -> None:
    """Write `network` and its facts to `folder`.

    Args:
        network: in any mode, on any device. It is not changed.
        example: normalised images, shape (N, C, H, W), N at least 2.
        facts: written to `model.json`, with the largest error of the saved program.
        folder: created if missing.

    Raises:
        ValueError: there is only one image, its shape is not that of the facts, or the outputs of
            the saved program differ from those of the network.
    """
    _check_example(example, facts)
    import torch

    plain = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format).eval()
    images = example.detach()[:EXAMPLE_IMAGES].cpu().float().contiguous()
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(plain, (images,), dynamic_shapes=({0: batch},))
    folder.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, folder / PROGRAM_FILE)
    error = _largest_error(plain, load_program(folder / PROGRAM_FILE), images)
    if not error < LARGEST_ERROR:
        raise ValueError(
            f"the exported program differs from the network by {error:.2g} in "
            f"{folder / PROGRAM_FILE}; expected less than {LARGEST_ERROR}"
        )
    _write_json(folder / MODEL_FACTS_FILE, {**facts.to_dict(), "max_abs_error": error})
    _write_json(folder / EXAMPLE_FILE, {"images": images.tolist()})


def load_model(folder: Path) -> tuple[Callable[[Tensor], Tensor], ModelFacts]:
    """Load a saved model: function from images (N, C, H, W) to logits (N, classes), and its facts.

    Raises:
        ValueError: a file is missing or of another format, or loading the program could run code.
    """
    for name in (PROGRAM_FILE, MODEL_FACTS_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}; expected the folder of a recorded model")
    facts = ModelFacts.from_dict(json.loads((folder / MODEL_FACTS_FILE).read_text("utf-8")))
    return load_program(folder / PROGRAM_FILE), facts


def load_program(path: Path) -> Callable[[Tensor], Tensor]:
    """Load a saved program as a function that computes no gradients.

    Raises:
        ValueError: the file contains pickles of anything but tensors.
    """
    import torch

    _refuse_pickles(path)
    module = torch.export.load(path).module()

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = module(images)
        return logits

    return run


def _check_example(example: Tensor, facts: ModelFacts) -> None:
    if len(example) < 2 or tuple(example.shape[1:]) != facts.input_shape:
        raise ValueError(
            f"the example has shape {tuple(example.shape)}; expected at least two images of "
            f"shape {facts.input_shape}: with one, the program takes no other batch size"
        )


def _largest_error(network: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Largest absolute difference of any logit, over all BATCH_SIZES."""
    import torch

    errors = []
    for size in BATCH_SIZES:
        batch = images.repeat(-(-size // len(images)), 1, 1, 1)[:size]
        with torch.no_grad():
            errors.append((run(batch) - network(batch)).abs().max())
    return torch.stack(errors).max().item()  # NaN if any is NaN


_PLAIN_RECORD = re.compile(
    r"models/[^/]+\.json|data/(weights|constants)/((weight|tensor)_\d+|[^/]+_config\.json)"
    r"|archive_(format|version)|byteorder|\.data/(version|serialization_id|alignment)"
)
_SAMPLE_RECORD = re.compile(r"data/sample_inputs/[^/]+\.pt")


def _refuse_pickles(path: Path) -> None:
    # torch.export.load unpickles records declared as pickled, and runs libraries in the archive.
    try:
        with zipfile.ZipFile(path) as archive:
            for record in archive.infolist():
                if not _is_plain(record.filename.partition("/")[2], archive.read(record)):
                    raise ValueError(
                        f"{path} holds {record.filename}, which may run code when it is loaded; "
                        "load only models that this project recorded"
                    )
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no exported program: {error}") from error


def _is_plain(record: str, content: bytes) -> bool:
    if _SAMPLE_RECORD.fullmatch(record):
        return _holds_only_tensors(content)
    if not _PLAIN_RECORD.fullmatch(record):
        return False
    if record.endswith("_config.json"):
        entries = json.loads(content)["config"].values()
        return all(entry["use_pickle"] is False for entry in entries)
    return True


def _holds_only_tensors(content: bytes) -> bool:
    import torch

    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # the restricted unpickler raises many types
        return False
    return True


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value) + "\n", "utf-8")
