"""The command line: help without torch, flags and overrides in any order, what Hydra's flags print, lists."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import distill

import distill_cli
from distill_cli.cli.pages import command_names


@pytest.mark.parametrize(
    "words",
    [[], ["--help"], ["--version"], ["help"], ["help", "sweeps"], *([name, "--help"] for name in command_names())],
)
def test_help_answers_without_importing_torch_or_hydra(words: list[str]) -> None:
    code = (
        f"import sys; from distill_cli.cli import main; assert main({words!r}) == 0; "
        "print({'torch', 'hydra'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
    assert "distill" in done.stdout


def test_a_wrong_setting_is_told_without_importing_torch(tmp_path: Path) -> None:
    code = "import sys; from distill_cli.cli import main; assert main(['train', 'T=0']) == 2; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_help_shows_the_keys_and_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", "--help") == 0
    shown = capsys.readouterr().out
    assert "distill train teacher=resnet18 student=smallcnn T=3" in shown
    for key in ("T: 3.0", "alpha: 0.7", "baseline: false", "-m, --multirun"):
        assert key in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("--version") == 0
    assert capsys.readouterr().out == f"distill {distill_cli.__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["T=5", "--cfg", "job", "student=tinycnn"],
        ["--cfg", "job", "T=5", "student=tinycnn"],
        ["T=5", "student=tinycnn", "--cfg", "job"],
    ],
)
def test_flags_and_overrides_mix_in_any_order(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("train", *words) == 0
    shown = capsys.readouterr().out
    assert "T: 5.0" in shown
    assert "- 8\n" in shown  # tinycnn's first width


def test_info_shows_where_configuration_is_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "conf" / "student").mkdir(parents=True)
    assert distill("train", "--info", "searchpath") == 0
    assert f"distill://{tmp_path / 'conf'}" in capsys.readouterr().out


def test_a_model_of_the_users_is_listed_and_offered_in_both_roles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "conf" / "model"
    folder.mkdir(parents=True)
    (folder / "mynet.yaml").write_text("# my own network\n_target_: mynet.MyNet\n")
    assert distill("list", "models") == 0
    assert "my own network" in capsys.readouterr().out
    assert distill("train", "teacher=mynet", "student=mynet", "--cfg", "job") == 0
    assert capsys.readouterr().out.count("_target_: mynet.MyNet") == 2


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("models", ["resnet18", "smallcnn", "wrn_40_2"]),
        ("datasets", ["digits", "image_folder"]),
        ("objectives", ["kd", "hint"]),
        ("schedules", ["two_stage"]),
        ("experiments", ["seed_example"]),
    ],
)
def test_list_shows_each_kind(kind: str, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert distill("list", kind) == 0
    shown = capsys.readouterr().out
    for name in names:
        assert name in shown


def test_config_dir_comes_before_the_shipped_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine with space" / "student"
    folder.mkdir(parents=True)
    (folder / "smallcnn.yaml").write_text("_target_: mine.Own\n")
    assert distill("train", "--config-dir", str(folder.parent), "--cfg", "job") == 0
    assert "_target_: mine.Own" in capsys.readouterr().out


def test_another_projects_train_yaml_in_conf_stays_unread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text("lr: 1\n")
    (tmp_path / "conf" / "own.yaml").write_text("defaults: [train, override student: tinycnn, _self_]\nT: 7\n")
    assert distill("train", "--cfg", "job") == 0
    assert "T: 3.0" in capsys.readouterr().out
    assert distill("train", "-cn", "own", "--cfg", "job") == 0
    assert "T: 7.0" in capsys.readouterr().out


def test_the_nearest_of_the_users_folders_wins_wherever_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, folder in enumerate(("named", "conf", "common")):
        (tmp_path / folder / "optimizer").mkdir(parents=True)
        (tmp_path / folder / "optimizer" / "adam.yaml").write_text(
            f"# from {folder}\n_target_: x.Y\nlr: {number + 2}\n"
        )
    monkeypatch.setenv("DISTILL_CONF", str(tmp_path / "common"))
    assert distill("train", "--cfg", "job") == 0
    assert "lr: 3\n" in capsys.readouterr().out
    assert distill("list", "optimizers") == 0
    assert "from conf" in capsys.readouterr().out
    assert distill("train", "--config-dir", "named", "--cfg", "job") == 0
    assert "lr: 2\n" in capsys.readouterr().out


def test_a_page_read_only_in_part_ends_quietly(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "distill_cli", "train", "--help"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as page:
        assert page.stdout is not None and page.stderr is not None
        page.stdout.close()
        assert page.stderr.read() == b""
    assert page.returncode == 0
