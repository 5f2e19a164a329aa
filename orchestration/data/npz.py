"""Tensors as the content of a file: numpy's `npz`, without pickles."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor


def tensors_to_bytes(**tensors: Tensor) -> bytes:
    """Tensors on the CPU, by name."""
    file = io.BytesIO()
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    np.savez(file, **arrays)
    return file.getvalue()


def tensors_from_bytes(data: bytes) -> dict[str, Tensor]:
    """The inverse."""
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return {name: torch.from_numpy(found[name]) for name in found.files}
