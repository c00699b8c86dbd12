"""Proves where T and alpha stand at every step of the shipped schedules, and how stages become epochs."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from omegaconf import OmegaConf

from distill_cli.config.places import conf_dir
from distill_cli.config.records import read
from distill_cli.config.schema import Stage as StageSettings
from distill_cli.config.structured import structured
from distill_cli.training import schedule
from distill_cli.training.schedule import Ramp, Stage

OBJECTIVES = ["hint", "kd"]


def shipped(name: str, T: float = 3.0, alpha: float = 0.7) -> list[Stage]:
    """The stages of a file in conf/schedule/ under the root's T and alpha, as composing fills them in."""
    file = OmegaConf.load(conf_dir() / "schedule" / f"{name}.yaml")
    nodes = {key: OmegaConf.merge(OmegaConf.structured(structured(StageSettings)), file[key]) for key in file}
    root = OmegaConf.create({"T": T, "alpha": alpha, "schedule": nodes})
    plain: Any = OmegaConf.to_container(root, resolve=True)
    return schedule.stages({key: read(StageSettings, one) for key, one in plain["schedule"].items()}, OBJECTIVES)


def node(**keys: Any) -> StageSettings:
    return read(StageSettings, {"T": 3.0, "alpha": 0.7, **keys})


def values(stage: Stage, per_epoch: int) -> list[tuple[float, float]]:
    """(T, alpha) at every step of a stage."""
    steps = stage.epochs * per_epoch
    where = [schedule.progress(step, steps) for step in range(steps)]
    return [(stage.T.at(p), stage.alpha.at(p)) for p in where]


def test_two_stage_imitates_for_ten_epochs_and_eases_down_in_five() -> None:
    imitate, refine = shipped("two_stage")
    assert [(s.name, s.epochs) for s in (imitate, refine)] == [("imitate", 10), ("refine", 5)]
    assert set(values(imitate, 7)) == {(3.0, 0.7)}
    path = values(refine, 7)
    assert path[0] == (3.0, 0.7)
    assert path[-1] == pytest.approx((1.0, 0.0))
    assert len(path) == 35
    # Half-way through, both stand half-way.
    assert path[17] == pytest.approx((2.0, 0.35))
    assert all(a[0] > b[0] and a[1] > b[1] for a, b in pairwise(path))


def test_two_stage_follows_the_users_temperature() -> None:
    imitate, refine = shipped("two_stage", T=8.0, alpha=0.5)
    assert (imitate.T.at(0.0), imitate.alpha.at(1.0)) == (8.0, 0.5)
    assert (refine.T.at(0.0), refine.T.at(1.0), refine.alpha.at(0.0)) == (8.0, 1.0, 0.5)


def test_constant_never_moves() -> None:
    (only,) = shipped("constant")
    assert only.epochs == 15
    assert set(values(only, 3)) == {(3.0, 0.7)}


def test_anneal_goes_from_its_first_step_to_its_last() -> None:
    (only,) = shipped("anneal")
    path = values(only, 4)
    assert path[0] == (3.0, 0.7)
    assert path[-1] == pytest.approx((1.0, 0.0))
    steps = [round(a[0] - b[0], 9) for a, b in pairwise(path)]
    assert set(steps) == {round(2 / 59, 9)}


def test_progress_is_0_at_the_first_step_and_1_at_the_last() -> None:
    assert [schedule.progress(step, 5) for step in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_stage_of_one_step_stands_at_its_start() -> None:
    assert values(schedule.stages({"s": node(T=[4.0, 1.0])}, OBJECTIVES)[0], 1) == [(4.0, 0.7)]


def test_linear_and_cosine_share_their_ends_and_their_middle_only() -> None:
    line, curve = Ramp(4.0, 2.0, "linear"), Ramp(4.0, 2.0, "cosine")
    for place in (0.0, 0.5, 1.0):
        assert curve.at(place) == pytest.approx(line.at(place))
    assert line.at(0.25) == pytest.approx(3.5)
    assert curve.at(0.25) == pytest.approx(4.0 - 2.0 * (1 - math.cos(math.pi / 4)) / 2)
    assert curve.at(0.25) > line.at(0.25) and curve.at(0.75) < line.at(0.75)


def test_shape_of_a_stage_bends_both_of_its_ramps() -> None:
    (stage,) = schedule.stages({"s": node(T=[5.0, 1.0], alpha=[1.0, 0.0], shape="cosine")}, OBJECTIVES)
    moved = (1 - math.cos(math.pi * 0.2)) / 2
    assert stage.T.at(0.2) == pytest.approx(5.0 - 4.0 * moved)
    assert stage.alpha.at(0.2) == pytest.approx(1.0 - moved)


def test_a_stage_uses_its_own_objectives_or_all_that_were_chosen() -> None:
    nodes = {"one": node(objective="hint"), "two": node(objective=["kd"]), "three": node()}
    assert [s.objectives for s in schedule.stages(nodes, OBJECTIVES)] == [("hint",), ("kd",), ("hint", "kd")]


def test_hint_then_kd_gives_each_stage_its_own() -> None:
    stages = shipped("hint_then_kd")
    assert [(s.name, s.epochs, s.objectives) for s in stages] == [
        ("hint", 3, ("hint",)), ("imitate", 8, ("kd",)), ("refine", 4, ("kd",))]  # fmt: skip
    assert stages[0].alpha.at(0.5) == 1.0
    # A stage that does not speak of T takes the root's.
    assert stages[1].T.at(0.3) == 3.0


def test_a_stage_keeps_its_own_learning_rate() -> None:
    nodes = {"a": node(lr=0.5), "b": node()}
    assert [s.lr for s in schedule.stages(nodes, OBJECTIVES)] == [0.5, None]


def test_stages_of_no_epochs_are_left_out() -> None:
    nodes = {"a": node(epochs=0), "b": node(epochs=2), "c": node(epochs=0)}
    assert [s.name for s in schedule.stages(nodes, OBJECTIVES)] == ["b"]


def test_epochs_are_numbered_through_all_stages() -> None:
    stages = schedule.stages({"a": node(epochs=2), "b": node(epochs=3)}, OBJECTIVES)
    found = [(e.number, e.title, e.first, e.steps) for e in schedule.epochs(stages, 10)]
    assert found == [
        (1, "a 1/2", 0, 10),
        (2, "a 2/2", 10, 10),
        (3, "b 1/3", 20, 10),
        (4, "b 2/3", 30, 10),
        (5, "b 3/3", 40, 10),
    ]


def test_a_stage_of_steps_ends_inside_a_pass() -> None:
    stages = schedule.stages({"a": node(steps=25), "b": node(epochs=0, steps=3), "c": node()}, OBJECTIVES)
    found = [(e.number, e.title, e.begins, e.first, e.steps) for e in schedule.epochs(stages, 10)]
    assert found == [
        (1, "a 1/3", 0, 0, 10), (2, "a 2/3", 0, 10, 10), (3, "a 3/3", 0, 20, 5), (4, "b 1/1", 25, 25, 3), (5, "c 1/1", 28, 28, 10)
    ]  # fmt: skip
    assert [str(stage) for stage in stages] == ["25 steps", "3 steps", "1 epoch"]


def test_a_plain_schedule_is_labels_only() -> None:
    (stage,) = schedule.plain(4)
    assert (stage.epochs, stage.objectives, stage.alpha.at(0.0), stage.alpha.at(1.0)) == (4, ("ce",), 0.0, 0.0)


def test_a_ramp_reads_as_its_ends() -> None:
    assert str(Ramp(3.0, 3.0)) == "3"
    assert str(Ramp(3.0, 1.0)) == "3→1"
    assert str(Ramp(0.7, 0.0, "cosine")) == "0.7→0"
