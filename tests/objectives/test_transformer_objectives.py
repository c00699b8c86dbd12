"""Proves the objectives on a transformer's insides against plain loops and the library's own attention, whatever is padded,
and that they find their modules in encoders and decoders alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distill_cli.base.errors import ConfigError
from distill_cli.data.texts import TextSpec
from distill_cli.data.tokens import Tokenizer
from distill_cli.models import Classifier
from distill_cli.models.features import Tap, shapes
from distill_cli.models.huggingface import fresh
from distill_cli.models.stack import attention_of, evenly, layers_of
from distill_cli.objectives import Objective, attention_map, hidden, relation
from distill_cli.objectives.relating import AttentionMap, Relation
from distill_cli.objectives.relations import RKD, Similarity
from distill_cli.objectives.transformer import Embedding, Hidden
from distill_cli.tasks.rows import Dense, Rows

TOKENIZER = Tokenizer.made_from(["a fine day", "a fine night"])
PRESENT = torch.tensor([[True] * 4, [True, True, False, False], [True, True, True, False]])
FAMILIES = ["bert", "distilbert", "gpt2"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def real(sample: int) -> int:
    return int(PRESENT[sample].sum())


# The formulas once more, in loops over samples, positions and heads.


def hidden_by_loops(s: Tensor, t: Tensor) -> float:
    places = [(n, i) for n in range(len(s)) for i in range(real(n))]
    return float(np.mean([np.mean((s[n, i].numpy() - t[n, i].numpy()) ** 2) for n, i in places]))


def cosine_by_loops(s: Tensor, t: Tensor) -> float:
    places = [(n, i) for n in range(len(s)) for i in range(real(n))]
    return float(np.mean([1 - s[n, i] @ t[n, i] / (s[n, i].norm() * t[n, i].norm()) for n, i in places]))


def head_of(x: Tensor, head: int, heads: int) -> np.ndarray:
    width = x.shape[-1] // heads
    return x[..., head * width : (head + 1) * width].numpy()


def attention_by_loops(qs: Tensor, ks: Tensor, qt: Tensor, kt: Tensor, heads: int) -> float:
    def score(q: Tensor, k: Tensor, n: int, h: int, i: int, j: int) -> float:
        a, b = head_of(q, h, heads)[n, i], head_of(k, h, heads)[n, j]
        return float(a @ b / math.sqrt(len(a)))

    found = [
        (score(qs, ks, n, h, i, j) - score(qt, kt, n, h, i, j)) ** 2
        for n in range(len(qs))
        for h, i, j in product(range(heads), range(real(n)), range(real(n)))
    ]
    return float(np.mean(found))


def relation_by_loops(s: Tensor, t: Tensor, heads: int) -> float:
    def row(x: Tensor, n: int, h: int, i: int) -> np.ndarray:
        part = head_of(x, h, heads)[n]
        powers = np.exp([part[i] @ part[j] / math.sqrt(part.shape[-1]) for j in range(real(n))])
        return np.asarray(powers / powers.sum())

    found = []
    for n in range(len(s)):
        for h, i in product(range(heads), range(real(n))):
            p, q = row(t, n, h, i), row(s, n, h, i)
            found.append(np.sum(p * np.log(p / q)))
    return float(np.mean(found))


def test_functions_are_their_formulas_over_what_is_no_padding() -> None:
    s, t, narrow = draw(3, 4, 8), draw(3, 4, 8, seed=1), draw(3, 4, 4, seed=2)
    assert hidden([s], [t], PRESENT).item() == pytest.approx(hidden_by_loops(s, t), rel=1e-9)
    assert hidden([s], [t], PRESENT, "cosine").item() == pytest.approx(cosine_by_loops(s, t), rel=1e-9)
    for heads in (1, 2, 4):
        found = relation([s, narrow], [t, t], PRESENT, heads).item()
        assert found == pytest.approx(relation_by_loops(s, t, heads) + relation_by_loops(narrow, t, heads), rel=1e-9)
        found = attention_map([s, t], [t, s * 2], PRESENT, (heads, heads)).item()
        assert found == pytest.approx(attention_by_loops(s, t, t, s * 2, heads), rel=1e-9)
    # A Patient-KD term, |s/|s| - t/|t||^2, is twice the distance of directions.
    units = [x[:, 0] / x[:, 0].norm(dim=-1, keepdim=True) for x in (s, t)]
    patient = (units[0] - units[1]).square().sum(-1).mean()
    assert 2 * hidden([s[:, :1]], [t[:, :1]], distance="cosine").item() == pytest.approx(patient.item(), rel=1e-9)


def test_worked_by_hand() -> None:
    ones, twos = torch.ones(1, 2, 2), torch.full((1, 2, 2), 2.0)
    assert hidden([ones], [3 * ones]).item() == 4
    assert hidden([ones], [-ones], distance="cosine").item() == pytest.approx(2)
    # Scores of one head are 2 * 1 / sqrt(2) and 2 * 2 / sqrt(2): their difference squared is 2. Of two heads of width 1: 1.
    assert attention_map([ones, ones], [twos, ones]).item() == pytest.approx(2)
    assert attention_map([ones, ones], [twos, ones], heads=(2, 2)).item() == pytest.approx(1)
    # By means over heads: 2 / sqrt(2) against a mean of 2.
    assert attention_map([ones, ones], [twos, ones], heads=(1, 2)).item() == pytest.approx((2 - math.sqrt(2)) ** 2)
    # Positions (1), (0): rows of the teacher e/(e+1), 1/(e+1) and 1/2, 1/2; the student's vectors are 0, its rows even.
    p = math.e / (math.e + 1)
    expected = (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))) / 2
    assert relation([torch.zeros(1, 2, 1)], [torch.tensor([[[1.0], [0.0]]])]).item() == pytest.approx(
        expected, rel=1e-6
    )


CALLS: dict[str, Callable[..., Tensor]] = {
    "hidden": lambda s, t, present=None: hidden([s], [t], present),
    "cosine": lambda s, t, present=None: hidden([s], [t], present, "cosine"),
    "attention_map": lambda s, t, present=None: attention_map([s, s.flip(-1)], [t, t.flip(-1)], present, (2, 2)),
    "causal": lambda s, t, present=None: attention_map([s, s.flip(-1)], [t, t.flip(-1)], present, (2, 2), causal=True),
    "relation": lambda s, t, present=None: relation([s], [t], present, 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_padding_is_left_out_gradients_are_the_values_and_equals_have_nothing_to_learn(name: str) -> None:
    call, s, t = CALLS[name], draw(3, 4, 8).requires_grad_(), draw(3, 4, 8, seed=1)
    wide_s, wide_t = (torch.cat([x.detach(), draw(3, 2, 8, seed=3) * 1e3], 1) for x in (s, t))
    wider = torch.nn.functional.pad(PRESENT, (0, 2))
    assert call(wide_s, wide_t, wider).item() == pytest.approx(call(s, t, PRESENT).item(), rel=1e-12)
    assert call(s, t).item() != pytest.approx(call(s, t, PRESENT).item(), rel=1e-3)
    assert torch.autograd.gradcheck(lambda x: call(x, t, PRESENT), s, fast_mode=True)
    assert torch.autograd.grad(call(s, t, PRESENT), s)[0][~PRESENT].abs().max().item() == 0
    assert call(s, s.detach(), PRESENT).item() == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match=r"should be \(N, L, D\) of one N and L"):
        call(draw(3, 8), draw(3, 8))
    with pytest.raises(ValueError, match=r"present should be bools \(3, 4\)"):
        call(s, t, PRESENT.long())


def model(family: str = "bert", layers: int = 2, width: int = 16, heads: int = 2, **more: Any) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = fresh(4, TOKENIZER.size, TOKENIZER.pad, family, layers, width, heads, **more)  # type: ignore[arg-type]
    return Classifier(net, TextSpec(TOKENIZER, 16)).eval()


def batch(more: int = 0) -> dict[str, Tensor]:
    ids = torch.nn.functional.pad(torch.tensor([[2, 5, 6, 3, 4], [2, 7, 3, 0, 0], [2, 8, 9, 3, 0]]), (0, more))
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def term(objective: Objective, student: Classifier, teacher: Classifier, more: int = 0) -> float:
    """What a connected objective says of two models on a batch that is so many positions wider than it need be."""
    inputs = batch(more)
    with (
        torch.no_grad(),
        Tap(student.net, objective.student_layers) as one,
        Tap(teacher.net, objective.teacher_layers) as two,
    ):
        ours, theirs = one(student, inputs), two(teacher, inputs)
        present, none = student.spec.present(inputs), torch.zeros(3, dtype=torch.int64)
        rows = Rows(ours.logits, none, none, ours.features, present)
        return objective(rows, Dense(theirs.logits, theirs.features), 1.0).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_the_librarys_own_before_its_softmax(family: str) -> None:
    teacher = model(family, attention="eager")
    objective, inputs = AttentionMap(), batch()
    objective.connect(teacher, teacher, None)  # type: ignore[arg-type]
    with torch.no_grad(), Tap(teacher.net, objective.teacher_layers) as tap:
        vectors = objective.vectors(tap(teacher, inputs).features, 1)
        attentions = teacher.net.model(**inputs, output_attentions=True).attentions  # type: ignore[operator]
    assert len(attentions) == 2
    for number, expected in enumerate(attentions):
        q, k = (x.unflatten(-1, (2, -1)).transpose(1, 2) for x in vectors[2 * number : 2 * number + 2])
        scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~inputs["attention_mask"].bool()[:, None, None], -1e9)
        if family == "gpt2":
            scores = scores.masked_fill(~torch.ones(5, 5).tril().bool(), -1e9)
        assert torch.allclose(scores.softmax(-1)[0], expected[0], atol=1e-6)
        assert torch.allclose(scores.softmax(-1)[1, :, :3], expected[1, :, :3], atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [Hidden, Embedding, AttentionMap, Relation, RKD, Similarity])
def test_any_family_teaches_any_under_sdpa_whatever_is_padded(kind: type[Objective], family: str) -> None:
    torch.manual_seed(0)
    for other, layers, width, heads in (("bert", 4, 32, 4), ("gpt2", 1, 24, 3), ("distilbert", 2, 20, 2)):
        objective, student, teacher = kind(), model(family), model(other, layers, width, heads)
        objective.connect(student, teacher, None)  # type: ignore[arg-type]
        found = term(objective, student, teacher)
        assert found > 0
        assert term(objective, student, teacher, more=3) == pytest.approx(found, rel=1e-4, abs=1e-9)
    objective = kind()
    objective.connect(model(family), model(family), None)  # type: ignore[arg-type]
    assert term(objective, model(family), model(family)) == pytest.approx(0, abs=1e-5)


def test_layers_are_matched_evenly_last_or_as_listed() -> None:
    def matched(layers: Any, ours: int, theirs: int) -> list[tuple[str, str]]:
        objective = Hidden(layers=layers)
        label, text = objective.connect(model(layers=ours), model("distilbert", theirs), None)  # type: ignore[arg-type]
        assert label == "hidden" and text.count("→") == len(objective.student_layers)
        pairs = zip(objective.student_layers, objective.teacher_layers, strict=True)
        return [(one.rpartition(".")[2], other.rpartition(".")[2]) for one, other in pairs]

    assert matched("auto", 2, 4) == [("0", "1"), ("1", "3")]
    assert matched("auto", 3, 6) == [("0", "1"), ("1", "3"), ("2", "5")]
    assert matched("auto", 4, 2) == [("1", "0"), ("3", "1")]
    assert matched("last", 3, 5) == [("2", "4")]
    assert matched([[0, 3], [1, 0]], 2, 4) == [("0", "3"), ("1", "0")]
    assert evenly(6, 12) == [1, 3, 5, 7, 9, 11]
    for odd in ([[0]], [[0, -1]], []):
        with pytest.raises(ConfigError, match="layers: should be auto, last or pairs of numbers"):
            Hidden(layers=odd)
    with pytest.raises(ConfigError, match=r"objective\.hidden\.layers: the teacher has layers 0 to 3, not 4"):
        matched([[0, 4]], 2, 4)


def test_widths_and_heads_may_differ_and_the_header_says_what_follows() -> None:
    student, teacher = model(width=24, heads=3), model(width=32, heads=4)
    wider, alike = Hidden(), Hidden()
    wider.connect(student, teacher, None)  # type: ignore[arg-type]
    alike.connect(student, student, None)  # type: ignore[arg-type]
    assert sum(p.numel() for p in wider.parameters()) == 2 * (24 * 32 + 32) and not list(alike.parameters())
    assert "means over 3 and 4 heads" in AttentionMap().connect(student, teacher, None)[1]  # type: ignore[arg-type]
    found = Relation()
    assert found.connect(student, teacher, None)[1].endswith("; 8 relation heads")  # type: ignore[arg-type]
    assert len(found.student_layers) == 3 and found.student_layers[0].endswith("layer.1.attention.self.query")
    with pytest.raises(ConfigError, match=r"objective\.relation\.heads: 16 cannot share out a width of 24"):
        Relation(heads=16).connect(student, teacher, None)  # type: ignore[arg-type]


def test_decoders_attend_to_what_came_before_alone() -> None:
    decoder = model("gpt2")
    path = layers_of(decoder, shapes(decoder), "student")[0]
    attention = attention_of(decoder, shapes(decoder), path, "student")
    assert attention.causal and attention.together and attention.heads == 2
    q, k = draw(1, 3, 4), draw(1, 3, 4, seed=1)
    zero, expected = torch.zeros(1, 3, 4, dtype=torch.float64), (q @ k.mT / 2)[0].square()
    below = [expected[i, j].item() for i in range(3) for j in range(i + 1)]
    assert attention_map([zero, zero], [q, k], causal=True).item() == pytest.approx(np.mean(below), rel=1e-9)
