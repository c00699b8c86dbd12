"""Proves that other people's files of weights load as what they are, or are refused with what they hold and a way on."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import pathlib
import shlex
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import omegaconf
import pytest
import torch
from torch import Tensor, nn

from distill_cli.base import files
from distill_cli.base.errors import CheckpointError, NonFiniteError
from distill_cli.models import deployable, foreign, zoo
from distill_cli.models.resnet import SmallResNet
from distill_cli.models.smallcnn import SmallCNN

State = dict[str, Tensor]


def net(classes: int = 5) -> SmallResNet:
    return SmallResNet(8, [4, 4, 6, 8], 3, classes)


def before(prefix: str, state: State) -> State:
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def renamed(state: State, head: str) -> State:
    return {name.replace("fc.", f"{head}."): tensor for name, tensor in state.items()}


def body(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def taken(path: Path, content: Any, role: str = "teacher", fitted: bool = False) -> foreign.Taken:
    """What a new network takes from a file of this content."""
    return foreign.take(saved(path, content), net(), role, fitted)


def equal(state: Any, other: State) -> bool:
    return all(torch.equal(state[name], tensor) for name, tensor in other.items())


FORMS: dict[str, tuple[Callable[[State], Any], str]] = {
    "plain": (lambda s: s, ""),
    "data parallel": (lambda s: before("module", s), "names without module"),
    "compiled data parallel": (lambda s: before("module._orig_mod", s), "names without _orig_mod, module"),
    "a part in parallel": (lambda s: {k.replace("layer1.", "layer1.module."): v for k, v in s.items()}, "module"),
    "backbone": (lambda s: before("backbone", s), "took backbone"),
    "wrapped": (lambda s: {"state_dict": s, "epoch": 240, "best_acc": 0.7}, "took state_dict"),
    "wrapped twice": (lambda s: {"model": {"state_dict": s}}, "took model.state_dict"),
    "wrapped, prefix": (lambda s: {"weights": before("net", s)}, "took weights.net"),
    "with its optimizer": (
        lambda s: {"model_state_dict": s, "optimizer": {"state": {0: {"step": torch.ones(())}}, "param_groups": []}},
        "took model_state_dict",
    ),
    "head called linear": (lambda s: renamed(s, "linear"), "linear.weight is fc.weight here"),
    "head aside": (lambda s: before("backbone", body(s)) | {"cls.fc.weight": s["fc.weight"], "cls.fc.bias": s["fc.bias"]},
                   "cls.fc.weight is fc.weight here"),
    "before batch counters": (lambda s: {k: v for k, v in s.items() if "num_batches_tracked" not in k}, ""),
    "operations counted": (lambda s: {**s, "total_ops": torch.zeros(1), "layer1.0.total_ops": torch.zeros(1)},
                           "left out total_ops and 1 more"),
    "a part more": (lambda s: {**s, "projector.weight": torch.ones(3, 8)}, "left out projector.weight"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_file_in_any_wrapping_gives_the_same_weights_and_says_what_was_done(tmp_path: Path, form: str) -> None:
    state = net().state_dict()
    content, said = FORMS[form]
    found = taken(tmp_path / "theirs.pth", content(state))
    assert found.state.keys() == state.keys()
    assert equal(found.state, state)
    assert (said in found.note) if said else found.note == ""


def test_of_several_sets_the_right_one_is_taken_and_the_others_are_named(tmp_path: Path) -> None:
    right, wrong = net().state_dict(), net().state_dict()
    other = SmallCNN([3], 3, 5, (8, 8)).state_dict()
    evaluated, kept = argparse.Namespace(model_ema_eval=True), argparse.Namespace(model_ema=True)
    contents: list[tuple[Any, str, str]] = [
        ({"student": wrong, "teacher": right}, "teacher", "holds teacher, student: took teacher"),
        ({"student": right, "teacher": wrong}, "student", "holds student, teacher: took student"),
        ({"student": other, "teacher": right}, "student", "holds teacher, student: took teacher"),
        ({"model": before("student.backbone", wrong) | before("teacher.backbone", right)}, "teacher", "model.student"),
        ({"model": right, "model_ema": before("module", wrong)}, "teacher", "holds model, model_ema: took model"),
        ({"state_dict": right, "state_dict_ema": wrong, "args": kept}, "teacher", "took state_dict"),
        ({"model": wrong, "model_ema": right, "args": evaluated}, "teacher", "holds model_ema, model: took model_ema"),
        ({"ema_state_dict": right, "model": wrong, "use_ema": True}, "student", "took ema_state_dict"),
    ]
    for content, role, said in contents:
        found = taken(tmp_path / "several.pth", content, role)
        assert equal(found.state, right), said
        assert said in found.note
        assert found.others


def test_a_head_of_other_classes_is_new_where_it_is_fitted_and_told_where_it_is_not(tmp_path: Path) -> None:
    state = net(1000).state_dict()
    for content, said in (
        (state, "its head has 1,000 classes there and 5 here"),
        (renamed(state, "classifier"), "its head has 1,000 classes there and 5 here"),
        (body(state), "there is no fc there"),
    ):
        found = taken(tmp_path / "imagenet.pth", content, fitted=True)
        assert equal(found.state, body(state))
        assert found.state["fc.weight"].shape == (5, 8)
        assert f"a new head: {said}" in found.note
        with pytest.raises(CheckpointError, match=said) as caught:
            taken(tmp_path / "imagenet.pth", content)
        assert "teacher.fit.epochs=5" in caught.value.hint


def test_another_network_is_refused_with_what_does_not_fit_even_where_it_is_fitted(tmp_path: Path) -> None:
    state = net().state_dict()
    for content, said in (
        (SmallResNet(14, [4, 4, 6, 8], 3, 5).state_dict(), r"unknown here \(layer1\.1\.conv1\.weight"),
        (SmallResNet(8, [4, 4, 6, 9], 3, 5).state_dict(), r"layer3\.0\.conv1\.weight is \(9, 6, 3, 3\) there"),
        ({k: v for k, v in state.items() if k != "layer1.0.conv1.weight"}, r"missing there \(layer1\.0\.conv1\.weight"),
        ({**state, "table": torch.ones(3)}, r"1 of its tensors are unknown here \(table"),
        (SmallCNN([3], 3, 5, (8, 8)).features.state_dict(), r"no tensor's name is one of its own\nthere: 0\.weight"),
    ):
        for fitted in (False, True):
            with pytest.raises(CheckpointError, match=said):
                taken(tmp_path / "other.pth", content, fitted=fitted)


def test_a_stem_of_the_other_size_is_named_with_the_key_that_changes_it(tmp_path: Path) -> None:
    large, small = (zoo.torchvision("resnet18", 5, (32, 32), stem=stem) for stem in ("imagenet", "small"))
    for theirs, ours, key in ((large, small, "teacher.stem=imagenet"), (small, large, "teacher.stem=small")):
        with pytest.raises(CheckpointError, match=r"conv1\.weight is \(64, 3, \d, \d\) there") as caught:
            foreign.take(saved(tmp_path / "x.pth", theirs.state_dict()), ours, "teacher", fitted=True)
        assert key in caught.value.hint


BESIDE = {
    "namespace": argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath("/x"), when=[argparse.Namespace()]),
    "simple namespace": types.SimpleNamespace(a=np.float32(1)),
    "numpy scalar": np.float64(71.2),
    "numpy array": np.ones((2, 3)),
    "numpy objects": np.array([{}, 1], dtype=object),
    "numpy type": np.dtype("float32"),
    "random state": np.random.get_state(),
    "path": Path("/x"),
    "defaultdict": collections.defaultdict(list, {"a": [np.int64(1)]}),
    "deque": collections.deque([1.0, 2.0], maxlen=5),
    "counter": collections.Counter("abc"),
    "time": datetime.datetime.now(datetime.UTC),
    "shape": torch.Size([1, 2]),
    "type": torch.float16,
    "device": torch.device("cpu"),
    "version": torch.__version__,
    "omegaconf": omegaconf.OmegaConf.create({"a": {"b": [1, 2.5, "x", None, True]}}),
}


@pytest.mark.parametrize("format", ["zip", "of torch before 1.6"])
def test_plain_objects_beside_the_weights_are_read_past(tmp_path: Path, format: str) -> None:
    state = net().state_dict()
    for name, value in BESIDE.items():
        file = tmp_path / f"{name}.pth"
        torch.save({"state_dict": state, name: value}, file, _use_new_zipfile_serialization=format == "zip")
        assert equal(foreign.take(file, net(), "teacher", fitted=False).state, state)


class Scheduler:
    """An object of a class that only its program knows."""

    def state_dict(self) -> dict[str, int]:
        return {"step": 3}


@pytest.mark.parametrize("format", ["zip", "of torch before 1.6"])
def test_what_may_run_code_is_named_and_the_line_that_is_shown_makes_a_plain_file(tmp_path: Path, format: str) -> None:
    theirs = net()
    contents = [
        (theirs, f"{SmallResNet.__module__}.SmallResNet"),
        ({"model": theirs, "epoch": 3}, "distill_cli.models.resnet.SmallResNet"),
        ({"state_dict": theirs.state_dict(), "lr": Scheduler(), "args": argparse.Namespace(x=1)}, f"{__name__}.Scheduler"),
    ]  # fmt: skip
    for content, name in contents:
        file = tmp_path / "it's whole.pth"
        torch.save(content, file, _use_new_zipfile_serialization=format == "zip")
        with pytest.raises(CheckpointError, match="holds code or objects other than tensors") as caught:
            foreign.take(file, net(), "teacher", fitted=False)
        assert name in caught.value.message or format != "zip"
        assert "Namespace" not in caught.value.message
        program, option, code = shlex.split(caught.value.hint.splitlines()[-1])
        assert (program, option) == ("python", "-c")
        exec(code, {})
        plain = foreign.take(tmp_path / "it's whole-plain.pth", net(), "teacher", fitted=False)
        assert equal(plain.state, theirs.state_dict())


def test_a_file_without_weights_is_told_by_its_keys(tmp_path: Path) -> None:
    optimizer = torch.optim.Adam(net().parameters()).state_dict()
    for content, said in (
        ({"epoch": 3, "args": {"lr": 1}}, "holds no weights, but a dict with the keys epoch, args"),
        (optimizer, "holds no weights, but a dict with the keys state, param_groups"),
        ({}, "holds no weights, but an empty dict"),
        ([1, 2], "holds no weights, but one list"),
        (torch.ones(3), "holds no weights, but one Tensor"),
    ):
        with pytest.raises(CheckpointError, match=said):
            taken(tmp_path / "none.pth", content)


def test_a_file_that_is_something_else_is_told_what_it_is(tmp_path: Path) -> None:
    whole = io.BytesIO()
    torch.save(net().state_dict(), whole)
    contents = {
        "is a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "is a web page": b"\n<!DOCTYPE html><html>404: not found</html>",
        "is compressed by gzip": b"\x1f\x8b\x08\x00" + bytes(99),
        "is damaged: it is cut short": whole.getvalue()[:-10],
        "is damaged or not a checkpoint": b'{"a": 1}',
    }
    for said, content in contents.items():
        for name in ("x.pth", "x.safetensors"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(CheckpointError, match=said):
                foreign.take(tmp_path / name, net(), "teacher", fitted=False)
    (tmp_path / "x.safetensors").write_bytes(whole.getvalue())  # by its content, whatever it is called
    assert foreign.take(tmp_path / "x.safetensors", net(), "teacher", fitted=False).note == ""


def test_half_precision_loads_and_what_is_not_finite_does_not(tmp_path: Path) -> None:
    state = net().state_dict()
    half = taken(tmp_path / "half.pth", {k: v.half() if v.is_floating_point() else v for k, v in state.items()}).state
    assert half["fc.weight"].dtype == torch.float32
    assert torch.allclose(half["fc.weight"], state["fc.weight"], atol=1e-3)
    with pytest.raises(NonFiniteError, match=r"fc\.bias holds numbers that are not finite"):
        taken(tmp_path / "nan.pth", {**state, "fc.bias": state["fc.bias"] / 0})


def test_odd_content_ends_in_our_own_errors(tmp_path: Path) -> None:
    state = net().state_dict()
    circle: dict[str, Any] = {"x": 1}
    circle["again"] = circle
    sparse, meta = torch.ones(5).to_sparse(), torch.ones(5, device="meta")
    for content in (circle, {**state, "fc.bias": sparse}, {**state, "fc.bias": meta}, {1: state}, {"a": {2: state}}):
        with pytest.raises(CheckpointError):
            taken(tmp_path / "odd.pth", content)
    assert isinstance(net(), nn.Module)


def test_a_file_beside_the_card_of_another_is_taken_for_itself(tmp_path: Path) -> None:
    card = {"model": {}, "input": {}, "classes": [], "names": {"dataset": "x"}, "dataset": {}, "sha256": "0"}
    files.write_json(tmp_path / "model.json", {**card, "weights": "student.safetensors"})
    for name in ("student.safetensors", "other.safetensors"):
        (tmp_path / name).touch()
    of = {
        name: deployable.source(str(tmp_path / name), "x") for name in ("", "student.safetensors", "other.safetensors")
    }
    assert of[""][0] == of["student.safetensors"][0] == tmp_path / "student.safetensors"
    assert of["student.safetensors"][1]
    assert of["other.safetensors"] == (tmp_path / "other.safetensors", None)


def test_a_message_names_the_key_of_the_model_it_is_about(tmp_path: Path) -> None:
    file = saved(tmp_path / "nine.pth", net(9).state_dict())
    with pytest.raises(CheckpointError) as caught:
        foreign.take(file, net(), "teachers.second", fitted=False)
    assert "teachers.second.fit.epochs=5" in caught.value.hint
