"""The wheel: it holds conf/, the manual and nothing of the checkout, and works from another directory with a ./conf there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers import QUICK, ROOT, distill_process, only_run, read_json


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = target.glob("*.whl")
    return path


def test_the_wheel_holds_every_yaml_page_and_template_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"distill_cli/conf/{path.relative_to(ROOT / 'conf')}" for path in (ROOT / "conf").rglob("*.yaml")}
    beside = [
        *(ROOT / "distill_cli" / "manual").glob("*.md"),
        *(ROOT / "distill_cli" / "report" / "templates").iterdir(),
    ]
    shipped |= {str(path.relative_to(ROOT)) for path in beside}
    assert len(shipped) > 50 and shipped <= names
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"distill_cli"}


@pytest.mark.slow
def test_an_installed_wheel_trains_a_network_of_the_users(wheel: Path, tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "work ü"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    assert subprocess.run(install, timeout=300).returncode == 0
    (work / "conf" / "student").mkdir(parents=True)
    (work / "conf" / "student" / "mynet.yaml").write_text("# mine\n_target_: mynet.MyNet\nwidth: 6\n")
    (work / "mynet.py").write_text(
        "from torch import nn\n"
        "class MyNet(nn.Sequential):\n"
        "    def __init__(self, width: int, in_channels: int, num_classes: int, input_size: tuple[int, int]) -> None:\n"
        "        layers = [nn.Conv2d(in_channels, width, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]\n"
        "        super().__init__(*layers, nn.Linear(16 * width, num_classes))\n"
    )
    words = ["student=mynet" if word.startswith("student=") else word for word in QUICK]
    done = distill_process("train", *words, "student.width=8", cwd=work, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert "mynet  1,370 parameters" in done.stdout
    card = read_json(only_run(work) / "model.json")["model"]
    assert (card["_target_"], card["width"]) == ("mynet.MyNet", 8)
    shown = distill_process("list", "models", cwd=work, PYTHONPATH=str(site))
    assert "mynet" in shown.stdout
    page = distill_process("help", "sweeps", cwd=work, PYTHONPATH=str(site))
    assert page.stdout.startswith("# Sweeps")
    where = distill_process("train", "--info", "searchpath", cwd=work, PYTHONPATH=str(site))
    assert str(site / "distill_cli" / "conf") in where.stdout
