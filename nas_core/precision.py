"""Number formats of training: full or mixed precision, and the loss scaling that fp16 needs.

Weights, optimizers and BatchNorm statistics are float32 in any case; mixed precision computes
convolutions and matrix products in 16 bits (torch.autocast).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from nas_core.settings import TrainingSettings


@dataclass(frozen=True)
class Precision:
    """In which format a device trains."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[object]:
        """Inside, a forward pass computes in this format."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps gradients of fp16 from vanishing; does nothing in the other formats."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)


def no_scaler() -> torch.amp.GradScaler:
    """The scaler of float32."""
    return torch.amp.GradScaler("cpu", enabled=False)


def precision_of(settings: TrainingSettings, device: torch.device) -> Precision:
    """The format that the settings name; `auto` is bf16 on GPUs that have it, fp16 on older ones.

    On a CPU `auto` is float32: bf16 made no step faster there.
    """
    name = settings.precision
    if name != "auto":
        return Precision(device, getattr(torch, name))
    if device.type != "cuda":
        return Precision(device, torch.float32)
    has_bf16 = torch.cuda.get_device_capability(device)[0] >= 8
    return Precision(device, torch.bfloat16 if has_bf16 else torch.float16)


def place(module: nn.Module, settings: TrainingSettings, device: torch.device) -> None:
    """Move a module to its device, in the memory format that the settings ask for."""
    form = torch.channels_last if settings.channels_last else torch.contiguous_format
    module.to(device, memory_format=form)  # type: ignore[call-overload]
