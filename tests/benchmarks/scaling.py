"""Simulated scaling of weight steps to many workers.

Run `python tests/benchmarks/scaling.py`. It prints a line per setting and draws `scaling.png`.
Measured, on two cores (results of steps.py and traffic.py): 0.69 s for a step of 8 images at 224
pixels, 4.1 million values of a mean path, 16.0 million of the whole supernet. Assumed:

- the number of images per worker is constant (weak scaling);
- ring all-reduce: 2 (n - 1) / n of the bytes pass every link, in 2 (n - 1) messages of 20 us;
- buckets of 4 MB are sent while backward runs, which is two thirds of the step; the rest, and the
  last bucket, add to the time of the step;
- the step time of workers varies by 3 %, independently; the slowest of n decides;
- links are full duplex and not shared; data loading never delays a step.

The step of 0.69 s is measured; those of 0.1 and 0.03 s are assumed, for faster devices.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.benchmarks.lines import keep, line

PATH_VALUES, SUPERNET_VALUES = 4.1e6, 16.0e6
BUCKET = 4 * 2**20
MESSAGE_S = 20e-6
BACKWARD = 2 / 3
JITTER = 0.03
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHOWN = (8, 64, 256)
STEPS_S = (0.69, 0.1, 0.03)
LINKS_GBIT = (10.0, 100.0)


@dataclass(frozen=True)
class Setting:
    """Simulated setting: seconds of a step, link speed in Gbit/s, values sent per step."""

    step_s: float
    gbits: float
    values: float

    def comm_s(self, workers: int, size: float) -> float:
        """Seconds of a ring all-reduce of `size` bytes."""
        share = 2 * (workers - 1) / workers
        return share * size * 8 / (self.gbits * 1e9) + 2 * (workers - 1) * MESSAGE_S

    def seconds(self, workers: int) -> float:
        """Seconds of a step with so many workers."""
        slowest = self.step_s * (1 + JITTER * math.sqrt(2 * math.log(workers)))
        if workers == 1:
            return self.step_s
        size = 4 * self.values
        buckets = math.ceil(size / BUCKET)
        whole = buckets * self.comm_s(workers, size / buckets)
        last = self.comm_s(workers, size / buckets)
        return slowest + max(last, whole - BACKWARD * self.step_s)

    def efficiency(self, workers: int) -> float:
        """Throughput of `workers` relative to `workers` times that of one."""
        return self.step_s / self.seconds(workers)


def settings() -> list[tuple[str, Setting]]:
    """Simulated settings, each with its name."""
    kinds = {"path": PATH_VALUES, "whole supernet": SUPERNET_VALUES}
    return [
        (f"{kind}, step {step_s:g} s, {gbits:g} Gbit/s", Setting(step_s, gbits, values))
        for gbits in LINKS_GBIT
        for step_s in STEPS_S
        for kind, values in kinds.items()
    ]


def draw(path: Path) -> None:
    """Plot efficiency over workers: a panel per link, ours solid, the whole supernet dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for panel, gbits in zip(panels, LINKS_GBIT, strict=True):
        for color, step_s in zip(("#0072B2", "#D55E00", "#009E73"), STEPS_S, strict=True):
            said = "measured" if step_s == STEPS_S[0] else "assumed"
            for values, style in ((PATH_VALUES, "-"), (SUPERNET_VALUES, "--")):
                shares = [Setting(step_s, gbits, values).efficiency(n) for n in WORKERS]
                label = f"step {step_s:g} s ({said})" if style == "-" else None
                panel.plot(WORKERS, shares, style, color=color, label=label, marker=".")
        panel.set(xscale="log", ylim=(0, 1.02), xlabel="workers", title=f"{gbits:g} Gbit/s")
        panel.set_xticks(WORKERS, [str(n) for n in WORKERS])
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("images a second / (workers x one worker)")
    panels[0].plot([], [], "k-", label="gradients of the path")
    panels[0].plot([], [], "k--", label="of the whole supernet")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", fontsize=8)
    figure.suptitle("Simulated scaling of a weight step, published space")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Simulate, print and draw."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    result = [
        {
            **line(
                f"simulated efficiency, {name}, {workers} workers", [setting.efficiency(workers)]
            ),
            "seconds a step": round(setting.seconds(workers), 4),
        }
        for name, setting in settings()
        for workers in SHOWN
    ]
    keep("scaling", result)
    draw(Path(__file__).parent / "results" / "scaling.png")


if __name__ == "__main__":
    main()
