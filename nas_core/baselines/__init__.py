"""Networks of the literature that results are compared with, and the ops of cell-based ones."""

from nas_core.baselines.registry import Baseline, build, for_space, model_from_dict

__all__ = ["Baseline", "build", "for_space", "model_from_dict"]
