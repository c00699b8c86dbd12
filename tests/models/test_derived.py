"""Proves what a student has of the teacher it is made of: which channels, layers and directions, and its card's shapes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill_cli import models
from distill_cli.base.errors import ConfigError
from distill_cli.data import PictureSpec
from distill_cli.models import EDITS, REBUILD, Classifier, evaluating, shaping

SPEC = PictureSpec(3, (32, 32), (0.5,), (0.25,))
RESNET = {"_target_": "distill_cli.models.resnet.SmallResNet", "depth": 20, "widths": [16, 16, 32, 64]}
NODES: dict[str, dict[str, Any]] = {
    "shortcut A": RESNET,
    "shortcut B": {**RESNET, "shortcut": "B"},
    "wide": {"_target_": "distill_cli.models.resnet.WideResNet", "depth": 16, "widen": 2},
    "small": {"_target_": "distill_cli.models.smallcnn.SmallCNN", "widths": [32, 64]},
    "depthwise": {"_target_": "distill_cli.models.zoo.torchvision", "name": "mobilenet_v3_small", "stem": "small"},
}


def teacher_of(kind: str) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return models.build(NODES[kind], "teacher", SPEC, 10)


def derived(teacher: Classifier, **made_of: Any) -> Classifier:
    node = {"_target_": "torch.nn.Linear", "from_teacher": made_of}
    return models.build(node, "student", SPEC, 10, teacher=teacher)


def answer(model: Classifier, inputs: Tensor) -> Tensor:
    with evaluating(model), torch.no_grad():
        return model(inputs)


WAYS: list[dict[str, Any]] = [{"prune": 0.5}, {"low_rank": 0.5}, {"prune": 0.5, "low_rank": 0.5}]


@pytest.mark.parametrize("made_of", WAYS, ids=str)
@pytest.mark.parametrize("kind", NODES)
def test_a_student_is_rebuilt_from_its_card_without_its_teacher(kind: str, made_of: dict[str, Any]) -> None:
    teacher = teacher_of(kind)
    before = copy.deepcopy(teacher.net.state_dict())
    student = derived(teacher, **made_of)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.net.state_dict().items())
    assert models.num_parameters(student) < 0.9 * models.num_parameters(teacher)
    node = models.rebuild_node({"_target_": "torch.nn.Linear", "from_teacher": made_of}, student)
    again = models.build(node, "student", SPEC, 10)
    again.net.load_state_dict(student.net.state_dict())
    inputs = SPEC.example(4)
    torch.testing.assert_close(answer(again, inputs), answer(student, inputs), rtol=1e-5, atol=1e-5)
    # What is prepared later has other weights in the same shapes.
    with torch.random.fork_rng():
        torch.manual_seed(2)
        other = models.build(NODES[kind], "teacher", SPEC, 10)
    shapes = [(name, tensor.shape) for name, tensor in derived(other, **made_of).net.state_dict().items()]
    assert shapes == [(name, tensor.shape) for name, tensor in student.net.state_dict().items()]


@pytest.mark.parametrize("kind", ["shortcut A", "shortcut B"])
def test_what_is_cut_are_channels_that_did_nothing_where_there_are_enough(kind: str) -> None:
    """Half of each group's channels have no weights at all: without them the answers stay."""
    teacher = teacher_of(kind)
    with torch.no_grad():
        for module in teacher.net.modules():
            if isinstance(module, nn.Conv2d):
                module.weight[1::2] = 0
            if isinstance(module, nn.BatchNorm2d):
                module.weight[1::2] = module.bias[1::2] = 0
    inputs = SPEC.example(4)
    student = derived(teacher, prune=0.5)
    torch.testing.assert_close(answer(student, inputs), answer(teacher, inputs), rtol=1e-3, atol=1e-3)
    widths = {module.out_channels for module in student.net.modules() if isinstance(module, nn.Conv2d)}
    assert widths == {8, 16, 32}


def test_low_rank_keeps_the_directions_that_hold_most() -> None:
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(12, 3, generator=generator) @ torch.randn(3, 20, generator=generator)
    inner, outer = shaping.halves(exact, 3)
    torch.testing.assert_close((outer @ inner).float(), exact, rtol=1e-4, atol=1e-4)
    noisy = exact + 0.01 * torch.randn(12, 20, generator=generator)
    inner, outer = shaping.halves(noisy, 3)
    assert (outer @ inner - noisy).norm() < 0.01 * noisy.norm()


def test_low_rank_keeps_that_share_of_each_layers_parameters_and_the_head() -> None:
    teacher, student = teacher_of("shortcut A"), derived(teacher_of("shortcut A"), low_rank=0.5)
    for path, layer in teacher.net.named_modules():
        if isinstance(layer, nn.Conv2d):
            kept = sum(weight.numel() for weight in student.net.get_submodule(path).parameters())
            assert 0.4 * layer.weight.numel() < kept <= 0.5 * layer.weight.numel()
    assert torch.equal(student.net.fc.weight, teacher.net.fc.weight)  # type: ignore[union-attr, arg-type]


def test_layers_are_kept_evenly_in_each_list_with_those_that_change_a_shape() -> None:
    teacher = teacher_of("shortcut A")
    student = derived(teacher, layers=2)
    assert student.net.__dict__[REBUILD][EDITS] == [
        {"kind": "keep", "layers": {"layer1": [1, 2], "layer2": [0, 2], "layer3": [0, 2]}}
    ]
    assert "layers 1,2 of layer1; 0,2 of layer2, layer3" in student.net.__dict__[models.OF_TEACHER]
    assert torch.equal(student.net.layer2[1].conv1.weight, teacher.net.layer2[2].conv1.weight)  # type: ignore[union-attr, index]
    with pytest.raises(ConfigError, match="layers=4: layer1 of the teacher has 3"):
        derived(teacher, layers=4)
    with pytest.raises(ConfigError, match="no list of layers that are alike"):
        derived(teacher_of("small"), layers=2)


def test_a_head_that_knows_more_classes_answers_those_of_the_data() -> None:
    teacher = models.build(NODES["small"], "teacher", SPEC, 5, order=[3, 1, 4])
    node = {"_target_": "torch.nn.Linear", "from_teacher": {"low_rank": 0.9}}
    student = models.build(node, "student", SPEC, 3, teacher=teacher)
    assert torch.equal(student.net.fc.bias, teacher.net.fc.bias[[3, 1, 4]])  # type: ignore[index, union-attr, arg-type]


def test_a_teacher_that_sees_other_pictures_than_the_data_give_is_refused() -> None:
    teacher = models.build({**NODES["small"], "mean": [0.1], "std": [0.2]}, "teacher", SPEC, 10)
    with pytest.raises(ConfigError, match="sees its samples otherwise") as refused:
        derived(teacher, prune=0.5)
    assert "dataset.mean" in str(refused.value.hint)


def test_a_network_that_cannot_be_cut_says_so() -> None:
    class Odd(nn.Module):
        """Its shape is written into its code."""

        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, num_classes)

        def forward(self, inputs: Tensor) -> Tensor:
            hidden = self.conv(inputs).mean((2, 3))
            logits: Tensor = self.fc(hidden + hidden.new_ones(16))
            return logits

    teacher = Classifier(Odd(10), SPEC)
    teacher.node = {}
    with pytest.raises(ConfigError, match="channels cannot be cut"):
        derived(teacher, prune=0.5)
