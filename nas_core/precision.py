"""Training precision: full or mixed, and the loss scaling that fp16 needs.

Weights, optimizer states and BatchNorm statistics are always float32; mixed precision computes
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
    """Number format that a device trains in."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[object]:
        """Context in which the forward pass uses this format."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Gradient scaler against underflow in fp16; disabled in the other formats."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)


def no_scaler() -> torch.amp.GradScaler:
    """Disabled gradient scaler, as used for float32."""
    return torch.amp.GradScaler("cpu", enabled=False)


def precision_of(settings: TrainingSettings, device: torch.device) -> Precision:
    """The precision chosen by the settings.

    `auto` is bf16 on GPUs that support it, fp16 on older GPUs, and float32 on CPUs, where bf16 made
    no step faster.
    """
    name = settings.precision
    if name != "auto":
        return Precision(device, getattr(torch, name))
    if device.type != "cuda":
        return Precision(device, torch.float32)
    has_bf16 = torch.cuda.get_device_capability(device)[0] >= 8
    return Precision(device, torch.bfloat16 if has_bf16 else torch.float16)


def to_device(module: nn.Module, settings: TrainingSettings, device: torch.device) -> None:
    """Move a module to its device, in the memory format chosen by the settings."""
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
    module.to(device, memory_format=memory_format)  # type: ignore[call-overload]
