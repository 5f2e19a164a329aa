"""Tables of the evidence, from the newest lines in `results/`: RESULTS.md, and parts of the README.

`python tests/benchmarks/tables.py` writes both; `bench.py` runs it at its end. In the README only
the text between `<!-- evidence: NAME -->` and `<!-- end -->` is replaced.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
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
    longer,
    preferences,
    preferred,
)

RESULTS, README = Path(__file__).parent / "RESULTS.md", REPOSITORY / "README.md"
BLOCK = re.compile(r"(<!-- evidence: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def curve_table() -> str:
    """Table of searched networks, MobileNetV2 and the reference network on each target."""
    return _curve("networks")


def longer_table() -> str:
    """Tables of networks after a longer training."""
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
    head = ["budget ms", "ms", "top-1 % ± deviation", "seeds"]
    return as_table(["", *head, "points over MobileNetV2 at its latency (95 % interval)"], body)


def _points_over(row: Row) -> str:
    """Lead over MobileNetV2, with its number of seeds if the latency was not covered in all."""
    if "covered" not in row:
        return ""
    if not row["covered"]:
        return "no MobileNetV2 of these is so fast"
    said = interval(row["points over MobileNetV2 at its latency"])
    return said if row["covered"] == row["n"] else f"{said}, of {row['covered']} seeds"


def speed_table() -> str:
    """Table of speed-ups at equal accuracy."""
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
    head = ["at top-1 %", "times (95 % interval)", "seeds"]
    head += ["points by which even our fastest network is better", "seeds in which theirs is"]
    return as_table(["", *head], body)


def random_table() -> str:
    """Table of random networks of the space with the latency of the searched ones."""
    body = [
        [linked(row), accuracy(row), row["n"], row["found"], interval(row[AHEAD]), row["seeds"]]
        for row in rows_of("random")
    ]
    head = ["top-1 % ± deviation", "networks", "found, top-1 %", f"{AHEAD} (95 % interval)"]
    return as_table(["", *head, "seeds"], body)


def matrix_table() -> str:
    """Table of every searched network on every target."""
    return _on_all_targets("searched for")


def equal_table() -> str:
    """Table of the networks of every target on every target, at equal accuracy."""
    return _on_all_targets("at equal accuracy")


HEADS = {
    "cpu": "cpu (ONNX Runtime), ms",
    "mobile": "mobile (XNNPACK; this host stands in), ms",
    "h100": "h100 (batch 8, by its table), ms",
}


def _on_all_targets(beginning: str) -> str:
    rows = [row for row in rows_of("networks") if row["what"].startswith(beginning)]
    names = list(rows[0]["ms"]) if rows else []
    body = [
        [linked(row), row["top1"], *(row["ms"][name] for name in names), row["n"]] for row in rows
    ]
    return as_table(
        ["network", "top-1 %", *(HEADS.get(name, f"{name}, ms") for name in names), "seeds"], body
    )


def preference_table() -> str:
    """Table of latency ratios between networks of two targets."""
    rows = preferences()
    body = [
        [
            linked(row) + (" (by its table)" if row["by table"] else ""),
            row["top1"],
            interval(row["times"]),
            row["n"],
            row["their fastest is better still"],
        ]
        for row in rows
    ]
    head = ["at top-1 %", "times (95 % interval)", "seeds", "seeds read at their fastest network"]
    return as_table(["latency of one over that of the other", *head], body)


def cost_table() -> str:
    """Table of costs, in trainings of one network."""
    rows = [row for part in ("networks", "steps") for row in rows_of(part) if "trainings" in row]
    body = [
        [linked(row), row.get("steps"), row.get("updates"), row.get("seconds"), row["trainings"]]
        for row in rows
    ]
    head = ["weight steps", "updates", "seconds of one worker", "trainings of one network"]
    return as_table(["", *head], body)


def mobile_table() -> str:
    """Table of the poster's networks, with published and measured latencies."""
    rows = [row for row in rows_of("mobile_table") if "published top1" in row]
    places = list(rows[0]["ms"]) if rows else []
    body = [
        [
            linked(row),
            row["published top1"],
            row["published pixel1 ms"],
            row["published search, GPU hours"],
            row["macs"] and round(row["macs"] / 1e6),
            *(ms if (ms := row["ms"][name]) is None else round(ms, 1) for name in places),
        ]
        for row in rows
    ]
    head = ["", "top-1 %, published", "Pixel 1 ms, published", "GPU hours, published", "MACs M"]
    text = as_table([*head, *(f"{name}, ms here" for name in places)], body)
    pixel1 = [row for row in rows_of("mobile_table") if "published" in row]
    said = [f"{linked(row)}: {row['ms']}; published {row['published']}." for row in pixel1]
    return text + "\n" + "\n".join(said) + "\n"


def ablation_table() -> str:
    """Table of the ablations."""
    rows = [row for row in rows_of("ablations") if "cost" in row]
    body = [
        [linked(row), row["top1"], interval(row.get("points")), row["cost"], row["n"]]
        for row in rows
    ]
    head = ["top-1 %", "points against the default (95 % interval)", "cost, weight steps", "seeds"]
    text = as_table(["", *head], body)
    argmax = [row for row in rows_of("ablations") if "over the budget" in row]
    said = [
        f"{linked(row)}: over the budget in {row['over the budget']} of {row['searches']} "
        f"searches, by up to {100 * row['largest excess']:.0f} %."
        for row in argmax
    ]
    return text + "\n" + "\n".join([*said, LOOKED_UP]) + "\n"


LOOKED_UP = (
    "Accuracies are looked up in the table of networks trained alone; each is a mean of two "
    "trainings or more, whose own spread is not in the intervals."
)


def traffic_table() -> str:
    """Table of path-gradient averaging against DistributedDataParallel."""
    body = [
        [linked(row), f"{row['median']:g} ({row['p10']:g} to {row['p90']:g})"]
        for row in rows_of("traffic")
    ]
    return as_table(["", "median (tenths)"], body)


def steps_table() -> str:
    """Table of CPU seconds of steps, beside other implementations."""
    rows = rows_of("steps")
    found = {what: _first(rows, f"{what}, ") for what in OTHERS_CPU_S}
    body: list[Sequence[object]] = [
        [linked(row, what), row["median"], *OTHERS_CPU_S[what]] for what, row in found.items()
    ]
    peaks = [row for row in rows if row["what"].startswith("peak memory")]
    if peaks:
        most = max(peaks, key=lambda row: row["median"])
        body.append([linked(most, "peak memory of any, GB"), most["median"], *OTHERS_PEAK_GB])
    text = as_table(["CPU seconds", "here", "reference implementation", "NNI 3.0"], body)
    return (
        f"{text}\nFigures of the others were measured once on a machine of this kind, two threads; "
        "no lines of them are kept.\n"
    )


def _first(rows: Sequence[Row], beginning: str) -> Row:
    return next(row for row in rows if row["what"].startswith(beginning))


TABLES: dict[str, tuple[str, str, Callable[[], str]]] = {
    "claim": ("networks", "In one sentence", claim),
    "curve": ("networks", "Against MobileNetV2", curve_table),
    "speed": ("networks", "At equal accuracy", speed_table),
    "matrix": ("networks", "Every network on every target", matrix_table),
    "equal": ("networks", "Every target's networks on every target", equal_table),
    "preference": ("networks", "Own networks against those of other targets", preference_table),
    "preferred": ("networks", "Hardware prefers specialized models", preferred),
    "cost": ("networks", "Cost", cost_table),
    "random": ("random", "Against random networks, in one sentence", beyond_chance),
    "random_table": ("random", "Against random networks of the space", random_table),
    "mobile": ("mobile_table", "The networks of the poster", mobile_table),
    "longer": ("longer", "Trained four times as long, in one sentence", longer),
    "longer_curve": ("longer", "Trained four times as long", longer_table),
    "ablations": ("ablations", "What each part is worth", ablation_table),
    "traffic": ("traffic", "Compact averaging", traffic_table),
    "steps": ("steps", "Steps", steps_table),
}
"""Tables by name: part whose lines it shows, title, and function that makes it."""


def results_page() -> str:
    """Text of RESULTS.md."""
    texts = ["# Results\n\nMade by `make bench` from the lines in `results/`; see bench.py.\n"]
    for part, title, table in TABLES.values():
        file = newest(part)
        where = "not made yet" if file is None else f"[{file.name}](results/{file.name})"
        texts.append(f"## {title}\n\n{where}\n\n{'' if file is None else table()}")
    return "\n".join(texts)


def with_tables(text: str) -> str:
    """Page with its blocks of evidence updated; blocks without results are left as they are."""

    def block(found: re.Match[str]) -> str:
        part, _, table = TABLES[found[2]]
        if newest(part) is None:
            return found[0]
        return found[1] + table().replace("](results/", "](tests/benchmarks/results/") + found[3]

    return BLOCK.sub(block, text)


def main() -> None:
    """Write RESULTS.md and the tables of the README."""
    RESULTS.write_text(results_page())
    README.write_text(with_tables(README.read_text()))


if __name__ == "__main__":
    main()
