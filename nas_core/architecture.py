"""Networks as values: the `Model` protocol, and `Architecture`, one op per site of a space.

torch is imported only to build a network or to count its parameters and operations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nas_core.space import SearchSpace, check_format

if TYPE_CHECKING:
    from torch import Size, nn

    from nas_core.network import Network

FORMAT = "architecture/1"


class Model(Protocol):
    """A network that can be built, trained, measured and recorded: `Architecture` or a baseline."""

    def build(self, dropout: float = 0.0) -> nn.Module:
        """Build the network as a module, with `dropout` before its classifier."""
        ...

    def num_params(self) -> int:
        """Number of trainable parameters."""
        ...

    def macs(self) -> int:
        """Multiply-accumulates of convolutions and linear layers for one image."""
        ...

    def digest(self) -> str:
        """Twelve hexadecimal digits; equal models have equal digests."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the key "format" identifies the class."""
        ...


@dataclass(frozen=True)
class Architecture:
    """One op per site, in the order of `space.sites`.

    Raises:
        ValueError: an op is not a candidate at its site, or there are more or fewer ops than sites.
    """

    space: SearchSpace
    ops: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.ops) != len(self.space.sites):
            raise ValueError(
                f"{len(self.ops)} ops for the {len(self.space.sites)} sites of "
                f"'{self.space.name}'; an architecture has one op per site"
            )
        for site, op in zip(self.space.sites, self.ops, strict=True):
            if op not in site.ops:
                raise ValueError(
                    f"'{op}' is not a candidate at '{site.name}'; "
                    f"expected one of {', '.join(site.ops)}"
                )

    @classmethod
    def uniform(cls, space: SearchSpace, op: str) -> Architecture:
        """The same op at every site."""
        return cls(space, (op,) * len(space.sites))

    @classmethod
    def reference(cls, space: SearchSpace) -> Architecture:
        """The reference network: percent budgets refer to its latency, a search has to beat it."""
        return cls.uniform(space, space.reference_op)

    @classmethod
    def from_path(cls, space: SearchSpace, path: list[int]) -> Architecture:
        """Build an architecture from the index of the chosen op at every site."""
        return cls(space, tuple(site.ops[i] for site, i in zip(space.sites, path, strict=True)))

    def path(self) -> list[int]:
        """Index of the chosen op at every site."""
        return [site.ops.index(op) for site, op in zip(self.space.sites, self.ops, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"format": FORMAT, "space": self.space.to_dict(), "ops": list(self.ops)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Architecture:
        """Inverse of `to_dict`.

        Raises:
            ValueError: the format is another, or a field is missing or wrong.
        """
        check_format(values, FORMAT, "an architecture")
        try:
            return cls(SearchSpace.from_dict(values["space"]), tuple(values["ops"]))
        except (TypeError, KeyError) as error:
            raise ValueError(f"this architecture cannot be read: {error}") from error

    def to_json(self) -> str:
        """JSON text, including the space."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Inverse of `to_json`.

        Raises:
            ValueError: not JSON, the format is another, or a field is missing or wrong.
        """
        return cls.from_dict(json.loads(text))

    def digest(self) -> str:
        """Twelve hexadecimal digits; equal architectures have equal digests."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def build(self, dropout: float = 0.0) -> Network:
        """Build the network without its skips; weights are torch's defaults, see `initialise`."""
        from nas_core.network import Network

        return Network(self.space, self.ops, dropout)

    def num_params(self) -> int:
        """Number of trainable parameters of the built network."""
        return count_params(self.build)

    def macs(self) -> int:
        """Multiply-accumulates of convolutions and linear layers for one image."""
        return count_macs(self.build, self.space.in_channels, self.space.resolution)


def count_params(build: Callable[[], nn.Module]) -> int:
    """Number of trainable parameters of the module that `build` returns; allocates none."""
    return sum(parameter.numel() for parameter in on_meta(build).parameters())


def count_macs(build: Callable[[], nn.Module], in_channels: int, resolution: int) -> int:
    """Multiply-accumulates of convolutions and linear layers for one image, without computing."""
    layers = output_shapes(build, in_channels, resolution)
    return sum(_layer_macs(layer, shape) for layer, shape in layers)


def output_shapes(
    build: Callable[[], nn.Module], in_channels: int, resolution: int
) -> list[tuple[nn.Module, Size]]:
    """Convolutions and linear layers in the order in which they run, with their output shapes."""
    import torch
    from torch import nn

    from nas_core.blocks import ReLU6

    network = on_meta(build).eval()
    outputs: list[tuple[nn.Module, Size]] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda m, _i, out: outputs.append((m, out.shape)))
        elif isinstance(layer, nn.BatchNorm2d | nn.ReLU | ReLU6):
            # They keep the shape, and on the meta device they would take most of the time.
            layer.forward = nn.Identity().forward  # type: ignore[method-assign]
    with torch.no_grad():
        network(torch.empty(1, in_channels, resolution, resolution, device="meta"))
    return outputs


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """The module that `build` returns, on torch's meta device: shapes without values."""
    import torch

    with torch.device("meta"):
        return build()


def _layer_macs(layer: nn.Module, shape: Size) -> int:
    weight: Any = layer.weight
    positions = shape[2] * shape[3] if len(shape) == 4 else 1
    return int(weight.numel() * positions)
