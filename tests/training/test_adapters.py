"""Proves that adapters learn in a model's place, that they leave no trace but merged weights, and that killed runs go on."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import QUICK, distill, goes_on_as_undisturbed, killed, make_documents, make_texts, read_json, rows

from distill_cli.config.schema import Lora
from distill_cli.data.blocks import LanguageSpec
from distill_cli.data.vocabulary import Bytes
from distill_cli.models import Classifier, adapters
from distill_cli.models.deployable import Deployable
from distill_cli.models.huggingface import fresh
from distill_cli.models.weights import read_weights

SIZES = ["layers=1", "width=16", "heads=2", "inner=16"]
SMALL = [f"{role}.{size}" for role in ("teacher", "student") for size in SIZES]
COMMON = ["T=1", "schedule=constant", "schedule.train.epochs=2", "optimizer.lr=0.01", "report=false", "threads=1"]
LANGUAGE = [
    *("dataset=language", "dataset.root=texts", "dataset.separator=\\n\\n", "dataset.length=32", "batch_size=4"),
    *("teacher=bytes_tiny", "student=bytes_tiny", *SMALL, "teacher.fit.epochs=1", *COMMON),
]
TEXTS = [
    *("dataset=text", "dataset.root=texts", "dataset.max_length=24", "batch_size=8"),
    *("teacher=words_tiny", "student=bert", *SMALL, "teacher.fit.epochs=1", *COMMON),
]


def model_of(family: Any = "llama", **sizes: Any) -> Classifier:
    """A language model of bytes in eval mode, whose adapters have learnt something that is no small change."""
    net = fresh(257, 257, 256, family, layers=2, width=16, inner=32, head="tokens", **sizes)
    return Classifier(net, LanguageSpec(Bytes(), 16)).eval()


@pytest.mark.parametrize(
    ("family", "how"),
    [
        ("llama", {"rank": 4, "dropout": 0.1}),
        ("gpt2", {"rank": 2}),
        ("llama", {"rank": 3, "targets": ["down_proj"], "alpha": 9.0}),
    ],
)
def test_merged_answers_as_adapted_and_nothing_else_has_moved(family: str, how: dict[str, Any]) -> None:
    model = model_of(family)
    inputs = model.spec.example(3)
    before, plain = copy.deepcopy(model.net.state_dict()), model(inputs)
    adapters.put_in(model, Lora(**how), 0, "student.lora")
    assert torch.equal(model(inputs), plain), "they begin as nothing"
    learnt = {name for name, one in model.net.named_parameters() if one.requires_grad}
    assert learnt == set(adapters.learnt(model.net)) and all(".lora_" in name for name in learnt)
    optimizer = torch.optim.SGD([one for one in model.net.parameters() if one.requires_grad], lr=1.0)
    for _ in range(3):
        model(inputs).square().sum().backward()
        optimizer.step()
    adapted = model(inputs)
    assert (adapted - plain).abs().max() > 1e-2
    for name, one in model.net.named_parameters():
        assert name in learnt or torch.equal(one, before[name.replace(".base_layer", "")]), "frozen to the bit"
    state = adapters.merged(model.net)
    assert [(name, one.shape) for name, one in state.items()] == [(name, one.shape) for name, one in before.items()]
    adapters.take_out(model.net)
    assert torch.allclose(model(inputs), adapted, atol=1e-5)
    moved = {name for name, one in model.net.state_dict().items() if not torch.equal(one, before[name])}
    beside = how.get("targets") or (["q_proj", "v_proj"] if family == "llama" else ["c_attn"])
    assert {name.split(".")[-2] for name in moved} == set(beside) and all(name.endswith(".weight") for name in moved)


def test_a_language_model_learns_by_adapters_and_its_labels_only_student_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_documents(tmp_path / "texts")
    words = [*LANGUAGE, "student.lora.rank=4", "baseline=true", "run_dir=run"]
    assert distill("train", *words) == 0
    said = capsys.readouterr().out
    assert "rank 4 beside q_proj, v_proj: 256 of " in said and "its own weights are new, and stay so" in said
    summary, run = read_json(tmp_path / "run" / "summary.json"), tmp_path / "run"
    assert summary["params"]["student"] == sum(
        one.numel() for one in read_weights(run / "student.safetensors").values()
    )
    assert distill("eval", "ckpt=run") == distill("eval", "ckpt=run/checkpoints/last.pt") == 0
    again = read_json(run / "eval" / "language-test.json")["student"]
    assert again["nll"] == pytest.approx(summary["test"]["student"]["nll"], abs=1e-6)
    (home,) = (tmp_path / "outputs" / "baselines").glob("*/baseline.json")
    students = [read_weights(run / "student.safetensors"), read_weights(home.parent / "student.safetensors")]
    differ = {name for name, one in students[0].items() if not torch.equal(one, students[1][name])}
    assert {name.split(".")[-2] for name in differ} == {"q_proj", "v_proj"}, "all else is as both began"
    assert rows(run)[0]["loss"]["kd"] > 0
    assert distill("export", "ckpt=run", "format=huggingface", "output=hf") == 0


def test_texts_learn_by_adapters_and_a_head_of_their_own_and_a_teacher_is_fitted_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_texts(tmp_path / "texts")
    lora = ["student.lora.rank=2", "student.lora.targets=[query]", "teacher.fit.lora.rank=4", "optimizer.clip=1"]
    assert distill("train", *TEXTS, *lora, "run_dir=run") == 0
    said = capsys.readouterr().out
    assert "rank 2 beside query" in said and "adapters of rank 4 are fitted" in said
    assert distill("train", *TEXTS, *lora, "run_dir=still", "optimizer.lr=1e-12", "optimizer.clip=1") == 0
    ends, begins = (read_weights(tmp_path / name / "student.safetensors") for name in ("run", "still"))
    moved = {name for name, one in ends.items() if (one - begins[name]).abs().max() > 1e-6}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in moved} == {"query", "classifier"}
    assert type(Deployable.read(tmp_path / "run").network.net.model).__name__ == "BertForSequenceClassification"


def test_killed_and_gone_on_with_adapters_end_with_the_same_bits(tmp_path: Path) -> None:
    make_documents(tmp_path / "texts")
    lora = ["student.lora.rank=4", "student.lora.dropout=0.1", "student.from_teacher.layers=1"]
    words = [*(word for word in LANGUAGE if not word.startswith("student")), "teacher.layers=2"]
    goes_on_as_undisturbed(*words, *lora, "optimizer.accumulate=2", "save_every=2", saves=3)


def test_a_killed_fit_by_adapters_goes_on_to_the_same_teacher(tmp_path: Path) -> None:
    make_documents(tmp_path / "texts")
    words = [*LANGUAGE, "teacher.fit.lora.rank=4", "teacher.fit.epochs=2", "save_every=2"]
    folders = {}
    for place in ("one", "two"):
        if place == "two":
            (fit,) = (tmp_path / "one" / "teachers").glob("language-*")
            killed("teacher", *words, "output_dir=two", saves=2, folder=f".{fit.name}.making")
        assert distill("teacher", *words, f"output_dir={place}") == 0
        (folders[place],) = (tmp_path / place / "teachers").glob("language-*")
    one, two = (folder / "teacher.safetensors" for folder in folders.values())
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["student.lora.targets=[nothing]", "student.lora.rank=2"],
            "student.lora.targets=[q_proj,k_proj,v_proj,o_proj,",
        ),
        (["student.lora.targets=[embed_tokens]", "student.lora.rank=2"], "and model.embed_tokens is none"),
        (["student.lora.alpha=8"], "student.lora.alpha: there are no adapters without student.lora.rank"),
        (["student.lora.rank=0"], "student.lora.rank: must be at least 1"),
        (
            ["student.lora.rank=2", "+schedule.train.quantize=int8"],
            "student.lora.rank: a stage with quantize trains all weights",
        ),
        (["teacher.fit.lora.rank=2", "teacher.fit.freeze=encoder"], "teacher.fit.freeze fits its head alone"),
        (["teacher.fit.lora.rank=2", "teacher.fit.lora.targets=[x]"], "teacher.fit.lora.targets: "),
    ],
)
def test_what_cannot_be_is_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_documents(tmp_path / "texts")
    assert distill("train", *LANGUAGE, *words) == 2
    assert said in capsys.readouterr().err


def test_pictures_have_no_adapters_and_without_peft_the_line_to_type_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("train", *QUICK, "student.lora.rank=4") == 2
    assert "adapters go into models of transformers, and this is a SmallCNN" in capsys.readouterr().err
    make_documents(tmp_path / "texts")
    monkeypatch.setitem(sys.modules, "peft", None)
    assert distill("train", *LANGUAGE, "student.lora.rank=4") == 2
    assert 'pip install "distill-cli[lora]"' in capsys.readouterr().err
