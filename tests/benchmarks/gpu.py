"""NVIDIA GPU: accuracy of latency tables, and speed and memory of search steps, in one run.

Run `python tests/benchmarks/gpu.py` on a machine with a GPU; of the project's requirements it needs
torch alone. It prints one JSON line per figure and writes them to `results/` or to `--out`, with
the tables in the project's own format:

- for each precision, a table of the published space (224 pixels, batch 8): all distinct ops and
  whole networks, timed interleaved, less the time of an empty call. A line is fitted to the
  reference and 11 random networks, and tested on 24 others. First, the output of every replayed op
  is compared with fp32 on the CPU;
- `steps.py` with batch 256 in bfloat16, or half of it if memory does not suffice; the share of the
  speed that the GPU reaches in a large matrix product; and the peak memory of each kind of step
  (`memory.py`) beside that of `darts`, with as many images as fit for darts.

`--device cpu --small` runs the same code in a minute, on a small space and on the CPU: it shows
that the script works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as steps.py wants it, before torch is loaded
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))  # the benchmark runs in a checkout, installed or not
if importlib.util.find_spec("psutil") is None:  # only used for the memory of this machine
    memory = SimpleNamespace(total=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    stand_in: Any = SimpleNamespace(virtual_memory=lambda: memory)
    sys.modules["psutil"] = stand_in

import torch
from torch import Tensor

from cluster.hardware import TARGETS, facts, usable_cores
from cluster.runtimes.cuda_device import CudaDevice, Device, why_no_gpu
from cluster.runtimes.exported import read
from cluster.runtimes.timing import time_calls
from cluster.runtimes.torch_cuda import TorchCuda
from nas_core.latency import op_signatures
from nas_core.space import SearchSpace, proxyless_imagenet, proxyless_small
from tests.benchmarks import lines
from tests.benchmarks.gpu_table import (
    Line,
    Program,
    all_compiled,
    networks_of,
    table_lines,
    table_of,
)
from tests.benchmarks.host_device import HostDevice
from tests.benchmarks.lines import line

ERROR = "|answer - answer in fp32| / |answer in fp32|, millionths"
LIMITS = {"fp32": 1e3, "fp16": 2e4, "bf16": 1e5}
"""Largest relative error that rounding explains, in millionths, by precision."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Size of the measurements."""

    space: SearchSpace
    batch: int = 8
    fitted: int = 12
    checked: int = 24
    rounds: int = 10
    sample_ms: float = 5.0
    steps_batch: int = 256
    steps_resolution: int = 224
    steps_networks: int = 10
    steps_rounds: int = 3
    memory_batch: int = 64


FULL = Extent(space=proxyless_imagenet())
SMALL = Extent(
    space=proxyless_small(),
    batch=2,
    fitted=4,
    checked=4,
    rounds=2,
    sample_ms=0.5,
    steps_batch=2,
    steps_resolution=32,
    steps_networks=1,
    steps_rounds=1,
    memory_batch=2,
)


class Bench:
    """Compiled programs, which serve all precisions, and the device that runs them."""

    def __init__(self, extent: Extent, device: Device, processes: int) -> None:
        self.extent, self.device = extent, device
        self.parts = op_signatures(extent.space)
        self.networks = networks_of(extent.space, extent.fitted + extent.checked)
        subjects = [*self.parts, None, *self.networks]
        self.programs = all_compiled(extent.space, extent.batch, subjects, processes)
        rng = torch.Generator().manual_seed(0)
        self.inputs = [torch.randn(shape, generator=rng) for _, shape in self.programs]
        self.expected = [answer(p, x) for p, x in zip(self.checked, self.inputs, strict=False)]

    @property
    def checked(self) -> Sequence[Program]:
        """Programs compared with fp32 on the CPU: ops, empty call and reference network."""
        return self.programs[: len(self.parts) + 2]

    def table(self, precision: str, out: Path) -> Iterator[Line]:
        """Result lines of one precision; writes its table to a file."""
        runtime = TorchCuda(replace(TARGETS["gpu"], precision=precision), self.device)
        state: Line = {"what": "state before", **facts(), **runtime.facts()}
        yield {**state, "version": runtime.version()}
        prepared = [
            runtime.load(code).prepared(images)
            for (code, _), images in zip(self.programs, self.inputs, strict=True)
        ]
        yield line(ERROR, [error * 1e6 for error in self.errors(prepared)])
        yield line("launch of an empty call by the host, us", self.launches(prepared))
        timings = time_calls(
            prepared,
            rounds=self.extent.rounds,
            sample_ms=self.extent.sample_ms,
            run_ms=runtime.run_ms,
            rest=runtime.rest,
        )
        table = table_of(
            runtime, precision, self.extent.space, self.networks, timings, self.extent.fitted
        )
        yield from table_lines(table)
        yield line("largest later round / first round", [timing.rise for timing in timings])
        yield {"what": "state after", **runtime.facts()}
        (out / file_name(f"gpu_table_{precision}", self.device)).write_text(
            json.dumps(table.to_dict()) + "\n"
        )

    def errors(self, prepared: Sequence[Any]) -> Iterator[float]:
        """Relative errors of replays. Outputs of the capture are overwritten with NaN first."""
        for replay, expected in zip(prepared, self.expected, strict=False):
            replay().fill_(torch.nan)
            result: Tensor = replay()
            self.device.synchronize()
            size = expected.norm().clamp(min=1e-6)  # an empty call may answer with zeros
            error = (result.float().cpu() - expected).norm() / size
            yield float(error.nan_to_num(nan=torch.inf))

    def launches(self, prepared: Sequence[Any]) -> list[float]:
        """Microseconds for the host to launch an empty call, not waiting for the GPU."""
        empty, result, count = prepared[len(self.parts)], [], 200
        for _ in range(10):
            self.device.synchronize()
            began = time.perf_counter()
            for _ in range(count):
                empty()
            result.append((time.perf_counter() - began) / count * 1e6)
        self.device.synchronize()
        return result[1:]


def answer(program: Program, images: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = read(program[0]).module()(images)
    return result


def commit_is(named: str | None) -> None:
    """Set the commit of these files, for a copy without git."""
    if named or shutil.which("git") is None:
        lines.commit = lambda: named or "unknown"


def step_lines(extent: Extent, place: str, batch: int) -> list[Line]:
    from tests.benchmarks import steps

    words = argparse.Namespace(
        device=place,
        batch=batch,
        resolution=extent.steps_resolution,
        networks=extent.steps_networks,
        rounds=extent.steps_rounds,
        precision="bfloat16",
    )
    result = steps.lines(*steps.rounds(steps.Bench(words), words.rounds), words)
    return [{**item, "batch": batch, "precision": words.precision} for item in result]


def steps_that_fit(extent: Extent, place: str) -> list[Line]:
    """Result lines of `steps.py`; the batch is halved until memory suffices."""
    batch = extent.steps_batch
    while batch:
        try:
            return step_lines(extent, place, batch)
        except torch.cuda.OutOfMemoryError:
            log(f"out of memory with {batch} images a step")
        free()
        batch //= 2
    return []


def memory_that_fits(place: str, batch: int) -> list[Line]:
    """Peak memory of all kinds of steps; the batch is halved until memory suffices for `darts`."""
    from tests.benchmarks import memory

    memory.DEVICE = torch.device(place)
    kinds = [*memory.DARTS, *memory.OF_ONE_PATH]
    while batch:
        try:
            peaks = {}
            for kind in kinds:
                peaks[kind] = memory.measure(kind, "proxyless_mobile", batch)["peak_mb"]
                free()
            break
        except torch.cuda.OutOfMemoryError:
            log(f"out of memory with {batch} images a step")
        free()
        batch //= 2
    return [{**item, "batch": batch} for item in memory_lines(peaks, memory.PLAIN)]


def memory_lines(peaks: dict[str, float], plain: str) -> Iterator[Line]:
    for kind, peak in peaks.items():
        yield line(f"{kind}: peak over weights and momentum, MB", [peak])
        if kind != plain and peaks[plain]:
            yield line(f"{kind} / {plain}: ratio of peaks", [peak / peaks[plain]])


def free() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def file_name(what: str, device: Device) -> str:
    gpu = "-".join(str(device.facts()["gpu"]).lower().replace(",", "").split())
    version = ".".join(lines.TORCH.split(".")[:2])
    return f"{what}__{gpu}__torch-{version}__{date.today()}.json"


def keep(what: str, found: Iterable[Line], extras: Line, device: Device, out: Path) -> list[Line]:
    """Print result lines and write them to a file."""
    done = [{**item, **extras, "device": device.facts()["gpu"]} for item in found]
    lines.keep(what, done, out / file_name(what, device))
    return done


def log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def check(found: Sequence[Line], precision: str) -> None:
    for item in found:
        largest: Any = item.get("largest")
        if item["what"] == ERROR and largest > LIMITS[precision]:
            sys.exit(f"{precision}: {ERROR}: {largest}; expected at most {LIMITS[precision]:g}")


def words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--small", action="store_true", help="see that it works, in a minute")
    parser.add_argument("--precisions", nargs="*", default=["fp32", "fp16"], choices=list(LIMITS))
    parser.add_argument("--no-steps", action="store_true", help="tables only")
    parser.add_argument("--no-memory", action="store_true", help="no comparison with darts")
    parser.add_argument("--processes", type=int, default=min(12, usable_cores()), help="compilers")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--commit", help="of these files, where git cannot tell")
    return parser.parse_args()


def main() -> None:
    options = words()
    commit_is(options.commit)
    if options.device == "cuda" and (reason := why_no_gpu()):
        sys.exit(f"no GPU: {reason}; see --help for a run without one")
    device: Device = CudaDevice() if options.device == "cuda" else HostDevice()
    extent = SMALL if options.small else FULL
    options.out.mkdir(parents=True, exist_ok=True)
    if options.precisions:
        log("compiling")
        bench = Bench(extent, device, options.processes)
    for precision in options.precisions:
        log(f"table in {precision}")
        extras: Line = {"precision": precision, "batch": extent.batch}
        result = keep(
            f"gpu_{precision}", bench.table(precision, options.out), extras, device, options.out
        )
        check(result, precision)
        free()
    if not options.no_steps:
        log("steps")
        keep("gpu_steps", steps_that_fit(extent, device.torch_name), {}, device, options.out)
    if not options.no_memory:
        free()
        log("memory")
        result = memory_that_fits(device.torch_name, extent.memory_batch)
        keep("gpu_memory", result, {}, device, options.out)


if __name__ == "__main__":
    main()
