"""Classify image files with a recorded model.

Images are decoded, resized and normalised as for training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.programs.export import ModelFacts, load_model

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Output of a model for one file."""

    path: Path

    top: tuple[tuple[str, float], ...] = ()
    """(class, probability), most probable first; empty if the file could not be read."""

    error: str | None = None
    """Why the file could not be read: one line that names it."""

    def line(self) -> str:
        """One line of text: `cat.png  cat 97.1 %  dog 2.0 %`."""
        answers = (f"{name} {100 * probability:.1f} %" for name, probability in self.top)
        return self.error or "  ".join([str(self.path), *answers])


def predict(model_folder: Path, images: Sequence[Path], *, top: int = 3) -> list[Prediction]:
    """Classify files, in order. A file that is not an image only sets its own `error`.

    Args:
        model_folder: as written by `export.save_model`.
        images: files that Pillow reads.
        top: number of classes per image.

    Raises:
        ValueError: the folder holds no model.
    """
    run, facts = load_model(model_folder)
    return [_prediction(path, run, facts, top) for path in images]


def _prediction(
    path: Path, run: Callable[[Tensor], Tensor], facts: ModelFacts, top: int
) -> Prediction:
    from orchestration.data.dataset import normalise
    from orchestration.data.transforms import Recipe, decoded

    channels, resolution, _ = facts.input_shape
    recipe = Recipe("crop" if facts.is_cropped else "none", is_training=False)
    try:
        image = decoded(path.read_bytes(), channels, resolution, recipe)
    except ValueError as error:
        return Prediction(path=path, error=f"{path}: {error}")
    except OSError as error:
        return Prediction(path=path, error=f"{path} cannot be read: {error.strerror}")
    probabilities = run(normalise(image[None], facts.mean, facts.std))[0].softmax(dim=0)
    best = probabilities.topk(min(top, len(facts.classes)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Prediction(path=path, top=tuple((facts.classes[i], p) for i, p in pairs))
