"""The over-parameterised network: all candidate ops of all sites, of which one path runs.

A step needs memory for the weights and activations of one path, not of K (ProxylessNAS, 3.2).
Weights and architecture parameters are disjoint: see `weights()` and `alphas()`.
Shapes: N = batch, C = channels, H, W = height and width, K = candidate ops at a site.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from nas_core.blocks import MBConv, initialise
from nas_core.network import Head, Stem
from nas_core.ops import build_op
from nas_core.space import SearchSpace

Choice = int | Tensor
"""Op that runs at a site (index), or weights of shape (K,) for the mixture of all its ops."""


@dataclass(frozen=True)
class Trace:
    """Logits of one forward pass along a path, with the inputs and outputs of all sites."""

    logits: Tensor
    """(N, classes), with gradient."""
    inputs: list[Tensor]
    """Input of each site, detached."""
    outputs: list[Tensor]
    """Output of the active op per site; requires grad even if all ops up to it are skips."""


class Supernet(nn.Module):
    """Supernet of a space: all candidate ops between stem and head."""

    def __init__(self, space: SearchSpace, rng: torch.Generator) -> None:
        super().__init__()
        self.space = space
        self.stem = Stem(space)
        self.sites = nn.ModuleList(
            nn.ModuleList(build_op(op, site.op_shape(space.bn_eps)) for op in site.ops)
            for site in space.sites
        )
        self.head = Head(space)
        initialise(self, rng)
        self.alpha = nn.ParameterList(
            nn.Parameter(torch.empty(len(site.ops)).normal_(0.0, 1e-3, generator=rng))
            for site in space.sites
        )
        self._weights = [p for n, p in self.named_parameters() if not n.startswith("alpha.")]
        self._norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]

    def align(self) -> None:
        """Make all ops of a site start as the same function; see the function `align`."""
        for candidates in self.sites:
            align(cast(nn.ModuleList, candidates))

    def alphas(self) -> list[nn.Parameter]:
        """Architecture parameters, one (K,) per site."""
        return list(self.alpha)

    def weights(self) -> list[nn.Parameter]:
        """Trainable parameters except the architecture parameters."""
        return self._weights

    def on_path(self, path: Sequence[Choice]) -> list[nn.Module]:
        """Stem, ops of `path`, and head, in the order in which they run."""
        ops: list[nn.Module] = []
        for site, choice in enumerate(path):
            candidates = list(cast(nn.ModuleList, self.sites[site]))
            ops += [candidates[choice]] if isinstance(choice, int) else candidates
        return [self.stem, *ops, self.head]

    def probs(self) -> list[Tensor]:
        """Softmax of the architecture parameters, detached, one (K,) per site."""
        return [alpha.detach().softmax(0) for alpha in self.alpha]

    def log_probs(self) -> list[Tensor]:
        """Log-softmax of the architecture parameters, detached, one (K,) per site."""
        return [alpha.detach().log_softmax(0) for alpha in self.alpha]

    def choices(self) -> list[int]:
        """Number of candidate ops of every site."""
        return [len(site.ops) for site in self.space.sites]

    def op(self, site: int, choice: int) -> nn.Module:
        """The module of one candidate op."""
        candidates = cast(nn.ModuleList, self.sites[site])
        return candidates[choice]

    def forward(self, images: Tensor, path: Sequence[Choice]) -> Tensor:
        """Logits (N, classes) of the network that `path` chooses; other ops do not run."""
        x = self.stem(images)
        for site, choice in enumerate(path):
            x = self.op(site, choice)(x) if isinstance(choice, int) else self._mix(site, choice, x)
        logits: Tensor = self.head(x)
        return logits

    def _mix(self, site: int, shares: Tensor, x: Tensor) -> Tensor:
        """Weighted sum of all ops of a site."""
        candidates = cast(nn.ModuleList, self.sites[site])
        mixed: Tensor = shares[0] * candidates[0](x)
        for share, op in zip(shares[1:], list(candidates)[1:], strict=True):
            mixed = mixed + share * op(x)
        return mixed

    def trace(self, images: Tensor, path: Sequence[int]) -> Trace:
        """Run `path` and record the inputs and outputs of all sites.

        To be called within `frozen()`. No gradient flows to the layers before the sites. The
        output of a site becomes a leaf if only skips come before it, so that a skip there has a
        gate gradient too.
        """
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []
        x = self.stem(images)
        for site, choice in enumerate(path):
            inputs.append(x.detach())
            y = self.op(site, choice)(x)
            x = y if y.requires_grad else y.detach().requires_grad_()
            outputs.append(x)
        return Trace(self.head(x), inputs, outputs)

    @torch.no_grad()
    def candidate(self, site: int, choice: int, x: Tensor) -> Tensor:
        """Output of one op for an input of its site, without gradient."""
        output: Tensor = self.op(site, choice)(x)
        return output

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Context without gradients of weights and without updates of BatchNorm statistics.

        BatchNorm normalizes with the statistics of the batch.
        """
        for weight in self._weights:
            weight.requires_grad_(False)
        for norm in self._norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for weight in self._weights:
                weight.requires_grad_(True)
            for norm in self._norms:
                norm.track_running_stats = True


def num_supernet_params(space: SearchSpace) -> int:
    """Number of weights in the supernet of a space, without architecture parameters."""
    with torch.device("meta"):
        parts = [Stem(space), Head(space)]
        ops = [build_op(op, s.op_shape(space.bn_eps)) for s in space.sites for op in s.ops]
    return sum(p.numel() for part in [*parts, *ops] for p in part.parameters())


@torch.no_grad()
def align(ops: Iterable[nn.Module]) -> None:
    """Make all inverted bottlenecks of a site start as the same function; other ops do not change.

    Otherwise the ops of a site start as unrelated functions, and the layer after a site that cannot
    be skipped has to learn every combination of them (nine sites, 40 classes, 800 steps: top-1 5 %,
    and 56 % with aligned ops). The channels and the part of the kernel that all ops have in common
    get the same initial weights. Additional channels reach the output through weights of 0, and the
    rim of a larger kernel is 0. If a site can be skipped, its ops start as the identity: the
    BatchNorm before the shortcut has scale 0. Weights are not shared afterwards.

    Ops with and without an expansion convolution are aligned separately: no weights make them
    equal.

    Sources: function-preserving widening, Chen et al., "Net2Net" (2016); the scale of 0, Goyal et
    al., "Accurate, Large Minibatch SGD" (2017), section 5.1.
    """
    bottlenecks = [op for op in ops if isinstance(op, MBConv)]
    for length in {len(_convolutions(op)) for op in bottlenecks}:
        alike = [_convolutions(op) for op in bottlenecks if len(_convolutions(op)) == length]
        for layers in zip(*alike, strict=True):
            _equalize([layer.weight for layer in layers])
    for op in bottlenecks:
        if op.has_shortcut:
            _last_norm(op).weight.zero_()


def _convolutions(op: MBConv) -> list[nn.Conv2d]:
    """Convolutions from input to output; those of squeeze-and-excite are left out."""
    return [layer for layer in op.layers if isinstance(layer, nn.Conv2d)]


def _last_norm(op: MBConv) -> nn.BatchNorm2d:
    norm = op.layers[-1]
    assert isinstance(norm, nn.BatchNorm2d), "a bottleneck ends with a BatchNorm"
    return norm


def _equalize(weights: Sequence[Tensor]) -> None:
    """Give weights (out, in, k, k) of several sizes the same function on their common channels."""
    outputs, inputs, kernel = (min(weight.shape[i] for weight in weights) for i in (0, 1, 3))
    common = _middle(weights[0], kernel)[:outputs, :inputs].clone()
    for weight in weights:
        weight[:outputs] = 0.0
        _middle(weight, kernel)[:outputs, :inputs] = common


def _middle(weight: Tensor, kernel: int) -> Tensor:
    """View of the central part of kernels of odd size."""
    rim = (weight.shape[-1] - kernel) // 2
    return weight[:, :, rim : rim + kernel, rim : rim + kernel]
