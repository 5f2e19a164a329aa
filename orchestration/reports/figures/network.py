"""A network as a figure and as text: the op and its latency at every site.

The figure has one block per site. Colour and label show the kernel size, and the height shows the
expansion. A skipped site has the word "skip" instead. The bar below shows the latency of the part,
labelled with its share of the total.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.architecture import Architecture
from nas_core.latency import LatencyTable, OpSignature, head_part, site_part, stem_part
from orchestration.reports.figures.layout import BACKGROUND, DPI, FAINT, INK, WIDTH_IN, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: suits colour-blind readers, and differs in lightness in greyscale.
KERNEL_COLOURS = {3: "#56B4E9", 5: "#E69F00", 7: "#009E73"}
OTHER_COLOUR, FIXED_COLOUR, BAR_COLOUR = "#CC79A7", "#D5D9DE", "#5B6770"
TALLEST = 6
"""Expansion of a block of full height: the largest in the ProxylessNAS space."""
COLUMNS = 12
"""Maximum number of parts in a row; longer networks continue in the next row."""
HEADING_IN = 0.75
"""Height of the heading, inches."""


def kernel_of(op: str) -> int | None:
    """Kernel size of the depthwise convolution; None for an op without one."""
    match = re.search(r"_k(\d+)", op)
    return int(match[1]) if match else None


def expansion_of(op: str) -> int | None:
    """Expansion of the first convolution; None for an op without one."""
    match = re.search(r"_e(\d+)", op)
    return int(match[1]) if match else None


def op_label(op: str) -> str:
    """Two-line label of an op: kernel size and other properties. The op's name without a kernel."""
    kernel = kernel_of(op)
    if kernel is None:
        return op
    kind, *properties = op.split("_")
    rest = [item for item in properties if item != f"k{kernel}"] or [kind.removesuffix("conv")]
    return f"{kernel}x{kernel}\n{' '.join(rest)}"


@dataclass(frozen=True)
class Part:
    """One part of a network: the stem, a site or the head."""

    name: str
    shape: OpSignature
    ms: float | None
    """Latency according to the table; None without a table."""
    share: float | None
    """Fraction of the latency of the whole network; None without a table."""

    @property
    def kernel(self) -> int | None:
        """Kernel size of the depthwise convolution; None for a part without a choice of kernel."""
        return kernel_of(self.shape.op)

    @property
    def expansion(self) -> int | None:
        """Expansion of the first convolution; None for a part without a choice of expansion."""
        return expansion_of(self.shape.op)

    @property
    def label(self) -> str:
        """Label of the block; see `op_label`."""
        return op_label(self.shape.op)

    @property
    def out_resolution(self) -> int:
        """Height and width of the output, pixels."""
        return -(-self.shape.resolution // self.shape.stride)


def parts(architecture: Mapping[str, Any], table: Mapping[str, Any] | None) -> list[Part]:
    """Stem, sites and head of a network, in the order of its layers.

    Args:
        architecture: JSON of the network.
        table: JSON of a latency table of the same space. None: parts have no latencies.

    Raises:
        ValueError: an argument is not valid, or the table lacks an op.
    """
    network = Architecture.from_dict(dict(architecture))
    chosen = zip(network.space.sites, network.ops, strict=True)
    shapes = [(site.name, site_part(site, op)) for site, op in chosen]
    shapes = [("stem", stem_part(network.space)), *shapes, ("head", head_part(network.space))]
    if table is None:
        return [Part(name, shape, None, None) for name, shape in shapes]
    costs = LatencyTable.from_dict(dict(table))
    times = [costs.row_ms(shape, name) for name, shape in shapes]
    return [
        Part(name, shape, ms, ms / sum(times))
        for (name, shape), ms in zip(shapes, times, strict=True)
    ]


def architecture_text(architecture: Mapping[str, Any], table: Mapping[str, Any] | None) -> str:
    """A network as text for the terminal, one line per part."""
    lines = [f"{'site':<10} {'op':<14} {'in':>4} {'out':>4} {'stride':>6} {'px':>4}"]
    if table is not None:
        lines[0] += f" {'ms':>8} {'share':>6}"
    for part in parts(architecture, table):
        shape = part.shape
        line = f"{part.name:<10} {shape.op:<14} {shape.in_channels:>4} {shape.out_channels:>4}"
        line += f" {shape.stride:>6} {shape.resolution:>4}"
        if part.ms is not None and part.share is not None:
            bar = "█" * max(0, round(40 * part.share))
            line += f" {part.ms:>8.4f} {100 * part.share:>4.0f} %  {bar}"
        lines.append(line.rstrip())
    if table is not None:
        lines.append(f"{'network':<10} {latency_text(architecture, table)}")
    return "\n".join(lines)


def latency_text(architecture: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    """Latency of a network according to a table, and the constant that belongs to no part."""
    costs = LatencyTable.from_dict(dict(table))
    total_ms = costs.latency_ms(Architecture.from_dict(dict(architecture)))
    text = f"{total_ms:.3f} ms by the table of {costs.hardware}"
    if abs(costs.offset_ms) >= 0.0005:
        text += f": its parts and {costs.offset_ms:+.3f} ms for the whole"
    has_offsets = any((part.ms or 0.0) < 0 for part in parts(architecture, table))
    return f"{text}: offsets from the stem's" if has_offsets else text


def draw_architecture(
    architecture: Mapping[str, Any],
    table: Mapping[str, Any] | None,
    path: Path,
    *,
    title: str = "",
) -> None:
    """Write the figure of a network as PNG to `path`; see `architecture_png`."""
    path.write_bytes(architecture_png(architecture, table, title=title))


def architecture_png(
    architecture: Mapping[str, Any], table: Mapping[str, Any] | None, *, title: str = ""
) -> bytes:
    """Figure of a network, with latencies if a table is given.

    The background is opaque and light, so that the figure is readable on light and dark pages.

    Raises:
        ValueError: see `parts`.
    """
    from matplotlib.figure import Figure

    network = parts(architecture, table)
    rows = _rows(network)
    height = 2.1 if table is None else 3.1
    height_in = HEADING_IN + 0.85 * height * len(rows)
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, facecolor=BACKGROUND)
    grid = figure.add_gridspec(
        *(len(rows), 1), left=0.015, right=0.985, bottom=0.02, top=1 - HEADING_IN / height_in
    )
    longest_ms = max(abs(part.ms or 0.0) for part in network)
    for number, row in enumerate(rows):
        axes = figure.add_subplot(grid[number])
        axes.set(xlim=(-0.5, len(rows[0]) - 0.5), ylim=(0.85 - height, 0.85))
        axes.axis("off")
        _draw_row(axes, row, longest_ms)
    _draw_heading(figure, title or "network", latency_text(architecture, table) if table else "")
    return png(figure)


def _rows(network: list[Part]) -> list[list[Part]]:
    """Rows of about equal length."""
    count = -(-len(network) // COLUMNS)
    length = -(-len(network) // count)
    return [network[start : start + length] for start in range(0, len(network), length)]


def _draw_heading(figure: Figure, title: str, subtitle: str) -> None:
    """Title on the left, legend on the right."""
    from matplotlib.patches import Patch

    top = 1 - 0.12 / figure.get_figheight()
    figure.text(0.015, top, title, va="top", color=INK, fontsize=13, fontweight="bold")
    below = 1 - 0.4 / figure.get_figheight()
    figure.text(0.015, below, subtitle, va="top", color=INK, fontsize=10)
    kernels = [Patch(color=c, label=f"{k}x{k}") for k, c in KERNEL_COLOURS.items()]
    figure.legend(
        handles=kernels,
        title="height = expansion, gap = skipped, colour = kernel:",
        loc="upper right",
        bbox_to_anchor=(0.99, 1 - 0.04 / figure.get_figheight()),
        ncols=len(kernels),
        frameon=False,
        fontsize=9.5,
        title_fontsize=9.5,
        alignment="right",
        labelcolor=INK,
        handlelength=1.2,
        handleheight=1.0,
        columnspacing=1.2,
        borderpad=0.2,
    )


def _draw_row(axes: Axes, row: Sequence[Part], longest_ms: float) -> None:
    axes.plot([-0.5, len(row) - 0.5], [0, 0], color=FAINT, linewidth=1.5, zorder=0)
    for x, part in enumerate(row):
        axes.text(x, 0.62, part.name, ha="center", va="bottom", color=INK, fontsize=9.5)
        draw_block(axes, x, part, part.label, 9.5 if len(part.label) < 11 else 8)
        axes.text(x, -0.6, _output(part), ha="center", va="top", color=INK, fontsize=8.5)
        if part.ms is not None and part.share is not None:
            _draw_latency(axes, x, part, part.ms / longest_ms if longest_ms else 0.0)


def _output(part: Part) -> str:
    """Size of a part's output as text."""
    if part.name == "head":
        return f"{part.shape.out_channels} classes"
    stride = f"\nstride {part.shape.stride}" if part.shape.stride > 1 else ""
    return f"{part.shape.out_channels} ch\n{part.out_resolution} px{stride}"


def draw_block(
    axes: Axes, x: float, part: Part, label: str, fontsize: float, width: float = 0.72
) -> None:
    """Draw the op of a part centred at (x, 0); its height, at most 1, shows the expansion."""
    from matplotlib.patches import FancyBboxPatch

    middle: dict[str, Any] = {"ha": "center", "va": "center", "color": INK}
    if part.shape.op == "skip":
        axes.text(x, 0, "skip", fontsize=fontsize, backgroundcolor=BACKGROUND, **middle)
        return
    height = 0.4 if part.expansion is None else max(0.4, min(1.0, part.expansion / TALLEST))
    colour = FIXED_COLOUR if part.kernel is None else KERNEL_COLOURS.get(part.kernel, OTHER_COLOUR)
    box = FancyBboxPatch(
        (x - width / 2, -height / 2),
        *(width, height),
        boxstyle="round,pad=0,rounding_size=0.05",
        facecolor=colour,
        edgecolor=INK,
        linewidth=0.8,
    )
    axes.add_patch(box)
    axes.text(x, 0, label, fontsize=fontsize, **middle)


def _draw_latency(axes: Axes, x: float, part: Part, length: float) -> None:
    base, tallest = -2.0, 0.65
    axes.plot([x - 0.42, x + 0.42], [base, base], color=FAINT, linewidth=1)
    length = max(0.0, length)  # Negative latencies have no bar, only the number below.
    axes.bar(x, length * tallest, width=0.5, bottom=base, color=BAR_COLOUR)
    if part.ms:
        share = f"{100 * (part.share or 0):.0f} %"
        height = base + length * tallest + 0.03
        axes.text(x, height, share, ha="center", va="bottom", color=INK, fontsize=9.5)
        axes.text(
            x, base - 0.05, f"{part.ms:.3f} ms", ha="center", va="top", color=INK, fontsize=8.5
        )
