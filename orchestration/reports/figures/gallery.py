"""Draw all figures of a job, below `comparison/`. A figure whose content has not changed is kept.

accuracy.png          accuracy against latency, a panel for each target
networks.png          all networks, aligned by site; <target>-networks(-1).png if there are many
matrix.png            every specialized network on every target
<target>-latency.png  latency by the table against measured latency of networks
<case>-network.png    a network
<case>-search.png     the course of its search
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
"""Version of the drawing code: figures are drawn again when it changes."""
MOST_NETWORKS = 16
"""Networks in one figure, at most."""

Tables = Mapping[str, Mapping[str, Any]]
"""JSON of latency tables by their key."""


def write_pictures(job: Storage, tables: Storage, results: Sequence[Result]) -> None:
    """Draw the figures that are missing or outdated, and remove figures of other results."""
    known_tables = _tables(tables, results)
    gallery = Gallery(job)
    _draw_whole(gallery, job, known_tables, results)
    for target in dict.fromkeys(result["target"] for result in results):
        own = [result for result in results if result["target"] == target]
        _draw_calibration(gallery, target, known_tables, own)
    for result in results:
        _draw_network(gallery, known_tables, result)
        _draw_search(gallery, job, result)
    gallery.close()


@dataclass
class Gallery:
    """Figures in storage, each with the digest of its content."""

    job: Storage
    shown: dict[str, str] = field(default_factory=dict)
    """Digest of every figure drawn or kept by this object, by file name."""
    before: dict[str, str] = field(init=False)
    """Digests as stored by an earlier run."""

    def __post_init__(self) -> None:
        self.before = self.job.find_json(comparison_file(PICTURES_FILE)) or {}

    def draw(self, name: str, content: Any, make: Callable[[], bytes]) -> None:
        """Draw a figure unless storage has it with the same content.

        Args:
            name: of the file.
            content: everything the figure depends on, as JSON values.
            make: returns the bytes of the figure.
        """
        key, path = digest({"renderer": RENDERER, "content": content}), comparison_file(name)
        if self.before.get(name) != key or not self.job.exists(path):
            self.job.write_bytes(path, make())
            self.job.write_json(
                comparison_file(PICTURES_FILE), self.before | self.shown | {name: key}
            )
        self.shown[name] = key

    def close(self) -> None:
        """Delete every figure that was not drawn or kept, and store the digests."""
        for path in self.job.list(COMPARISON):
            name = path.removeprefix(comparison_file(""))
            if name.endswith(".png") and name not in self.shown:
                self.job.delete(path)
        self.job.write_json(comparison_file(PICTURES_FILE), self.shown)


def _tables(tables: Storage, results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    keys = dict.fromkeys(result["table_key"] for result in results)
    stored = ((key, tables.find_json(table_name(key))) for key in keys)
    return {key: table for key, table in stored if table is not None}


def _draw_whole(gallery: Gallery, job: Storage, tables: Tables, results: Sequence[Result]) -> None:
    """Figures of all networks of the job."""
    from orchestration.reports.figures.matrix import matrix_png
    from orchestration.reports.figures.networks import networks_png
    from orchestration.reports.figures.sweep import sweep_png

    name = str(results[0]["job"]) if results else ""
    if any(result["top1"] is not None and has_latency(result) for result in results):
        gallery.draw(ACCURACY_PICTURE, results, lambda: sweep_png(results, name))
    for file, (title, shown) in _pages(name, results).items():
        draw = partial(networks_png, shown, tables, title=title)
        gallery.draw(file, [title, shown, tables], draw)
    if (matrix := matrix_of(job, tables, results)) is not None:
        content, title = repr(matrix), f"{name}: every network on every target"
        gallery.draw(MATRIX_PICTURE, content, lambda: matrix_png(matrix, title=title))


def _pages(name: str, results: Sequence[Result]) -> dict[str, tuple[str, list[Result]]]:
    """Title and networks by file name: one file, or several for each target if there are more than
    `MOST_NETWORKS`."""
    sites = [
        result
        for result in results
        if "ops" in result["architecture"] and result["kind"] != "random"
    ]
    title, pages = f"{name}: the networks", {}
    if all(result["kind"] == "reference" for result in sites):
        return {}
    if len(sites) <= MOST_NETWORKS:
        return {f"{NETWORKS_PICTURE}.png": (title, sites)}
    for target in dict.fromkeys(str(result["target"]) for result in sites):
        own = [result for result in sites if result["target"] == target]
        count = -(-len(own) // MOST_NETWORKS)
        for page in range(count):
            end = f"-{page + 1}" if count > 1 else ""
            part = f", {page + 1} of {count}" if count > 1 else ""
            shown = own[page * MOST_NETWORKS : (page + 1) * MOST_NETWORKS]
            pages[f"{target}-{NETWORKS_PICTURE}{end}.png"] = (f"{title}, {target}{part}", shown)
    return pages


def matrix_of(job: Storage, tables: Tables, results: Sequence[Result]) -> Matrix | None:
    """Specialized networks on all targets; None for fewer than two targets with latencies."""
    shown = specialized(results)
    keys = {
        result["target"]: result["table_key"] for result in results if result["table_key"] in tables
    }
    known = {name: LatencyTable.from_dict(dict(tables[key])) for name, key in keys.items()}
    latencies_by_target = cross_target_latencies(shown, known, job)
    named = {
        name: f"{name} (by its table)" if is_by_table(shown, name, known[name]) else name
        for name, latencies in latencies_by_target.items()
        if latencies
    }
    targets = tuple(named.values())
    if len(targets) < 2 or len({result["target"] for result in shown}) < 2:
        return None
    networks = tuple(
        Specialized(
            name=result["case"],
            asked=_asked(result["budget"]),
            own=named.get(str(result["target"]), str(result["target"])),
            top1=result["top1"],
            latencies_ms={
                column: latencies_by_target[name].get(result["architecture_hash"])
                for name, column in named.items()
            },
        )
        for result in shown
    )
    return Matrix(targets, networks)


def _asked(budget: Any) -> str | None:
    """A budget as text; networks are comparable if these texts are equal."""
    if budget is None or isinstance(budget, str):
        return budget
    return f"{budget:.4g} ms"


def _draw_network(gallery: Gallery, tables: Tables, result: Result) -> None:
    """Figure of one network. The reference has none, since all of its sites are equal."""
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
    """Course of a search. Probabilities are stored next to its result if they were ever updated."""
    from orchestration.reports.figures.search import SearchTrace, search_png

    history = result["search_history"]
    if not history:
        return
    path = f"{case_folder(result['case'])}/{PROBABILITIES_FILE}"
    stored = job.find_json(path) or {}
    trace = SearchTrace(
        title=f"{result['case']}: the search",
        history=history,
        probs=stored.get("epochs", []),
        sites=stored.get("sites", []),
        ops=stored.get("ops", []),
        budget_ms=result.get("search_ms", result["budget_ms"]),
    )
    gallery.draw(f"{result['case']}{SEARCH_PICTURE}", asdict(trace), lambda: search_png(trace))


def _draw_calibration(
    gallery: Gallery, target: str, tables: Tables, results: Sequence[Result]
) -> None:
    """Predicted against measured latency on a target, if its table was calibrated.

    Networks of the job are named: searched ones, given ones and baselines.
    """
    from orchestration.reports.figures.calibration import calibration_png

    values = tables.get(results[0]["table_key"], {})
    if values.get("calibration") is None:
        return
    table = LatencyTable.from_dict(dict(values))
    assert table.calibration is not None
    own = [result for result in results if result["kind"] != "reference" and result["measured_ms"]]
    others = (*table.calibration.others, *(_as_measured(result, table) for result in own))
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
