"""Networks of cells, built from a genotype: NASNet-A, AmoebaNet-A, DARTS.

Source: the papers and releases named in `genotypes.py`. Auxiliary heads and drop path, which are
used in training only, are left out. Stems are padded, so that a layer of stride s outputs
ceil(size / s) pixels for small images too (NASNet's stem is not padded: 111 pixels instead of 112,
.05 % of the multiply-accumulates).
Shapes: N = batch, C = channels, H, W = height and width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas_core.baselines.cell_ops import build_cell_op, fitted
from nas_core.blocks import Pool, conv_bn
from nas_core.shapes import OpShape

if TYPE_CHECKING:
    from nas_core.baselines.genotypes import CellPlan, Wiring
    from nas_core.baselines.sizes import BaselineSizes


@dataclass(frozen=True)
class Feature:
    """Shape of a cell's input: its channels, and the total stride from the image to it."""

    channels: int
    stride: int


class Cell(nn.Module):
    """Sums of two operations on earlier states (nodes); the output concatenates some of the states.

    Both inputs are first brought to the cell's number of channels. The output of the cell before
    the previous one is also downsampled if the previous cell was a reduction. Only edges that
    start at an input have the stride.
    """

    def __init__(
        self,
        wiring: Wiring,
        channels: int,
        stride: int,
        *,
        previous: Feature,
        earlier: Feature | None,
        eps: float,
    ) -> None:
        """Build the operations of all edges.

        `earlier` is None in the first cell after a single convolution: both inputs are then the
        output of that convolution, and the first of them is used unchanged.
        """
        super().__init__()
        self.previous = fitted(OpShape(previous.channels, channels, 1, eps))
        self.earlier: nn.Module = nn.Identity()
        if earlier is not None:
            catch_up = previous.stride // earlier.stride
            self.earlier = fitted(OpShape(earlier.channels, channels, catch_up, eps))
        widths = [previous.channels if earlier is None else channels, channels]
        widths += [channels] * (len(wiring.edges) // 2)
        self.edges = nn.ModuleList(
            build_cell_op(op, OpShape(widths[state], channels, stride if state < 2 else 1, eps))
            for op, state in wiring.edges
        )
        self.starts = [state for _, state in wiring.edges]
        self.outputs = wiring.outputs
        self.feature = Feature(
            sum(widths[state] for state in wiring.outputs), previous.stride * stride
        )

    def forward(self, earlier: Tensor, previous: Tensor) -> Tensor:
        """Outputs of the two preceding cells -> (N, C_out, H / stride, W / stride)."""
        states = [self.earlier(earlier), self.previous(previous)]
        ends: list[Tensor] = []
        for edge, start in zip(self.edges, self.starts, strict=True):
            ends.append(edge(states[start]))
            if len(ends) == 2:
                states.append(ends[0] + ends[1])
                ends.clear()
        return torch.cat([states[state] for state in self.outputs], dim=1)


class ConvolutionStem(nn.Module):
    """Three 3x3 convolutions; the first cell takes the outputs of the last two."""

    def __init__(
        self, in_channels: int, channels: int, strides: tuple[int, ...], eps: float
    ) -> None:
        super().__init__()
        self.first = nn.Sequential(
            *conv_bn(in_channels, channels // 2, 3, strides[0], eps),
            nn.ReLU(),
            *conv_bn(channels // 2, channels, 3, strides[1], eps),
        )
        self.second = nn.Sequential(nn.ReLU(), *conv_bn(channels, channels, 3, strides[2], eps))
        self.earlier: Feature | None = Feature(channels, prod(strides[:2]))
        self.previous = Feature(channels, prod(strides))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> the two inputs of the first cell."""
        earlier = self.first(images)
        return earlier, self.second(earlier)


class CellStem(nn.Module):
    """One 3x3 convolution; its output is both inputs of the first reduction cell."""

    def __init__(
        self, in_channels: int, channels: int, strides: tuple[int, ...], eps: float
    ) -> None:
        super().__init__()
        self.first = nn.Sequential(*conv_bn(in_channels, channels, 3, strides[0], eps))
        self.earlier: Feature | None = None
        self.previous = Feature(channels, strides[0])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> the two inputs of the first cell, which are equal."""
        x = self.first(images)
        return x, x


class CellNetwork(nn.Module):
    """Stem, cells, pooling, dropout and classifier.

    Strides apply to the convolutions of the stem, then to the reduction cells.
    """

    def __init__(self, plan: CellPlan, baseline: BaselineSizes, dropout: float = 0.0) -> None:
        super().__init__()
        kind, in_stem = (CellStem, 1) if plan.stem == "cells" else (ConvolutionStem, 3)
        strides = baseline.place_strides
        self.stem: CellStem | ConvolutionStem = kind(
            baseline.in_channels, plan.stem_channels, strides[:in_stem], plan.bn_eps
        )
        cells = list(_cells(plan, self.stem, strides[in_stem:]))
        self.cells = nn.ModuleList(cells)
        self.head = nn.Sequential(
            nn.ReLU() if plan.ends_with_relu else nn.Identity(),
            Pool(),
            nn.Dropout(dropout),
            nn.Linear(cells[-1].feature.channels, baseline.classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> logits (N, classes)."""
        earlier, previous = self.stem(images)
        for cell in self.cells:
            earlier, previous = previous, cell(earlier, previous)
        logits: Tensor = self.head(previous)
        return logits


def _cells(
    plan: CellPlan, stem: CellStem | ConvolutionStem, strides: tuple[int, ...]
) -> Iterator[Cell]:
    """Yield the cells in order; `strides` are those of the reduction cells."""
    earlier, previous, remaining = stem.earlier, stem.previous, iter(strides)
    for kind, channels in plan.cells():
        is_reduction = kind == "reduce"
        cell = Cell(
            plan.genotype.reduce if is_reduction else plan.genotype.normal,
            channels,
            next(remaining) if is_reduction else 1,
            previous=previous,
            earlier=earlier,
            eps=plan.bn_eps,
        )
        yield cell
        earlier, previous = previous, cell.feature
