"""Proves the learning-rate curves at exact steps, and that an optimizer's node becomes that optimizer and no other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import recipe_of
from torch import nn

from distill_cli.base.errors import ConfigError
from distill_cli.config.places import optimizer_node
from distill_cli.training.optim import Curve, restore


def parameters() -> list[tuple[str, nn.Parameter]]:
    return [("one", nn.Parameter(torch.ones(3))), ("two", nn.Parameter(torch.zeros(2, 2)))]


def test_constant_stays() -> None:
    assert {Curve().at(step, 50) for step in range(50)} == {1.0}


def test_cosine_falls_from_one_toward_zero() -> None:
    curve = Curve("cosine")
    assert curve.at(0, 100) == 1.0
    assert curve.at(25, 100) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert curve.at(50, 100) == pytest.approx(0.5)
    assert 0 < curve.at(99, 100) < 1e-3


def test_step_divides_at_its_milestones() -> None:
    curve = Curve("step", milestones=(0.5, 0.75), gamma=0.1)
    at = {step: curve.at(step, 200) for step in (0, 99, 100, 149, 150, 199)}
    assert at == pytest.approx({0: 1.0, 99: 1.0, 100: 0.1, 149: 0.1, 150: 0.01, 199: 0.01})


def test_warmup_rises_linearly_and_then_hands_over() -> None:
    constant, cosine, step = (Curve(shape, warmup=0.1, milestones=(0.5,)) for shape in ("constant", "cosine", "step"))
    for curve in (constant, cosine, step):
        assert [curve.at(s, 100) for s in range(10)] == pytest.approx([(s + 1) / 10 for s in range(10)])
        assert curve.at(10, 100) == 1.0
    assert constant.at(99, 100) == 1.0
    # The half cosine spans what the warm-up leaves: its middle is at step 10 + 90 / 2.
    assert cosine.at(55, 100) == pytest.approx(0.5)
    # Milestones are shares of the whole run, warm-up included.
    assert (step.at(49, 100), step.at(50, 100)) == pytest.approx((1.0, 0.1))


def test_a_run_of_one_step_has_a_learning_rate() -> None:
    assert {Curve(shape, warmup).at(0, 1) for shape in ("constant", "cosine") for warmup in (0.0, 0.1)} == {1.0}


def test_a_node_is_read_with_what_it_leaves_out() -> None:
    recipe = recipe_of({"_target_": "torch.optim.SGD"})
    assert (recipe.lr, recipe.curve, recipe.clip, recipe.accumulate) == (1e-3, Curve(), None, 1)


def test_a_node_is_read_with_what_it_says() -> None:
    node = {"_target_": "torch.optim.SGD", "lr": 0.2, "curve": "step", "warmup": 0.05, "milestones": [0.3, 0.6],
            "gamma": 0.5, "clip": 2.0, "accumulate": 4}  # fmt: skip
    recipe = recipe_of(node)
    assert recipe.curve == Curve("step", 0.05, (0.3, 0.6), 0.5)
    assert (recipe.lr, recipe.clip, recipe.accumulate) == (0.2, 2.0, 4)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("adam", torch.optim.Adam, {"lr": 1e-3, "weight_decay": 0.0}),
        ("adamw", torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.01}),
        ("sgd", torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False}),
    ],
)
def test_shipped_optimizers_are_built_with_their_arguments(
    name: str, kind: type[torch.optim.Optimizer], expected: dict[str, Any]
) -> None:
    ours = parameters()
    built = recipe_of(optimizer_node(name)).build(ours)
    assert type(built) is kind
    (group,) = built.param_groups
    assert {key: group[key] for key in expected} == expected
    assert [id(p) for p in group["params"]] == [id(p) for _, p in ours]


def test_a_users_arguments_reach_the_class() -> None:
    node = {**optimizer_node("adam"), "lr": 0.02, "betas": [0.5, 0.6], "eps": 1e-4, "amsgrad": True}
    (group,) = recipe_of(node).build(parameters()).param_groups
    assert (group["lr"], tuple(group["betas"]), group["eps"], group["amsgrad"]) == (0.02, (0.5, 0.6), 1e-4, True)


def test_a_built_optimizer_takes_the_step_it_should() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    built = recipe_of({"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.5}).build([("weight", parameter)])
    (parameter * torch.tensor([3.0, 5.0])).sum().backward()
    built.step()
    assert parameter.tolist() == pytest.approx([1.0 - 0.1 * (3.0 + 0.5), -2.0 - 0.1 * (5.0 - 1.0)])


def test_an_unknown_argument_is_refused_with_the_nearest_name() -> None:
    node = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentun": 0.9}
    with pytest.raises(ConfigError, match=r"optimizer\.momentun: SGD takes no such key; did you mean optimizer\.mom"):
        recipe_of(node).build(parameters())


def test_an_argument_of_another_class_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"teacher\.fit\.betas"):
        recipe_of({"_target_": "torch.optim.SGD", "betas": [0.9, 0.99]}).build(parameters(), "teacher.fit")


def test_a_class_that_is_no_optimizer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"torch\.nn\.Linear is not a Optimizer"):
        recipe_of({"_target_": "torch.nn.Linear"}).build(parameters())


def test_an_unknown_optimizer_file_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"did you mean teacher\.fit\.optimizer=adamw"):
        optimizer_node("adanw")


def test_a_state_of_other_shapes_is_refused_before_a_fused_kernel_sees_it() -> None:
    weights = nn.Parameter(torch.randn(8, 8))
    optimizer = torch.optim.Adam([weights], fused=True)
    weights.grad = torch.ones(8, 8)
    optimizer.step()
    state = optimizer.state_dict()
    restore(optimizer, state)
    state["state"][0]["exp_avg"] = torch.zeros(1)
    with pytest.raises(ValueError, match="exp_avg"):
        restore(optimizer, state)


def test_half_precision_leaves_sgd_with_momentum_unfused() -> None:
    node = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
    made = {dtype: recipe_of(node).build([("weight", nn.Parameter(torch.zeros(2)))], dtype=dtype)
            for dtype in (torch.float32, torch.float16)}  # fmt: skip
    assert made[torch.float32].param_groups[0]["fused"]
    assert not made[torch.float16].param_groups[0]["fused"]


def test_linear_falls_evenly_from_one_after_the_warm_up() -> None:
    curve = Curve("linear", warmup=0.1)
    assert [curve.at(step, 100) for step in (9, 10, 55)] == pytest.approx([1.0, 1.0, 0.5])
    assert curve.at(99, 100) == pytest.approx(1 / 90)


def test_named_parameters_are_spared_weight_decay_and_learn_as_fast() -> None:
    net = nn.ModuleDict({"layer": nn.Linear(2, 2), "LayerNorm": nn.LayerNorm(2)})
    built = recipe_of({"_target_": "torch.optim.AdamW", "lr": 0.1, "weight_decay": 0.5, "no_decay": ["bias", "norm"]})
    others, spared = built.build(net.named_parameters()).param_groups
    assert [id(p) for p in others["params"]] == [id(net["layer"].weight)] and others["weight_decay"] == 0.5
    assert len(spared["params"]) == 3 and spared["weight_decay"] == 0.0 and spared["lr"] == others["lr"] == 0.1
    net["layer"].weight.requires_grad_(False)  # what is frozen is in no group
    assert sum(len(group["params"]) for group in built.build(net.named_parameters()).param_groups) == 3
