"""An exported graph in whole numbers of 8 bits, by onnxruntime's own tools: ranges measured beforehand, or as it runs."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from distill_cli.base import runtime
from distill_cli.data import Split
from distill_cli.data.inputs import Inputs
from distill_cli.deploy.graph import cleaned
from distill_cli.deploy.onnx_file import IMAGES

# What is quantised of a network with measured ranges: not what stands before and behind it.
STATIC = ["Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid",
          "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "Concat", "Reshape", "Transpose", "Pad"]  # fmt: skip
AT_ONCE = 32  # samples in one pass of calibration


class Calibration:
    """Samples that ranges are measured on, as onnxruntime asks for them.

    Args:
        split: of training. number: so many of its samples, drawn by a seed of their own.
    """

    def __init__(self, split: Split, number: int) -> None:
        rows = runtime.sample_order(len(split), runtime.seed_of("calibration") % 2**31, 0)[:number].sort().values
        self.split, self.number = split.take(rows), len(rows)
        self.digest = self.split.source.digest()
        self._feeds: Iterator[Inputs] | None = None

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The inputs of the next pass; None after the last."""
        if self._feeds is None:
            source = self.split.source
            parts = np.array_split(np.arange(self.number), -(-self.number // AT_ONCE))
            self._feeds = (source.read(part.tolist()) for part in parts)
        raw = next(self._feeds, None)
        if raw is None:
            return None
        parts_of = {IMAGES: raw} if isinstance(raw, Tensor) else raw
        return {name: part.numpy() for name, part in parts_of.items()}


def measured(model: Any, calibration: Calibration, reduce_range: bool = True) -> Any:
    """A model with quantised weights and activations: QDQ, activations unsigned and weights signed, these by channel.

    Args:
        reduce_range: weights of 7 bits, which CPUs without VNNI need: theirs sums of products of 8 bits overflow.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with _files(model) as (source, target):
        quantize_static(
            source, target, calibration, quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8, per_channel=True, reduce_range=reduce_range, op_types_to_quantize=STATIC,
            nodes_to_exclude=_outside(source), calibrate_method=CalibrationMethod.MinMax,
        )  # fmt: skip
        return _read(target)


def dynamic(model: Any) -> Any:
    """A model with quantised weights, embeddings among them, whose activations are quantised by what they are each time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _files(model) as (source, target):
        quantize_dynamic(source, target, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
        return _read(target)


def _outside(path: Path) -> list[str]:
    """The nodes that make raw samples into a network's inputs: those before its first weights."""
    import onnx

    graph = onnx.load(path).graph
    names = list[str]()
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            break
        names.append(node.name)
    return names


@contextlib.contextmanager
def _files(model: Any) -> Iterator[tuple[Path, Path]]:
    """A folder with the model in it as onnxruntime's preprocessing leaves it, and a place for what is made of it."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain, source = Path(folder, "plain.onnx"), Path(folder, "source.onnx")
        onnx.save(model, plain)
        quant_pre_process(plain, source, skip_symbolic_shape=True)
        yield source, Path(folder, "target.onnx")


def _read(path: Path) -> Any:
    import onnx

    return cleaned(onnx.load(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the library advises."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
