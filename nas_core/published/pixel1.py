"""Published latency model of the Pixel 1, as a `LatencyTable`.

    latency_ms = bias + the offset of the chosen op, summed over the sites

The model is linear. Offsets are relative, so some are negative; skips have one too. TensorFlow
Lite, float, batch 1, 224x224 pixels.
Source: google-research/google-research, `tunas/cost_model_data.py`, key `proxylessnas_search`,
commit 0c1bbe5f, Apache-2.0. The values are single-precision numbers in their shortest decimal form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nas_core.architecture import Architecture
from nas_core.latency import (
    LatencyEntry,
    LatencyTable,
    OpSignature,
    head_part,
    site_part,
    stem_part,
)
from nas_core.space import MOBILE_OPS, SearchSpace, Site, proxyless_imagenet

BIAS_MS = 92.135994

FIRST_BLOCK_MS = -1.7525216
"""Offset of the fixed block after the stem, kernel 3 (5 and 7 are not in the space)."""

COLUMNS = MOBILE_OPS
"""Ops of the columns of `OFFSETS_MS`."""

OFFSETS_MS = (
    (-4.025259, 0.27002516, -2.304772, 5.1523075, 1.8892972, 7.844908),
    (-4.247996, 1.26007, -1.1474051, 6.5623903, 2.291473, 13.845974, -9.737999),
    (-4.243709, 1.2581637, -1.1387534, 6.5644383, 2.2874968, 13.840748, -9.741877),
    (-4.2453794, 1.2673632, -1.1390835, 6.552899, 2.2867353, 13.849598, -9.7456255),
    (-1.4441069, 1.7458526, -0.7501536, 3.31621, 0.30287743, 5.655828),
    (-0.42307776, 1.7822764, 0.27424613, 3.0070324, 1.2959304, 5.149762, -2.259662),
    (-0.41809213, 1.7786689, 0.27147415, 3.004974, 1.2914041, 5.1475234, -2.2494447),
    (-0.42420986, 1.7829096, 0.27721515, 3.0075364, 1.2887337, 5.146962, -2.2526398),
    (0.3986564, 1.8179394, 0.6215399, 2.25564, 0.9019021, 2.8308296),
    (0.31517187, 1.9928042, 0.63135046, 2.563263, 1.0723152, 3.3422933, -1.0906907),
    (0.31892613, 1.9885867, 0.6304489, 2.5571418, 1.0754011, 3.3413448, -1.0853419),
    (0.3202534, 1.990366, 0.628832, 2.5560062, 1.07227, 3.3414118, -1.082632),
    (0.077370495, 1.8745404, 0.37486064, 2.443991, 0.8307364, 3.2250082),
    (-0.035417754, 2.4754095, 0.2995481, 3.2227037, 0.79953307, 4.1008334, -2.0361025),
    (-0.03404366, 2.468827, 0.3007806, 3.2175872, 0.80317116, 4.101152, -2.0309668),
    (-0.04659899, 2.474686, 0.29983672, 3.2264025, 0.8005422, 4.109627, -2.0379875),
    (0.32967517, 2.2675998, 0.44217658, 2.4683504, 0.57698834, 2.741717),
    (-0.2127444, 3.587823, -0.050455574, 3.859921, 0.12063305, 4.268836, -2.7475052),
    (-0.21075572, 3.5936937, -0.051904015, 3.8637416, 0.12302761, 4.2575693, -2.7488651),
    (-0.20601508, 3.5953195, -0.06177723, 3.8640556, 0.12209142, 4.262896, -2.750063),
    (-1.1862959, 3.6508086, -1.0354387, 3.9289732, -0.8547998, 4.32326),
)
"""One row per site of `proxyless_imagenet`, one column per op; sites that change the shape have
no skip.
"""


def table(space: SearchSpace) -> LatencyTable:
    """The latency table of `proxyless_imagenet` on a Pixel 1.

    The bias includes stem, head and the fixed block; it is stored in the row of the stem.

    Args:
        space: the published space with 224 pixels and a first stage of 32 channels; any of its ops,
            any number of classes and image channels.

    Raises:
        ValueError: the space is another, or the model has no value for an op.
    """
    _check(space)
    offsets = zip(space.sites, OFFSETS_MS, strict=True)
    table = LatencyTable(
        target="pixel1",
        hardware="pixel1 (published linear model, TensorFlow Lite, float)",
        runtime="published",
        runtime_version="tunas 0c1bbe5f",
        space=space,
        rows=(*_fixed_rows(space), *(row for pair in offsets for row in _site_rows(*pair))),
    )
    reference_ms = table.latency_ms(Architecture.reference(space))
    return replace(table, reference_ms=reference_ms)


def _check(space: SearchSpace) -> None:
    for what, actual, expected in _facts(space):
        if actual != expected:
            raise ValueError(
                f"{what} of '{space.name}' is {actual}, but {expected} in the published latencies "
                "of a Pixel 1; they hold for proxyless_imagenet at 224 pixels and width 1 alone"
            )


def _facts(space: SearchSpace) -> Iterator[tuple[str, object, object]]:
    published = proxyless_imagenet()
    for what in ("resolution", "stem_channels", "stem_stride", "first_channels", "head_channels"):
        yield what, getattr(space, what), getattr(published, what)
    yield "the number of sites", len(space.sites), len(published.sites)
    for site, expected in zip(space.sites, published.sites, strict=True):
        yield f"'{site.name}'", _shape(site), _shape(expected)


def _shape(site: Site) -> str:
    channels = f"{site.in_channels} -> {site.out_channels} channels"
    return f"{channels} with stride {site.stride} at {site.resolution} pixels"


def _fixed_rows(space: SearchSpace) -> tuple[LatencyEntry, LatencyEntry]:
    return _row(stem_part(space), BIAS_MS + FIRST_BLOCK_MS), _row(head_part(space), 0.0)


def _site_rows(site: Site, offsets_ms: tuple[float, ...]) -> Iterator[LatencyEntry]:
    offset_by_op = dict(zip(COLUMNS, offsets_ms, strict=False))  # a site without skip has one less
    for op in site.ops:
        if op not in offset_by_op:
            raise ValueError(
                f"there is no published latency of '{op}' at '{site.name}' on a Pixel 1; "
                f"expected one of {', '.join(offset_by_op)}"
            )
        yield _row(site_part(site, op), offset_by_op[op], site.name)


def _row(part: OpSignature, ms: float, site: str = "") -> LatencyEntry:
    return LatencyEntry(
        part=part, median_ms=ms, p10_ms=ms, p90_ms=ms, spread=0.0, count=0, site=site
    )
