"""Different networks for two devices (`jobs/two_devices.yaml`), and the reason.

Run `python tests/benchmarks/two_devices.py` (four minutes). It reports how much slower a block with
a 7x7 kernel is than with a 3x3 one on each device, how many sites of the two networks differ, and
the latency of each network on the other device, by its table. Keeps both figures.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))  # the benchmark runs in a checkout, installed or not

from nas_core.architecture import Architecture
from nas_core.latency import LatencyTable, site_part
from orchestration import load_job, run
from orchestration.config.storage_layout import NETWORK_PICTURE
from tests.benchmarks.lines import keep, line, results_file

JOB = REPOSITORY / "jobs" / "two_devices.yaml"


def kernel_ratios(table: LatencyTable, expansion: int) -> list[float]:
    """Latency of a block with a 7x7 kernel divided by that with a 3x3 one, at every site."""

    def ms(site: Any, kernel: int) -> float:
        return table.row_ms(site_part(site, f"mbconv_k{kernel}_e{expansion}"), site.name)

    return [ms(site, 7) / ms(site, 3) for site in table.space.sites]


def kernels(network: Architecture) -> list[float]:
    """Kernel size at every site that is not skipped."""
    return [float(op[len("mbconv_k")]) for op in network.ops if op != "skip"]


def lines(tables: dict[str, LatencyTable], found: dict[str, Architecture]) -> Iterator[Any]:
    """Result lines of the two devices."""
    for table in tables.values():
        for expansion in (3, 6):
            what = f"{table.hardware}: 7x7 over 3x3, expansion {expansion}, per site"
            yield line(what, kernel_ratios(table, expansion))
    for name, network in found.items():
        yield line(f"network for {name}: kernel per site", kernels(network)) | {"ops": network.ops}
        for other, table in tables.items():
            yield line(f"network for {name}, on {other}, ms by table", [table.latency_ms(network)])
    one, two = found.values()
    differ = sum(a != b for a, b in zip(one.ops, two.ops, strict=True))
    yield line(f"sites that differ, of {len(one.ops)}", [float(differ)])


def main() -> None:
    """Run the job in a new storage and write the results."""
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        result = run(
            load_job(JOB, [f"storage={folder}"]), log=lambda text: print(text, file=sys.stderr)
        )
        searched = [case for case in result.cases if case.kind == "search"]
        actual = {
            case.target: case.architecture
            for case in searched
            if isinstance(case.architecture, Architecture)
        }
        kept = [json.loads(path.read_text()) for path in (storage / "tables").glob("*.json")]
        tables = {table.target: table for table in map(LatencyTable.from_dict, kept)}
        keep("two_devices", list(lines(tables, actual)))
        for case in searched:
            picture = storage / "two_devices" / "comparison" / f"{case.name}{NETWORK_PICTURE}"
            shown = results_file("two_devices").with_name(f"two_devices_{case.target}.png")
            shown.write_bytes(picture.read_bytes())


if __name__ == "__main__":
    main()
