"""NVIDIA GPUs: networks as CUDA graphs of torch's kernels.

A program is a `torch.export` program in fp32 for inputs of one shape, with BatchNorm folded, so it
is compiled without a GPU and serves all precisions. When it is loaded, its weights are cast to the
precision of the target and laid out channels_last, as tensor cores prefer. The timed operation is
the replay of a CUDA graph: launching the kernels of a block one by one takes the host longer than
the GPU needs to run them.

Times come from CUDA events before and after a series of replays. If a graph takes less than its own
launch, a few microseconds, the time is that of the launch; so it is for an empty call.
fp32 means fp32: TF32, which torch would use for convolutions, is off. This and the choice of
kernels by trial apply while a graph is captured; a replay runs the kernels chosen then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cluster.runtimes.base import MeasurementError
from cluster.runtimes.libraries import installed

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from cluster.hardware import Target
    from cluster.runtimes.cuda_device import Device

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""torch's names for the precisions of a target."""

WARM_UPS = 3
"""Runs before a capture, in which kernels are chosen and libraries allocate memory."""


class TorchCuda:
    """Programs for the GPU of this process, run by torch as CUDA graphs."""

    name = "torch_cuda"
    file_name = "model.cuda.pt2"

    def __init__(self, target: Target, device: Device | None = None) -> None:
        """`device` defaults to the GPU that torch sees, looked up when it is first used."""
        self._target = target
        self._device = device

    def version(self) -> str:
        """Version of torch and of the CUDA that it is built with; needs no GPU.

        Raises:
            MeasurementError: torch is not installed.
        """
        installed("torch")
        import torch

        cuda = torch.version.cuda
        return f"{torch.__version__}, " + (f"CUDA {cuda}" if cuda else "built without CUDA")

    def facts(self) -> dict[str, str | int | float]:
        """Model, driver, clocks, limits and current temperature of the GPU.

        Raises:
            MeasurementError: there is no GPU.
        """
        return {**self._gpu().facts(), "tf32": "off"}

    def compile(self, module: nn.Module, example: Tensor) -> bytes:
        """Compile by `exported.export`, in the precision of `module`; `load` casts it."""
        from cluster.runtimes.exported import export

        return export(module, example)

    def load(self, program: bytes) -> TorchCudaProgram:
        """Load a program on the GPU, its weights in the precision of the target and channels_last.

        Raises:
            MeasurementError: there is no GPU, or this torch cannot read the program.
        """
        import torch
        from torch.export.passes import move_to_device_pass

        from cluster.runtimes.exported import read

        device = self._gpu()
        dtype: torch.dtype = getattr(torch, DTYPES[self._target.precision])
        module = move_to_device_pass(read(program), device.torch_name).module()
        module = module.to(dtype).to(memory_format=torch.channels_last)
        return TorchCudaProgram(module, device, dtype)

    def run_ms(self, call: Callable[[], object], times: int) -> float:
        """Milliseconds by the GPU's clock, from idle until the last replay is done."""
        device = self._gpu()
        start, end = device.event(), device.event()
        device.synchronize()
        start.record()
        for _ in range(times):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def rest(self) -> None:
        """Do nothing: a pause would let the clocks of the GPU drop."""

    def _gpu(self) -> Device:
        if self._device is None:
            from cluster.runtimes.cuda_device import CudaDevice, why_no_gpu

            reason = why_no_gpu()
            if reason is not None:
                raise MeasurementError(
                    f"target '{self._target.name}' needs an NVIDIA GPU and a CUDA build of torch; "
                    f"this machine has none: {reason}; run the job on a cluster whose node offers "
                    "GPU, or name another target"
                )
            self._device = CudaDevice()
        return self._device


class TorchCudaProgram:
    """A program on a GPU."""

    def __init__(
        self, module: Callable[[Tensor], Tensor], device: Device, dtype: torch.dtype
    ) -> None:
        self._module = module
        self._device = device
        self._dtype = dtype

    def __call__(self, images: Tensor) -> Tensor:
        """Output for `images`, on their device and in their number format."""
        import torch

        with torch.no_grad(), _fastest_exact_kernels():
            output = self._module(self._on_gpu(images))
        return output.to(images.device, images.dtype)

    def prepared(self, images: Tensor) -> Callable[[], object]:
        """Return a call that replays the computation of the output for `images`.

        The images are copied to the GPU once, here. The call submits the work and does not wait; it
        returns the output on the GPU, which is complete when the GPU is done.
        """
        import torch

        module, on_gpu = self._module, self._on_gpu(images)

        def run() -> Tensor:
            return module(on_gpu)

        with torch.no_grad(), _fastest_exact_kernels():
            with self._device.aside():
                for _ in range(WARM_UPS):
                    run()
            return self._device.capture(run)

    def _on_gpu(self, images: Tensor) -> Tensor:
        import torch

        layout = torch.channels_last
        return images.to(self._device.torch_name, self._dtype, copy=True, memory_format=layout)


@contextmanager
def _fastest_exact_kernels() -> Iterator[None]:
    """Context in which cuDNN benchmarks its kernels and fp32 is never computed in TF32."""
    import torch

    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision
    cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision = True, "ieee", "ieee"
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision = before
