"""Networks that a job names instead of searching: baselines and given architectures."""

from __future__ import annotations

from math import prod
from pathlib import Path

from nas_core.architecture import Architecture, Model
from nas_core.latency import LatencyTable
from nas_core.space import SearchSpace
from orchestration.config.cases import CaseSettings
from orchestration.config.loading import SpecError


def named_model(settings: CaseSettings, space: SearchSpace, entry: str) -> Model | None:
    """Model that an entry of `cases:` names; None if the entry asks for a search.

    Args:
        settings: the entry.
        space: space of the job. The model is built for its images and classes.
        entry: path of the entry in the job file, for messages.

    Raises:
        SpecError: there is no such model, or it is for other images or classes.
    """
    try:
        if settings.baseline is not None:
            from nas_core.baselines.registry import for_space

            return for_space(settings.baseline, space)
        if settings.architecture is not None:
            return _architecture(settings, space)
    except ValueError as error:
        raise SpecError(f"{entry}.{settings.setting}: {error}") from None
    return None


def _architecture(settings: CaseSettings, space: SearchSpace) -> Architecture:
    if settings.architecture_file is not None:
        return _read(settings.architecture_file, space)
    from nas_core import published

    assert settings.architecture is not None, "the entry names an architecture"
    return published.architecture(
        settings.architecture,
        classes=space.classes,
        in_channels=space.in_channels,
        resolution=space.resolution,
    )


def _read(path: Path, space: SearchSpace) -> Architecture:
    try:
        architecture = Architecture.from_json(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if _images(architecture.space) != _images(space):
        raise ValueError(
            f"{path} is for {_images(architecture.space)}, but the data has {_images(space)}; "
            "name an architecture for such images, or change data"
        )
    return architecture


def _images(space: SearchSpace) -> str:
    size = f"{space.in_channels}x{space.resolution}x{space.resolution}"
    return f"images of {size} in {space.classes} classes"


def table_latency_ms(model: Model, table: LatencyTable) -> float | None:
    """Latency of a model by the table; None if a part has no row, as in baselines."""
    if not isinstance(model, Architecture):
        return None
    try:
        return table.latency_ms(model)
    except ValueError:
        return None


def total_stride(model: Model) -> int:
    """Factor by which height and width shrink before the pooling."""
    if isinstance(model, Architecture):
        space = model.space
        return space.stem_stride * prod(site.stride for site in space.sites)
    from nas_core.baselines.registry import Baseline

    assert isinstance(model, Baseline), "a model is an architecture or a baseline"
    return model.total_stride
