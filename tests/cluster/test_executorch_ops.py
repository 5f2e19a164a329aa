"""ExecuTorch: ops with squeeze-and-excite and with h-swish answer like the modules."""

from __future__ import annotations

import pytest
import torch

from cluster.hardware import TARGETS
from cluster.runtimes.executorch import ExecuTorch
from nas_core.ops import OpShape, build_op


@pytest.mark.parametrize("op", ["mbconv_k5_e3_se", "mbconv_k3_e3_hswish"])
def test_a_lowered_op_answers_like_the_op(op: str) -> None:
    block = build_op(op, OpShape(8, 8, 1))
    for _ in range(3):
        block(3 * torch.randn(8, 8, 12, 12) + 1)
    x = torch.randn(1, 8, 12, 12)
    runtime = ExecuTorch(TARGETS["mobile"].on_host())
    program = runtime.load(runtime.compile(block, x))
    with torch.no_grad():
        torch.testing.assert_close(program(x), block.eval()(x), atol=1e-4, rtol=0)
