"""An exported student answers as the student does, is refused where it would not, and no file that is not ours is run."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import QUICK, ROOT, distill, read_json
from onnx import TensorProto, helper
from PIL import Image

from distill_cli.base import files
from distill_cli.config.load import load
from distill_cli.config.schema import Export
from distill_cli.deploy import graph, quantization, verification
from distill_cli.deploy.judged import data_of
from distill_cli.deploy.predictor import Predictor
from distill_cli.models import calibration as calibrated


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run/, a student of digits that was exported in fp32 and int8."""
    place = tmp_path_factory.mktemp("export")
    before = Path.cwd()
    os.chdir(place)
    assert distill("train", *QUICK, "run_dir=run") == 0
    assert distill("export", "ckpt=run") == 0
    assert distill("export", "ckpt=run", "precision=int8", "tolerance=0.05") == 0
    os.chdir(before)
    return place


@pytest.fixture
def model(home: Path) -> Path:
    return home / "run" / "export" / "fp32" / "model.onnx"


@pytest.fixture
def traced(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is not traced again: what follows on it is proved."""
    monkeypatch.setattr(graph, "onnx_of", lambda network: onnx.load(model))


def test_the_file_takes_raw_pictures_of_any_number_and_holds_all_that_is_needed(home: Path, model: Path) -> None:
    assert sorted(path.name for path in model.parent.iterdir()) == ["export.json", "model.json", "model.onnx"]
    student = Predictor.read(home / "run")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (given,), (answer,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(uint8)", [1, 28, 28])
    assert answer.name == "probabilities"
    for number in (1, 2, 64, 257):
        pictures = torch.randint(0, 256, (number, 1, 28, 28), dtype=torch.uint8)
        (found,) = session.run(None, {"images": pictures.numpy()})
        assert np.abs(found - student(pictures).numpy()).max() < 1e-5
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == [str(digit) for digit in range(10)]
    told = read_json(model.parent / "export.json")
    assert about["source_sha256"] == told["source_sha256"] == read_json(home / "run" / "model.json")["sha256"]
    assert (told["verified_on"], told["samples"], told["equal"]) == ("test", 360, 360)
    assert json.loads(about["accuracy"])["test"] == told["accuracy"] == told["exported_accuracy"]
    opsets = onnx.load(model).opset_import
    assert [(one.domain, one.version >= 20) for one in opsets] == [("", True)]


def test_eval_and_predict_take_it_as_the_run_itself(home: Path, model: Path) -> None:
    rows = {}
    for name, path in (("run", home / "run"), ("onnx", model)):
        assert distill("eval", f"ckpt={path}", f"predictions={name}.csv") == 0
        rows[name] = list(csv.DictReader(io.StringIO(Path(f"{name}.csv").read_text())))
    one, other = (read_json(path) for path in (home / "run/eval/digits-test.json", model.parent / "digits-test.json"))
    assert one["student"]["accuracy"] == other["student"]["accuracy"] and one["samples"] == other["samples"]
    assert other["student"]["kl"] == pytest.approx(one["student"]["kl"], abs=1e-6)  # the teacher is found from there
    for row, exported in zip(rows["run"], rows["onnx"], strict=True):
        assert row["predicted"] == exported["predicted"]
        assert all(abs(float(row[f"student_{n}"]) - float(exported[f"student_{n}"])) < 1e-5 for n in range(10))
    Image.fromarray(np.arange(60 * 40, dtype=np.uint8).reshape(60, 40)).save("photo.png")
    told = {}
    for name, path in (("run", home / "run"), ("onnx", model)):
        assert distill("predict", f"ckpt={path}", "input=photo.png", f"output={name}.csv") == 0
        (told[name],) = csv.DictReader(io.StringIO(Path(f"{name}.csv").read_text()))
    assert all(abs(float(told["run"][f"p_{n}"]) - float(told["onnx"][f"p_{n}"])) < 1e-5 for n in range(10))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ckpt={model}"], "is exported already"),
        (["ckpt={run}", "output=taken"], "taken is a file, and an export is a folder"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    words: list[str], told: str, home: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").touch()
    assert distill("export", *(word.format(model=model, run=home / "run") for word in words)) == 2
    assert told in capsys.readouterr().err


def test_int8_is_a_fraction_of_the_bytes_and_agrees(home: Path, model: Path) -> None:
    int8 = home / "run" / "export" / "int8"
    told = read_json(int8 / "export.json")
    assert told["bytes"] == (int8 / "model.onnx").stat().st_size
    assert told["validation"]["agreement"] >= 0.97 and told["agreement"] > 0.97
    assert told["calibration_samples"] == 256 and len(told["calibration_sha256"]) == 64
    nodes = onnx.load(int8 / "model.onnx").graph.node
    plain = {node.op_type for node in nodes} - {"QuantizeLinear", "DequantizeLinear"}
    assert {"Conv", "Gemm"} <= plain and sum(node.op_type == "QuantizeLinear" for node in nodes) >= 4
    quantised = {name for node in nodes if node.op_type == "QuantizeLinear" for name in node.input[:1]}
    before = {node.output[0] for node in nodes if node.op_type in ("Cast", "Mul")}
    assert not quantised & {*before, "images", "probabilities"}  # the normalisation is left as it is
    assert distill("eval", f"ckpt={int8}") == 0
    assert read_json(int8 / "digits-test.json")["student"]["accuracy"] == told["exported_accuracy"]


def test_a_student_that_learnt_in_8_bits_leaves_with_its_own_ranges(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student = Predictor.read(home / "run")
    settings = load("export", [])
    assert isinstance(settings, Export)
    calibrated.quantize(student.network, data_of(student, settings, "train").train)
    (home / "rounded").mkdir()
    student.write(home / "rounded")
    assert distill("export", f"ckpt={home / 'rounded'}") == 2
    assert "ckpt=RUN/fp32" in capsys.readouterr().err
    monkeypatch.delattr(quantization, "measured")  # nothing is calibrated
    assert distill("export", f"ckpt={home / 'rounded'}", "precision=int8") == 0
    told = read_json(home / "rounded" / "export" / "int8" / "export.json")
    assert told["agreement"] >= 0.995 and told["validation"]["agreement"] >= 0.995
    written = onnx.load(home / "rounded" / "export" / "int8" / "model.onnx").graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in written.initializer}
    found = [values[node.input[1]].item() for node in written.node if node.op_type == "QuantizeLinear"]
    *_, rounding = read_json(home / "rounded" / "model.json")["model"]["edits"]
    assert found == pytest.approx([scale for scale, _ in rounding["ranges"].values()])
    assert sum(tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1 for tensor in written.initializer) == 3


@pytest.mark.usefixtures("traced")
def test_int8_that_decides_otherwise_is_put_aside_whatever_its_accuracy(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = quantization.measured

    def damaged(model: Any, calibration: Any) -> Any:
        made = measured(model, calibration)
        *_, head = (t for t in made.graph.initializer if t.data_type == TensorProto.INT8 and 10 in t.dims)
        values = onnx.numpy_helper.to_array(head).copy()
        np.moveaxis(values, list(head.dims).index(10), 0)[3] = -127  # no input is negative: never again a three
        head.CopyFrom(onnx.numpy_helper.from_array(values, head.name))
        return made

    monkeypatch.setattr(quantization, "measured", damaged)
    assert distill("export", f"ckpt={home / 'run'}", "precision=int8", "output=aside", "tolerance=1") == 4
    said = capsys.readouterr().err
    assert re.search(r"(8[89]|9[0-2])\.\d% of validation, 97% are needed", said) and "schedule=quantize" in said
    assert [path.name for path in Path("aside").iterdir()] == ["model.onnx.rejected"]
    changed = verification.Comparison(
        samples=1000, equal=922, close=0, largest=0.4, accuracy=0.810, exported_accuracy=0.812
    )
    assert "92.2%" in verification.too_different(changed, 0.01)  # a ResNet-20's weights in 8 bits without VNNI
    assert not verification.too_different(replace(changed, equal=970), 0.01)


@pytest.mark.usefixtures("traced")
def test_a_graph_that_answers_otherwise_is_not_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verification, "CLOSE", 1e-12)
    assert distill("export", f"ckpt={home / 'run'}", "output=none") == 4
    assert "answers differently from the student" in capsys.readouterr().err and not Path("none").exists()


@pytest.mark.usefixtures("traced")
def test_without_the_data_it_is_verified_on_random_samples_and_says_so(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"ckpt={home / 'run'}", "dataset=image_folder", "dataset.root=gone", "output=away"]
    assert distill("export", *words) == 0
    assert "the data are not at hand" in capsys.readouterr().err
    assert read_json(Path("away/export.json"))["verified_on"] == "random samples"
    assert distill("export", *words, "precision=int8") == 3
    assert "int8 is calibrated on training samples" in capsys.readouterr().err


def test_a_program_of_torch_is_written_without_any_of_the_data_and_never_read(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill("export", f"ckpt={home / 'run'}", "format=torch", "output=program") == 0
    weights = (home / "run" / "student.safetensors").stat().st_size
    path = Path("program/model.pt2")
    assert weights < path.stat().st_size < weights + 100_000
    assert read_json(Path("program/export.json"))["largest"] < 1e-4
    for verb in (["eval"], ["predict", "input=x"]):
        assert distill(verb[0], f"ckpt={path}", "dataset=digits", *verb[1:]) in (2, 4)
    assert "written and never read" in capsys.readouterr().err


def external(proto: Any) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def domain(proto: Any) -> None:
    proto.graph.node.append(helper.make_node("Run", ["images"], ["x"], domain="evil"))
    proto.opset_import.append(helper.make_opsetid("evil", 1))


def giant(proto: Any) -> None:
    tensor = proto.graph.initializer.add(name="giant", data_type=TensorProto.FLOAT)
    tensor.dims.extend([2**29])


def growing(proto: Any) -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [2**20, 2**20])
    proto.graph.initializer.append(shape)
    proto.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["large"]))


def constant(proto: Any) -> None:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[2**31])
    proto.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def function(proto: Any) -> None:
    proto.functions.append(helper.make_function("", "f", [], ["y"], [], [helper.make_opsetid("", 20)]))


def foreign(proto: Any) -> None:
    del proto.metadata_props[:]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (external, "in another file"),
        (domain, "needs operators of evil"),
        (giant, "larger than the file"),
        (growing, "makes a tensor of 1048576 x 1048576"),
        (constant, "larger than the file"),
        (function, "functions of its own"),
        (foreign, "not written by `distill export`"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_file_is_refused_and_nothing_of_it_is_run(
    change: Callable[[Any], None], told: str, model: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    proto = onnx.load(model)
    change(proto)
    Path("model.onnx").write_bytes(proto.SerializeToString())
    card = read_json(model.parent / "model.json")
    del card["checksum"]
    files.write_json(Path("model.json"), {**card, "sha256": files.sha256(Path("model.onnx"))})

    def run(*_: Any, **__: Any) -> None:
        raise AssertionError("it was run")

    monkeypatch.setattr(onnxruntime, "InferenceSession", run)
    assert distill("eval", "ckpt=model.onnx") == 4
    said = capsys.readouterr().err
    assert told in said and "not run" in said


def test_a_file_whose_bytes_changed_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.onnx").write_bytes(model.read_bytes()[:-7])
    Path("model.json").write_bytes((model.parent / "model.json").read_bytes())
    assert distill("predict", "ckpt=model.onnx", "input=x.png") == 4
    assert "is not what was written" in capsys.readouterr().err


def test_without_the_extra_the_line_to_type_is_said_and_nothing_else_imports_it(home: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['onnx', 'onnxscript', 'onnxruntime'])); "  # whose import then fails
        "import importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda name, *more: None if name.startswith('onnx') else find(name, *more); "
        "from distill_cli.cli import main; "
        f"code = main(['export', 'ckpt={home / 'run'}']); print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "2 False\n"), done.stderr
    assert 'pip install "distill-cli[export]"' in done.stderr
    for path in (ROOT / "distill_cli").rglob("*.py"):  # nothing imports it before it is asked to
        assert not re.search(r"^(import|from) onnx", path.read_text(encoding="utf-8"), re.MULTILINE), path


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds nothing but numpy, pillow and onnxruntime."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in ("numpy", "pillow", "onnxruntime"):
        package = distribution(name)
        for part in {file.parts[0] for file in package.files or () if file.parts[0] != ".."}:
            (site / part).symlink_to(Path(str(package.locate_file(part))))
    return folder / "bin" / "python"


def test_the_manuals_program_gives_the_same_with_numpy_pillow_and_onnxruntime_alone(
    home: Path, model: Path, bare: Path
) -> None:
    page = (ROOT / "distill_cli" / "manual" / "deploy.md").read_text()
    (program,) = re.findall(r"^```python\n# classify.py.*?\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len([line for line in program.splitlines() if line]) == 10
    Path("classify.py").write_text(program)
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save("photo.png")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(bare), *words], capture_output=True, text=True, env=clean)

    for absent in ("torch", "onnx", "scipy", "distill_cli"):
        assert f"No module named '{absent}'" in typed("-c", f"import {absent}").stderr
    done = typed("classify.py", str(model), "photo.png")
    assert done.returncode == 0, done.stderr
    name, confidence = done.stdout.split()
    assert distill("predict", f"ckpt={home / 'run'}", "input=photo.png", "output=p.csv") == 0
    (row,) = csv.DictReader(io.StringIO(Path("p.csv").read_text()))
    assert row["predicted"] == name and float(row["confidence"]) == pytest.approx(float(confidence), abs=1e-5)


def test_the_report_shows_what_was_measured_of_the_exports(home: Path) -> None:
    told = read_json(home / "run" / "export" / "speed.json")
    assert [row["name"] for row in told["rows"]] == ["teacher", "student", "fp32", "int8"]
    _, eager, fp32, int8 = told["rows"]
    assert int8["bytes"] < 0.45 * fp32["bytes"] and fp32["accuracy"] == eager["accuracy"] and int8["agreement"] > 0.97
    for row in told["rows"]:
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p95"] and row["samples_per_second"] > 0
    assert distill("report", str(home / "run")) == 0
    page = (home / "run" / "report.html").read_text()
    assert page.count("From raw samples to probabilities") == 2  # a table, and its name for those who hear it
    assert fp32["runtime"] in page and told["cpu"] in page and "agreement with the student" in page
