"""Proves the training loop: repeatable to the bit, honest rows, the right best epoch, and a state that can be put back."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Guide, fit, logits_of, recipe_of, rows_from, stored
from torch import Tensor, nn

from distill_cli import models
from distill_cli.base.errors import NonFiniteError
from distill_cli.data import Data, Part, PictureSpec, assemble
from distill_cli.models import Classifier
from distill_cli.models.features import Output
from distill_cli.objectives import Loss, Objective
from distill_cli.objectives.features import Hint
from distill_cli.objectives.logits import CE, KD, LogitMSE
from distill_cli.tasks import task as tasks
from distill_cli.training import loop, schedule
from distill_cli.training.loop import Pace
from distill_cli.training.optim import Recipe
from distill_cli.training.schedule import Ramp, Stage
from distill_cli.training.state import Row, State, begin

SMALLCNN = {"_target_": "distill_cli.models.smallcnn.SmallCNN", "widths": [4, 6]}
RESNET = {"_target_": "distill_cli.models.resnet.SmallResNet", "depth": 8, "widths": [4, 4, 4, 8]}
BATCH = 8
PER_EPOCH = 3  # 20 training pictures in batches of 8

TIMED = ("seconds", "samples_per_second")


def part(count: int, seed: int) -> Part:
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    # Brighter by class, so that there is something to learn.
    pictures = draw.integers(0, 128, (count, 1, 8, 8)) + 60 * labels[:, None, None, None]
    return Part(torch.from_numpy(pictures.astype(np.uint8)), labels)


@pytest.fixture(scope="module")
def data() -> Data:
    return assemble(part(20, 0), part(9, 1), part(6, 2), "abc", val_fraction=0.1, split_seed=0, mean=None, std=None,
                    note="")  # fmt: skip


def guided(data: Data, layers: Sequence[str] = ()) -> Guide:
    with torch.random.fork_rng():
        torch.manual_seed(99)
        return Guide(models.build(RESNET, "teacher", data.input, 3), layers)


def student(data: Data, node: Mapping[str, Any] = SMALLCNN, seed: int = 0) -> Classifier:
    """The same first weights for the same seed; the process's random stream, which must not matter, is left to run."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return models.build(node, "student", data.input, 3)


def recipe(name: str = "SGD", **keys: Any) -> Recipe:
    return recipe_of({"_target_": f"torch.optim.{name}", "lr": 0.05, **keys})


TWO_STAGES = [Stage("imitate", 2, Ramp(4.0, 4.0), Ramp(0.8, 0.8), ("kd",)),
              Stage("refine", 2, Ramp(4.0, 1.0), Ramp(0.8, 0.0), ("kd",))]  # fmt: skip


def rows_of(
    state: State,
    data: Data,
    how: Recipe,
    stages: Sequence[Stage] = TWO_STAGES,
    seed: int = 0,
    teacher: loop.Teacher | None = None,
) -> Iterator[Row]:
    losses = {stage.name: Loss({name: state.student.objectives[name] for name in stage.objectives}) for stage in stages}
    steps = fit(state, stages, losses, data, Pace(seed, BATCH), teacher)
    return (row for row in steps if row is not None)


def distilled(
    data: Data, how: Recipe, seed: int = 0, model: Classifier | None = None, stages: Sequence[Stage] = TWO_STAGES
) -> tuple[list[Row], dict[str, Tensor]]:
    """Rows without their times, and the last weights."""
    state = begin(model or student(data), {"kd": KD()}, how)
    rows = list(rows_of(state, data, how, stages, seed, guided(data)))
    return [{k: v for k, v in row.items() if k not in TIMED} for row in rows], state.model.net.state_dict()


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def farthest(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in one)


# --- repeatability


class Dropping(nn.Module):
    """A model that draws random numbers in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5), nn.Linear(16, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


@pytest.mark.parametrize("node", [SMALLCNN, RESNET, {"_target_": f"{__name__}.Dropping"}], ids=["cnn", "bn", "dropout"])
def test_the_same_seed_gives_the_same_rows_and_weights(data: Data, node: dict[str, Any]) -> None:
    how = recipe("Adam", curve="cosine")
    one = distilled(data, how, model=student(data, node))
    torch.rand(7)  # what else draws random numbers in the process must not matter
    two = distilled(data, how, model=student(data, node))
    assert one[0] == two[0]
    assert same(one[1], two[1])


def test_another_seed_gives_other_weights(data: Data) -> None:
    # The same first weights: what differs is the order of the samples alone.
    one, two = (distilled(data, recipe(), seed, student(data)) for seed in (0, 1))
    assert not same(one[1], two[1])
    assert one[0] != two[0]


def test_another_seed_drops_other_units(data: Data) -> None:
    node = {"_target_": f"{__name__}.Dropping"}

    def fitted(seed: int) -> dict[str, Tensor]:
        state = begin(student(data, node), {"ce": CE()}, recipe())
        list(fit(state, schedule.plain(1), {"fit": Loss({"ce": CE()})}, data,
                        Pace(seed, len(data.train))))  # fmt: skip
        return state.model.net.state_dict()

    # One batch holds every sample, so the order moves the result by rounding only: the rest is dropout.
    assert farthest(fitted(0), fitted(1)) > 1e-3
    assert same(fitted(0), fitted(0))


# --- rows


def test_rows_carry_what_the_epochs_last_step_used(data: Data) -> None:
    how = recipe(curve="cosine", warmup=0.25)
    rows, _ = distilled(data, how)
    steps = 4 * PER_EPOCH
    assert [(row["stage"], row["epoch"], row["step"]) for row in rows] == [
        ("imitate", 1, 3), ("imitate", 2, 6), ("refine", 3, 9), ("refine", 4, 12)]  # fmt: skip
    # The second stage has six steps, 0 to 5: its first epoch ends at 2/5 of the way, its second at the end.
    assert [row["T"] for row in rows] == pytest.approx([4.0, 4.0, 4.0 - 3.0 * 0.4, 1.0])
    assert [row["alpha"] for row in rows] == pytest.approx([0.8, 0.8, 0.8 - 0.8 * 0.4, 0.0])
    expected = [0.05] + [0.05 * (1 + math.cos(math.pi * (step - 3) / (steps - 3))) / 2 for step in (5, 8, 11)]
    assert [row["lr"] for row in rows] == pytest.approx(expected)


def test_a_stages_own_learning_rate_replaces_the_optimizers(data: Data) -> None:
    stages = [Stage("a", 1, Ramp(2.0, 2.0), Ramp(0.5, 0.5), ("kd",), lr=0.01),
              Stage("b", 1, Ramp(2.0, 2.0), Ramp(0.5, 0.5), ("kd",))]  # fmt: skip
    rows, _ = distilled(data, recipe(), stages=stages)
    assert [row["lr"] for row in rows] == pytest.approx([0.01, 0.05])


def test_losses_of_a_row_are_means_over_its_samples(data: Data) -> None:
    # A learning rate that moves nothing: each term must be that of the whole training split.
    still = recipe(lr=1e-12)
    stages = [Stage("s", 1, Ramp(2.0, 2.0), Ramp(0.25, 0.25), ("kd",))]
    model = student(data)
    rows, _ = distilled(data, still, model=model, stages=stages)
    whole = next(data.train.batches(len(data.train)))
    ours = Output(model(whole.inputs))
    answers = rows_from(ours, whole)
    total, terms = Loss({"kd": KD()})(answers, guided(data)(whole, 2.0, answers), 2.0, 0.25)
    expected = {"total": total.item(), **{name: term.item() for name, term in terms.items()}}
    assert rows[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_validation_is_measured_against_labels_and_teacher(data: Data) -> None:
    state = begin(student(data), {"kd": KD()}, recipe())
    guide = guided(data)
    (*_, row) = rows_of(state, data, recipe(), teacher=guide)
    assert row["val"] == tasks.measure(tasks.of(data), state.model, data.val, guide.on("val"))
    right = logits_of(state.model, data.val).argmax(1) == data.val.targets
    assert row["val"]["accuracy"] == right.double().mean().item()
    assert set(row["val"]) == {"accuracy", "balanced_accuracy", "f1", "nll", "ece", "kl", "agreement"}
    assert row["samples_per_second"] == pytest.approx(20 / row["seconds"])


def test_the_loop_learns(data: Data) -> None:
    state = begin(student(data), {"ce": CE()}, recipe("Adam", lr=0.02))
    rows = list(rows_of(state, data, recipe("Adam", lr=0.02), schedule.plain(12)))
    assert rows[-1]["loss"]["ce"] < 0.5 * rows[0]["loss"]["ce"]
    assert state.best is not None and state.best["score"][0] >= 0.8


def test_a_student_comes_near_its_teacher(data: Data) -> None:
    stages = [Stage("s", 12, Ramp(2.0, 2.0), Ramp(1.0, 1.0), ("logit_mse",))]
    how = recipe("Adam", lr=0.02)
    state = begin(student(data), {"logit_mse": LogitMSE()}, how)
    rows = list(rows_of(state, data, how, stages, teacher=guided(data)))
    assert rows[-1]["val"]["kl"] < 0.5 * rows[0]["val"]["kl"]


def test_the_model_trains_again_after_each_validation(data: Data) -> None:
    state = begin(student(data, RESNET), {"ce": CE()}, recipe())
    counter: Any = state.model.net.bn1
    state.model.eval()  # as a measurement before training may leave it
    for epoch, _ in enumerate(rows_of(state, data, recipe(), schedule.plain(3)), 1):
        assert all(module.training for module in state.model.modules())
        # Batch statistics moved in every training step, and in no step of validation.
        assert counter.num_batches_tracked.item() == epoch * PER_EPOCH


def test_the_teacher_is_not_moved(data: Data) -> None:
    guide = guided(data)
    before = copy.deepcopy(guide.model.state_dict())
    state = begin(student(data), {"kd": KD()}, recipe())
    list(rows_of(state, data, recipe(), teacher=guide))
    assert same(before, guide.model.state_dict())
    assert not guide.model.training


# --- best


def seen(epoch: int, accuracy: float, nll: float) -> Row:
    return {"epoch": epoch, "stage": "s", "val": {"accuracy": accuracy, "nll": nll}}


def test_best_is_the_highest_accuracy_then_the_lower_nll_then_the_earlier_epoch() -> None:
    net = nn.Linear(1, 1, bias=False)
    state = begin(Classifier(net, PictureSpec(1, (1, 1), (0.0,), (1.0,))), {}, recipe())
    scores = [(0.5, 1.0), (0.6, 2.0), (0.6, 1.5), (0.6, 1.5), (0.6, 1.8), (0.55, 0.1)]
    kept = []
    for epoch, score in enumerate(scores, 1):
        nn.init.constant_(net.weight, epoch)
        kept.append(state.keep_if_best(seen(epoch, *score), ("accuracy", "-nll")))
    assert kept == [True, True, True, False, False, False]
    assert state.best == {"epoch": 3, "stage": "s", "score": [0.6, -1.5]}
    # The weights are those of epoch 3, not a view of what training moved on to.
    assert state.best_weights["weight"].item() == 3.0


def test_the_rows_say_which_epochs_were_best_so_far(data: Data) -> None:
    state = begin(student(data), {"kd": KD()}, recipe())
    rows = list(rows_of(state, data, recipe(), teacher=guided(data)))
    scores = [(row["val"]["accuracy"], -row["val"]["nll"]) for row in rows]
    assert [row["best"] for row in rows] == [all(score > s for s in scores[:i]) for i, score in enumerate(scores)]
    assert state.best is not None and state.best["epoch"] == 1 + scores.index(max(scores))


# --- steps


def test_a_batch_in_four_parts_takes_the_same_steps_as_in_one(data: Data) -> None:
    whole, parts = (distilled(data, recipe(accumulate=number), model=student(data)) for number in (1, 4))
    assert farthest(whole[1], parts[1]) < 1e-5
    for one, other in zip(whole[0], parts[0], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["step"] == other["step"]


def test_steps_end_a_stage_inside_a_pass_and_a_state_put_back_there_goes_on_the_same(data: Data) -> None:
    stages = [replace(TWO_STAGES[0], steps=4), replace(TWO_STAGES[1], steps=2), replace(TWO_STAGES[1], name="last")]
    whole = distilled(data, recipe(), stages=stages, model=student(data))
    assert [(row["stage"], row["epoch"], row["step"]) for row in whole[0]] == [
        ("imitate", 1, 3), ("imitate", 2, 4), ("refine", 3, 6), ("last", 4, 9), ("last", 5, 12)]  # fmt: skip
    # T and alpha have arrived where the stage ends, however many passes it had.
    assert [(row["T"], row["alpha"]) for row in whole[0][2:]] == [
        (1.0, 0.0),
        (pytest.approx(2.8), pytest.approx(0.48)),
        (1.0, 0.0),
    ]
    losses = {stage.name: Loss({"kd": KD()}) for stage in stages}
    for steps in range(1, 12):
        state = begin(student(data), {"kd": KD()}, recipe())
        for _ in fit(state, stages, losses, data, Pace(0, BATCH), guided(data)):
            if state.step == steps:
                break
        later = begin(student(data, seed=5), {"kd": KD()}, recipe())
        later.restore(stored(state))
        list(rows_of(later, data, recipe(), stages, teacher=guided(data)))
        assert same(later.model.net.state_dict(), whole[1]), steps


def test_clipping_bounds_the_step(data: Data) -> None:
    def moved(**keys: Any) -> float:
        """How far the first step takes the weights."""
        model = student(data)
        before = copy.deepcopy(model.state_dict())
        state = begin(model, {"ce": CE()}, recipe(**keys))
        one_step = Pace(0, len(data.train))
        list(fit(state, schedule.plain(1), {"fit": Loss({"ce": CE()})}, data, one_step))
        return sum((model.state_dict()[name] - before[name]).square().sum().item() for name in before) ** 0.5

    free = moved()
    assert moved(clip=1e-3) == pytest.approx(0.05 * 1e-3, rel=1e-2)
    assert moved(clip=1e3) == pytest.approx(free)
    assert free > 0.05 * 1e-2


def test_a_loss_that_is_not_finite_names_step_and_term(data: Data) -> None:
    wild = recipe(lr=1e30)
    state = begin(student(data), {"kd": KD()}, wild)
    with pytest.raises(NonFiniteError, match=r"the term .*kd at step \d \(imitate, epoch 1\)") as caught:
        list(rows_of(state, data, wild, teacher=guided(data)))
    assert "lr=1e+30" in caught.value.message
    assert "smaller optimizer.lr" in caught.value.hint
    assert caught.value.exit_code == 5


# --- hint


def hinted(data: Data) -> tuple[State, Guide, Hint]:
    hint = Hint(teacher_layer="layer2")
    guide, model = guided(data, ["layer2"]), student(data)
    hint.connect(model, guide.model, data)
    objectives: dict[str, Objective] = {"hint": hint, "kd": KD()}
    return begin(model, objectives, recipe()), guide, hint


HINT_THEN_KD = [Stage("hint", 1, Ramp(2.0, 2.0), Ramp(1.0, 1.0), ("hint",)),
                Stage("kd", 1, Ramp(2.0, 2.0), Ramp(0.5, 0.5), ("kd",))]  # fmt: skip


def test_a_hints_regressor_is_trained_while_its_stage_lasts(data: Data) -> None:
    state, guide, hint = hinted(data)
    trained = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in hint.parameters()} <= trained
    at = [copy.deepcopy(dict(hint.named_parameters()))]
    rows = []
    for row in rows_of(state, data, recipe(), HINT_THEN_KD, teacher=guide):
        rows.append(row)
        at.append(copy.deepcopy(dict(hint.named_parameters())))
    assert all(not torch.equal(at[0][name], at[1][name]) for name in at[0])
    assert same(at[1], at[2])
    assert [set(row["loss"]) for row in rows] == [{"total", "ce", "hint"}, {"total", "ce", "kd"}]


# --- the state


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_a_restored_state_goes_on_as_the_one_it_was_taken_from(data: Data, kind: str) -> None:
    how = recipe(kind, **({"momentum": 0.9} if kind == "SGD" else {}))

    def begun(seed: int) -> State:
        return begin(student(data, RESNET, seed), {"kd": KD()}, how)

    first, second = begun(0), begun(5)
    list(rows_of(first, data, how, TWO_STAGES[:1], teacher=guided(data)))
    second.restore(stored(first))
    assert (second.step, second.epoch, second.best) == (first.step, first.epoch, first.best)
    assert second.step == 2 * PER_EPOCH and second.epoch == 2
    assert same(first.best_weights, second.best_weights)
    later = [TWO_STAGES[0], Stage("later", 2, Ramp(3.0, 1.0), Ramp(0.5, 0.0), ("kd",))]
    one, two = (list(rows_of(state, data, how, later, teacher=guided(data))) for state in (first, second))
    assert [{k: v for k, v in row.items() if k not in TIMED} for row in one] == [
        {k: v for k, v in row.items() if k not in TIMED} for row in two]  # fmt: skip
    assert same(first.model.net.state_dict(), second.model.net.state_dict())


def test_a_snapshot_holds_the_objectives_own_weights(data: Data) -> None:
    state, guide, hint = hinted(data)
    list(rows_of(state, data, recipe(), HINT_THEN_KD, teacher=guide))
    other, _, fresh = hinted(data)
    assert not same(hint.state_dict(), fresh.state_dict())
    other.restore(stored(state))
    assert same(hint.state_dict(), fresh.state_dict())
