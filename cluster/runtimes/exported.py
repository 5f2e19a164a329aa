"""Programs of `torch.export`, with BatchNorm folded into convolutions and without pickles.

    BN(W * x + b) = s W * x + s (b - mean) + shift,     s = scale / sqrt(var + eps)

Folding works on the exported graph, where the order of operations is explicit however a module is
written. A BatchNorm that does not follow a convolution is kept, as is one after a convolution whose
output has other uses.
"""

from __future__ import annotations

import copy
import io
import json
import re
import zipfile
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_weights

from cluster.runtimes.base import MeasurementError

CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)
"""Arguments: input, weight, bias, and others that do not change."""
BATCH_NORM = torch.ops.aten.batch_norm.default
"""Arguments: input, scale, shift, mean, variance, is_training, momentum, epsilon, cudnn."""


def export(module: nn.Module, example: Tensor) -> bytes:
    """A `.pt2` program of a copy of `module` in evaluation mode, for inputs shaped like `example`.

    It contains no example input: that may be larger than the weights, and torch pickles it.
    """
    module = copy.deepcopy(module).cpu().to(memory_format=torch.contiguous_format).eval()
    # The memory format used later: whether a view needs a copy depends on it.
    images = (example.detach().cpu().contiguous(memory_format=torch.channels_last),)
    with torch.no_grad():
        graph = torch.export.export(module, images).module()
        program = torch.export.export(_without_batch_norms(graph), images)
    program.example_inputs = None
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def read(program: bytes) -> ExportedProgram:
    """Read a program that `export` wrote.

    Raises:
        MeasurementError: it is something else, or could execute foreign code.
    """
    try:
        _refuse_pickles(program)
        return torch.export.load(io.BytesIO(program))
    except Exception as error:  # reading a foreign archive may raise anything
        raise MeasurementError(
            f"torch {torch.__version__} cannot load the program ({error}); compile it again"
        ) from error


def _without_batch_norms(module: GraphModule) -> GraphModule:
    for norm in module.graph.find_nodes(op="call_function", target=BATCH_NORM):
        convolution: Any = norm.args[0]
        if _can_fold(convolution, norm):
            _fold(module, convolution, norm)
    module.graph.eliminate_dead_code()
    return GraphModule(module, module.graph)  # copies only what the graph still uses


def _can_fold(convolution: Node, norm: Node) -> bool:
    if convolution.target not in CONVOLUTIONS or len(convolution.users) > 1:
        return False
    statistics, is_training = norm.args[3:5], norm.args[5]
    weights = (*_weights(convolution), *norm.args[1:5])
    return (
        not is_training
        and None not in statistics
        and all(node is None or _is_constant(node) for node in weights)
    )


def _is_constant(node: Any) -> bool:
    return isinstance(node, Node) and node.op == "get_attr"


def _weights(convolution: Node) -> tuple[Any, Any]:
    """Nodes of weight and bias; None if there is no bias."""
    _, weight, bias, *_ = (*convolution.args, None)
    return weight, bias


def _fold(module: GraphModule, convolution: Node, norm: Node) -> None:
    weight, bias = (_value(module, node) for node in _weights(convolution))
    scale, shift, mean, variance = (_value(module, node) for node in norm.args[1:5])
    eps: Any = norm.args[7]
    folded = fuse_conv_bn_weights(weight, bias, mean, variance, eps, scale, shift)
    with module.graph.inserting_before(convolution):
        # New names: a convolution that is used twice may have two BatchNorms.
        nodes = [
            _constant(module, f"folded_{convolution.name}_{what}", value)
            for what, value in zip(("weight", "bias"), folded, strict=True)
        ]
    convolution.args = (convolution.args[0], *nodes, *convolution.args[3:])
    norm.replace_all_uses_with(convolution)


def _value(module: GraphModule, node: Any) -> Any:
    return None if node is None else attrgetter(node.target)(module)


def _constant(module: GraphModule, name: str, value: nn.Parameter) -> Node:
    module.register_parameter(name, value)
    return module.graph.get_attr(name)


_PLAIN_RECORD = re.compile(
    r"models/model\.json|data/(weights|constants)/((weight|tensor)_\d+|model_\w+_config\.json)"
    r"|data/sample_inputs/model\.pt|archive_(format|version)|byteorder"
    r"|\.data/(version|serialization_id|alignment)"
)


def _refuse_pickles(program: bytes) -> None:
    # torch.export.load unpickles what an archive declares as pickled and runs bundled libraries.
    with zipfile.ZipFile(io.BytesIO(program)) as archive:
        for record in archive.infolist():
            name = record.filename.partition("/")[2]
            if not _PLAIN_RECORD.fullmatch(name) or not _is_plain(name, archive.read(record)):
                raise ValueError(f"it holds {record.filename}, which may run code when it is read")


def _is_plain(name: str, content: bytes) -> bool:
    if name.startswith("data/sample_inputs/"):
        return not content
    if name.endswith("_config.json"):
        entries = json.loads(content)["config"].values()
        return all(entry["use_pickle"] is False for entry in entries)
    return True
