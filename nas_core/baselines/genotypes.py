"""Cells of NASNet-A, AmoebaNet-A and DARTS, and the networks made of them, as data. No torch here.

Source: quark0/darts, `cnn/genotypes.py` (Apache-2.0), which has the cells of all three. Where it
differs from the releases of the other two (tensorflow/models, `slim/nets/nasnet`, and
tensorflow/tpu, `models/official/amoeba_net`; both Apache-2.0), this file follows the release,
because only then do the networks have their published sizes:

- NASNet-A's normal cell also outputs its input 0, its reduction cell also node 3: 4@1056 ends in
  6 * 176 = 1056 channels.
- AmoebaNet-A's normal cell also outputs its input 0, its reduction cell all nodes. Its release
  numbers the previous cell 0 and the one before it 1; quark0/darts copied these numbers although
  its own convention is the opposite. Both edges of the first normal node start at the previous
  cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Edge = tuple[str, int]
"""An operation, and the state that it is applied to."""


@dataclass(frozen=True)
class Wiring:
    """Edges and outputs of a cell.

    States are numbered: 0 is the output of the cell before the previous one, 1 that of the previous
    cell, 2 and up are the nodes. A node is the sum of two edges.

    Raises:
        ValueError: the number of edges is odd, or an edge starts at a state that comes after it.
    """

    edges: tuple[Edge, ...]
    """Two per node, in order of the nodes."""

    outputs: tuple[int, ...]
    """The states that the cell concatenates."""

    def __post_init__(self) -> None:
        if len(self.edges) % 2:
            raise ValueError(f"a cell with {len(self.edges)} edges; expected two per node")
        for number, (op, state) in enumerate(self.edges):
            if not 0 <= state < 2 + number // 2:
                raise ValueError(
                    f"edge {number} applies {op!r} to state {state}, but its node is state "
                    f"{2 + number // 2}; expected an earlier one"
                )
        if not all(0 <= state < 2 + len(self.edges) // 2 for state in self.outputs):
            raise ValueError(
                f"a cell with {len(self.edges) // 2} nodes puts out states {list(self.outputs)}; "
                f"expected states below {2 + len(self.edges) // 2}"
            )


@dataclass(frozen=True)
class Genotype:
    """The normal and the reduction cell of a network.

    Raises:
        ValueError: the reduction cell outputs one of its inputs, whose size differs from that of
            its nodes.
    """

    normal: Wiring
    reduce: Wiring

    def __post_init__(self) -> None:
        if min(self.reduce.outputs) < 2:
            raise ValueError(
                f"a reduction cell puts out states {list(self.reduce.outputs)}; expected nodes "
                "alone (2 and up), since its inputs are larger"
            )


@dataclass(frozen=True, kw_only=True)
class CellPlan:
    """A network of cells for ImageNet: a stem, then three stages separated by reduction cells."""

    genotype: Genotype

    channels: int
    """Channels of every operation in the first stage; each reduction cell doubles them."""

    stem: Literal["convolutions", "cells"]
    """Three convolutions of stride 2; or one convolution and two reduction cells, which have a
    quarter and a half of the channels.
    """

    stem_channels: int
    """Channels of the stem's last convolution."""

    bn_eps: float

    ends_with_relu: bool
    """Whether a ReLU stands between the last cell and the pooling."""

    cells_per_stage: int = 4
    """Normal cells of each stage."""

    def cells(self) -> Iterator[tuple[Literal["normal", "reduce"], int]]:
        """Kind and channels of every cell, in order."""
        if self.stem == "cells":
            yield "reduce", self.channels // 4
            yield "reduce", self.channels // 2
        for stage in range(3):
            if stage > 0:
                yield "reduce", self.channels * 2**stage
            for _ in range(self.cells_per_stage):
                yield "normal", self.channels * 2**stage


NASNET_A = Genotype(
    normal=Wiring(
        edges=(
            ("sep_conv_5x5", 1),
            ("sep_conv_3x3", 0),
            ("sep_conv_5x5", 0),
            ("sep_conv_3x3", 0),
            ("avg_pool_3x3", 1),
            ("skip_connect", 0),
            ("avg_pool_3x3", 0),
            ("avg_pool_3x3", 0),
            ("sep_conv_3x3", 1),
            ("skip_connect", 1),
        ),
        outputs=(0, 2, 3, 4, 5, 6),
    ),
    reduce=Wiring(
        edges=(
            ("sep_conv_5x5", 1),
            ("sep_conv_7x7", 0),
            ("max_pool_3x3", 1),
            ("sep_conv_7x7", 0),
            ("avg_pool_3x3", 1),
            ("sep_conv_5x5", 0),
            ("skip_connect", 3),
            ("avg_pool_3x3", 2),
            ("sep_conv_3x3", 2),
            ("max_pool_3x3", 1),
        ),
        outputs=(3, 4, 5, 6),
    ),
)

AMOEBANET_A = Genotype(
    normal=Wiring(
        edges=(
            ("avg_pool_3x3", 1),
            ("max_pool_3x3", 1),
            ("sep_conv_3x3", 1),
            ("sep_conv_5x5", 2),
            ("sep_conv_3x3", 1),
            ("avg_pool_3x3", 3),
            ("sep_conv_3x3", 0),
            ("skip_connect", 0),
            ("skip_connect", 1),
            ("avg_pool_3x3", 0),
        ),
        outputs=(0, 4, 5, 6),
    ),
    reduce=Wiring(
        edges=(
            ("avg_pool_3x3", 1),
            ("sep_conv_3x3", 0),
            ("max_pool_3x3", 1),
            ("sep_conv_7x7", 2),
            ("sep_conv_7x7", 1),
            ("avg_pool_3x3", 0),
            ("max_pool_3x3", 1),
            ("max_pool_3x3", 0),
            ("conv_7x1_1x7", 1),
            ("sep_conv_3x3", 5),
        ),
        outputs=(2, 3, 4, 5, 6),
    ),
)

DARTS_V2 = Genotype(
    normal=Wiring(
        edges=(
            ("sep_conv_3x3", 0),
            ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 0),
            ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 1),
            ("skip_connect", 0),
            ("skip_connect", 0),
            ("dil_conv_3x3", 2),
        ),
        outputs=(2, 3, 4, 5),
    ),
    reduce=Wiring(
        edges=(
            ("max_pool_3x3", 0),
            ("max_pool_3x3", 1),
            ("skip_connect", 2),
            ("max_pool_3x3", 1),
            ("max_pool_3x3", 0),
            ("skip_connect", 2),
            ("skip_connect", 2),
            ("max_pool_3x3", 1),
        ),
        outputs=(2, 3, 4, 5),
    ),
)

NASNET_A_MOBILE = CellPlan(
    genotype=NASNET_A,
    channels=44,
    stem="cells",
    stem_channels=32,
    bn_eps=1e-3,
    ends_with_relu=True,
)
"""NASNet-A 4@1056 (N = 4): 5.3 M parameters, 564 M multiply-accumulates (published)."""

AMOEBANET_A_MOBILE = CellPlan(
    genotype=AMOEBANET_A,
    channels=50,
    stem="cells",
    stem_channels=32,
    bn_eps=1e-3,
    ends_with_relu=True,
)
"""AmoebaNet-A (N = 4, F = 50): 5.1 M parameters, 555 M multiply-accumulates (published)."""

DARTS_IMAGENET = CellPlan(
    genotype=DARTS_V2,
    channels=48,
    stem="convolutions",
    stem_channels=48,
    bn_eps=1e-5,
    ends_with_relu=False,
)
"""DARTS (second order, 48 channels, 14 cells): 4.7 M parameters (published)."""
