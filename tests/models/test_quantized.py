"""Proves that layers round as integers would, that batch norm is folded where it can be, and that cards bring both back."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill_cli import models
from distill_cli.base import files
from distill_cli.base.errors import CheckpointError
from distill_cli.config.schema import Dataset, Student
from distill_cli.data import Data, Part, PictureSpec, assemble
from distill_cli.models import Classifier, calibration, deployable, edits, evaluating, quantized
from distill_cli.models.deployable import Deployable
from distill_cli.models.quantized import Quantized

NODES = {
    "shortcut A": {"_target_": "distill_cli.models.resnet.SmallResNet", "depth": 8, "widths": [4, 4, 8, 8]},
    "shortcut B": {"_target_": "distill_cli.models.resnet.SmallResNet", "depth": 8, "widths": [4, 4, 8, 8],
                   "shortcut": "B"},
    "no batch norm": {"_target_": "distill_cli.models.smallcnn.SmallCNN", "widths": [4, 6]},
    "of torchvision": {"_target_": "distill_cli.models.zoo.torchvision", "name": "mobilenet_v3_small", "stem": "small"},
}  # fmt: skip


@functools.cache
def data() -> Data:
    """Pictures of 28 pixels a side, ten classes."""
    draw = np.random.default_rng(0)
    parts = [
        Part(torch.from_numpy(draw.integers(0, 256, (n, 1, 28, 28)).astype(np.uint8)), np.arange(n) % 10)
        for n in (80, 40, 40)
    ]
    return assemble(*parts, "abcdefghij", val_fraction=0.1, split_seed=0, mean=None, std=None, note="")


def used(model: Classifier) -> Classifier:
    """The model with running statistics and scales that do something."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, quantized.NORMS):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                tensor.data = 0.5 + torch.rand(tensor.shape, generator=generator)
    return model


def built(kind: str) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return used(models.build(NODES[kind], "student", data().input, 10))


def answer(model: Classifier, inputs: Tensor) -> Tensor:
    with evaluating(model), torch.no_grad():
        return model(inputs)


@pytest.mark.parametrize("kind", NODES)
def test_every_batch_norm_after_a_layer_is_folded_and_answers_stay(kind: str) -> None:
    model, inputs = built(kind), data().test.spec.example(8)
    before = answer(model, inputs)
    norms = sum(isinstance(module, quantized.NORMS) for module in model.modules())
    pairs = calibration.foldable(model)
    assert len(pairs) == norms
    edits.apply(model.net, [{"kind": "fold", "pairs": pairs}])
    assert not any(isinstance(module, quantized.NORMS) for module in model.modules())
    torch.testing.assert_close(answer(model, inputs), before, rtol=1e-4, atol=1e-4)


def test_a_batch_norm_that_stands_before_its_convolution_stays_and_is_named() -> None:
    node = {"_target_": "distill_cli.models.resnet.WideResNet", "depth": 10, "widen": 1}
    shown = data()
    model = used(models.build(node, "student", shown.input, 10))
    told = calibration.quantize(model, shown.train)
    # The norm at a block's end takes a sum; that between its convolutions takes one convolution's output alone.
    assert "3 batch norms folded" in told and "not folded, so in fp32: layer1.0.bn1" in told


class Shared(nn.Module):
    """A convolution whose output is used beside its batch norm, which hooks cannot see."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.conv(inputs)
        logits: Tensor = self.fc((self.norm(hidden) - hidden).mean((2, 3)))
        return logits


def test_what_cannot_be_folded_without_other_answers_is_not() -> None:
    model = used(Classifier(Shared(), data().input))
    assert calibration.foldable(model) == []


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 5, 3, 2, padding=1, groups=1), nn.Conv1d(3, 6, 3, groups=3), nn.Linear(7, 5)]
)
def test_a_layer_computes_what_whole_numbers_would(layer: quantized.Layer) -> None:
    shape = (2, 7) if isinstance(layer, nn.Linear) else (2, 3, 9, 9)[: layer.weight.dim()]
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    scale, zero = (
        float((inputs.max() - inputs.min()) / 255),
        round(float(-inputs.min() / ((inputs.max() - inputs.min()) / 255))),
    )
    net = nn.Sequential(layer)
    quantized.quantize(net, {"0": [scale, zero]})
    rounded: Any = net[0]
    assert isinstance(rounded, Quantized)
    q = (inputs.numpy() / np.float32(scale)).round().astype(np.int64) + zero
    assert q.min() >= 0 and q.max() <= 255
    weight = layer.weight.detach().numpy()
    scales = np.abs(weight).reshape(len(weight), -1).max(1) / 64
    w = (weight / scales.reshape(-1, *[1] * (weight.ndim - 1))).round().astype(np.int64)
    assert w.max() == 64 or w.min() == -64
    # In whole numbers, and only then back: what an integer kernel does.
    whole = rounded.compute
    bias = layer.bias.detach()
    sums = whole(torch.from_numpy((q - zero).astype(np.float32)), torch.from_numpy(w.astype(np.float32)))
    side = [-1] + [1] * (sums.dim() - 2)
    sums = sums - bias.view(side)
    expected = sums * scale * torch.from_numpy(scales).view(side) + bias.view(side)
    torch.testing.assert_close(rounded(inputs), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(quantized.stored(net)(inputs), rounded(inputs), rtol=0, atol=1e-6)


def test_ranges_are_of_what_layers_are_given_and_keep_zero() -> None:
    shown = data()
    model = built("no batch norm")
    found = calibration.ranges(model, shown.val)
    given = torch.cat([batch.inputs for batch in shown.val.batches(50)])  # type: ignore[misc]
    scale, zero = found["features.0"]
    assert scale == pytest.approx(float(given.max() - given.min()) / 255, rel=1e-6)
    assert zero == round(-float(given.min()) / scale)
    assert found["features.3"][1] == 0 and found["fc"][1] == 0  # after a ReLU nothing is below 0


def test_gradients_pass_through_the_rounding() -> None:
    shown = data()
    model = built("shortcut B")
    calibration.quantize(model, shown.val)
    model(shown.input.example(4)).square().sum().backward()
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in weights)


@pytest.mark.parametrize("kind", ["shortcut A", "of torchvision"])
def test_a_card_brings_a_quantised_student_back_with_its_ranges(kind: str, tmp_path: Path) -> None:
    shown = data()
    model = built(kind)
    calibration.quantize(model, shown.val)
    chosen = Student(
        plain={**NODES[kind], "checkpoint": None, "freeze": []}, name="x", _target_=NODES[kind]["_target_"]
    )
    dataset = Dataset(plain={"_target_": "distill_cli.data.digits.digits"}, name="digits", _target_="")
    card = deployable.card_of("student", chosen, model, shown, dataset)
    Deployable(card, model).write(tmp_path)
    read = Deployable.read(tmp_path)
    inputs = shown.input.example(16)
    assert torch.equal(answer(read.network, inputs), answer(model, inputs))
    assert quantized.is_quantized(read.network.net)
    described = files.read_json(tmp_path / "model.json")
    *_, rounding = described["model"]["edits"]
    rounding["ranges"]["nowhere"] = [1.0, 0]
    files.write_json(tmp_path / "model.json", described)
    with pytest.raises(CheckpointError, match="edits: what was done to a network does not fit"):
        Deployable.read(tmp_path)


def test_a_network_without_such_layers_cannot_be_quantised() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(10))

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.mean((1, 2, 3)).view(-1, 1) + self.bias

    spec = PictureSpec(1, (28, 28), (0.0,), (1.0,))
    with pytest.raises(models.ConfigError, match="no convolution and no linear layer"):
        calibration.quantize(Classifier(Bare(), spec), data().val)
