"""Settings: composed once, typed, frozen; each key's help; what a chain's links and further teachers make of them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import QUICK, distill, read_json

from distill_cli.config import arrangement, schema
from distill_cli.config.fields import keys
from distill_cli.config.load import load


def test_settings_are_read_by_attribute_with_types() -> None:
    settings: schema.Train = load("train", ["T=4", "optimizer.lr=0.01", "save_every=100", "schedule.refine.T=[2,1]"])
    assert (settings.T, settings.optimizer.lr, settings.save_every) == (4.0, 0.01, (100, None))
    assert (settings.schedule["imitate"].T, settings.schedule["refine"].T) == ((4.0, 4.0), (2.0, 1.0))
    assert (settings.teacher.name, settings.student.name, settings.dataset.name) == ("resnet18", "smallcnn", "digits")
    assert settings.typed == ("T=4", "optimizer.lr=0.01", "save_every=100", "schedule.refine.T=[2,1]")
    assert set(settings.optimizer.node) == {"_target_", "lr", "weight_decay", "betas"}
    assert json.loads(json.dumps(settings.plain))["optimizer"]["curve"] == "cosine"


@pytest.mark.parametrize("part", ["", "teacher", "optimizer", "dataset.augmentation", "teacher.fit"])
def test_settings_are_frozen(part: str) -> None:
    record = load("train", [])
    for name in filter(None, part.split(".")):
        record = getattr(record, name)
    for key in keys(type(record)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, key.name, None)


def test_a_further_teacher_takes_what_it_does_not_say_from_the_first() -> None:
    words = ["+model@teachers.second=tinycnn", "teacher.fit.epochs=3", "teacher.cache=off", "teacher.weight=5"]
    settings: schema.Train = load("train", [*words, "+teachers.second.fit.lr=0.5"])
    second = arrangement.teachers(settings)["second"]
    assert (second.fit.epochs, second.fit.lr, second.fit.seed, second.cache, second.weight) == (3, 0.5, 1, "off", 1.0)
    assert (settings.teacher.fit.lr, settings.teacher.fit.seed) == (None, 0)


def test_a_link_is_made_of_settings_that_stay_as_they_are(tmp_path: Path) -> None:
    words = ["+model@chain.middle=tinycnn", "teacher.fit.epochs=3", "teacher.mean=[0.5]", "teacher.std=[0.5]", "T=2"]
    settings: schema.Train = load("train", [*words, "baseline=true"])
    first = arrangement.at(settings, "middle", tmp_path)
    assert (first.link, first.plain["run_dir"]) == ("middle", str(tmp_path / "chain" / "middle"))
    assert (first.student, first.plain["student"]) == (settings.student, settings.plain["student"])
    built = settings.chain["middle"].plain
    link, last = arrangement.linked(first, tmp_path, {}), arrangement.linked(settings, tmp_path, built)
    assert (link.student.name, link.baseline, link.teacher) == ("middle", False, settings.teacher)
    assert (last.student, last.baseline, last.teacher.name) == (settings.student, True, "middle")
    assert last.teacher.checkpoint == str(tmp_path / "chain" / "middle")
    assert (last.teacher.fit.epochs, last.teacher.mean, last.teacher.node) == (0, None, settings.chain["middle"].node)
    assert (settings.link, settings.teacher.checkpoint) == (None, None)


def test_a_run_composes_its_configuration_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra._internal.hydra import Hydra

    composed, really = [], Hydra.compose_config
    monkeypatch.setattr(Hydra, "compose_config", lambda *words, **more: composed.append(1) or really(*words, **more))
    assert distill("train", *QUICK, "schedule=constant", "schedule.train.epochs=1", "run_dir=run") == 2  # no imitate
    composed.clear()
    quick = [word for word in QUICK if not word.startswith("schedule")]
    assert distill("train", *quick, "schedule=constant", "schedule.train.epochs=1", "run_dir=run") == 0
    assert len(composed) == 1
    assert read_json(tmp_path / "run" / "run.json")["config"]["schedule"]["train"]["epochs"] == 1


def test_every_key_of_the_commands_is_in_their_help_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    for command, own in schema.COMMANDS.items():
        assert distill(command, "--help") == 0
        shown = capsys.readouterr().out
        for key in keys(own.shape):
            if "node" not in key.rules and "nodes" not in key.rules:
                assert f"  {key.name}: " in shown and key.rules["help"] in shown, key.name


def test_a_listed_group_shows_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, shape in (("optimizers", schema.Optimizer), ("datasets", schema.Dataset), ("schedules", schema.Stage)):
        assert distill("list", kind) == 0
        shown = capsys.readouterr().out
        assert all(key.rules["help"] in shown for key in keys(shape) if key.name != "_target_")


def test_the_schema_is_read_without_hydra_omegaconf_or_torch() -> None:
    code = "import sys, distill_cli.config.schema; print({'hydra', 'omegaconf', 'torch', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
