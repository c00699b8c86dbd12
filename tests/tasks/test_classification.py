"""Proves a classifier's metrics against scikit-learn, numpy and a direct loop, however the rows come, and that the pass
over a split leaves no trace in the model.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import picture_split, pictures_in
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    matthews_corrcoef,
    precision_recall_fscore_support,
)
from torch import Tensor, nn

from distill_cli.data import UNKNOWN, Data, PictureSpec, Split
from distill_cli.models import Classifier, inference
from distill_cli.tasks import classification, scores
from distill_cli.tasks import task as tasks
from distill_cli.tasks.classification import ClassificationMeter
from distill_cli.tasks.rows import Dense, Rows

N, K = 200, 6


def drawn(absent: int | None = None, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """Student's logits, teacher's logits and labels; the class `absent` is neither a label nor ever decided."""
    draw = torch.Generator().manual_seed(3)
    student, teacher = (scale * torch.randn(N, K, generator=draw) for _ in range(2))
    labels = torch.randint(0, K, (N,), generator=draw)
    # Helped a little toward the truth, so that no score is at chance.
    student[torch.arange(N), labels] += 1.5
    if absent is not None:
        labels = torch.where(labels == absent, (absent + 1) % K, labels)
        student[:, absent] = -30.0
    return student, teacher, labels


def probabilities(logits: Tensor) -> np.ndarray:
    powers = np.exp(logits.double().numpy() - logits.double().numpy().max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def meter(student: Tensor, labels: Tensor, teacher: Tensor | None = None, at_once: int = N) -> ClassificationMeter:
    """A meter that has seen the rows in batches of `at_once`."""
    filled = ClassificationMeter(student.shape[1])
    for index in torch.arange(len(labels)).split(at_once):
        signal = None if teacher is None else Dense(teacher[index])
        filled.update(Rows(student[index], labels[index], index), signal)
    return filled


def measure(student: Tensor, labels: Tensor, teacher: Tensor | None = None) -> dict[str, float]:
    return meter(student, labels, teacher).compute()


@pytest.mark.parametrize("at_once", [1, 7, N])
def test_however_the_rows_come_the_metrics_are_the_same(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, labels = drawn()
    whole = measure(student, labels, teacher)
    monkeypatch.setattr(classification, "CELLS", 3 * K)  # so that each batch is cut too
    assert meter(student, labels, teacher, at_once).compute() == whole


def test_two_meters_merged_are_one_that_saw_it_all() -> None:
    student, teacher, labels = drawn()
    first, second = (meter(student[part], labels[part], teacher[part]) for part in (slice(0, 60), slice(60, N)))
    first.merge(second)
    assert first.compute() == measure(student, labels, teacher)


@pytest.mark.parametrize("absent", [None, 2, K - 1])
def test_measure_agrees_with_scikit_learn_and_numpy(absent: int | None) -> None:
    student, teacher, labels = drawn(absent)
    found = measure(student, labels, teacher)
    p_s, p_t, decided = probabilities(student), probabilities(teacher), student.argmax(1)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, decided))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, decided))
    assert found["f1"] == pytest.approx(f1_score(labels, decided, average="macro"))
    assert found["nll"] == pytest.approx(log_loss(labels, p_s, labels=range(K)))
    assert found["kl"] == pytest.approx((p_t * np.log(p_t / p_s)).sum(axis=1).mean())
    assert found["agreement"] == pytest.approx((p_s.argmax(axis=1) == p_t.argmax(axis=1)).mean())


def test_f1_averages_the_classes_that_occur() -> None:
    # By hand: classes 0 and 1 occur, class 2 neither as label nor as decision. F1 is 2/3 and 4/5.
    logits = torch.eye(3)[torch.tensor([0, 1, 1, 1])]
    labels = torch.tensor([0, 0, 1, 1])
    assert measure(logits, labels)["f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_two_classes_have_matthews_correlation_as_scikit_learn_has_it() -> None:
    student, _, labels = drawn()
    student, labels = student[:, :2], labels.clamp(max=1)
    assert measure(student, labels)["mcc"] == pytest.approx(matthews_corrcoef(labels, student.argmax(1)))
    assert measure(torch.tensor([[1.0, 0.0]] * 3), torch.tensor([0, 1, 1]))["mcc"] == 0  # one class is decided for
    assert measure(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 0]))["mcc"] == pytest.approx(-1)


def test_fidelity_is_there_only_with_a_teacher() -> None:
    student, teacher, labels = drawn()
    alone = {"accuracy", "balanced_accuracy", "f1", "nll", "ece"}
    assert set(measure(student, labels)) == alone
    assert set(measure(student, labels, teacher)) == {*alone, "kl", "agreement"}


def test_kl_is_directed_from_the_teacher() -> None:
    student, teacher, labels = drawn()
    assert measure(student, labels, student)["kl"] == pytest.approx(0.0, abs=1e-12)
    there, back = (measure(a, labels, b)["kl"] for a, b in ((student, teacher), (teacher, student)))
    assert there != pytest.approx(back, rel=1e-3)


def test_confident_mistakes_give_finite_numbers() -> None:
    found = measure(torch.tensor([[1e4, 0.0]]), torch.tensor([1]), torch.tensor([[0.0, 1e4]]))
    assert found["nll"] == pytest.approx(1e4)
    assert found["kl"] == pytest.approx(1e4)
    assert found["ece"] == pytest.approx(1.0)


@pytest.mark.parametrize("scale", [0.3, 2.0, 20.0])
def test_calibration_error_agrees_with_a_direct_loop(scale: float) -> None:
    student, _, labels = drawn(scale=scale)
    p = probabilities(student)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels.numpy()
    expected = 0.0
    for low in range(15):
        inside = (confidence >= low / 15) & ((confidence < (low + 1) / 15) | (low == 14))
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert measure(student, labels)["ece"] == pytest.approx(expected, abs=1e-9)


def test_calibration_error_worked_by_hand() -> None:
    # Four at 0.9 of which three are right, in one bin: |0.9 - 0.75|; one at 0.6 and right: |0.6 - 1|.
    confidence = torch.tensor([0.9] * 4 + [0.6], dtype=torch.float64)
    found = scores.calibration_error(confidence, torch.tensor([1.0, 1, 1, 0, 1], dtype=torch.float64))
    assert found.item() == pytest.approx(4 / 5 * 0.15 + 1 / 5 * 0.4)


@pytest.mark.parametrize("absent", [None, 2])
def test_scores_by_class_agree_with_scikit_learn(absent: int | None) -> None:
    student, _, labels = drawn(absent)
    found = scores.per_class(labels, student.argmax(1), K)
    expected = precision_recall_fscore_support(labels, student.argmax(1), labels=range(K), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert found[name] == pytest.approx(values.tolist())
    if absent is not None:
        assert found["support"][absent] == found["f1"][absent] == 0


@pytest.mark.parametrize(("decided", "warned"), [([0] * 10, True), ([0] * 7 + [1, 2, 2], False), ([2, 1] * 5, True)])
def test_a_teacher_at_chance_is_told_whatever_the_classes_share(decided: list[int], warned: bool) -> None:
    labels = torch.tensor([0] * 8 + [1, 2])  # naming class 0 always is right on 80 %, and knows nothing
    split = picture_split(torch.zeros(10, 1, 6, 6, dtype=torch.uint8), labels)
    task = tasks.of(Data(split, split, split, ("a", "b", "c"), "", ""))
    assert bool(task.suspicious(Rows(torch.eye(3)[torch.tensor(decided)], labels, torch.arange(10)), "abc")) == warned


def test_a_teacher_whose_classes_are_in_another_order_is_told_which(number: int = 60) -> None:
    labels = torch.arange(number) % 6
    split = picture_split(torch.zeros(number, 1, 6, 6, dtype=torch.uint8), labels)
    task = tasks.of(Data(split, split, split, ("0", "1", "10", "2", "3", "big one"), "", ""))
    said = torch.tensor([0, 1, 3, 4, 2, 5])[labels]  # its third answer is what the data's fifth class is, and so on
    said[::7] = 0  # wrong now and then

    def told(decided: Tensor) -> str:
        return task.suspicious(Rows(torch.eye(6)[decided], labels, torch.arange(number)), task.data.classes)

    warning = told(said)
    assert "is 45.0%; it would be 88.3%" in warning and "2 means 10, 3 means 2, 10 means 3" in warning
    assert warning.endswith("""'teacher.classes=[0,1,3,10,2,"big one"]'""")
    assert not told(labels)
    noise = torch.randint(0, 6, (number,), generator=torch.Generator().manual_seed(0))
    assert "means" not in told(noise)
    assert not told(torch.where(torch.arange(number) % 2 == 0, labels, noise))  # a weak one, in the right order


def one_hot(decisions: list[int]) -> Tensor:
    return torch.eye(2)[torch.tensor(decisions)]


def test_paired_difference_worked_by_hand() -> None:
    # Ten samples, all of class 1. Ours alone is right on 4 of them, theirs alone on 1, both on 3, neither on 2.
    ours, theirs = [1] * 4 + [0] + [1] * 3 + [0] * 2, [0] * 4 + [1] + [1] * 3 + [0] * 2
    labels = torch.ones(10, dtype=torch.int64)
    difference, half = meter(one_hot(ours), labels).difference(meter(one_hot(theirs), labels))
    assert difference == pytest.approx(0.3)
    # (4 + 1 - 3^2 / 10) / 10^2 = 0.041
    assert half == pytest.approx(1.96 * 0.041**0.5)


def test_paired_difference_is_the_spread_of_the_differences() -> None:
    student, teacher, labels = drawn()
    difference, half = meter(student, labels).difference(meter(teacher, labels))
    each = (student.argmax(1) == labels).double() - (teacher.argmax(1) == labels).double()
    assert difference == pytest.approx(each.mean().item())
    assert half == pytest.approx(1.96 * each.std(unbiased=False).item() / N**0.5)
    back = meter(teacher, labels).difference(meter(student, labels))
    assert back == pytest.approx((-difference, half))


def test_equal_decisions_differ_by_nothing() -> None:
    student, _, labels = drawn()
    assert meter(student, labels).difference(meter(3 * student, labels)) == (0.0, 0.0)


def noisy() -> tuple[Classifier, Split]:
    """A model that draws random numbers and moves its statistics when it trains, and pictures for it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 4))
    pictures = torch.randint(0, 256, (11, 1, 6, 6), dtype=torch.uint8)
    return Classifier(net, PictureSpec(1, (6, 6), (0.5,), (0.5,))), picture_split(
        pictures, torch.arange(11) % 4, mean=0.5, std=0.5
    )


def logits_of(model: Classifier, split: Split, batch_size: int) -> Tensor:
    return torch.cat([output.logits for _, output in inference.outputs(model, split, batch_size)])


@pytest.mark.parametrize("training", [True, False])
def test_asking_for_logits_leaves_mode_weights_and_randomness_alone(training: bool) -> None:
    model, split = noisy()
    model.train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    logits_of(model, split, 4)
    assert [module.training for module in model.modules()] == [training] * len(list(model.modules()))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())


def test_logits_are_of_eval_mode_in_the_splits_order_whatever_the_batch_size() -> None:
    model, split = noisy()
    model.train()
    whole, cut = logits_of(model, split, 64), logits_of(model, split, 4)
    assert whole.shape == (11, 4) and whole.dtype == torch.float32
    assert torch.allclose(whole, cut, atol=1e-6)
    model.eval()
    with torch.no_grad():
        direct = model((pictures_in(split)[7:8].float() / 255 - 0.5) / 0.5)
    assert torch.allclose(whole[7], direct[0], atol=1e-5)


def test_logits_can_enter_a_loss_later() -> None:
    model, split = noisy()
    logits = logits_of(model, split, 4)
    weight = torch.ones(4, requires_grad=True)
    (logits * weight).sum().backward()
    assert weight.grad is not None


def test_rows_without_a_target_count_for_fidelity_alone() -> None:
    student, teacher, labels = drawn()
    known = torch.arange(N) % 3 > 0
    found = measure(student, labels.where(known, UNKNOWN), teacher)
    whole, some = measure(student, labels, teacher), measure(student[known], labels[known])
    assert found == {**some, "kl": whole["kl"], "agreement": whole["agreement"]}
    assert measure(student, torch.full_like(labels, UNKNOWN), teacher).keys() == {"kl", "agreement"}
