"""Proves that a step that is not finite never reaches the weights, on devices that are looked at at once and on those
that are not, and that the message says which step and term it was.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from distill_cli.base.errors import NonFiniteError
from distill_cli.training.guard import Guard, Moment

CPU = torch.device("cpu")
KINDS = [("Adam", {"lr": 0.1, "fused": True}), ("AdamW", {"lr": 0.1, "fused": True}),
         ("SGD", {"lr": 0.1, "momentum": 0.9, "fused": True}), ("Adagrad", {"lr": 0.1}), ("RMSprop", {"lr": 0.1})]  # fmt: skip


class Descent:
    """Steps of a small network; `at` replaces what the loss of one step is."""

    def __init__(self, kind: str, keys: dict[str, float], lag: int, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        self.net = nn.Linear(3, 2)
        self.inputs = torch.randn(40, 3)
        self.optimizer = getattr(torch.optim, kind)(self.net.parameters(), **keys)
        self.guard = Guard(self.optimizer, CPU, dtype, lag)
        self.after: list[dict[str, Tensor]] = []

    def run(self, steps: int, wrong_at: int | None = None, wrong: str = "term", clip: float | None = None) -> None:
        for step in range(steps):
            ce = self.net(self.inputs[step]).square().sum()
            kd = self.net.weight.abs().sum()
            if step == wrong_at and wrong == "term":
                kd = kd * torch.tensor(float("inf"))
            if step == wrong_at and wrong == "finite gradient":
                kd = kd + torch.tensor(float("inf"))  # a constant: the loss is infinite, its gradient is not
            if step == wrong_at and wrong == "gradient":
                kd = kd + (self.net.weight - self.net.weight.detach()).abs().sqrt().sum()  # 0, with slope 1 / 0
            self.guard.backward(ce + kd, {"ce": ce.detach(), "kd": kd.detach()})
            self.guard.step(Moment(step, "imitate", 0.1, 1, 3.0, 0.7), clip)
            self.after.append(copy.deepcopy(self.net.state_dict()))


@pytest.mark.parametrize("wrong", ["term", "finite gradient", "gradient"])
@pytest.mark.parametrize("lag", [1, 8])
@pytest.mark.parametrize(("kind", "keys"), KINDS, ids=[kind for kind, _ in KINDS])
def test_the_weights_stay_those_of_the_step_before(kind: str, keys: dict[str, float], lag: int, wrong: str) -> None:
    descent = Descent(kind, keys, lag)
    good = Descent(kind, keys, 1)
    good.run(5)
    with pytest.raises(NonFiniteError) as caught:
        descent.run(20, wrong_at=5, wrong=wrong)
    for name, tensor in descent.net.state_dict().items():
        assert torch.equal(tensor, good.after[-1][name]), "the bad step, or one after it, reached the weights"
    assert len(descent.after) == (5 if lag == 1 else 8)
    what = "gradient" if wrong == "gradient" else "term kd"
    assert f"the {what} at step 6 (imitate, epoch 1), where T=3, alpha=0.7, lr=0.1" in caught.value.message
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize(("kind", "keys"), KINDS, ids=[kind for kind, _ in KINDS])
def test_good_steps_are_the_optimizers_own_to_the_bit(kind: str, keys: dict[str, float], clip: float | None) -> None:
    plain = Descent(kind, keys, 1)
    for step in range(10):
        (plain.net(plain.inputs[step]).square().sum() + plain.net.weight.abs().sum()).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(plain.net.parameters(), clip)
        plain.optimizer.step()
        plain.optimizer.zero_grad()
    for lag in (1, 8):
        descent = Descent(kind, keys, lag)
        descent.run(10, clip=clip)
        for name, tensor in plain.net.state_dict().items():
            assert torch.equal(tensor, descent.net.state_dict()[name]), (kind, lag, name)


def test_a_look_in_between_finds_what_happened_since(capsys: pytest.CaptureFixture[str]) -> None:
    descent = Descent("Adam", {"lr": 0.1, "fused": True}, lag=50)
    descent.run(4, wrong_at=2)  # noticed by nobody yet: the last look was at step 0
    with pytest.raises(NonFiniteError, match="at step 3"):
        descent.guard.check()


def test_in_half_precision_a_gradient_may_overflow_but_not_for_ever() -> None:
    descent = Descent("SGD", {"lr": 0.1}, 1, torch.float16)
    before = descent.guard.scaler.get_scale()
    descent.run(3, wrong_at=1, wrong="gradient")
    assert descent.guard.scaler.get_scale() == before / 2
    assert descent.after[0].keys() == descent.after[1].keys()
    assert all(torch.equal(descent.after[0][name], descent.after[1][name]) for name in descent.after[0])
    descent.guard.scaler.update(2.0**-20)
    with pytest.raises(NonFiniteError, match="at any scale"):
        descent.guard.check()
    with pytest.raises(NonFiniteError, match="term kd"):
        Descent("SGD", {"lr": 0.1}, 1, torch.float16).run(3, wrong_at=1)


def test_the_loss_scale_is_kept_and_put_back() -> None:
    first, second = (Descent("SGD", {"lr": 0.1}, 1, torch.float16) for _ in range(2))
    first.run(3, wrong_at=1, wrong="gradient")
    second.guard.restore(first.guard.snapshot())
    second.run(1)
    assert second.guard.snapshot()["scale"] == first.guard.snapshot()["scale"]


def test_another_stage_may_have_other_terms() -> None:
    for lag in (1, 8):
        descent = Descent("Adam", {"lr": 0.1, "fused": True}, lag)
        for step, names in enumerate((["ce", "kd", "hint"], ["ce", "kd", "hint"], ["ce", "kd"], ["ce", "kd"])):
            loss = descent.net(descent.inputs[step]).square().sum() * (float("inf") if step == 3 else 1.0)
            descent_terms = {name: loss.detach() for name in names}
            try:
                descent.guard.backward(loss, descent_terms)
                descent.guard.step(Moment(step, "x", 0.1))
            except NonFiniteError:
                assert step == 3
        if lag > 1:
            with pytest.raises(NonFiniteError, match="the term ce, kd at step 4"):
                descent.guard.check()
