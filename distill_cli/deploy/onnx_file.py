"""An exported .onnx file, looked through before anything of it runs, and as a network; how one is made stands in graph.py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill_cli.base.errors import CheckpointError
from distill_cli.data import Spec
from distill_cli.data.inputs import Inputs
from distill_cli.data.spec import Front
from distill_cli.deploy.extra import needed

SUFFIX = ".onnx"
IMAGES, PROBABILITIES = "images", "probabilities"  # names of an input and of the output
MARK, FORMAT = "distill", "1"  # the entry of the metadata that tells a file of ours
DOMAINS = ("", "ai.onnx")
GROWING = ("ConstantOfShape", "Expand", "Tile")  # whose result is as large as a constant says
LARGEST = 2**31  # numbers in one result
SMALLEST = np.finfo(np.float32).tiny  # a probability of less counts as this much


class OnnxNet(nn.Module):
    """A file of ours as a network: raw samples, as a source stores them -> logarithms of probabilities (N, C).

    Args:
        path: of the file. threads: those that it works with.

    Raises:
        CheckpointError: it is damaged, or not one of ours. ConfigError: onnxruntime is missing.
    """

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__()
        needed(path.name)
        content = path.read_bytes()
        looked_through(content, path)
        self.session = _session(content, path, threads)
        self.takes = [one.name for one in self.session.get_inputs()]

    def forward(self, raw: Inputs) -> Tensor:
        parts = {IMAGES: raw} if isinstance(raw, Tensor) else raw
        feeds = {name: parts[name].cpu().numpy() for name in self.takes}
        (answer,) = self.session.run([PROBABILITIES], feeds)
        device = next(iter(parts.values())).device
        return torch.from_numpy(np.log(np.maximum(answer, SMALLEST))).to(device)


class Raw:
    """The spec of a network that takes samples as a source stores them, and makes of them itself what `spec` says."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["spec"], name)

    def inputs(self, raw: Inputs) -> Inputs:
        return raw

    def example(self, number: int, device: torch.device | None = None) -> Inputs:
        return self.spec.stored(number)

    def of(self, net: nn.Module) -> Raw:
        return self

    def front(self, net: nn.Module, taken: Spec, role: str) -> Front:
        return Front()


def _session(content: bytes, path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of the library's own kinds, which share no base
        raise CheckpointError(f"{path} cannot be run: {str(error).splitlines()[0]}") from error


def looked_through(content: bytes, path: Path) -> None:
    """Refuse a file by its content, of which nothing runs.

    Raises:
        CheckpointError: it is no ONNX, is not one of ours, names other files or operators beyond ONNX's own, or something in it is
            larger than it can be.
    """
    import onnx

    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's own
        raise CheckpointError(f"{path} is damaged or no ONNX file") from error
    about = {entry.key: entry.value for entry in model.metadata_props}
    if about.get(MARK) != FORMAT:
        raise CheckpointError(
            f"{path} was not written by `distill export` (its metadata do not say so): it was not run",
            "distill export ckpt=RUN writes one",
        )
    if fault := next(_faults(model, len(content)), None):
        raise CheckpointError(f"{path} {fault}: it was not run")


def _faults(model: Any, size: int) -> Iterator[str]:
    """What a file of ours never has."""
    import onnx

    domains = {one.domain for one in model.opset_import}
    nodes = list(_nodes(model.graph))
    domains |= {node.domain for node in nodes}
    if others := sorted(domains - set(DOMAINS)):
        yield f"needs operators of {', '.join(others)}"
    if model.functions:
        yield "brings functions of its own"
    constants = dict[str, Any]()
    for tensor in _tensors(model.graph, nodes):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            yield f"keeps {tensor.name!r} in another file"
            return
        if math.prod(tensor.dims) > 2 * size or min(tensor.dims, default=1) < 0:  # the smallest numbers have four bits
            yield f"has a tensor of {' x '.join(map(str, tensor.dims))}, larger than the file"
            return
        constants[tensor.name] = tensor
    for node in nodes:
        for name in node.input if node.op_type in GROWING else ():
            if name in constants and constants[name].data_type == onnx.TensorProto.INT64:
                sides = onnx.numpy_helper.to_array(constants[name]).ravel().tolist()
                if math.prod(max(1, abs(side)) for side in sides) > LARGEST:
                    yield f"makes a tensor of {' x '.join(map(str, sides))}"


def _nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of the graphs in them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(graph: Any, nodes: list[Any]) -> Iterator[Any]:
    """Every tensor that a graph and its nodes hold; a constant's by the name of what it gives."""
    graphs = [graph, *(g for node in nodes for a in node.attribute for g in (a.g, *a.graphs))]
    for one in graphs:
        yield from one.initializer
        for sparse in one.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes:
        for attribute in node.attribute:
            for tensor in (attribute.t, *attribute.tensors, attribute.sparse_tensor.values):
                tensor.name = tensor.name or (node.output[0] if node.output else "")
                yield tensor
