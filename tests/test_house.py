"""The house rules: imports only go down, every YAML composes and builds, every recipe trains, every command has help."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from helpers import ROOT, distill, read_json, rows

from distill_cli import objectives
from distill_cli.cli.pages import command_names, page_of
from distill_cli.config import places
from distill_cli.config.load import load
from distill_cli.training.optim import Recipe

# The rooms from the roof to the ground: a room imports only rooms below its own.
ROOMS = [
    "cli",
    "pipeline",
    "sweep",
    "deploy",
    "teachers",
    "training",
    "objectives",
    "tasks",
    "models",
    "report",
    "data",
    "trackers",
    "runs",
    "config",
    "base",
]
FLOOR = {name: number for number, name in enumerate(["__main__", *ROOMS, "__init__"])}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "distill_cli").parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "distill_cli":
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            found |= {name if name in FLOOR else "__init__" for name in names}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "distill_cli").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_go_down(path: Path) -> None:
    room = room_of(path)
    for other in imported_rooms(path) - {room}:
        assert FLOOR[other] > FLOOR[room], f"{room} imports {other}, which is not below it"


@pytest.mark.parametrize("path", sorted((ROOT / "distill_cli").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_first_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", sorted((ROOT / "distill_cli").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_and_no_function_is_too_long_unless_it_says_why(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert text.count("\n") <= 250 or "Longer than" in (ast.get_docstring(tree) or "")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 60 or "Longer than" in (ast.get_docstring(node) or ""), f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", sorted((ROOT / "distill_cli").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_hydra_is_imported_where_configurations_and_sweeps_are_made(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
    assert "hydra" not in imported or room_of(path) in ("config", "sweep")


def test_no_file_holds_both_sides_of_a_merge() -> None:
    places = [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(path for top in ("distill_cli", "conf", "tests") for path in (ROOT / top).rglob("*")),
    ]
    texts = [path for path in places if path.suffix in (".md", ".py", ".yaml", ".html", ".css")]
    assert not [path for path in texts if re.search(r"^(<{7}|>{7}) ", path.read_text(), re.MULTILINE)]


def test_processes_of_a_run_are_told_apart_in_one_place() -> None:
    for path in (ROOT / "distill_cli").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        place = path.relative_to(ROOT / "distill_cli").as_posix()
        assert "torch.distributed" not in text or place in (
            "base/world.py",
            "base/joining.py",
            "base/launching.py",
            "base/sharding.py",
            "base/shard_files.py",
            "models/synced.py",
        )
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.If | ast.IfExp | ast.While) and place not in ("base/world.py", "base/joining.py"):
                assert "world.rank" not in ast.unparse(node.test), place


def test_no_line_of_the_shipped_yaml_is_too_wide_to_read() -> None:
    wide = [path for path in (ROOT / "conf").rglob("*.yaml") if max(map(len, path.read_text().splitlines())) > 132]
    assert not wide


def choices() -> list[str]:
    needs = {"image_folder": ["dataset.root=x"], "image_shards": ["dataset.root=x"], "image_table": ["dataset.root=x"],
             "torchvision": [".name=resnet18"], "timm": [".name=resnet18"], "dataset=text": ["dataset.root=x"],
             "language": ["dataset.root=x"], "huggingface": [".name=x"]}  # fmt: skip
    lines = []
    for group in ("teacher", "student", "dataset", "objective", "schedule", "optimizer", "experiment"):
        for name in places.group_files(group):
            more = [
                word if word.startswith("dataset") else f"{group}{word}"
                for word in needs.get(name, needs.get(f"{group}={name}", []))
            ]
            lines.append(" ".join([f"{group}={name}", *more]))
    return lines


@pytest.mark.parametrize("line", choices())
def test_every_choice_composes_and_is_valid(line: str) -> None:
    words = line.split()
    stages = {"hint_then_kd": "[hint,kd]", "layers_then_answers": "[embedding,hidden,attention_map,kd]"}
    if words[0].startswith("schedule="):
        words.append(f"objective={stages.get(words[0].partition('=')[2], 'kd')}")
    settings = load("train", words)
    group, name = words[0].split("=")
    assert settings.choices[group] == name
    assert list(objectives.build(settings.objective)) == list(settings.objective)
    Recipe(settings.optimizer).check("optimizer")


def test_every_choice_has_a_line_of_its_own_in_list() -> None:
    for group in ("student", "dataset", "objective", "schedule", "optimizer", "experiment"):
        for name, path in places.group_files(group).items():
            comments = [
                line for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line
            ]
            assert comments, f"{group}/{name} has no comment to be listed by"


TINY = """
# 128 + 128 + 128 random pictures in ten classes
_target_: tiny.pictures
size: 28
mean: null
std: null
"""

TINY_CODE = """
import numpy as np
import torch
from distill_cli.data import Data, Part, assemble


def pictures(size: int, mean: list[float] | None, std: list[float] | None) -> Data:
    generator = torch.Generator().manual_seed(0)
    def part() -> Part:
        images = torch.randint(0, 256, (128, 1, size, size), generator=generator, dtype=torch.uint8)
        return Part(images, np.arange(128) % 10)
    return assemble(part(), part(), part(), [str(d) for d in range(10)], val_fraction=0.1, split_seed=0,
                    mean=mean, std=std, note="random pictures")
"""


@pytest.mark.parametrize("name", sorted(places.group_files("experiment")))
def test_every_recipe_trains_two_steps_a_stage_on_data_of_the_users(name: str, tmp_path: Path) -> None:
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "tiny.yaml").write_text(TINY)
    (tmp_path / "tiny.py").write_text(TINY_CODE)
    said = [f"{n} of {n % 7}" for n in range(158)]  # of which 128 are for training
    (tmp_path / "tiny.csv").write_text("text,label\n" + "".join(f"{text},{n % 4}\n" for n, text in enumerate(said)))
    (tmp_path / "tiny.txt").write_text("\n\n".join(said))
    words = [f"experiment={name}", "report=false", "run_dir=run", "teacher.fit.epochs=1", "batch_size=64"]
    words += {
        "stdlib_docs": ["dataset=text", "dataset.root=tiny.csv", "teacher.width=16", "teacher.inner=16"],
        "pydoc": ["dataset=language", "dataset.root=tiny.txt", "dataset.separator=\\n\\n", "dataset.packing=none"],
    }.get(load("train", words).choices["dataset"], ["dataset=tiny", "teacher=smallcnn", "teacher.widths=[8,8]"])
    stages = list(load("train", words).schedule)
    assert distill("train", *words, *(f"schedule.{stage}.epochs=1" for stage in stages)) == 0
    run = tmp_path / "run"
    assert [row["step"] for row in rows(run)] == [2 * (number + 1) for number in range(len(stages))]
    assert 0 <= read_json(run / "summary.json")["test"]["student"]["accuracy"] <= 1


@pytest.mark.parametrize("name", command_names())
def test_every_command_has_a_page_with_usage(name: str) -> None:
    assert f"usage: distill {name}" in page_of(name)


def test_nothing_loads_a_pickle() -> None:
    for path in (ROOT / "distill_cli").rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        for call in map(ast.unparse, calls):  # a message may show such a line to the user
            assert not call.startswith(("pickle.load", "yaml.load(")), f"{path.name} holds {call}"
            assert not call.startswith("torch.load(") or "weights_only=True" in call, f"{path.name} holds {call}"
