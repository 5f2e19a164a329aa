"""Traffic and time of a data-parallel weight step over a slow link.

Run `python tests/benchmarks/traffic.py` as root: it makes two network namespaces behind a bridge,
each sending at most 1 Gbit/s (token bucket filter), and runs a worker with one thread in each, over
gloo. Both kinds of step run on the published space with the same uniformly drawn paths:

- ours: gradients of the path in buckets, sent while backward runs
  (orchestration/distributed/process_group.py);
- DistributedDataParallel(find_unused_parameters=True) of the same supernet.

Steps are interleaved. Both are also timed without the limit, over the loopback device. Last, the
throughput of one and of two workers without the limit, with a global batch of 64 at 96 pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from nas_core.batch import Batch
from nas_core.gates import uniform_path
from nas_core.search import start_search, weight_step
from nas_core.search_settings import SearchSettings
from nas_core.space import proxyless_imagenet
from nas_core.train_step import Trainer
from nas_core.workers import ProcessGroup, SingleProcess
from orchestration.distributed.process_group import DistributedProcessGroup
from tests.benchmarks.lines import keep, line
from tests.support.network_namespaces import CABLE, Host, network, run

SPACE = proxyless_imagenet()
SETTINGS = SearchSettings()
CPU = torch.device("cpu")
Step = Callable[[int], object]


class Bench:
    """Supernet, paths and images of one of two workers."""

    def __init__(self, rank: int, images: int, resolution: int, paths: int = 6) -> None:
        torch.manual_seed(rank)
        self.images = torch.randn(images, 3, resolution, resolution)
        self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.arange(images) % SPACE.classes
        self.state = start_search(SPACE, SETTINGS, 0, CPU)
        self.state.supernet.train()
        self.group = DistributedProcessGroup(rank, 2, CPU)
        choices, rng = self.state.supernet.choices(), torch.Generator().manual_seed(0)
        self.paths = [uniform_path(choices, rng) for _ in range(paths)]

    def part(self, count: int, total: int) -> Batch:
        """Batch of the first images, as this worker's share of a global batch."""
        return Batch(self.images[:count], self.labels[:count], total)

    def ours(self, batch: Batch, group: ProcessGroup) -> Step:
        """Weight step as in a search."""
        trainer = Trainer.of(self.state.weight_optimizer, self.state.scaler, SETTINGS, group)
        return lambda i: weight_step(self.state, batch, self.paths[i], trainer, 0.01)

    def ddp(self, batch: Batch) -> tuple[Step, Callable[[], int]]:
        """Step with DistributedDataParallel, and a function that counts the values sent so far."""
        state = start_search(SPACE, SETTINGS, 0, CPU)
        for alpha in state.supernet.alphas():
            alpha.requires_grad_(False)
        net = DistributedDataParallel(state.supernet.train(), find_unused_parameters=True)
        sent = [0]

        def counted(_state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
            sent[0] += bucket.buffer().numel()
            flat = bucket.buffer().div_(2)
            work = dist.all_reduce(flat, async_op=True)
            assert work is not None, "an asynchronous message has a handle"
            return work.get_future().then(lambda done: done.value()[0])

        counted.__annotations__ = {  # DDP checks them; in this file they would be strings
            "bucket": dist.GradBucket,
            "return": torch.futures.Future[torch.Tensor],
        }
        net.register_comm_hook(None, counted)

        def step(i: int) -> None:
            state.weight_optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(net(batch.images, self.paths[i]), batch.labels).backward()  # type: ignore[no-untyped-call]
            state.weight_optimizer.step()

        return step, lambda: sent[0]

    def params(self, i: int) -> int:
        """Number of weights of a path."""
        modules = self.state.supernet.on_path(self.paths[i])
        return sum(p.numel() for module in modules for p in module.parameters())


def seconds(step: Step, i: int) -> float:
    """Seconds of a step that both workers begin together."""
    dist.barrier()
    began = time.perf_counter()
    step(i)
    return time.perf_counter() - began


def compare(bench: Bench, rounds: int, where: str) -> list[dict[str, object]]:
    """Result lines of our step and of DDP, interleaved on the same paths."""
    batch = bench.part(len(bench.labels), 2 * len(bench.labels))
    ours, (ddp, ddp_sent) = bench.ours(batch, bench.group), bench.ddp(batch)
    times: list[tuple[float, float]] = []
    values: list[tuple[float, float]] = []
    for number in range(rounds + 1):  # the first round is not counted
        for i in range(len(bench.paths)):
            before = ddp_sent()
            pair = seconds(ours, i), seconds(ddp, i)
            params = bench.params(i)
            if number > 0:
                times.append(pair)
                values.append((bench.group.sent / params, (ddp_sent() - before) / params))
    return [
        line(f"ours, values sent / weights of the path, {where}", [a for a, _ in values]),
        line(f"DDP, values sent / weights of the path, {where}", [b for _, b in values]),
        line(f"ours, seconds a step, {where}", [a for a, _ in times]),
        line(f"DDP, seconds a step, {where}", [b for _, b in times]),
        line(f"DDP / ours, seconds a step, {where}", [b / a for a, b in times]),
    ]


def two_against_one(bench: Bench, rounds: int) -> list[dict[str, object]]:
    """Throughput of two workers against that of one, global batch 64."""
    both = bench.ours(bench.part(32, 64), bench.group)
    alone = bench.ours(bench.part(64, 64), SingleProcess())
    is_first, rates = bench.group.rank == 0, []
    for number in range(rounds + 1):
        one = mean(seconds(alone if is_first else (lambda _i: None), i) for i in range(6))
        two = mean(seconds(both, i) for i in range(6))
        if number > 0:
            rates.append((64 / one, 64 / two))
    return [
        line("one worker, images a second", [a for a, _ in rates]),
        line("two workers, images a second", [b for _, b in rates]),
        line("two workers / one, images a second", [b / a for a, b in rates]),
    ]


def work(options: argparse.Namespace) -> None:
    """Worker function; the first worker prints the results."""
    torch.set_num_threads(1)
    place = f"tcp://{options.master}:{options.port}"
    dist.init_process_group("gloo", init_method=place, rank=options.rank, world_size=2)
    if options.what == "speed":
        result = two_against_one(Bench(options.rank, 64, 96), options.rounds)
    else:
        bench = Bench(options.rank, options.images, options.resolution)
        result = compare(bench, options.rounds, options.what)
    dist.barrier()
    if options.rank == 0:
        sys.stdout.write(json.dumps(result) + "\n")
    dist.destroy_process_group()


@contextmanager
def slow_link(gbits: float) -> Iterator[list[Host]]:
    """Two hosts in a separate network, each limited to this rate."""
    with network(2) as made:
        for host in made.hosts:
            limit = f"rate {gbits}gbit burst 256kb latency 100ms"
            run(f"tc -n {host.name} qdisc add dev {CABLE} root tbf {limit}")
        yield made.hosts


def pair(what: str, options: argparse.Namespace, hosts: Sequence[Host] = ()) -> list[Any]:
    """Run two workers, on these hosts or on this machine; return the results of the first."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    master = hosts[0].address if hosts else "127.0.0.1"
    prefixes = [[*host.prefix, "env", f"GLOO_SOCKET_IFNAME={CABLE}"] for host in hosts]
    words = ["--what", what, "--rounds", str(options.rounds), "--images", str(options.images)]
    words += ["--resolution", str(options.resolution), "--master", master, "--port", str(port)]
    workers = [
        subprocess.Popen(
            [*prefix, sys.executable, __file__, *words, "--rank", str(rank)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank, prefix in enumerate(prefixes or [[], []])
    ]
    said = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise SystemExit(f"a worker failed: {said}")
    result: list[Any] = json.loads(said[0].splitlines()[-1])
    return result


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4, help="images per worker and step")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--what", default="")
    parser.add_argument("--rank", type=int, default=-1)
    parser.add_argument("--master", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--file", type=Path, help="result file, by default one in results/")
    options = parser.parse_args()
    if options.rank >= 0:
        work(options)
        return
    result = pair("loopback", options)
    if os.geteuid() == 0:
        with slow_link(1) as hosts:
            result += pair("1 Gbit/s", options, hosts)
    else:
        sys.stderr.write("only root can make a slow link; without those lines\n")
    result += pair("speed", options)
    keep("traffic", result, options.file)


if __name__ == "__main__":
    main()
