"""Tensors as bytes in numpy's `npz` format, without pickles."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor


def tensors_to_bytes(**tensors: Tensor) -> bytes:
    """Content of an `npz` file with the named tensors, which must be on the CPU."""
    file = io.BytesIO()
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    np.savez(file, **arrays)
    return file.getvalue()


def tensors_from_bytes(data: bytes) -> dict[str, Tensor]:
    """Tensors of an `npz` file by name; inverse of `tensors_to_bytes`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}
