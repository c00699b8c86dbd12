"""`distill inspect` and `distill list objectives`: what a person needs to choose objectives, layers and weights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from helpers import distill

from distill_cli.config import places
from distill_cli.models.resnet import SmallResNet


def write_objectives(place: Path, **nodes: str) -> None:
    """Objectives of the user's own in ./conf, by name: a class, and what stands below it."""
    folder = place / "conf" / "objective"
    folder.mkdir(parents=True)
    for name, node in nodes.items():
        (folder / f"{name}.yaml").write_text(f"# mine\n{name}:\n  _target_: {node}\n")


def table(shown: str) -> dict[str, list[str]]:
    """Cells of every line by the first of them."""
    lines = (line.split() for line in shown.splitlines() if line.strip())
    return {cells[0]: cells[1:] for cells in lines}


def test_every_module_is_shown_with_its_shape_and_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["inspect", "student=resnet20", "student.depth=8", "student.widths=[4,4,8,16]", "devices=2"]
    assert distill(*line) == 0
    shown, said = capsys.readouterr()
    assert "devices=2 has no effect: distill inspect works in one process" in said
    net = SmallResNet(8, [4, 4, 8, 16], 1, 10)
    assert f"student resnet20, {sum(p.numel() for p in net.parameters()):,} parameters, input 1x28x28" in shown
    found = table(shown)
    for path, module in net.named_modules():
        if path:
            kind, *_, parameters = found[path]
            assert kind == type(module).__name__
            assert parameters == f"{sum(p.numel() for p in module.parameters()):,}"
    assert found["layer3"][1:-1] == ["16", "x", "7", "x", "7"] and found["fc"][1:-1] == ["10"]
    assert "teacher=NAME beside it" in shown


def test_with_a_teacher_it_is_shown_what_every_objective_on_features_compares_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["student=tinycnn", "teacher=resnet20", "teacher.depth=8", "teacher.widths=[4,4,8,16]"]
    assert distill("inspect", *models) == 0
    shown = capsys.readouterr().out.partition("what objectives on features compare")[2]
    compared, group = dict[str, list[tuple[str, str]]](), list[str]()
    for line in (line for line in shown.splitlines() if " x " in line):
        *names, ours, theirs = re.sub(r"\d+ x \d+ x \d+", "", line).replace(",", "").split()
        compared |= {name: [] for name in names}
        group = names or group
        for name in group:
            compared[name].append((ours, theirs))
    three = [("features.1", "layer1"), ("features.4", "layer2"), ("features", "layer3")]
    assert [compared[name] for name in ("attention", "review", "vid")] == [three] * 3
    assert "attention_map, embedding, hidden, relation: student: is no transformer" in shown
    assert not (tmp_path / "outputs").exists()
    words = ["dataset.limit=60", "teacher.fit.epochs=0", "report=false", "schedule=constant", "schedule.train.epochs=1"]
    chosen = ["objective=[attention,crd,hint,review,rkd,similarity,vid]", "baseline=false"]
    assert distill("train", *models, *words, *chosen) == 0
    header = " ".join(capsys.readouterr().out.split())
    for name, pairs in compared.items():
        told = header.partition(f" {name} student ")[2].replace("teacher ", "")
        for ours, theirs in pairs:
            mine, _, told = told.partition(" → ")
            assert mine.split()[0] == ours and told.split()[0] == theirs
            told = told.partition(" ")[2].partition(" ")[2]


def test_inspect_tells_why_an_objective_cannot_be_and_keeps_to_the_modules_that_were_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_objectives(
        tmp_path,
        mine="distill_cli.objectives.features.Hint\n  weight: ${T}\n  student_layer: nowhere",
        gone="nowhere.Gone",
        loose="distill_cli.objectives.logits.KD\n  weight: ${nothing.there}",
    )
    words = ["objective=rkd", "objective.rkd.student_layer=features.1", "objective.rkd.teacher_layer=layer2"]
    assert distill("inspect", "student=tinycnn", "teacher=resnet20", *words) == 0
    shown = capsys.readouterr().out.partition("what objectives on features compare")[2]
    assert re.search(r"rkd +features.1 +8 x 28 x 28 +layer2", shown)
    for told in (
        "mine: objective.hint.student_layer: there is no module 'nowhere'",
        "gone: objective.gone",
        "loose: Inter",
    ):
        assert told in shown


def test_layers_of_transformers_are_matched(capsys: pytest.CaptureFixture[str]) -> None:
    models = ["teacher=words_large", "teacher.layers=4", "teacher.width=16", "student=bert", "student.layers=2"]
    models += ["student.width=8", "student.heads=2", "objective=hidden", "dataset=stdlib_docs"]
    assert distill("inspect", *models) == 0
    shown = " ".join(capsys.readouterr().out.partition("what objectives on features compare")[2].split())
    layer = "model.bert.encoder.layer"
    assert re.search(rf"hidden {layer}.0 8 x 8 {layer}.1 8 x 16 {layer}.1 8 x 8 {layer}.3 8 x 16", shown)
    assert re.search(
        rf"relation {layer}.1.attention. 8 x 8 {layer}.3.attention.", shown
    )  # the rest is on the next line
    assert re.search(r"crd, rkd, similarity model.bert.pooler 8 model.bert.pooler 16", shown)
    assert "attention, review, vid: teacher: there is no feature map (N, C, H, W) to take" in shown


def test_a_model_that_cannot_be_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("inspect", "student=smallcnn", "student.widths=[8,8,8,8,8,8]") == 2
    assert "poolings leave nothing" in capsys.readouterr().err


def test_objectives_are_listed_with_formula_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("list", "objectives") == 0
    shown = capsys.readouterr().out
    for name in places.group_files("objective"):
        assert f" {name} " in shown
    for words in ("T²·KL(teacher‖student)", "1503.02531", "2203.08679", "1910.10699", "Σ(z_t-z_s)²"):
        assert words in shown
    assert "…" not in shown


def test_an_objective_of_the_users_with_an_interpolation_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_objectives(tmp_path, mine="distill_cli.objectives.logits.KD\n  weight: ${T}")
    assert distill("list", "objectives") == 0
    assert " mine " in capsys.readouterr().out


def test_a_misspelt_key_of_what_was_chosen_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", "objective=rkd", "objective.rkd.wieght=2") == 2
    assert "did you mean objective.rkd.weight?" in capsys.readouterr().err


def test_every_function_takes_the_same_keywords_and_gives_a_scalar() -> None:
    from distill_cli import objectives

    draw = torch.Generator().manual_seed(0)
    logits = {
        "student_logits": torch.randn(6, 5, generator=draw, requires_grad=True),
        "teacher_logits": torch.randn(6, 5, generator=draw),
        "labels": torch.arange(6) % 5,
        "temperature": 3.0,
    }
    on_logits = ["ce", "kd", "logit_mse", "logit_sse", "dkd", "nkd", "dist", "lskd", "mlld", "hard"]
    on_logits += ["reverse_kl", "jsd", "skewed_kl", "annealed", "virtual"]
    on_features = ["hint", "attention", "similarity", "rkd", "vid", "crd", "review"]
    on_positions = ["attention_map", "hidden", "relation"]
    named = [*on_logits, *on_features, *on_positions, "embedding"]  # which is `hidden` of embeddings
    assert sorted(named) == sorted(places.group_files("objective"))
    for name in on_logits:
        assert getattr(objectives, name)(**logits).shape == (), name
    maps = [torch.rand(4, 3, 8, 8, generator=draw, requires_grad=True)], [torch.rand(4, 3, 8, 8, generator=draw)]
    for name in on_features:
        value = getattr(objectives, name)(student_features=maps[0], teacher_features=maps[1])
        assert value.shape == () and torch.isfinite(value), name
    states = [torch.rand(4, 6, 8, generator=draw)] * 2
    for name in on_positions:
        value = getattr(objectives, name)(student_features=states, teacher_features=states, present=None)
        assert value.shape == () and torch.isfinite(value), name
