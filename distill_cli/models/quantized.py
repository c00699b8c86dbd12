"""Layers that compute as they will in 8 bits, while they learn and after; where their ranges come from: calibration.py.

The numbers are those of onnxruntime's U8S8 with `reduce_range`: what enters a convolution or a linear layer is rounded to
0 .. 255 of one scale, its weights to -64 .. 64 of one scale for each output channel, so that processors without VNNI never
overflow. Rounding is by torch's own fake quantisation, whose gradient passes straight through. What is between such layers,
batch norm that could not be folded and embeddings among it, stays as it was.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
LARGEST = 64  # of a weight: 7 bits of int8
INPUTS = 255  # largest of an input: uint8
LAYERS = get_args(Layer)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Quantized(nn.Module):
    """What a convolution or a linear layer becomes whose inputs and weights are rounded; its parameters stay as they are named.

    Attributes:
        scale, zero_point: of its inputs. largest: what a weight is rounded to at most.
    """

    weight: Tensor
    bias: Tensor | None
    scale: Tensor
    zero_point: Tensor
    largest: int

    def forward(self, inputs: Tensor) -> Tensor:
        rounded = torch.fake_quantize_per_tensor_affine(inputs.float(), self.scale, self.zero_point, 0, INPUTS)
        scales = self.scales()
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        weight = torch.fake_quantize_per_channel_affine(self.weight, scales, zeros, 0, -self.largest, self.largest)
        return self.compute(rounded, weight)

    def scales(self) -> Tensor:
        """Of the weights as they are now, (output channels,)."""
        highest = self.weight.detach().abs().flatten(1).amax(1)
        return highest.clamp(min=torch.finfo(highest.dtype).tiny * self.largest) / self.largest

    def compute(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """What the layer makes of inputs with other weights of its shape."""
        layer: Any = self
        if isinstance(self, nn.Linear):
            return nn.functional.linear(inputs, weight, self.bias)
        output: Tensor = layer._conv_forward(inputs, weight, self.bias)
        return output


# What each kind of layer becomes: still one of its kind to whoever asks for its channels.
BECOMES = {kind: type(f"Quantized{kind.__name__}", (Quantized, kind), {}) for kind in LAYERS}


class Stored(nn.Module):
    """A quantised layer with its weights as int8 and Q/DQ in place of fake quantisation: what `torch.onnx` can write.

    It computes what the layer did; nothing of it learns.
    """

    weight: Tensor
    scales: Tensor
    zeros: Tensor

    def __init__(self, trained: Quantized) -> None:
        super().__init__()
        importlib.import_module("torch.ao.quantization.fx._decomposed")  # it registers the operators below

        scales = trained.scales()
        shape = (-1, *[1] * (trained.weight.dim() - 1))
        rounded = (trained.weight.detach() / scales.view(shape)).round().clamp(-trained.largest, trained.largest)
        self.trained = trained
        self.scale, self.zero_point = float(trained.scale), int(trained.zero_point)
        self.register_buffer("weight", rounded.to(torch.int8))
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", torch.zeros(len(scales), dtype=torch.int64))

    def forward(self, inputs: Tensor) -> Tensor:
        ops, of_inputs = torch.ops.quantized_decomposed, (self.scale, self.zero_point, 0, INPUTS, torch.uint8)
        rounded = ops.dequantize_per_tensor(ops.quantize_per_tensor(inputs, *of_inputs), *of_inputs)
        weight = ops.dequantize_per_channel(self.weight, self.scales, self.zeros, 0, -128, 127, torch.int8)
        return self.trained.compute(rounded, weight)


def quantize(net: nn.Module, ranges: Mapping[str, Sequence[float]], largest: int = LARGEST) -> None:
    """Round the inputs of layers to (scale, zero point), and their weights, from now on."""
    for path, (scale, zero_point) in ranges.items():
        layer: Any = net.get_submodule(path)
        layer.__class__ = BECOMES[type(layer)]
        layer.largest, device = int(largest), layer.weight.device
        layer.register_buffer("scale", torch.tensor(float(scale), device=device), persistent=False)
        layer.register_buffer("zero_point", torch.tensor(int(zero_point), device=device).int(), persistent=False)


def fold(net: nn.Module, pairs: Sequence[Sequence[str]]) -> None:
    """Put batch norms, as they compute in eval mode, into the layers whose outputs they take."""
    for path, norm_path in pairs:
        layer, norm = net.get_submodule(path), net.get_submodule(norm_path)
        if not isinstance(layer, LAYERS) or not isinstance(norm, NORMS):
            raise TypeError(f"{path} and {norm_path} are no layer and its batch norm")
        fuse: Any = fusion.fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fusion.fuse_conv_bn_eval
        modes = layer.training, norm.training
        fused = fuse(layer.eval(), norm.eval())
        layer.train(modes[0])
        layer.weight, layer.bias = fused.weight, fused.bias
        net.set_submodule(norm_path, nn.Identity())


def is_quantized(net: nn.Module) -> bool:
    """Whether some of its layers compute in 8 bits."""
    return any(isinstance(module, Quantized) for module in net.modules())


def stored(net: nn.Module) -> nn.Module:
    """A copy of a quantised network that `torch.onnx.export` writes with QuantizeLinear and DequantizeLinear, ranges and all."""
    copied = copy.deepcopy(net).eval()
    for path, module in list(copied.named_modules()):
        if isinstance(module, Quantized):
            copied.set_submodule(path, Stored(module))
    return copied
