"""Proves that a loss computed on a few rows at a time is the loss on all rows, in value and gradient, and takes less memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import QUICK, distill, read_json, rows
from torch import Tensor, nn

from distill_cli.objectives import Loss, Objective, kd
from distill_cli.objectives.correlation import DIST, LSKD, MLLD
from distill_cli.objectives.decoupled import DKD, NKD
from distill_cli.objectives.features import Attention
from distill_cli.objectives.logits import CE, KD, LogitMSE, LogitSSE
from distill_cli.objectives.softened import JSD, Annealed, Hard, ReverseKL, Virtual
from distill_cli.tasks.rows import Dense, Rows, Signal

M, C = 23, 7


class Scaled(Objective):
    """kd of the student's logits times a factor that is learnt."""

    by_row = True

    def __init__(self) -> None:
        super().__init__(weight=0.5)
        self.factor = nn.Parameter(torch.tensor(1.5))

    def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
        return kd(self.factor * student.logits(), teacher.logits(), temperature=temperature)


def attention() -> Objective:
    objective = Attention(student_layers="maps", teacher_layers="maps", weight=3.0)
    assert not objective.by_row
    return objective


COMBINATIONS: dict[str, Callable[[], dict[str, Objective]]] = {
    "labels": lambda: {"ce": CE()},
    "kd": lambda: {"kd": KD()},
    "a sum": lambda: {"kd": KD(weight=2.0), "sse": LogitSSE(), "mse": LogitMSE(weight=0.3)},
    "no teacher": lambda: {"virtual": Virtual()},
    "by row": lambda: {o.__class__.__name__: o for o in (DKD(), NKD(), LSKD(), JSD(), Hard(), Annealed(), ReverseKL())},
    "some by row": lambda: {"kd": KD(), "dist": DIST(), "mlld": MLLD(weight=0.1), "attention": attention()},
    "none by row": lambda: {"dist": DIST(warmup=0.5)},
    "learnt": lambda: {"kd": KD(), "scaled": Scaled()},
}


def batch(dtype: torch.dtype = torch.float64, m: int = M, c: int = C) -> tuple[Tensor, Tensor, Dense]:
    """The student's logits, targets, and a teacher's signal with features."""
    draw = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(m, c, generator=draw, dtype=torch.float64).to(dtype) for _ in range(2))
    targets = torch.randint(c, (m,), generator=draw)
    maps = torch.randn(m, 2, 3, 3, generator=draw, dtype=torch.float64).to(dtype)
    return student.requires_grad_(), targets, Dense(teacher, {"maps": maps})


def computed(
    objectives: dict[str, Objective], at_once: int | None, dtype: torch.dtype = torch.float64, smoothing: float = 0.1
) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
    """The total, the terms, and the gradients of the logits, of the student's features and of what is learnt beside."""
    logits, targets, signal = batch(dtype)
    maps = (2 * signal.features["maps"]).cos().requires_grad_()
    student = Rows(logits, targets, torch.arange(M), {"maps": maps})
    loss = Loss({name: objective.to(dtype) for name, objective in objectives.items()}, smoothing, at_once)
    total, terms = loss(student, signal if loss.asks_teacher else None, 2.5, 0.6, share=0.25, progress=0.2)
    (3 * total).backward()
    learnt = [p for objective in objectives.values() for p in objective.parameters()]
    gradients = [tensor.grad for tensor in (logits, maps, *learnt) if tensor.grad is not None]
    return total.detach(), terms, gradients


@pytest.mark.parametrize("name", COMBINATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("at_once", [1, 5, 22, 23, 1000])
def test_values_and_gradients_are_those_of_all_rows_at_once(name: str, dtype: torch.dtype, at_once: int) -> None:
    total, terms, gradients = computed(COMBINATIONS[name](), None, dtype)
    cut, cut_terms, cut_gradients = computed(COMBINATIONS[name](), at_once, dtype)
    near = {"rel": 1e-6 if dtype == torch.float32 else 1e-12}
    assert cut.item() == pytest.approx(total.item(), **near)
    assert list(cut_terms) == list(terms)
    for term, value in terms.items():
        assert cut_terms[term].item() == pytest.approx(value.item(), **near), term
    assert len(gradients) == len(cut_gradients) >= 1
    for whole, part in zip(gradients, cut_gradients, strict=True):
        assert whole.dtype == part.dtype and whole.shape == part.shape
        assert (whole - part).norm() <= near["rel"] * whole.norm()


def test_the_chunks_cover_all_rows_in_order() -> None:
    logits, targets, signal = batch()
    whole = Rows(logits, targets, torch.arange(M) + 100)
    parts = [whole.part(chunk) for chunk in whole.chunks(5)]
    assert [len(part) for part in parts] == [5, 5, 5, 5, 3]
    assert torch.equal(torch.cat([part.logits() for part in parts]), logits)
    assert torch.equal(torch.cat([part.targets for part in parts]), targets)
    assert torch.cat([part.index for part in parts]).tolist() == list(range(100, 100 + M))
    assert [len(whole.part(chunk)) for chunk in whole.chunks(None)] == [M]
    answers = [signal.part(chunk) for chunk in whole.chunks(5)]
    assert torch.equal(torch.cat([answer.logits() for answer in answers]), signal.logits())
    assert torch.equal(torch.cat([answer.decided() for answer in answers]), signal.decided())


def test_each_objective_is_shown_so_many_rows_and_those_that_need_all_are_shown_all() -> None:
    seen: dict[str, list[int]] = {"cut": [], "whole": []}

    class Seen(Objective):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, student: Rows, teacher: Signal, temperature: float) -> Tensor:
            assert len(student) == len(teacher) == len(student.logits()) == len(student.index)
            seen[self.name].append(len(student))
            return student.logits().mean()

    class Cut(Seen):
        by_row = True

    logits, targets, signal = batch()
    for look in (None, list):
        loss = Loss({"cut": Cut("cut"), "whole": Seen("whole")}, rows_at_once=10)
        loss(Rows(logits, targets, torch.arange(M)), signal, 1.0, 0.5, look=look)
    assert seen == {"cut": 3 * [10, 10, 3], "whole": [M, M]}  # a look at the terms computes what is cut once more


@pytest.mark.parametrize("scale", [1.0, 2.0**14])
def test_a_gradient_in_half_precision_is_scaled_before_it_is_rounded(scale: float) -> None:
    # Of 4,096 rows many gradients are below 6e-8, which fp16 has no number for.
    logits, targets, signal = batch(torch.float16, 4096)
    total, _ = Loss({"kd": KD()}, rows_at_once=1000)(Rows(logits, targets, torch.arange(4096)), signal, 1.0, 0.0)
    (scale * total).backward()
    wide = logits.detach().double().requires_grad_()
    assert logits.grad is not None and logits.grad.dtype == torch.float16
    exact = torch.autograd.grad(scale * torch.nn.functional.cross_entropy(wide, targets), wide)[0]
    assert ((logits.grad.double() - exact).abs() <= 2.0**-11 * exact.abs() + 2.0**-25).all()


def peak(at_once: int | None, place: Path) -> int:
    """Bytes that a loss and its backward pass hold at most beside logits, targets and signal, as torch's profiler counts."""
    logits, targets, signal = batch(torch.float32, 512, 2000)
    student = Rows(logits, targets, torch.arange(512))
    loss = Loss({"kd": KD(), "dkd": DKD(), "mse": LogitMSE()}, rows_at_once=at_once)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss(student, signal, 2.0, 0.5)[0].backward()
    profiler.export_chrome_trace(str(place / "trace.json"))
    events = json.loads((place / "trace.json").read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]")
    held = most = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most


def test_memory_falls_with_the_rows_at_a_time(tmp_path: Path) -> None:
    matrix = 4 * 512 * 2000
    whole, cut = peak(None, tmp_path), peak(32, tmp_path)
    assert whole > 6 * matrix  # several tensors a term
    assert cut < 2 * matrix  # the gradient, and a chunk's
    assert cut < whole / 4


def test_a_run_by_rows_goes_as_one_of_all_rows_and_tells_what_each_term_weighs(tmp_path: Path) -> None:
    words = [*QUICK, "objective=[kd,logit_sse]", "debug=true", "dataset.limit=200", "threads=1", "baseline=true"]
    assert distill("train", *words, "run_dir=whole") == 0
    assert distill("train", *words, "run_dir=cut", "rows_at_once=7") == 0
    for one, other in zip(rows(tmp_path / "whole"), rows(tmp_path / "cut"), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        for term, said in one["debug"].items():
            assert other["debug"][term] == pytest.approx(said, rel=1e-3)
    one, other = (read_json(tmp_path / name / "summary.json")["test"] for name in ("whole", "cut"))
    for who in ("student", "baseline"):
        assert other[who]["nll"] == pytest.approx(one[who]["nll"], rel=1e-3)
    assert len(list((tmp_path / "outputs" / "baselines").glob("*/model.json"))) == 2


def test_rows_at_once_is_a_number_of_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", "rows_at_once=0") == 2
    assert "rows_at_once: must be at least 1, got 0" in capsys.readouterr().err


@pytest.mark.parametrize("at_once", [None, 1, 5, 22, 23, 1000])
def test_a_head_that_is_run_by_chunks_learns_as_one_that_is_run_at_once(at_once: int | None) -> None:
    """A linear head whose weights the states depend on too, as where a language model's are tied."""
    draw = torch.Generator().manual_seed(0)
    start, tied = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((M, 6), (C, 6)))
    _, targets, signal = batch()

    def gradients(whole: bool) -> tuple[Tensor, list[Tensor]]:
        states, weights = start.clone().requires_grad_(), tied.clone().requires_grad_()
        said = states + weights[targets].cos()
        rows = Rows(said, targets, targets, head=lambda some: some @ weights.T)
        if whole:
            rows = Rows(said @ weights.T, targets, targets)
        total, terms = Loss({"kd": KD()}, rows_at_once=None if whole else at_once)(rows, signal, 2.0, 0.6)
        total.backward()
        assert states.grad is not None and weights.grad is not None
        return torch.stack([total.detach(), *terms.values()]).detach(), [states.grad, weights.grad]

    (value, ours), (known, theirs) = gradients(whole=False), gradients(whole=True)
    assert torch.allclose(value, known, rtol=1e-12)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


def test_logits_that_a_head_makes_are_held_a_few_rows_at_a_time() -> None:
    states, none = torch.zeros(300, 4), torch.zeros(300, dtype=torch.int64)
    rows = Rows(states, none, none, head=lambda some: some @ torch.zeros(4, 2**17))
    assert [chunk.stop - chunk.start for chunk in rows.chunks(None)] == [64, 64, 64, 64, 44]
    assert Rows(states, none, none).at_once == 300
