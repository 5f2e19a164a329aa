"""A stage in progress <-> a folder: tensors and a small JSON, no pickles of our classes.

Weights are equal on all workers and saved by the first; BatchNorm statistics are each worker's own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

FORMAT = "checkpoint/1"


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read back."""

    stage: str
    """"search", or "retrain <case>"."""
    counters: dict[str, Any]
    """What the stage counts and remembers beside its tensors; plain values."""
    history: list[dict[str, Any]]
    module: dict[str, Any]
    optimizers: list[dict[str, Any]]

    def load_into(self, module: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
        """Put everything back where `save` took it from."""
        module.load_state_dict(self.module)
        for optimizer, values in zip(optimizers, self.optimizers, strict=True):
            optimizer.load_state_dict(values)


def save(
    folder: Path,
    *,
    stage: str,
    counters: dict[str, Any],
    history: list[dict[str, Any]],
    module: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    rank: int,
) -> None:
    """Write this worker's part of a checkpoint."""
    torch.save(dict(module.named_buffers()), folder / f"buffers-{rank}.pt")
    if rank > 0:
        return
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    states = [optimizer.state_dict() for optimizer in optimizers]
    torch.save({"parameters": parameters, "optimizers": states}, folder / "shared.pt")
    facts = {"format": FORMAT, "stage": stage, "counters": counters, "history": history}
    (folder / "state.json").write_text(json.dumps(facts))


def load(folder: Path, rank: int, device: torch.device) -> Saved:
    """Read a checkpoint; a worker that did not write a part of it takes the first's statistics.

    Raises:
        ValueError: the folder holds another format.
    """
    facts = json.loads((folder / "state.json").read_text())
    if facts.get("format") != FORMAT:
        raise ValueError(f"{folder} is not a checkpoint of format {FORMAT!r}")
    shared = torch.load(folder / "shared.pt", map_location=device, weights_only=True)
    own = folder / f"buffers-{rank}.pt"
    buffers_file = own if own.exists() else folder / "buffers-0.pt"
    buffers = torch.load(buffers_file, map_location=device, weights_only=True)
    return Saved(
        stage=facts["stage"],
        counters=facts["counters"],
        history=facts["history"],
        module={**shared["parameters"], **buffers},
        optimizers=shared["optimizers"],
    )
