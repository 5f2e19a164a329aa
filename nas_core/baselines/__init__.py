"""Networks of the literature, and the convolutions of cell-based ones."""

from nas_core.baselines.registry import Baseline, build, for_space, model_from_dict

__all__ = ["Baseline", "build", "for_space", "model_from_dict"]
