"""The pictures of a job, below `comparison/`; one whose content is there already is kept.

accuracy.png          accuracy against latency, a panel for each target
networks.png          all networks side by side; of many, <target>-networks(-1).png
matrix.png            every specialized network on every target
<target>-latency.png  networks as predicted by the latency table against as measured
<case>-network.png    a network
<case>-search.png     how its search went
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from cluster.storage import Storage
from nas_core.calibration import MeasuredNetwork
from nas_core.latency import LatencyTable
from orchestration.config.digest import digest
from orchestration.config.storage_layout import (
    ACCURACY_PICTURE,
    COMPARISON,
    LATENCY_PICTURE,
    MATRIX_PICTURE,
    NETWORK_PICTURE,
    NETWORKS_PICTURE,
    PICTURES_FILE,
    PROBABILITIES_FILE,
    SEARCH_PICTURE,
    case_folder,
    comparison_file,
    table_name,
)
from orchestration.reports.cross_target import (
    Matrix,
    Specialized,
    cross_target_latencies,
    is_by_table,
    specialized,
)
from orchestration.reports.results import has_latency, seed_of
from orchestration.state.result import Result

RENDERER = 1
"""Counts what is drawn from the same results: another number, other pictures."""
MOST_NETWORKS = 16
"""Networks in one picture."""

Tables = Mapping[str, Mapping[str, Any]]
"""JSON of latency tables, by their key."""


def write_pictures(job: Storage, tables: Storage, results: Sequence[Result]) -> None:
    """Write what is missing, and remove what is no picture of these results."""
    found = _tables(tables, results)
    gallery = Gallery(job)
    _draw_whole(gallery, job, found, results)
    for target in dict.fromkeys(result["target"] for result in results):
        own = [one for one in results if one["target"] == target]
        _draw_calibration(gallery, target, found, own)
    for result in results:
        _draw_network(gallery, found, result)
        _draw_search(gallery, job, result)
    gallery.close()


@dataclass
class Gallery:
    """Pictures in storage, each with the digest of what it shows."""

    job: Storage
    shown: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.before = self.job.find_json(comparison_file(PICTURES_FILE)) or {}

    def draw(self, name: str, content: Any, make: Callable[[], bytes]) -> None:
        """Draw a picture of some content, unless it is there."""
        key, place = digest({"renderer": RENDERER, "content": content}), comparison_file(name)
        if self.before.get(name) != key or not self.job.exists(place):
            self.job.write_bytes(place, make())
            self.job.write_json(
                comparison_file(PICTURES_FILE), self.before | self.shown | {name: key}
            )
        self.shown[name] = key

    def close(self) -> None:
        """Keep what is shown, and nothing else."""
        for place in self.job.list(COMPARISON):
            name = place.removeprefix(comparison_file(""))
            if name.endswith(".png") and name not in self.shown:
                self.job.delete(place)
        self.job.write_json(comparison_file(PICTURES_FILE), self.shown)


def _tables(tables: Storage, results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    keys = dict.fromkeys(result["table_key"] for result in results)
    found = ((key, tables.find_json(table_name(key))) for key in keys)
    return {key: table for key, table in found if table is not None}


def _draw_whole(gallery: Gallery, job: Storage, tables: Tables, results: Sequence[Result]) -> None:
    """Pictures of all networks of the job."""
    from orchestration.reports.figures.matrix import matrix_png
    from orchestration.reports.figures.networks import networks_png
    from orchestration.reports.figures.sweep import sweep_png

    name = str(results[0]["job"]) if results else ""
    if any(one["top1"] is not None and has_latency(one) for one in results):
        gallery.draw(ACCURACY_PICTURE, results, lambda: sweep_png(results, name))
    for file, (title, shown) in _pages(name, results).items():
        draw = partial(networks_png, shown, tables, title=title)
        gallery.draw(file, [title, shown, tables], draw)
    if (matrix := matrix_of(job, tables, results)) is not None:
        content, title = repr(matrix), f"{name}: every network on every target"
        gallery.draw(MATRIX_PICTURE, content, lambda: matrix_png(matrix, title=title))


def _pages(name: str, results: Sequence[Result]) -> dict[str, tuple[str, list[Result]]]:
    """Files with their title and networks: one for all, or some for each target where all would be
    too many to look at."""
    sites = [one for one in results if "ops" in one["architecture"] and one["kind"] != "random"]
    title, pages = f"{name}: the networks", {}
    if all(one["kind"] == "reference" for one in sites):
        return {}
    if len(sites) <= MOST_NETWORKS:
        return {f"{NETWORKS_PICTURE}.png": (title, sites)}
    for target in dict.fromkeys(str(one["target"]) for one in sites):
        own = [one for one in sites if one["target"] == target]
        count = -(-len(own) // MOST_NETWORKS)
        for page in range(count):
            end = f"-{page + 1}" if count > 1 else ""
            part = f", {page + 1} of {count}" if count > 1 else ""
            shown = own[page * MOST_NETWORKS : (page + 1) * MOST_NETWORKS]
            pages[f"{target}-{NETWORKS_PICTURE}{end}.png"] = (f"{title}, {target}{part}", shown)
    return pages


def matrix_of(job: Storage, tables: Tables, results: Sequence[Result]) -> Matrix | None:
    """Specialized networks on all targets; None where there is one target, or nothing is known."""
    shown = specialized(results)
    keys = {one["target"]: one["table_key"] for one in results if one["table_key"] in tables}
    known = {name: LatencyTable.from_dict(dict(tables[key])) for name, key in keys.items()}
    across = cross_target_latencies(shown, known, job)
    named = {
        name: f"{name} (by its table)" if is_by_table(shown, name, known[name]) else name
        for name, latencies in across.items()
        if latencies
    }
    targets = tuple(named.values())
    if len(targets) < 2 or len({one["target"] for one in shown}) < 2:
        return None
    networks = tuple(
        Specialized(
            name=one["case"],
            asked=_asked(one["budget"]),
            own=named.get(str(one["target"]), str(one["target"])),
            top1=one["top1"],
            latencies_ms={
                column: across[name].get(one["architecture_hash"]) for name, column in named.items()
            },
        )
        for one in shown
    )
    return Matrix(targets, networks)


def _asked(budget: Any) -> str | None:
    """A budget in the words by which networks compare."""
    if budget is None or isinstance(budget, str):
        return budget
    return f"{budget:.4g} ms"


def _draw_network(gallery: Gallery, tables: Tables, result: Result) -> None:
    """A network of sites; the reference has no picture: all of its sites are equal."""
    from orchestration.reports.figures.network import architecture_png

    if result["kind"] not in ("search", "given") or "ops" not in result["architecture"]:
        return
    name, network = str(result["case"]), result["architecture"]
    table = tables.get(result["table_key"]) if result["table_ms"] is not None else None
    gallery.draw(
        f"{name}{NETWORK_PICTURE}",
        [name, network, table],
        lambda: architecture_png(network, table, title=name),
    )


def _draw_search(gallery: Gallery, job: Storage, result: Result) -> None:
    """How a search went; its probabilities are kept beside the result, if they moved."""
    from orchestration.reports.figures.search import SearchTrace, search_png

    history = result["search_history"]
    if not history:
        return
    place = f"{case_folder(result['case'])}/{PROBABILITIES_FILE}"
    moved = job.find_json(place) or {}
    trace = SearchTrace(
        title=f"{result['case']}: the search",
        history=history,
        probs=moved.get("epochs", []),
        sites=moved.get("sites", []),
        ops=moved.get("ops", []),
        budget_ms=result.get("search_ms", result["budget_ms"]),
    )
    gallery.draw(f"{result['case']}{SEARCH_PICTURE}", asdict(trace), lambda: search_png(trace))


def _draw_calibration(
    gallery: Gallery, target: str, tables: Tables, results: Sequence[Result]
) -> None:
    """Predicted against measured networks of a target, if its table was calibrated.

    Those of the job are marked: what it found, was given, and the baselines.
    """
    from orchestration.reports.figures.calibration import calibration_png

    values = tables.get(results[0]["table_key"], {})
    if values.get("calibration") is None:
        return
    table = LatencyTable.from_dict(dict(values))
    assert table.calibration is not None
    own = [one for one in results if one["kind"] != "reference" and one["measured_ms"]]
    others = (*table.calibration.others, *(_as_measured(one, table) for one in own))
    shown = replace(table, calibration=replace(table.calibration, others=others))
    gallery.draw(f"{target}{LATENCY_PICTURE}", shown.to_dict(), lambda: calibration_png(shown))


def _as_measured(result: Result, table: LatencyTable) -> MeasuredNetwork:
    table_ms, measured_ms = result["table_ms"], result["measured_ms"]
    assert measured_ms is not None, "marked only if it was measured"
    name = result["case"].removeprefix(f"{result['target']}-")
    if result["kind"] == "search":
        seed = f", seed {seed_of(result)}" if seed_of(result) else ""
        name = f"found for {result['budget_ms']:.4g} ms{seed}"
    return MeasuredNetwork(
        name=name,
        ops=None,
        parts_ms=None if table_ms is None else (table_ms - table.offset_ms) / table.scale,
        measured_ms=measured_ms,
        spread=result["measured_spread"] or 0.0,
    )
