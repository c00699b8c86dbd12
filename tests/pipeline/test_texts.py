"""Proves that texts go through the command line as pictures do: trained, cached, resumed, evaluated elsewhere, shown."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SAID, distill, goes_on_as_undisturbed, make_texts, read_json, rows
from safetensors.torch import load_file, save_file

from distill_cli.data.tokens import FILE, Tokenizer
from distill_cli.models.huggingface import fresh
from distill_cli.models.wrapped import HuggingFace

SMALL = [
    "dataset=text",
    "dataset.root=texts",
    "dataset.bucket=2",
    "dataset.max_length=24",
    "teacher=words_large",
    "teacher.width=32",
    "teacher.heads=2",
    "teacher.inner=32",
    "teacher.fit.epochs=6",
    "teacher.fit.lr=0.005",
    "student=words_tiny",
    "student.width=16",
    "student.inner=16",
    "schedule.imitate.epochs=4",
    "schedule.refine.epochs=2",
    "optimizer.lr=0.01",
    "batch_size=8",
    "report=false",
    "threads=1",
]


@pytest.fixture(autouse=True)
def texts(tmp_path: Path) -> None:
    make_texts(tmp_path / "texts")


def test_a_student_of_texts_is_trained_judged_and_leaves_with_its_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert distill("train", *SMALL, "baseline=true", "report=true", "run_dir=run") == 0
    said = capsys.readouterr()
    assert "108 train, 12 val, 45 test, 3 classes, up to 24 tokens" in said.out and "texts/s" in said.err
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["test"]["teacher"]["accuracy"] > 0.6 and summary["test"]["student"]["accuracy"] > 0.5
    page = (tmp_path / "run" / "report.html").read_text()
    told = read_json(tmp_path / "run" / "evaluation.json")
    assert told["samples"][0]["text"] in page
    *_, student = told["cost"]["rows"]
    latencies = student["latency_by_size"]
    assert list(latencies) == ["16 tokens", "24 tokens"] and latencies["24 tokens"] == student["latency_ms"]
    assert "latency at batch 1, 16 tokens, median" in page and "latency at batch 1, 24 tokens, 95th percentile" in page
    # elsewhere, on one file, without train and without the teacher; the rows come in their order, with their texts
    away = tmp_path / "away"
    away.mkdir()
    for name in ("student.safetensors", "model.json", FILE):
        shutil.copy(tmp_path / "run" / name, away)
    shutil.copy(tmp_path / "texts" / "test.csv", away / "mine.csv")
    shutil.rmtree(tmp_path / "texts")
    assert (
        distill("eval", f"ckpt={away}", f"dataset.root={away / 'mine.csv'}", "dataset=text", "predictions=p.csv") == 0
    )
    again = read_json(away / "text-test.json")["student"]
    assert {name: again[name] for name in ("accuracy", "nll")} == pytest.approx(
        {name: summary["test"]["student"][name] for name in ("accuracy", "nll")}, rel=1e-6
    )
    with (away / "mine.csv").open() as one, (tmp_path / "p.csv").open() as other:
        given, told = list(csv.DictReader(one)), list(csv.DictReader(other))
    assert [line["text"] for line in told] == [line["text"] for line in given]
    assert [line["index"] for line in told] == [str(n) for n in range(45)]
    (away / FILE).write_text((away / FILE).read_text().replace("goal", "gaol"))
    assert distill("eval", f"ckpt={away}", f"dataset.root={away / 'mine.csv'}", "dataset=text") == 4
    assert "is not the tokenizer that its model was trained with" in capsys.readouterr().err


def test_models_and_checkpoints_of_another_kind_of_data_are_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["schedule=constant", "schedule.train.epochs=1", "report=false", "teacher.fit.epochs=0", "threads=1"]
    texts = ["dataset=text", "dataset.root=texts", *short]
    pictures = ["dataset=digits", "teacher=smallcnn", "teacher.widths=[4]", "student=tinycnn", *short]

    def refused(code: int, said: str, *words: str) -> None:
        capsys.readouterr()
        assert distill(*words) == code
        told = capsys.readouterr().err
        assert said in told and told.count("error:") == 1 and "Traceback" not in told, told

    takes = "takes {}, and the data are {}"
    refused(2, takes.format("pictures", "texts"), "train", *texts, "teacher=words_large", "student=smallcnn")
    refused(2, takes.format("pictures", "texts"), "train", *texts, "teacher=resnet20", "student=words_tiny")
    refused(2, takes.format("texts", "pictures"), "train", *pictures, "student=words_tiny")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "model.safetensors").touch()
    refused(2, takes.format("texts", "pictures"), "train", *pictures, "student=huggingface", "student.name=bert")
    assert distill("train", *pictures, "run_dir=of_pictures") == 0
    made = "teacher.checkpoint: it was made for another kind of data than texts"
    refused(4, made, "train", *texts, "teacher=words_large", "student=words_tiny", "teacher.checkpoint=of_pictures")
    label = "train.csv line 2 has the label 'sport', which the model does not have"
    refused(
        3, label.replace("train", "test"), "eval", "ckpt=of_pictures", "dataset=text", "dataset.root=texts/test.csv"
    )
    refused(2, "bucket: must be at least 0, got -1", "train", *texts, "dataset.bucket=-1")
    refused(2, "max_length: must be at least 1, got 0", "train", *texts, "dataset.max_length=0")


def test_cached_answers_are_the_live_ones_whatever_the_batches_were(tmp_path: Path) -> None:
    quiet = ["teacher.dropout=0.0", "student.dropout=0.0"]
    for name, more in {"cached": [], "live": ["teacher.cache=off"], "flat": ["dataset.bucket=0"]}.items():
        assert distill("train", *SMALL, *quiet, *more, f"run_dir={name}") == 0
    cached, live, flat = (rows(tmp_path / name) for name in ("cached", "live", "flat"))
    for one, other in zip(cached, live, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert flat[0]["loss"] != pytest.approx(cached[0]["loss"], rel=1e-6)  # another order


def test_killed_and_gone_on_with_it_is_the_same_to_the_bit() -> None:
    words = [*SMALL, "optimizer.accumulate=2", "save_every=5"]
    goes_on_as_undisturbed(*words, saves=5)


def folder_of(place: Path, family: str, texts: str) -> Path:
    """A model of transformers as a user brings it, with a tokenizer of its own."""
    tokenizer = Tokenizer.made_from([texts] * 2)
    torch.manual_seed(0)
    net = fresh(3, tokenizer.size, tokenizer.pad, family, layers=2, width=16, heads=2)  # type: ignore[arg-type]
    assert isinstance(net, HuggingFace)
    net.model.save_pretrained(place)  # type: ignore[operator]
    (place / FILE).write_text(tokenizer.json)
    return place


def test_two_models_of_one_size_are_two_teachers_and_start_two_students(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    folder_of(one, "bert", SAID["music"])
    shutil.copytree(one, other)
    weights = other / "model.safetensors"
    save_file({name: values + 0.1 for name, values in load_file(weights).items()}, weights, {"format": "pt"})
    kinds = ("teacher.w", "teacher.h", "teacher.i", "teacher=", "student")
    line = [word for word in SMALL if not word.startswith(kinds)]
    for number, folder in enumerate((one, other)):
        names = ["teacher=huggingface", f"teacher.name={folder}", "student=huggingface", f"student.name={folder}"]
        assert distill("train", *line, *names, "teacher.fit.epochs=0", "baseline=true", f"run_dir=run{number}") == 0
    assert len(list((tmp_path / "outputs" / "teachers").glob("*/teacher.json"))) == 2
    assert len(list((tmp_path / "outputs" / "baselines").glob("*/baseline.json"))) == 2


def test_a_teacher_of_another_kind_and_tokenizer_teaches_by_its_kept_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpt = folder_of(tmp_path / "gpt", "gpt2", SAID["food"] + SAID["sport"])
    bert = folder_of(tmp_path / "bert", "bert", SAID["music"])
    shared = [
        word for word in SMALL if not word.startswith(("teacher.w", "teacher.h", "teacher.i", "teacher=", "student"))
    ]
    line = [*shared, "teacher=huggingface", f"teacher.name={gpt}", "student=huggingface", f"student.name={bert}"]
    line.append("student.layers=1")
    assert distill("train", *line, "run_dir=run") == 0
    assert (tmp_path / "run" / FILE).read_text() == (bert / FILE).read_text()
    assert f"from{gpt}" in "".join(capsys.readouterr().out.split())  # however it is wrapped
    shutil.rmtree(gpt)  # what was made of them is enough
    shutil.rmtree(bert)
    capsys.readouterr()
    assert distill("eval", "ckpt=run") == 0
    told, kept = read_json(tmp_path / "run" / "eval" / "text-test.json"), read_json(tmp_path / "run" / "summary.json")
    assert told["student"] == pytest.approx(kept["test"]["student"], rel=1e-5)  # the teacher's answers too: kl is there
    assert "kl" in told["student"]
    folder_of(tmp_path / "gpt", "gpt2", "a b c")
    folder_of(tmp_path / "bert", "bert", "d e")
    assert distill("train", *line, "teacher.cache=off", "run_dir=live") == 2
    assert "reads texts in another way than the student" in capsys.readouterr().err


def test_a_student_made_of_its_teacher_starts_from_what_that_has_learnt_and_so_does_its_twin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [word for word in SMALL if not word.startswith("student")]
    line = [*own, "student=huggingface", "student.init=teacher", "teacher.layers=2", "baseline=true", "save_every=5"]
    assert distill("train", *line, "optimizer.lr=1e-12", "run_dir=still") == 0
    assert "layers 0, 1 of the teacher, its embeddings and its head" in capsys.readouterr().out
    still = read_json(tmp_path / "still" / "summary.json")["test"]
    assert still["student"] == pytest.approx({**still["teacher"], "kl": 0.0, "agreement": 1.0}, abs=1e-5)
    assert still["baseline"]["nll"] == pytest.approx(still["teacher"]["nll"], abs=1e-5)
    words = [*line, "student.layers=1"]
    goes_on_as_undisturbed(*words, saves=5)
    known = len(list((tmp_path / "outputs" / "baselines").glob("[!.]*")))
    assert distill("train", *words, "teacher.fit.seed=1", "run_dir=other") == 0  # another teacher, so another twin
    assert len(list((tmp_path / "outputs" / "baselines").glob("[!.]*"))) == known + 1
    shutil.rmtree(tmp_path / "outputs")
    assert distill("eval", "ckpt=run") == 0
    told = read_json(tmp_path / "run" / "eval" / "text-test.json")["student"]
    assert told["nll"] == pytest.approx(
        read_json(tmp_path / "run" / "summary.json")["test"]["student"]["nll"], rel=1e-6
    )
    capsys.readouterr()
    assert distill("train", *words, "student.checkpoint=other", "run_dir=both") == 2
    assert "it is made of its teacher, but student.checkpoint names its weights" in capsys.readouterr().err
    assert distill("train", *words, "teacher.joint=true", "run_dir=both") == 2
    assert "teacher.joint trains that along with it" in capsys.readouterr().err


def test_links_of_a_chain_are_each_made_of_the_one_before(tmp_path: Path) -> None:
    own = [word for word in SMALL if not word.startswith(("student", "schedule"))]
    middle = ["+model@chain.middle=huggingface", "chain.middle.init=teacher", "chain.middle.layers=1"]
    line = [
        *own,
        "schedule.imitate.epochs=1",
        "schedule.refine.epochs=0",
        "student=huggingface",
        "student.init=teacher",
    ]
    assert distill("train", *line, *middle, "optimizer.lr=1e-12", "run_dir=run") == 0
    first, last = (read_json(folder / "summary.json") for folder in (tmp_path / "run/chain/middle", tmp_path / "run"))
    assert last["test"]["student"]["nll"] == pytest.approx(first["test"]["student"]["nll"], abs=1e-5)


def test_little_is_padded_where_lengths_differ(tmp_path: Path) -> None:
    from distill_cli.data.text import text

    def share(bucket: int) -> float:
        train = text(str(tmp_path / "texts"), bucket=bucket).train
        batches = train.batches(8, train.order(8, seed=0, epoch=1))
        masks = [batch.inputs["attention_mask"] for batch in batches if not isinstance(batch.inputs, torch.Tensor)]
        return float(sum(mask.sum() for mask in masks) / sum(mask.numel() for mask in masks))

    assert share(64) > 0.93 > 0.8 > share(0)
    assert np.isfinite(share(1))


def test_layers_are_taught_live_and_pooled_features_from_the_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = [*(word for word in SMALL if "schedule" not in word), "schedule=constant", "schedule.train.epochs=2"]
    inner = "objective=[kd,embedding,hidden,attention_map,relation]"
    assert distill("train", *quiet, inner, "run_dir=live") == 0
    header = " ".join(capsys.readouterr().out.split())
    assert "runs live: what is read by attention_map, embedding, hidden, relation is as long as each sample" in header
    assert "hidden student model.bert.encoder.layer.0 8x16 → teacher model.bert.encoder.layer.1 8x32" in header
    for epoch in rows(tmp_path / "live"):
        assert {"ce", "kd", "embedding", "hidden", "attention_map", "relation"} < set(epoch["loss"])
        assert np.isfinite(list(epoch["loss"].values())).all()
    assert distill("train", *quiet, inner, "teacher.cache=on", "run_dir=on") == 2
    assert "teacher.cache=on: not in this run" in capsys.readouterr().err
    dry = [
        *quiet,
        "objective=[similarity,rkd,crd]",
        "objective.crd.dim=8",
        "teacher.dropout=0.0",
        "student.dropout=0.0",
    ]
    assert distill("train", *dry, "run_dir=kept") == 0
    assert "its logits and features are cached" in " ".join(capsys.readouterr().out.split())
    assert distill("train", *dry, "teacher.cache=off", "run_dir=dry") == 0
    for one, other in zip(rows(tmp_path / "kept"), rows(tmp_path / "dry"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    assert distill("train", *quiet, "objective=hint", "run_dir=hint") == 2
    assert "there is no feature map (N, C, H, W) to take" in capsys.readouterr().err


def test_a_head_is_fitted_on_what_a_frozen_encoder_of_texts_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpt = folder_of(tmp_path / "gpt", "gpt2", "the of and bread soup ball goal song")
    own = [word for word in SMALL if not word.startswith(("teacher.w", "teacher.h", "teacher.i", "teacher="))]
    line = [*own, "teacher=huggingface", f"teacher.name={gpt}", "teacher.fit.freeze=encoder"]
    assert distill("train", *line, "teacher.fit.epochs=20", "student.freeze=[embeddings]", "run_dir=run") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("teacher ")]
    told = [float(line.split("val acc ")[1].split()[0]) for line in said]
    assert len(told) == 20 and max(told) > told[0]
    # what was seen of the head on kept features is what the whole teacher does
    judged = read_json(tmp_path / "run" / "summary.json")["val"]["teacher"]["accuracy"]
    assert judged == pytest.approx(max(told), abs=1e-4)
