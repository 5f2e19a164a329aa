"""Data loading at scale: conversion, reading from disk and S3, memory, faults, ImageNet estimate.

Run `python tests/benchmarks/data.py` (some 15 minutes; `--images 2000 --large 4000 --small 1000` to
try it; Linux only). Images are grey glyphs of 64 pixels as PNG. Each part runs in its own process
with a Ray instance of two cores:

- converting: wall-clock seconds, with and without the start and shutdown of Ray;
- reading: two epochs of random crops, mirrored, by two readers, consumed as fast as they arrive.
  The second epoch is timed from the end of the first, the first from the call, and both by the CPU
  time of all processes. From a folder, and from moto's S3 server on the same cores;
- memory: PSS of the driver and all Ray processes (shared memory counts once), less the same when
  Ray is idle with its libraries loaded; the peak while two epochs are read;
- faults: readers are killed and S3 answers 503, 500 or a truncated body, in turn; the image keys
  that arrived in the epoch are counted;
- paper: photographs of 500x375 pixels, as large as those of ImageNet, decoded and cropped to 224 by
  one process; the cores and bandwidth that 8 and 64 GPUs would need.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import psutil

from cluster.head import NODE_SETTINGS, free_port
from cluster.storage import Storage
from orchestration.config.data import DataSettings, GlyphSettings
from orchestration.config.storage_layout import MANIFEST_FILE
from tests.benchmarks.lines import as_they_come, keep, line
from tests.support.faulty_proxy import Fault, Proxy
from tests.support.s3 import BUCKET, LOGIN

SIDE, CLASSES, BATCH = 64, 16, 256
FAULTS = 20
TARGETS = {"converted": 1500.0, "read": 1500.0, "memory": 1500.0}
"""Goals: images per second, and MB above the idle job."""

IMAGENET_IMAGES, IMAGENET_BYTES = 1_281_167, 150e9
GPU_IMAGES_PER_S = (500, 1000, 2000, 3650)
"""Training speeds of a GPU to estimate for; the last was measured on an H100
(results/gpu_steps__*). `proxyless plan` measures the speed on the machine of the job."""


@contextmanager
def ray_of_two() -> Iterator[None]:
    """Local Ray instance with two cores."""
    import ray

    os.environ["PYTHONPATH"] = str(REPOSITORY)
    os.environ |= NODE_SETTINGS
    words = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "log_to_driver": False}
    ray.init("local", num_cpus=2, **words)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def s3_process() -> Iterator[str]:
    """S3 server with a bucket, in its own process. Yields its endpoint."""
    import boto3

    port = free_port()
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        endpoint = f"http://127.0.0.1:{port}"
        os.environ |= {**LOGIN, "AWS_ENDPOINT_URL": endpoint}
        client = boto3.client("s3")
        for _ in range(100):
            with suppress(Exception):
                client.create_bucket(Bucket=BUCKET)
                break
            time.sleep(0.2)
        try:
            yield endpoint
        finally:
            server.terminate()


def put_into_s3(folder: str, endpoint: str) -> str:
    """Upload the files of a data set under the same names; return its S3 address."""
    import boto3

    client = boto3.client("s3", endpoint_url=endpoint)
    for path in sorted(Path(folder).glob("*")):
        if path.is_file():
            client.upload_file(str(path), BUCKET, f"set/{path.name}")
    return f"s3://{BUCKET}/set"


def converted(count: int, dest: str) -> dict[str, float]:
    """Seconds of a conversion on Ray."""
    from orchestration.data.parquet.convert import convert
    from orchestration.data.parquet.samples import glyph_listing

    began = time.perf_counter()
    settings = GlyphSettings(classes=CLASSES, train=4 * CLASSES, test=4 * CLASSES)
    listing = glyph_listing(settings, count, SIDE, 1, "png")
    with ray_of_two():
        ready = time.perf_counter()
        convert(listing, Storage(dest), print)
        done = time.perf_counter()
    return {"converting_s": done - ready, "all_s": time.perf_counter() - began}


def stream(path: str) -> Any:
    """Loader of the training images of a data set, set up as a job does it."""
    import torch

    from orchestration.data.dataset import normalise
    from orchestration.data.streaming.dataset import load_streamed
    from orchestration.data.streaming.loader import Reading, StreamLoader
    from orchestration.data.transforms import recipe_of

    words: dict[str, Any] = {"augment": "crop", "flip": True, "test_share": 0.001}
    settings = DataSettings(
        source="parquet", path=path, resolution=SIDE, channels=1, memory_gib=0.0, **words
    )
    data = load_streamed(settings, None)
    reading = Reading(
        lambda images: normalise(images, data.mean, data.std), torch.device("cpu"), readers=2
    )
    recipe = recipe_of(settings, is_retraining=False)
    return StreamLoader(data.train, BATCH, 0, "benchmark", recipe, reading)


def read(path: str, environment: dict[str, str]) -> dict[str, float]:
    """Speed of reading two epochs as fast as batches arrive."""
    os.environ |= environment
    with ray_of_two():
        loader = stream(path)
        cpu, marks = cpu_s(), [time.perf_counter()]
        for number, _ in enumerate(islice(loader.batches(0), 2 * loader.steps)):
            if number in (0, loader.steps - 1):
                marks.append(time.perf_counter())
        began, first, middle, ended = *marks, time.perf_counter()
        count = len(loader.data)
        return {
            "first_s": first - began,
            "first_per_s": count / (middle - began),
            "per_s": count / (ended - middle),
            "per_cpu_s": 2 * count / (cpu_s() - cpu),
        }


def mine() -> list[psutil.Process]:
    """Process of the caller and all its descendants."""
    here = psutil.Process()
    return [here, *here.children(recursive=True)]


def cpu_s() -> float:
    """CPU seconds of these processes, including children that ended."""
    total = 0.0
    for process in mine():
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def held_mb() -> float:
    """Memory of these processes in MB; shared memory counts once."""
    total = 0
    for process in mine():
        with suppress(psutil.Error, OSError):
            total += process.memory_full_info().pss
    return total / 1e6


def memory(path: str) -> dict[str, float]:
    """Peak memory above the idle job while two epochs are read."""
    with ray_of_two():
        loader = stream(path)
        import ray.data

        ray.data.DataContext.get_current().enable_progress_bars = False
        ray.data.range(1).take_all()  # loads the libraries and starts the processes that Ray keeps
        time.sleep(5)
        idle, most, is_done = held_mb(), [0.0], threading.Event()

        def watch() -> None:
            while not is_done.wait(0.5):
                most.append(held_mb())

        watcher = threading.Thread(target=watch)
        watcher.start()
        for _ in islice(loader.batches(0), 2 * loader.steps):
            pass
        is_done.set()
        watcher.join()
    return {"idle_mb": idle, "above_mb": max(most) - idle}


def readers() -> list[psutil.Process]:
    """Processes that run a reader task of the stream."""
    result = []
    for process in mine():
        with suppress(psutil.Error):
            if "MapBatches" in " ".join(process.cmdline()):
                result.append(process)
    return result


class Faults:
    """Alternating faults: killed readers and failed S3 answers, one per call of `cause`."""

    def __init__(self, proxy: Proxy) -> None:
        self.killed, self.failed, self._due = 0, 0, 0
        self._lock = threading.Lock()
        proxy.fault = self._fault

    def cause(self) -> None:
        """Cause the next fault: kill a reader if an answer failed last, else fail an answer."""
        with self._lock:
            if self.killed > self.failed:
                self._due = 1
                return
        running = readers()
        if running:
            with suppress(ProcessLookupError):
                os.kill(random.choice(running).pid, signal.SIGKILL)
                self.killed += 1

    def _fault(self, number: int) -> Fault:
        with self._lock:
            if self._due == 0:
                return None
            self._due -= 1
            self.failed += 1
        kinds: tuple[Fault, ...] = (503, "after", "cut")
        return kinds[number % len(kinds)]

    @property
    def count(self) -> int:
        return self.killed + self.failed


def faulty(path: str, port: int, environment: dict[str, str]) -> dict[str, float]:
    """Image keys that are missing or arrive twice in an epoch with faults."""
    proxy = Proxy(port)
    os.environ |= {**environment, "AWS_ENDPOINT_URL": proxy.uri}
    with ray_of_two():
        loader = stream(path)
        hashes: list[int] = []
        whole = type(loader.reading).batch

        def noted(reading: Any, block: Any, *words: Any) -> Any:
            hashes.extend(block["hash"].tolist())
            return whole(reading, block, *words)

        type(loader.reading).batch = noted
        faults, began = Faults(proxy), time.perf_counter()
        for step, _ in enumerate(islice(loader.batches(0), loader.steps)):
            if faults.count < min(FAULTS, FAULTS * step / (0.8 * loader.steps)):
                faults.cause()
        seconds = time.perf_counter() - began
    proxy.refuse()
    expected = loader.data.hashes.tolist()
    return {
        "killed": faults.killed,
        "failed": faults.failed,
        "missing": len(set(expected) - set(hashes)),
        "twice": len(hashes) - len(set(hashes)),
        "seconds": seconds,
    }


def photograph(seed: int) -> bytes:
    """JPEG of 500x375 pixels of smooth noise, about as large as a photograph of ImageNet."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (94, 125, 3), dtype=np.uint8))
    large = np.asarray(small.resize((500, 375), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = large + rng.integers(-24, 25, large.shape)
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=80)
    return file.getvalue()


def photographs(count: int) -> dict[str, float]:
    """Images per CPU second that one process decodes, crops and, in retraining, colour-jitters."""
    import torch

    from orchestration.data.transforms import NUMBERS, Recipe, decoded, finished

    torch.set_num_threads(1)
    data = [photograph(seed) for seed in range(8)]
    numbers = torch.rand(count, NUMBERS, generator=torch.Generator().manual_seed(0)).double()
    recipe = Recipe("crop", flip=True, crop_area=0.08, brightness=0.125, saturation=0.5)
    result = {"bytes": sum(map(len, data)) / len(data)}
    for name, item in (("search", Recipe("crop", flip=True, crop_area=0.08)), ("retrain", recipe)):
        decoded(data[0], 3, 224, item, numbers[0].tolist())
        began = time.process_time()
        images = [
            decoded(data[i % 8], 3, 224, item, drawn) for i, drawn in enumerate(numbers.tolist())
        ]
        finished(torch.stack(images), item, numbers)
        result[name] = count / (time.process_time() - began)
    return result


def needed(
    gpus: int, per_gpu: float, per_core: float, bytes_per_image: float
) -> tuple[float, float, float]:
    """Cores for reading and decoding, Gbit/s, and minutes of an epoch of ImageNet."""
    images_per_s = gpus * per_gpu
    return (
        images_per_s / per_core,
        8 * images_per_s * bytes_per_image / 1e9,
        IMAGENET_IMAGES / images_per_s / 60,
    )


def paper_lines(per_core: dict[str, float]) -> list[dict[str, object]]:
    result = [line("photographs of 500x375: bytes of one", [per_core["bytes"]])]
    for recipe in ("search", "retrain"):
        speed = per_core[recipe]
        what = f"photographs of 500x375 to 224, {recipe} recipe: a second of one core"
        result.append(line(what, [speed]))
        for gpus in (8, 64):
            for per_gpu in GPU_IMAGES_PER_S:
                per_image = IMAGENET_BYTES / IMAGENET_IMAGES
                cores, gbit, minutes = needed(gpus, per_gpu, speed, per_image)
                case = f"ImageNet on paper, {recipe}, {gpus} GPUs of {per_gpu} images a second"
                result.append(line(f"{case}: cores", [cores]))
                result.append(line(f"{case}: Gbit/s", [gbit]))
                result.append(line(f"{case}: minutes of an epoch", [minutes]))
    return result


def alone(function: Callable[..., dict[str, float]], *words: object) -> dict[str, float]:
    """Result of a function that runs in its own process."""
    (result,) = as_they_come(function, [words], 1)
    print(function.__name__, {name: round(value, 2) for name, value in result.items()}, flush=True)
    return result


def measured(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """Result lines of all parts."""
    sets = {size: str(folder / str(size)) for size in (given.images, given.small, given.large)}
    size, what = given.images, f"{given.images} glyphs of {SIDE} pixels: images a second"
    for count, place in sets.items():
        if Storage(place).exists(MANIFEST_FILE):
            continue
        result = alone(converted, count, place)
        if count == size:
            yield line(f"converting {what}", [size / result["converting_s"]])
            yield line(
                f"converting {what}, with the start and end of Ray", [size / result["all_s"]]
            )
    with s3_process() as endpoint:
        login = {name: os.environ[name] for name in (*LOGIN, "AWS_ENDPOINT_URL")}
        places = {"disk": sets[size], "S3": put_into_s3(sets[size], endpoint)}
        for name, place in places.items():
            for _ in range(given.repeats):
                result = alone(read, place, login)
                yield line(f"reading {what} from {name}", [result["per_s"]])
                yield line(f"reading {what} from {name}, first epoch", [result["first_per_s"]])
                yield line(f"reading {what} from {name}, of one processor", [result["per_cpu_s"]])
                yield line(f"seconds to the first batch from {name}", [result["first_s"]])
        put_into_s3(sets[given.large], endpoint)
        result = alone(faulty, f"s3://{BUCKET}/set", int(endpoint.rpartition(":")[2]), login)
        case = f"{given.large} images, {result['killed']:.0f} readers killed, "
        case += f"{result['failed']:.0f} answers failed"
        for name in ("missing", "twice", "seconds"):
            yield line(f"{case}: {name}", [result[name]])
    for size in (given.small, given.large):
        result = alone(memory, sets[size])
        yield line(f"MB above the idle job, {size} images streamed", [result["above_mb"]])
        yield line("MB of the idle job and its Ray", [result["idle_mb"]])
    yield from paper_lines(alone(photographs, given.photographs))


def main(words: Sequence[str] | None = None) -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=200_000)
    parser.add_argument("--photographs", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="folder to keep the data sets in")
    parser.add_argument("--file", type=Path, help="result file, by default one in results/")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        keep("data", list(measured(given, given.folder or Path(folder))), given.file)


if __name__ == "__main__":
    main()
