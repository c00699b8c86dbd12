"""Proves that a weight of auto makes a term's gradient as large as it is to be, whatever else a run does, and that a weight
that was given is never changed, but doubted where it is far off.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from helpers import QUICK, distill, read_json, rows
from torch import nn

from distill_cli.config.records import read as record
from distill_cli.config.schema import Objective as Settings
from distill_cli.objectives import Loss, Objective
from distill_cli.objectives.logits import KD
from distill_cli.tasks.rows import Dense, Rows
from distill_cli.training.balance import Balance

OFF = torch.amp.GradScaler("cpu", enabled=False)


class Fixed(Objective):
    """A term whose gradient on the student's logits has a size of its own."""

    needs_teacher = False

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, student: Rows, teacher: Dense, temperature: float) -> torch.Tensor:
        return self.size * student.logits().sum() / math.sqrt(student.logits().numel())


def fitted(objective: Objective, **keys: float) -> Objective:
    objective.fitted = record(Settings, {"_target_": "x", "weight": "auto", **keys})
    return objective


def ratios(objective: Objective, steps: int) -> tuple[Balance, list[float]]:
    """A balance after so many steps on logits that are the parameters, and |grad CE| of each."""
    logits = nn.Parameter(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)))
    balance, sizes = Balance({"x": objective}, [logits], OFF), []
    for step in range(steps):
        targets = torch.full((8,), step % 5)
        due = balance.due({"x": objective}, step)
        if due:
            Loss({"x": objective})(
                Rows(logits, targets, targets), None, 1.0, 0.5, look=lambda terms, due=due: balance.look(due, terms)
            )
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, targets), logits)
        sizes.append(gradient.norm().item())
    return balance, sizes


def test_the_weight_is_the_median_so_far_times_the_balance_and_then_stays() -> None:
    one = fitted(Fixed(4.0), balance=2.0, balance_steps=3)
    _, sizes = ratios(one, 1)
    assert one.weight == pytest.approx(2 * sizes[0] / 4)
    one = fitted(Fixed(4.0), balance=2.0, balance_steps=3)
    balance, sizes = ratios(one, 7)
    assert one.weight == pytest.approx(2 * sorted(sizes[:3])[1] / 4)
    assert len(balance.ratios["x"]) == 3 and balance.settled("x")


def test_a_weight_that_was_given_is_measured_once_and_stays() -> None:
    one = Fixed(4.0)
    balance, sizes = ratios(one, 12)
    assert one.weight == 1.0
    assert balance.ratio("x") == pytest.approx(sizes[9] / 4) and len(balance.ratios["x"]) == 1


def test_a_term_without_a_gradient_keeps_its_weight() -> None:
    one = fitted(Fixed(0.0), balance_steps=2)
    balance, _ = ratios(one, 2)
    assert balance.settled("x") and balance.ratio("x") is None and one.weight == 1.0


def test_what_is_put_back_has_the_same_weight() -> None:
    balance, _ = ratios(fitted(Fixed(4.0)), 5)
    other = Balance({"x": fitted(Fixed(4.0))}, [], OFF)
    other.restore(balance.snapshot())
    assert other.objectives["x"].weight == balance.objectives["x"].weight != 1.0
    other.restore({})  # an earlier version's checkpoint
    assert not other.settled("x")


def test_rows_at_a_time_change_no_ratio() -> None:
    torch.manual_seed(0)
    net, inputs, targets = nn.Linear(6, 4), torch.randn(20, 6), torch.arange(20) % 4
    teacher, found = Dense(torch.randn(20, 4)), []
    for at_once in (None, 3):
        one = fitted(KD())
        balance = Balance({"kd": one}, list(net.parameters()), OFF)
        loss = Loss({"kd": one}, rows_at_once=at_once)
        total, _ = loss(
            Rows(net(inputs), targets, targets), teacher, 2.0, 0.5, look=lambda terms, b=balance: b.look(["kd"], terms)
        )
        total.backward()
        found.append(one.weight)
    assert found[0] == pytest.approx(found[1], rel=1e-5) != 1.0


def test_a_run_tells_the_weights_it_finds_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*QUICK, "objective=[hint,kd,rkd]", "schedule.imitate.epochs=2", "objective.rkd.balance_steps=30"]
    words += ["objective.hint.weight=auto", "objective.rkd.weight=auto", "objective.rkd.balance=0.5", "report=true"]
    assert distill("train", *words, "run_dir=run") == 0
    said = capsys.readouterr().out
    assert "auto·‖r(f_s)-f_t‖²/n" in said
    found = read_json(tmp_path / "run" / "summary.json")["weights"]
    assert found.keys() == {"hint", "rkd"}
    assert rows(tmp_path / "run")[-1]["weights"] == found
    assert re.search(rf"weight of hint: {found['hint']:.4g} \(the median .* over 50 steps; measuring took", said)
    assert re.search(rf"weight of rkd: {found['rkd']:.4g} \(0.5 x the median .* over 30 steps", said)
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["balance"]
    assert {name: len(ratios) for name, ratios in kept.items()} == {"hint": 50, "kd": 1, "rkd": 30}
    for weight in found.values():
        assert f"{weight:.4g}" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer.accumulate=2"],
        ["precision=bf16"],
        ["rows_at_once=16"],
        ["objective.kd.warmup=0.5"],
        ["alpha=1"],
        ["dataset.augmentation.crop=2", "dataset.views=2"],
    ],
    ids=" ".join,
)
def test_however_a_step_is_computed_the_weight_is_about_the_same(words: list[str], tmp_path: Path) -> None:
    same = [*QUICK, "objective.kd.weight=auto", "objective.kd.balance_steps=10", "dataset.limit=640"]
    assert distill("train", *same, *words, "run_dir=run") == 0
    assert 3 < read_json(tmp_path / "run" / "summary.json")["weights"]["kd"] < 12


def test_a_given_weight_that_is_far_off_is_doubted_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *QUICK, "objective=[logit_mse,kd]", "objective.logit_mse.weight=3") == 0
    said = capsys.readouterr()
    assert said.err.count("objective.logit_mse.weight=auto finds one") == 1
    assert "objective.kd.weight" not in said.err and "weight of" not in said.out
    assert distill("train", *QUICK, "objective=logit_mse", "objective.logit_mse.weight=auto") == 0
    assert "weight=auto finds" not in capsys.readouterr().err


def test_a_weight_is_auto_or_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    for value, told in (("big", "should be auto or a number, got 'big'"), ("-1", "must be at least 0, got -1")):
        assert distill("train", f"objective.kd.weight={value}") == 2
        assert f"objective.kd.weight: {told}" in capsys.readouterr().err
