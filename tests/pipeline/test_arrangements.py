"""Proves that several teachers say what their weights make of them, that peers teach each other, and that chains hold."""

from __future__ import annotations

import contextlib
import copy
import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers import distill, killed, make_pictures, read_json, rows, without_times
from torch import Tensor
from torch.nn import functional as F

from distill_cli.base.runtime import sample_order
from distill_cli.config import places
from distill_cli.config.load import load
from distill_cli.data import Batch
from distill_cli.models import deployable, weights
from distill_cli.objectives.logits import kd
from distill_cli.pipeline import distillation
from distill_cli.tasks.rows import Rows
from distill_cli.teachers import answer
from distill_cli.teachers.answer import Several, Teacher
from distill_cli.teachers.joint import Joint
from distill_cli.teachers.mixture import mixture
from distill_cli.teachers.way import way_of
from distill_cli.training import job as jobs
from distill_cli.training.job import Job

# Part of every line: 24 pictures of three classes, networks of a few channels.
SMALL = [
    "dataset=image_folder",
    "dataset.root=pictures",
    "teacher=smallcnn",
    "teacher.widths=[4]",
    "teacher.fit.epochs=1",
    "student=tinycnn",
    "student.widths=[2]",
    "schedule=constant",
    "schedule.train.epochs=2",
    "optimizer.lr=0.01",
    "batch_size=5",
    "report=false",
    "threads=1",
]
SEVERAL = ["experiment=several_teachers", "model@teachers.second=smallcnn", "teachers.second.widths=[4]"]
PEERS = ["experiment=mutual", "model@teachers.peer=tinycnn", "teachers.peer.widths=[3]"]
BORN_AGAIN = ["experiment=born_again"]
ASSISTANT = ["experiment=teacher_assistant", "chain.assistant.widths=[3]"]


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "pictures", classes="abc")


def typed(*words: str, run: str = "run") -> list[str]:
    return ["train", *SMALL, *words, f"run_dir={run}"]


def train(*words: str, run: str = "run") -> int:
    """Type `distill train` on the small data."""
    return distill(*typed(*words, run=run))


def kept(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a folder: what is in it, and when it was written."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def outcome(run: Path) -> dict[str, Any]:
    """All of a run that must not depend on how often it was stopped, the weights of whoever lies in it among it."""
    models = {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*.safetensors")}
    summary = read_json(run / "summary.json")
    return {
        "models": models,
        "rows": [without_times(row) for row in rows(run)],
        "numbers": {key: summary[key] for key in ("test", "val", "best", "params")},
    }


class Taught(NamedTuple):
    job: Job
    teacher: Teacher


def taught(*words: str) -> Taught:
    """What `distill train` has in hands when training starts."""
    job = jobs.read(load("train", [*SMALL, *words]))
    way = way_of(job)
    digests = {name: one.weights for name, one in distillation.prepare_all(job, way).items()}
    return Taught(job, answer.start(job, way, digests))


def silent(batch: Batch, student: Tensor | None = None) -> Rows:
    """A student's rows on a batch, zeros unless they are told."""
    return Rows(torch.zeros(len(batch), 3) if student is None else student, batch.targets, batch.index)


def lessons(one: Taught) -> Iterator[tuple[Batch, Tensor]]:
    """Every batch of an epoch with the teachers' answer to it."""
    order = sample_order(len(one.job.data.train), 0, 1)
    for batch in one.job.data.train.batches(5, order, one.job.data.train.view_of(1)):
        yield batch, one.teacher(batch, 1.0, silent(batch)).logits()


def status(run: Path) -> str:
    return str(read_json(run / "status.json")["status"])


def softmax(z: Tensor, T: float) -> np.ndarray[Any, Any]:
    """In float64, by NumPy."""
    scaled = z.numpy().astype(np.float64) / T
    raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


# --- what several say together


@pytest.mark.parametrize("T", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("by_sample", [False, True], ids=["one weight each", "one weight a sample"])
def test_softened_a_mixture_is_the_weighted_mean_of_all_that_is_said(by_sample: bool, classes: int, T: float) -> None:
    generator = torch.Generator().manual_seed(classes)
    said = [5 * torch.randn(7, classes, generator=generator) + shift for shift in (0.0, 40.0, -3.0)]
    shares = torch.rand(3, 7, generator=generator) + 0.1 if by_sample else torch.tensor([1.0, 0.25, 3.0])
    wide = shares.double().numpy().reshape(3, -1, 1)
    expected = sum(w * softmax(z, T) for w, z in zip(wide / wide.sum(axis=0), said, strict=True))
    together = mixture(said, shares, T)
    assert together.shape == (7, classes)
    np.testing.assert_allclose(softmax(together, T), expected, rtol=2e-5, atol=1e-12)


def test_a_mixture_of_huge_logits_is_finite_and_right() -> None:
    said = [torch.tensor([[1e4, 0.0, -1e4], [0.0, 3e4, 3e4]]), torch.tensor([[-1e4, 1e4, 0.0], [5e3, 0.0, 0.0]])]
    for T in (0.1, 1.0, 10.0):
        together = mixture(said, torch.ones(2), T)
        assert together.isfinite().all()
        expected = (softmax(said[0], T) + softmax(said[1], T)) / 2
        np.testing.assert_allclose(softmax(together, T), expected, rtol=1e-2 / T, atol=1e-6)


@pytest.mark.parametrize("T", [1.0, 4.0])
def test_one_teacher_alone_is_heard_as_it_is(T: float) -> None:
    z = 3 * torch.randn(5, 10, generator=torch.Generator().manual_seed(0)) + 7
    np.testing.assert_allclose(softmax(mixture([z], torch.tensor([0.3]), T), T), softmax(z, T), rtol=1e-5)


@pytest.mark.parametrize("T", [1.0, 3.0])
@pytest.mark.parametrize("peers", [2, 4])
def test_learning_from_the_mean_of_peers_is_learning_from_each_of_them(peers: int, T: float) -> None:
    # Zhang et al., 2018, average the divergences from the peers; we diverge from the peers' average.
    generator = torch.Generator().manual_seed(peers)
    others = [4 * torch.randn(6, 10, generator=generator) for _ in range(peers)]
    own = torch.randn(6, 10, generator=generator).requires_grad_()
    ours = kd(own, mixture(others, torch.ones(peers), T), temperature=T)
    theirs = torch.stack(
        [
            T**2 * F.kl_div(F.log_softmax(own / T, 1), F.softmax(z / T, 1), reduction="batchmean")  # by hand
            for z in others
        ]
    ).mean()
    (gradient,), (expected,) = torch.autograd.grad(ours, own), torch.autograd.grad(theirs, own)
    assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-7)
    assert expected.abs().max() > 1e-2
    assert ours.item() < theirs.item() - 1e-2, "the values differ; the lesson does not"


# --- several teachers


def homes(place: Path = Path("outputs")) -> dict[str, Path]:
    """Where each teacher was prepared, by what it is called."""
    return {path.name.split("-")[1]: path for path in (place / "teachers").glob("[!.]*")}


def test_each_of_several_teachers_is_prepared_once_and_counts_by_its_weight(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*SEVERAL) == 0
    found = homes()
    assert sorted(found) == ["second", "smallcnn"]
    each = {name: read_json(home / "teacher.json")["params"] for name, home in found.items()}
    assert read_json(tmp_path / "run" / "summary.json")["params"]["teacher"] == sum(each.values())
    card = read_json(tmp_path / "run" / "model.json")
    named = {"smallcnn": card["teacher"], **card["teachers"]}
    assert {name: one["sha256"] for name, one in named.items()} == {
        name: deployable.read_card(home)["sha256"] for name, home in found.items()
    }
    before = kept(Path("outputs", "teachers"))
    capsys.readouterr()
    assert train(*SEVERAL, "teachers.second.weight=5", run="heavy") == 0
    assert capsys.readouterr().err.count("teacher: reusing") == 2
    assert kept(Path("outputs", "teachers")) == before
    one, other = (read_json(tmp_path / run / "summary.json")["test"] for run in ("run", "heavy"))
    assert one["teacher"]["nll"] != other["teacher"]["nll"]
    assert one["student"]["nll"] != other["student"]["nll"]
    assert [read_json(Path(run, "model.json"))["teachers"]["second"]["weight"] for run in ("run", "heavy")] == [1, 5]


def answer_of(one: Taught, split: str) -> tuple[list[Tensor], Tensor]:
    """What each of several teachers says about a split, and all of them together."""
    assert isinstance(one.teacher, Several)
    (batch,) = getattr(one.job.data, split).batches(10_000)
    asks = [*(member.on(split) for member in one.teacher.members), one.teacher.on(split)]
    *each, together = (ask(batch).logits() for ask in asks)
    return each, together


def test_a_student_is_shown_the_weighted_mean_at_its_own_temperature(pictures: Path) -> None:
    one = taught(*SEVERAL, "teachers.second.weight=3")
    for batch, _ in lessons(one):
        each = [member(batch, 1.0, silent(batch)).logits() for member in one.teacher.members]  # type: ignore[attr-defined]
        for T in (1.0, 5.0):
            expected = (softmax(each[0], T) + 3 * softmax(each[1], T)) / 4
            np.testing.assert_allclose(softmax(one.teacher(batch, T, silent(batch)).logits(), T), expected, rtol=1e-5)
    each, together = answer_of(one, "test")
    np.testing.assert_allclose(softmax(together, 1), (softmax(each[0], 1) + 3 * softmax(each[1], 1)) / 4, rtol=1e-5)


def test_the_best_is_the_one_surest_of_the_label_but_labels_choose_nothing_where_it_is_measured(
    pictures: Path,
) -> None:
    one = taught(*SEVERAL, "teacher.choose=best", "teachers.second.weight=3")
    chosen = set()
    for batch, said in lessons(one):
        each = [member(batch, 1.0, silent(batch)).logits() for member in one.teacher.members]  # type: ignore[attr-defined]
        for place, label in enumerate(batch.targets.tolist()):
            surest = int(np.argmax([softmax(z, 1)[place, label] for z in each]))
            assert torch.equal(said[place], each[surest][place])
            chosen.add(surest)
    assert chosen == {0, 1}
    for split in ("val", "test"):
        each, together = answer_of(one, split)
        expected = (softmax(each[0], 1) + 3 * softmax(each[1], 1)) / 4
        np.testing.assert_allclose(softmax(together, 1), expected, rtol=1e-5)


def test_two_of_one_architecture_differ_unless_their_seeds_are_made_the_same(pictures: Path) -> None:
    def nets(*words: str) -> list[dict[str, Tensor]]:
        return [model.net.state_dict() for model in taught(*SEVERAL, *words).job.teachers.values()]

    def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
        return all(torch.equal(tensor, other[name]) for name, tensor in one.items())

    (first, second), (twin, other) = nets(), nets("+teachers.second.fit.seed=0")
    assert first.keys() == second.keys()
    assert not same(first, second)
    assert same(twin, other) and same(twin, first)


def test_features_are_learnt_from_one_teacher_alone(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*SEVERAL, "objective=[hint,kd]") == 2
    said = capsys.readouterr().err
    assert "objective: hint learns from features, and so from one teacher alone" in said
    assert "objective=kd" in said
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    "words", [[*SEVERAL, "teachers.second.weight=3", "teacher.choose=best"], PEERS], ids=["several", "peers"]
)
def test_eval_finds_all_the_teachers_again(words: list[str], tmp_path: Path) -> None:
    assert train(*words) == 0
    assert distill("eval", "ckpt=run") == 0
    (found,) = (tmp_path / "run" / "eval").glob("*.json")
    summary = read_json(tmp_path / "run" / "summary.json")["test"]["student"]
    assert read_json(found)["student"] == pytest.approx(summary, abs=1e-6)
    assert summary["kl"] > 1e-6


# --- teachers that are trained along

BY_SGD = ["teacher.fit.optimizer=sgd", "teacher.fit.lr=0.1", "teacher.fit.weight_decay=0"]


@pytest.mark.parametrize("mutual", [True, False])
def test_a_peers_step_is_the_one_computed_by_hand(mutual: bool, pictures: Path) -> None:
    T = 2.0
    one = taught(*PEERS, *BY_SGD, f"teacher.mutual={mutual}")
    assert isinstance(one.teacher, Joint)
    learners = one.teacher.learners
    assert [learner.name for learner in learners] == ["teacher", "peer"]
    copies = [copy.deepcopy(learner.model).train() for learner in learners]
    (batch, *_) = one.job.data.train.batches(8, torch.arange(len(one.job.data.train)), 0)
    student = torch.randn(len(batch), 3, generator=torch.Generator().manual_seed(0))
    said = one.teacher(batch, T, silent(batch, student)).logits()

    outputs = [model(batch.inputs) for model in copies]
    fixed = [output.detach() for output in outputs]
    mean = (softmax(fixed[0], T) + softmax(fixed[1], T)) / 2
    np.testing.assert_allclose(softmax(said, T), mean, rtol=1e-4)  # as they were before the step
    for place, (model, output, learner) in enumerate(zip(copies, outputs, learners, strict=True)):
        labels = -F.log_softmax(output, 1)[torch.arange(len(batch)), batch.targets].mean()
        own = F.log_softmax(output / T, 1)
        others = [F.log_softmax(z / T, 1) for z in (student, fixed[1 - place])]
        divergences = torch.stack([(z.exp() * (z - own)).sum(1).mean() for z in others])
        parameters = list(model.parameters())
        from_labels = torch.autograd.grad(labels, parameters, retain_graph=True)
        from_peers = torch.autograd.grad(T**2 * divergences.mean(), parameters)
        assert max(gradient.abs().max().item() for gradient in from_peers) > 1e-3
        for before, now, ce, kl in zip(parameters, learner.model.parameters(), from_labels, from_peers, strict=True):
            expected = before.detach() - 0.1 * (ce + kl if mutual else ce)  # momentum has nothing to remember yet
            assert torch.allclose(now, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "words",
    [
        [*PEERS, "save_every=4"],
        [*PEERS, "teacher.mutual=false", "teacher.fit.optimizer=sgd", "save_every=3"],
    ],
    ids=["mutual", "joint"],
)
def test_peers_that_were_killed_go_on_as_if_nothing_had_been(words: list[str], tmp_path: Path) -> None:
    assert train(*words, run="whole") == 0
    killed(*typed(*words), folder="run", saves=1)
    assert status(tmp_path / "run") == "running"
    assert train(*words) == 0
    found = outcome(tmp_path / "run")
    peers = {"teacher/teacher.safetensors", "teachers/peer/teacher.safetensors"}
    assert set(found["models"]) == {"student.safetensors", *peers}
    assert found == outcome(tmp_path / "whole")


# --- chains


@pytest.fixture(scope="module")
def born_again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a chain of three students ran through; only to be read."""
    place = tmp_path_factory.mktemp("born_again")
    make_pictures(place / "pictures", classes="abc")
    with contextlib.chdir(place):
        assert train(*BORN_AGAIN, run="outputs/train/run") == 0
    return place


def taught_by(run: Path) -> str:
    return str(read_json(run / "model.json")["teacher"]["sha256"])


def test_the_links_of_a_chain_are_runs_each_taught_by_the_one_before(born_again: Path) -> None:
    run = born_again / "outputs" / "train" / "run"
    links = [run / "chain" / "first", run / "chain" / "second", run]
    assert sorted(path.name for path in (run / "chain").iterdir()) == ["first", "second"]
    for link in links:
        assert status(link) == "finished"
        assert (link / "run.json").is_file() and len(rows(link)) == 2
    assert [read_json(link / "run.json")["config"]["link"] for link in links] == ["first", "second", None]
    (teacher,) = homes(born_again / "outputs")["smallcnn"].glob("model.json")
    sha256 = [read_json(link / "model.json")["sha256"] for link in links]
    assert len(set(sha256)) == 3
    assert [taught_by(link) for link in links] == [read_json(teacher)["sha256"], *sha256[:2]]


def test_a_report_counts_a_chain_as_one_run(born_again: Path, tmp_path: Path) -> None:
    assert distill("report", str(born_again / "outputs"), "output=compared") == 0
    with (tmp_path / "compared" / "leaderboard.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    summary = read_json(born_again / "outputs" / "train" / "run" / "summary.json")
    assert any(value == f"{summary['test']['student']['accuracy']}"[: len(value)] for value in row.values() if value)


def test_a_link_is_evaluated_like_any_run(born_again: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(born_again)
    link = Path("outputs", "train", "run", "chain", "second")
    assert distill("eval", f"ckpt={link}") == 0
    (found,) = (link / "eval").glob("*.json")
    assert read_json(found)["student"] == pytest.approx(read_json(link / "summary.json")["test"]["student"], abs=1e-6)


def test_a_chain_killed_in_its_second_link_is_gone_on_with_from_there(born_again: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    killed(*typed(*BORN_AGAIN), folder="second", saves=1)
    assert status(run / "chain" / "first") == "finished" and not (run / "chain" / "second" / "summary.json").exists()
    before = kept(run / "chain" / "first")
    assert distill("resume", "run") == 0
    assert kept(run / "chain" / "first") == before
    assert [status(link) for link in (run, run / "chain" / "second")] == ["finished", "finished"]
    assert outcome(run) == outcome(born_again / "outputs" / "train" / "run")


def test_a_link_is_gone_on_with_alone_and_then_the_chain(tmp_path: Path) -> None:
    assert train(*ASSISTANT, run="whole") == 0
    killed(*typed(*ASSISTANT), folder="assistant", saves=1)
    link = tmp_path / "run" / "chain" / "assistant"
    assert distill("resume", "run/chain/assistant") == 0
    assert status(link) == "finished" and not (tmp_path / "run" / "summary.json").exists()
    before = kept(link)
    assert distill("resume", "run") == 0
    assert kept(link) == before
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_finished_chain_needs_its_links_no_more(
    born_again: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(born_again / "outputs" / "train" / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "chain")
    assert train(*BORN_AGAIN) == 0
    assert "holds this run, finished" in capsys.readouterr().err
    assert not (tmp_path / "run" / "chain").exists()


def test_a_link_whose_teacher_is_not_finished_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*BORN_AGAIN, "link=second", run="run/chain/second") == 4
    said = capsys.readouterr().err
    assert f"{Path('run', 'chain', 'first')} is not finished: it is the teacher of this link" in said
    assert "runs the whole chain" in said
    assert train(*BORN_AGAIN, "link=first", run="run/chain/first") == 0
    assert train(*BORN_AGAIN, "link=second", run="run/chain/second") == 0
    assert taught_by(tmp_path / "run" / "chain" / "second") == deployable.read_card(Path("run/chain/first"))["sha256"]


def test_a_link_that_is_not_there_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*BORN_AGAIN, "link=nope") == 2
    assert "link: there is no link 'nope' in the chain; links: first, second" in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_generation_is_taken_out(born_again: Path, tmp_path: Path) -> None:
    assert train(*BORN_AGAIN, "~chain.second") == 0
    run, whole = tmp_path / "run", born_again / "outputs" / "train" / "run"
    assert [path.name for path in (run / "chain").iterdir()] == ["first"]
    assert taught_by(run) == taught_by(whole / "chain" / "second") != taught_by(whole)


def test_generations_start_from_weights_of_their_own_and_the_student_from_those_of_its_seed(tmp_path: Path) -> None:
    untrained = ["schedule.train.epochs=1", "optimizer.lr=1e-30"]
    assert train(*BORN_AGAIN, *untrained) == 0
    assert train(*untrained, run="alone") == 0
    chain = Path("run", "chain")
    first, second, student, alone = (
        weights.read_weights(run / "student.safetensors")["fc.weight"]
        for run in (chain / "first", chain / "second", Path("run"), Path("alone"))
    )
    assert torch.equal(student, alone)
    assert not any(torch.equal(a, b) for a, b in ((first, second), (first, student), (second, student)))


def test_the_assistant_is_another_network_when_it_is_told_so(tmp_path: Path) -> None:
    assert train("experiment=teacher_assistant", "model@chain.assistant=tinycnn", "schedule.train.epochs=1") == 0
    run = tmp_path / "run"
    assert read_json(run / "chain" / "assistant" / "model.json")["model"]["widths"] == [8, 16]
    params = read_json(run / "chain" / "assistant" / "summary.json")["params"]["student"]
    assert read_json(run / "summary.json")["params"]["teacher"] == params


# --- what cannot be


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["teacher.mutual=true"], "teacher.mutual: only a teacher that is trained along learns from the student"),
        (["+model@teachers.teacher=tinycnn"], "teachers.teacher: this name belongs to `teacher=`"),
        ([*SEVERAL, "+teachers.second.joint=true"], "teachers: some are trained along and some are not"),
        ([*SEVERAL, "teacher.joint=true", "+teachers.second.joint=false"], "teachers: some are trained along"),
        ([*SEVERAL, "teachers.second.weight=0"], "teachers.second.weight: must be greater than 0, got 0"),
        ([*SEVERAL, "+teachers.second.fit.seed=-1"], "teachers.second.fit.seed: must be at least 0, got -1"),
        ([*PEERS, "teacher.choose=best"], "teacher.choose: best needs teachers with teacher.joint=false"),
        ([*SEVERAL, "teacher.choose=worst"], "teacher.choose: no choice called 'worst'; choices: mean, best"),
        (["+chain.a=3"], "chain.a: should be a mapping of keys, got 3"),
        (["link=first"], "link: there is no link 'first' in the chain; there is no chain"),
        (["teacher.joint=true", "teacher.checkpoint=x"], "so it takes no teacher.checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_arranged_is_said_and_nothing_is_written(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*words) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
    assert not Path("run").exists() and not Path("outputs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*SEVERAL, "+teachers.second.checkpiont=x"], "teachers.second.checkpiont: SmallCNN takes no such key"),
        ([*ASSISTANT, "+chain.assistant.widhts=[3]"], "widhts: SmallCNN takes no such key"),
    ],
    ids=["teacher", "link"],
)
def test_a_misspelt_key_is_named(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*words) == 2
    assert said in capsys.readouterr().err
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    "word",
    ["teacher.fit.seed=abc", "teacher.fit=3", "+teachers.second.fit=3", "teachers.second=null", "teachers.second=5"],
)
def test_values_of_another_kind_are_no_traceback(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("experiment=several_teachers", word) == 2
    said = capsys.readouterr().err
    assert f"{word.lstrip('+').partition('=')[0]}: should be" in said and "Traceback" not in said


def test_a_changed_setting_is_refused_in_the_middle_of_a_chain_and_nothing_is_touched(tmp_path: Path) -> None:
    killed(*typed(*BORN_AGAIN), folder="second", saves=1)
    before = (tmp_path / "run" / "run.json").read_bytes()
    assert distill("resume", "run", "T=5") == 4
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    assert distill("resume", "run") == 0


@pytest.mark.parametrize(
    "words",
    [["experiment=teacher_assistant", "model@chain.assistant=tinycnn"], PEERS],
    ids=["another assistant", "another peer"],
)
def test_what_was_started_with_another_model_of_ours_is_resumed(words: list[str]) -> None:
    assert train(*words, "schedule.train.epochs=1") == 0
    assert distill("resume", "run") == 0


def test_teachers_that_are_mixed_or_learn_from_the_student_use_the_temperature_whatever_the_objective(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mutual = ["teacher.joint=true", "teacher.mutual=true"]
    for words, idle in ((SEVERAL, False), ([*SEVERAL, "teacher.choose=best"], True), (mutual, False)):
        assert train(*words, "objective=logit_mse", "T=5", run=words[-1].replace("=", "-")) == 0
        assert ("T has no effect" in capsys.readouterr().err) == idle


def test_how_the_first_teacher_is_fitted_is_not_called_idle(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*ASSISTANT, "teacher.fit.lr=0.01", "schedule.train.epochs=1") == 0
    assert "has no effect" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [*PEERS, "+teachers.peer.checkpoint=x"],
        [*SEVERAL, "+teachers.second.mean=[0.5,0.5,0.5]"],
        [*SEVERAL, "+teachers.second.mutual=true"],
    ],
    ids=["joint, checkpoint", "mean, std", "mutual, not joint"],
)
def test_what_the_first_teacher_may_not_be_no_other_may(words: list[str]) -> None:
    assert train(*words, "schedule.train.epochs=1") == 2


# --- the recipes

# Links, further teachers, and whether the teacher is trained along and learns from its student; of others, nothing.
ARRANGED: dict[str, tuple[list[str], list[str], tuple[bool, bool]]] = {
    "born_again": (["first", "second"], [], (False, False)),
    "teacher_assistant": (["assistant"], [], (False, False)),
    "several_teachers": ([], ["second"], (False, False)),
    "joint_teacher": ([], [], (True, False)),
    "seed_example": ([], [], (True, False)),
    "mutual": ([], ["peer"], (True, True)),
}


@pytest.mark.parametrize("name", sorted(places.group_files("experiment")))
def test_a_recipe_arranges_what_it_says(name: str) -> None:
    settings = load("train", [f"experiment={name}"])
    along = (settings.teacher.joint, settings.teacher.mutual)
    assert (list(settings.chain), list(settings.teachers), along) == ARRANGED.get(name, ([], [], (False, False)))
