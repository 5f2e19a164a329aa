"""Write the measured tables into RESULTS.md and README.md, from the newest lines in `results/`.

`python tests/benchmarks/tables.py` writes both pages; `bench.py` does so when it ends. On a page,
the text between `<!-- evidence: NAME -->` and `<!-- end -->` is replaced by the table or sentence
of that name, and nothing else changes. RESULTS.md holds all of them except those of
`README_TABLES`; its table of contents stands between `<!-- contents -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.benchmarks.evidence.markdown import (
    AHEAD,
    Row,
    accuracy,
    as_table,
    interval,
    linked,
    newest,
    rows_of,
)
from tests.benchmarks.evidence.poster import OTHERS_CPU_S, OTHERS_PEAK_GB
from tests.benchmarks.evidence.sentences import (
    beyond_chance,
    claim,
    headline,
    lead_over_random,
    longer,
    preferences,
    preferred,
)
from tests.support.markdown import headings

BLOCK = re.compile(r"(<!-- evidence: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
CONTENTS = re.compile(r"(<!-- contents -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A page that holds measured tables."""

    file: Path
    results: str
    """How links of this page reach the folder `results/`."""
    names_sources: bool
    """Whether each table is followed by a link to the file whose lines it shows."""


RESULTS = Page(Path(__file__).parent / "RESULTS.md", "results/", names_sources=True)
README = Page(REPOSITORY / "README.md", "tests/benchmarks/results/", names_sources=False)
README_TABLES = frozenset({"headline", "summary"})
"""Tables of README.md; all others are in RESULTS.md."""


def summary_table() -> str:
    """The table of README.md: networks of one budget beside the networks they have to beat."""
    columns = [_summary_of(target) for target in SUMMARY_TARGETS]
    body = [
        [label, *(cell for column in columns for cell in column[label])]
        for label in SUMMARY_ROWS
        if all(label in column for column in columns)
    ]
    head = [words for target in SUMMARY_TARGETS for words in (f"`{target}`: top-1 %", "ms")]
    lead = f"\n{lead_over_random()}" if newest("random") else ""
    return as_table(["Network", *head], body) + lead


SUMMARY_TARGETS = ("cpu", "mobile")
SUMMARY_ROWS = {
    "MobileNetV2, width 1.0": ("networks", "mobilenet_v2_1.0"),
    "Reference network: one op everywhere, no search": (
        "networks",
        "reference, without a search",
    ),
    "Random networks with the latency of the next row": (
        "random",
        "budget 50%: random networks as slow as what was found",
    ),
    "**Searched**, budget half the reference network's latency": (
        "networks",
        "budget 50%: found by search",
    ),
}
"""Part of the evidence and end of the name of the line, by label."""


def _summary_of(target: str) -> dict[str, tuple[str, object]]:
    """Linked accuracy, and latency in milliseconds, on one target, by label."""
    result = {}
    for label, (part, name) in SUMMARY_ROWS.items():
        names = (f"{target}: {name}", f"{target}, {name}")
        for row in rows_of(part):
            if row["what"] in names:
                result[label] = (linked(row, f"{row['top1']:.1f}"), _ms(row))
    return result


def _ms(row: Row) -> str:
    return f"{row['ms']:.3f}" if "ms" in row else ""


def curve_table() -> str:
    """Searched networks, MobileNetV2 and the reference network on each target."""
    return _curve("networks")


def longer_table() -> str:
    """The same comparison after a longer training."""
    return f"{_curve('longer')}\n{_speeds('longer')}"


def _curve(part: str) -> str:
    rows = [row for row in rows_of(part) if "deviation" in row]
    body = [
        [
            linked(row, row["what"].replace(": found by search", "")),
            row.get("budget_ms"),
            row["ms"],
            accuracy(row),
            row["n"],
            _points_over(row),
        ]
        for row in rows
    ]
    head = ["budget, ms", "latency, ms", "top-1 % ± standard deviation", "seeds"]
    return as_table(
        ["Network", *head, "points above MobileNetV2 at equal latency (95 % interval)"], body
    )


def _points_over(row: Row) -> str:
    """Lead in accuracy, with the number of seeds where some have no MobileNetV2 that fast."""
    if "covered" not in row:
        return ""
    if not row["covered"]:
        return "no MobileNetV2 here is that fast"
    text = interval(row["points over MobileNetV2 at its latency"])
    return text if row["covered"] == row["n"] else f"{text}, from {row['covered']} seeds"


def speed_table() -> str:
    """Ratios of latency at equal accuracy."""
    return _speeds("networks")


def _speeds(part: str) -> str:
    rows = [row for row in rows_of(part) if "times faster than" in row["what"]]
    body = [
        [
            linked(row),
            row["top1"],
            interval(row["times"]),
            row["n"],
            row["points ahead"],
            row["their fastest is better still"],
        ]
        for row in rows
    ]
    head = ["compared at top-1 %", "ratio (95 % interval)", "seeds"]
    head += ["lead of our fastest network, points", "seeds where their fastest is more accurate"]
    return as_table(["Comparison", *head], body)


def random_table() -> str:
    """Random networks of the space at the latency of the searched ones."""
    body = [
        [
            linked(row, row["what"].partition(":")[0]),
            accuracy(row),
            row["n"],
            row["found"],
            interval(row[AHEAD]),
            row["seeds"],
        ]
        for row in rows_of("random")
    ]
    head = ["random networks, top-1 % ± standard deviation", "random networks"]
    head += ["searched, top-1 %", "lead of the search, points (95 % interval)", "seeds"]
    return as_table(["Target and budget", *head], body)


def matrix_table() -> str:
    """Latency of every searched network on every target."""
    return _on_all_targets("searched for")


def equal_table() -> str:
    """Latency of each target's networks on every target, at equal accuracy."""
    return _on_all_targets("at equal accuracy")


HEADS = {
    "cpu": "cpu (ONNX Runtime), ms",
    "mobile": "mobile (XNNPACK on this host), ms",
    "h100": "h100 (batch 8, from its latency table), ms",
}


def _on_all_targets(beginning: str) -> str:
    rows = [row for row in rows_of("networks") if row["what"].startswith(beginning)]
    names = list(rows[0]["ms"]) if rows else []
    body = [
        [linked(row), row["top1"], *(row["ms"][name] for name in names), row["n"]] for row in rows
    ]
    return as_table(
        ["Network", "top-1 %", *(HEADS.get(name, f"{name}, ms") for name in names), "seeds"], body
    )


def preference_table() -> str:
    """Latency of another target's networks over that of a target's own."""
    rows = preferences()
    body = [
        [
            linked(row) + (" (from its table)" if row["by table"] else ""),
            row["top1"],
            interval(row["times"]),
            row["n"],
            row["their fastest is better still"],
        ]
        for row in rows
    ]
    head = ["compared at top-1 %", "ratio (95 % interval)", "seeds", "seeds with an upper bound"]
    return as_table(["Ratio of latencies", *head], body)


def cost_table() -> str:
    """Cost in trainings of one network."""
    rows = [row for part in ("networks", "steps") for row in rows_of(part) if "trainings" in row]
    body = [
        [linked(row), row.get("steps"), row.get("updates"), row.get("seconds"), row["trainings"]]
        for row in rows
    ]
    head = ["weight steps", "alpha updates", "seconds of one worker", "trainings of one network"]
    return as_table(["What", *head], body)


def mobile_table() -> str:
    """The first table of the ProxylessNAS poster, with latencies measured here."""
    rows = [row for row in rows_of("mobile_table") if "published top1" in row]
    targets = list(rows[0]["ms"]) if rows else []
    body = [
        [
            linked(row),
            row["published top1"],
            row["published pixel1 ms"],
            row["published search, GPU hours"],
            row["macs"] and round(row["macs"] / 1e6),
            *(ms if (ms := row["ms"][name]) is None else round(ms, 1) for name in targets),
        ]
        for row in rows
    ]
    head = ["Network", "published top-1 %", "published Pixel 1, ms", "published GPU hours"]
    text = as_table([*head, "MACs, M", *(f"{name}, ms here" for name in targets)], body)
    pixel1 = [row for row in rows_of("mobile_table") if "published" in row]
    lines = [f"{linked(row)}: {row['ms']}; published: {row['published']}." for row in pixel1]
    return text + "\n" + "\n".join(lines) + "\n"


def ablation_table() -> str:
    """Searches with one part of the method changed."""
    rows = [row for row in rows_of("ablations") if "cost" in row]
    body = [
        [
            linked(row, ABLATIONS.get(row["what"])),
            row["top1"],
            interval(row.get("points")),
            row["cost"],
            row["n"],
        ]
        for row in rows
    ]
    head = ["top-1 %", "points against the default (95 % interval)", "cost, weight steps", "seeds"]
    text = as_table(["Search", *head], body)
    argmax = [row for row in rows_of("ablations") if "over the budget" in row]
    lines = [
        f"{linked(row, ABLATIONS.get(row['what']))}: over the budget in {row['over the budget']} "
        f"of {row['searches']} searches, by up to {100 * row['largest excess']:.0f} %."
        for row in argmax
    ]
    return text + "\n" + "\n".join([*lines, LOOKED_UP]) + "\n"


ABLATIONS = {
    "Proxyless-G with latency loss": "default: Proxyless-G with latency in the loss",
    "Proxyless-G without latency loss, derived within the budget": (
        "Proxyless-G without latency in the loss, derived within the budget"
    ),
    "every op equally often in the warm-up": "fair paths in the warm-up",
    "ops that begin independently": "ops initialized independently",
    "pairs settled, as published": "pair probabilities rescaled, as published",
    "a warm-up of its own, for its part of the price": (
        "own warm-up instead of a shared one, at the same cost per case"
    ),
    "most probable ops of all sites, in place of the exact derivation": (
        "Most probable op of every site instead of exact derivation"
    ),
}
"""Labels on the page, by the names that the lines have."""

LOOKED_UP = (
    "Accuracies are looked up in the table of networks trained alone. Each is the mean of at least "
    "two trainings; the spread of those is not part of the intervals."
)


def traffic_table() -> str:
    """Averaging the gradients of the sampled path against DistributedDataParallel."""
    body = [
        [linked(row), f"{row['median']:g} ({row['p10']:g} to {row['p90']:g})"]
        for row in rows_of("traffic")
    ]
    return as_table(["Quantity", "median (10th to 90th percentile)"], body)


def steps_table() -> str:
    """CPU seconds of steps beside those of other implementations."""
    rows = rows_of("steps")
    result = {what: _first(rows, f"{what}, ") for what in OTHERS_CPU_S}
    body: list[Sequence[object]] = [
        [linked(row, what), row["median"], *OTHERS_CPU_S[what]] for what, row in result.items()
    ]
    peaks = [row for row in rows if row["what"].startswith("peak memory")]
    if peaks:
        most = max(peaks, key=lambda row: row["median"])
        body.append([linked(most, "peak memory of any, GB"), most["median"], *OTHERS_PEAK_GB])
    text = as_table(["CPU seconds", "here", "reference implementation", "NNI 3.0"], body)
    return (
        f"{text}\nThe other implementations were measured once, on a machine of this kind with two "
        "threads; their lines are not kept.\n"
    )


def _first(rows: Sequence[Row], beginning: str) -> Row:
    return next(row for row in rows if row["what"].startswith(beginning))


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "headline": ("networks", headline),
    "summary": ("networks", summary_table),
    "claim": ("networks", claim),
    "curve": ("networks", curve_table),
    "speed": ("networks", speed_table),
    "matrix": ("networks", matrix_table),
    "equal": ("networks", equal_table),
    "preference": ("networks", preference_table),
    "preferred": ("networks", preferred),
    "cost": ("networks", cost_table),
    "random": ("random", beyond_chance),
    "random_table": ("random", random_table),
    "mobile": ("mobile_table", mobile_table),
    "longer": ("longer", longer),
    "longer_curve": ("longer", longer_table),
    "ablations": ("ablations", ablation_table),
    "traffic": ("traffic", traffic_table),
    "steps": ("steps", steps_table),
}
"""Part of the evidence whose lines are shown, and the function that makes the text, by name."""


def with_tables(text: str, page: Page = RESULTS) -> str:
    """The text of a page with its tables brought up to date.

    A block keeps its text when no lines of its part exist.
    """

    def block(found: re.Match[str]) -> str:
        part, table = TABLES[found[2]]
        file = newest(part)
        if file is None:
            return found[0]
        source = f"\n[{file.name}](results/{file.name})\n" if page.names_sources else ""
        return found[1] + (table() + source).replace("](results/", f"]({page.results}") + found[3]

    return BLOCK.sub(block, text)


def with_contents(text: str) -> str:
    """The text of a page with its table of contents made from the headings that follow it."""

    def block(found: re.Match[str]) -> str:
        before = len(headings(text[: found.start()]))
        lines = [
            f"{'  ' * (heading.level - 2)}- [{heading.title}](#{heading.anchor})\n"
            for heading in headings(text)[before:]
            if heading.level in (2, 3)
        ]
        return found[1] + "".join(lines) + found[2]

    return CONTENTS.sub(block, text)


def updated(page: Page) -> str:
    """The text that a page should have."""
    return with_contents(with_tables(page.file.read_text(), page))


def main() -> None:
    """Write both pages."""
    for page in (RESULTS, README):
        page.file.write_text(updated(page))


if __name__ == "__main__":
    main()
