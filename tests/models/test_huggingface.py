"""Proves that models of transformers are built with the papers' sizes, loaded from safe folders alone, cut, and rebuilt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import distill
from huggingface_hub import constants
from torch import nn

from distill_cli.base.errors import CheckpointError, ConfigError, DistillError
from distill_cli.data.texts import TextSpec
from distill_cli.data.tokens import FILE, Tokenizer
from distill_cli.models import OF_TEACHER, REBUILD, Classifier, num_parameters, probe
from distill_cli.models.features import Tap, shapes
from distill_cli.models.huggingface import fresh, huggingface
from distill_cli.models.wrapped import HuggingFace, MeanPooled

TOKENIZER = Tokenizer.made_from(["a fine day", "a fine night"])


def small(family: str = "bert", layers: int = 3) -> HuggingFace:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = fresh(4, TOKENIZER.size, TOKENIZER.pad, family, layers, width=16, heads=2)  # type: ignore[arg-type]
    assert isinstance(net, HuggingFace)
    return net.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    net = small()
    net.model.save_pretrained(tmp_path / "bert")  # type: ignore[operator]
    (tmp_path / "bert" / FILE).write_text(TOKENIZER.json)
    return tmp_path / "bert"


def batch() -> dict[str, torch.Tensor]:
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


@pytest.mark.parametrize(("family", "sizes", "vocabulary", "millions"), [
    ("bert", {"layers": 12, "width": 768, "heads": 12}, 30522, 110),
    ("distilbert", {"layers": 6, "width": 768, "heads": 12}, 30522, 66),
    ("bert", {"layers": 4, "width": 312, "heads": 12, "inner": 1200}, 30522, 14.5),
    ("gpt2", {"layers": 12, "width": 768, "heads": 12, "positions": 1024}, 50257, 124),
])  # fmt: skip
def test_fresh_models_have_as_many_parameters_as_their_papers_say(
    family: str, sizes: dict[str, int], vocabulary: int, millions: float
) -> None:
    with torch.device("meta"):
        net = fresh(2, vocabulary, 0, family, **sizes)  # type: ignore[arg-type]
    assert num_parameters(net) == pytest.approx(millions * 1e6, rel=0.02)


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2"])
def test_padding_changes_no_answer_and_layers_can_be_listened_to(family: str) -> None:
    net, spec = small(family), TextSpec(TOKENIZER, 16)
    model = Classifier(net, spec).eval()
    assert probe(model, "student").shape == (2, 4)
    alone = {name: values[1:, :3] for name, values in batch().items()}
    wide = {name: nn.functional.pad(values, (0, 5)) for name, values in batch().items()}
    assert torch.allclose(model(batch())[1], model(alone)[0], atol=1e-6)
    assert torch.allclose(model(batch()), model(wide), atol=1e-6)
    stack = next(path for path, part in net.named_modules() if isinstance(part, nn.ModuleList))
    with Tap(net, [f"{stack}.1"]) as tap:
        assert tap(model, batch()).features[f"{stack}.1"].shape == (2, 4, 16)
    assert shapes(model)[f"{stack}.2"] == (1, 8, 16)


def test_a_folder_is_loaded_with_its_tokenizer_and_a_head_of_the_datas_classes(folder: Path) -> None:
    net = huggingface(7, 0, str(folder))
    assert isinstance(net, HuggingFace) and net.tokenizer == TOKENIZER
    assert net(batch()).shape == (2, 7)
    theirs, ours = small().model.state_dict(), net.model.state_dict()
    assert torch.equal(ours["bert.embeddings.word_embeddings.weight"], theirs["bert.embeddings.word_embeddings.weight"])
    other = huggingface(7, 0, str(folder), init="fresh")
    assert not torch.equal(other.state_dict()["model.bert.pooler.dense.weight"], ours["bert.pooler.dense.weight"])


@pytest.mark.parametrize(("layers", "kept"), [(1, [2]), (2, [1, 2]), (3, [0, 1, 2]), ([0, 2], [0, 2])])
def test_layers_are_kept_evenly_spaced_or_as_listed_and_rebuilt_without_the_folder(
    folder: Path, layers: int | list[int], kept: list[int]
) -> None:
    net = huggingface(4, 0, str(folder), layers).eval()
    theirs, ours = small().model.state_dict(), net.state_dict()
    for place, number in enumerate(kept):
        key = "attention.self.query.weight"
        mine = ours[f"model.bert.encoder.layer.{place}.{key}"]
        assert torch.equal(mine, theirs[f"bert.encoder.layer.{number}.{key}"])
    assert f"model.bert.encoder.layer.{len(kept)}.attention.self.query.weight" not in ours
    node = json.loads(json.dumps(net.__dict__[REBUILD]))  # as a card holds it
    again = huggingface(4, 0, **node)
    again.load_state_dict(ours)
    assert torch.equal(again.eval()(batch()), net(batch()))


@pytest.mark.parametrize("layers", [0, 4, [3], [-1], []])
def test_layers_that_are_not_there_are_refused(folder: Path, layers: int | list[int]) -> None:
    with pytest.raises(ConfigError, match="the model has"):
        huggingface(4, 0, str(folder), layers)


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2"])
def test_a_student_is_made_of_its_teacher_and_rebuilt_without_it(family: str) -> None:
    teacher = Classifier(small(family, layers=4), TextSpec(TOKENIZER, 16), role="teacher")
    teacher.order = torch.tensor([3, 1])  # it answers two classes that the data do not have
    made = huggingface(2, 0, init="teacher", layers=[0, 2], teacher=teacher).eval()
    whole = huggingface(2, 0, init="teacher", teacher=teacher).eval()
    assert torch.allclose(whole(batch()), teacher(batch()), atol=1e-7) and not torch.equal(
        made(batch()), whole(batch())
    )
    theirs, ours = teacher.net.state_dict(), made.state_dict()
    for name, tensor in ours.items():
        place = name.replace(".0.", ".#.").replace(".1.", ".2.").replace(".#.", ".0.")
        assert torch.equal(
            tensor, theirs[place][teacher.order] if len(tensor) != len(theirs[place]) else theirs[place]
        ), name
    assert made.__dict__[OF_TEACHER] == "layers 0, 2 of the teacher, its embeddings and its head"
    again = huggingface(2, 0, **json.loads(json.dumps(made.__dict__[REBUILD])))
    again.load_state_dict(ours)
    assert torch.equal(again.eval()(batch()), made(batch()))


def test_what_cannot_be_made_of_a_teacher_is_refused(folder: Path) -> None:
    def refused(told: str, **words: Any) -> None:
        with pytest.raises(ConfigError, match=told):
            huggingface(4, 0, init="teacher", **words)

    teacher = Classifier(small(), TextSpec(TOKENIZER, 16))
    assert huggingface(4, 0, str(folder), init="teacher", teacher=teacher)  # the same network by its name
    refused("init=teacher: there is no teacher")
    refused("layers=9: the model has 3", layers=9, teacher=teacher)
    refused("each once", layers=[1, 1], teacher=teacher)
    refused("pooling=mean: the teacher, which the student is made of, has another", pooling="mean", teacher=teacher)
    other = Classifier(small("gpt2"), TextSpec(TOKENIZER, 16))
    refused("is another network than the teacher: model_type bert there is gpt2", name=str(folder), teacher=other)


def test_what_could_run_code_or_is_missing_is_refused(folder: Path) -> None:
    def refused(kind: type[DistillError], told: str, name: str = str(folder)) -> None:
        with pytest.raises(kind, match=told):
            huggingface(4, 0, name)

    refused(ConfigError, "there is no folder /no/such/folder", "/no/such/folder")
    refused(ConfigError, "there is no folder ", "./nowhere")  # no name on the hub
    refused(CheckpointError, "the hub cannot be reached|no such model on the hub", "nobody-has/this-model-x")
    (folder / FILE).rename(folder / "aside.json")
    refused(CheckpointError, "holds no tokenizer.json")
    (folder / "aside.json").rename(folder / FILE)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "mine.Config"}}))
    refused(CheckpointError, "code of its own")
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(small().model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refused(CheckpointError, "is pickled, and a pickle can run code\nconvert it once")
    (folder / "pytorch_model.bin").unlink()
    refused(CheckpointError, "holds no model.safetensors")
    (folder / "model.safetensors").write_bytes(b"\x40" + bytes(99))
    refused(CheckpointError, "cannot be read")


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="width: 10 cannot be shared out among heads=4"):
        fresh(2, 9, 0, width=10, heads=4)
    with pytest.raises(ConfigError, match=r"max_length=99: the model has 16 positions"):
        Classifier(fresh(2, TOKENIZER.size, 0, positions=16), TextSpec(TOKENIZER, 99))
    with pytest.raises(
        ConfigError, match=rf"the tokenizer numbers {TOKENIZER.size} tokens, but the model's table has 9"
    ):
        Classifier(fresh(2, 9, 0), TextSpec(TOKENIZER, 16))


def test_a_model_of_sentences_has_its_head_on_the_mean_of_a_texts_states(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def pooled(**words: object) -> nn.Module:
        return huggingface(3, 0, str(folder), **words).eval()  # type: ignore[arg-type]

    assert not isinstance(pooled(), MeanPooled)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    capsys.readouterr()
    assert not isinstance(pooled(pooling="own"), MeanPooled) and "mean" not in capsys.readouterr().err
    net = pooled()
    assert isinstance(net, MeanPooled) and "the mean of a text's states" in capsys.readouterr().err
    states = net.model(**batch()).last_hidden_state
    wanted = net.classifier(torch.stack([states[0].mean(0), states[1, :3].mean(0)]))
    assert torch.allclose(net(batch()), wanted, atol=1e-6)  # padding is left out
    card = {"name": None, **net.__dict__[REBUILD]}
    again = huggingface(3, 0, **card)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(batch()), net(batch()))


@pytest.mark.parametrize(
    ("words", "said"), [([], "has no default"), (["teacher.name=./nowhere"], "there is no folder")]
)
def test_a_model_that_is_not_there_is_told_before_any_data_are_read(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["dataset=text", f"dataset.root={tmp_path / 'no-data'}"]
    assert distill("train", *data, "teacher=huggingface", *words) in (2, 4)
    told = capsys.readouterr().err
    assert said in told and "no-data" not in told


def test_a_model_that_the_hub_gave_before_is_loaded_with_its_tokenizer_and_no_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "hub" / "models--somebody--small"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0123")
    shutil.copytree(folder, kept / "snapshots" / "0123")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    net = huggingface(7, 0, "somebody/small")
    assert isinstance(net, HuggingFace) and net.tokenizer == TOKENIZER and net(batch()).shape == (2, 7)
