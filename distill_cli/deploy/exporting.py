"""A student leaves as a file or a folder that needs none of us: made aside, verified, then put in its place with its card."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from distill_cli import __version__
from distill_cli.base import files, ui
from distill_cli.base.errors import CheckpointError, ConfigError, DataError
from distill_cli.base.names import size
from distill_cli.config.schema import Export
from distill_cli.data import Data
from distill_cli.deploy import formats, graph, speed, verification
from distill_cli.deploy.extra import PACKAGES
from distill_cli.deploy.judged import data_of, run_of
from distill_cli.deploy.onnx_file import FORMAT, MARK, SUFFIX, OnnxNet, Raw
from distill_cli.deploy.predictor import Predictor
from distill_cli.models import Classifier
from distill_cli.models.deployable import CARD

FACTS = "export.json"  # all that was verified
MODEL = f"model{SUFFIX}"
REJECTED = ".rejected"


def export(student: Predictor, settings: Export) -> Path:
    """Write what settings ask for; returns the file or the folder.

    Raises:
        ConfigError: it cannot be exported so. CheckpointError: what was made answers differently. DataError: int8 has no data.
    """
    assert student.path is not None
    if isinstance(student.network.net, OnnxNet):
        raise ConfigError(f"ckpt: {student.path} is exported already", "give the run it was made of")
    if student.network.head is not None and settings.format != "huggingface":
        raise ConfigError(
            f"format={settings.format}: is for students that answer once a sample, and a language model answers at every token",
            "format=huggingface",
        )
    home = run_of(student) or student.path.parent
    kind = settings.precision if settings.format == "onnx" else settings.format
    folder = files.place(settings.output, "output") if settings.output else home / "export" / kind
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output: {folder} is a file, and an export is a folder")
    with _made(folder):
        written = (_onnx if settings.format == "onnx" else _other)(student, settings, folder)
    measured = (
        settings.format == "onnx" and not settings.output and speed.of_exports(student, folder.parent, settings.trust)
    )
    if measured:
        speed.show(measured)
    return written


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A folder to write to, which is gone again where nothing came to lie in it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it holds something
            folder.rmdir()


def _other(student: Predictor, settings: Export, folder: Path) -> Path:
    split, where = _split(student, settings)
    name, facts = formats.WRITERS[settings.format](student, split, folder)
    told = {**facts, **_origin(student), "verified_on": where, "file": name, "sha256": files.sha256(folder / name)}
    files.write_json(folder / FACTS, {**told, "versions": versions()})
    ui.show(f"verified     on {facts['samples']:,} samples of {where}: largest difference {facts['largest']:.1e}")
    ui.show(f"exported     {folder if settings.format == 'huggingface' else folder / name}")
    return folder / name


def _onnx(student: Predictor, settings: Export, folder: Path) -> Path:
    rounding = student.in_8_bits()
    if rounding and settings.precision != "int8":
        raise ConfigError(
            "precision=fp32: this student was trained in 8 bits", "precision=int8, or ckpt=RUN/fp32 as it was before"
        )
    data = _all(student, settings) if settings.precision == "int8" else None
    model, calibration = graph.onnx_of(rounding or student.network), dict[str, Any]()
    if rounding:
        calibration["quantisation"] = "static, QDQ, U8S8 by channel, in the ranges that it was trained under"
    elif data is not None:
        model, calibration = _quantised(model, student, data, settings.calibration)
    about = _about(student, settings.precision, calibration)
    made = _loaded(student, graph.marked(model, about))
    facts: dict[str, Any] = {"format": "onnx", "precision": settings.precision, **_origin(student), **calibration}
    if data is None:
        split, where = _split(student, settings)
        found = verification.compared(student, made, split)
        verification.require_same(found, "the exported graph")
    else:
        val = verification.compared(student, made, data.val)
        found, where = verification.compared(student, made, data.test), "test"
        facts["validation"] = val.facts()
        if why := verification.too_different(val, settings.tolerance):
            aside = folder / f"{MODEL}{REJECTED}"
            files.write(aside, graph.marked(model, about))
            raise CheckpointError(f"int8: {why}; it was left as {aside}",
                                  "distill train ... schedule=quantize trains a student for it")  # fmt: skip
    if found.exported_accuracy is not None:
        about["accuracy"] = json.dumps({where: found.exported_accuracy})
    content = graph.marked(model, about)
    facts |= {"verified_on": where, **found.facts(), "bytes": len(content), "opset": graph.OPSET}
    written = files.write(folder / MODEL, content)
    (folder / f"{MODEL}{REJECTED}").unlink(missing_ok=True)
    _left(student, folder, facts, str(written["sha256"]))
    ui.show(f"verified     on {where}: {found.words()}")
    ui.show(f"exported     {folder / MODEL}  ({size(len(content))})")
    return folder / MODEL


def _left(student: Predictor, folder: Path, facts: Mapping[str, Any], sha256: str) -> None:
    """Write what lies beside an exported model: what its card names, all that was verified, and the card."""
    student.reads.write(folder)
    files.write_json(folder / FACTS, {**facts, "file": MODEL, "sha256": sha256, "versions": versions()})
    files.write_json(folder / CARD, {**_moved(student, folder), "weights": MODEL, "sha256": sha256})


def _split(student: Predictor, settings: Export) -> tuple[Any, str]:
    """What an export in fp32 is verified on: the test split where it is at hand, else random samples; and that in words."""
    try:
        return data_of(student, settings, "test").test, "test"
    except (DataError, OSError) as error:
        ui.warn(f"the data are not at hand ({str(error).splitlines()[0]}): it is verified on random samples; "
                "dataset.root=DIR says where they lie")  # fmt: skip
        return verification.made_up(student), "random samples"


def _all(student: Predictor, settings: Export) -> Data:
    try:
        return data_of(student, settings, None)
    except (DataError, OSError) as error:
        raise DataError(
            f"int8 is calibrated on training samples and verified on validation: {str(error).splitlines()[0]}",
            "dataset.root=DIR says where they lie",
        ) from error


def _quantised(model: Any, student: Predictor, data: Data, number: int) -> tuple[Any, dict[str, Any]]:
    """A model in int8, and what it was calibrated on."""
    from distill_cli.deploy import quantization

    if student.reads.present(student.spec.example(1)) is not None:  # samples of unlike length: a transformer
        return quantization.dynamic(model), {"quantisation": "dynamic, embeddings too"}
    samples = quantization.Calibration(data.train, number)
    ui.say(f"int8: ranges of {samples.number:,} training samples")
    told = {"quantisation": "static, QDQ, U8S8 by channel, reduce_range", "calibration_samples": samples.number}
    return quantization.measured(model, samples), {**told, "calibration_sha256": samples.digest}


def _loaded(student: Predictor, content: bytes) -> Predictor:
    """An exported graph as a predictor, through a file as it will be read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, MODEL)
        path.write_bytes(content)
        raw: Any = Raw(student.reads)
        return Predictor(student.card, Classifier(OnnxNet(path, torch.get_num_threads()), raw), path)


def _origin(student: Predictor) -> dict[str, str]:
    assert student.path is not None
    return {"source": str(student.path), "source_sha256": files.sha256(student.path)}


def _about(student: Predictor, precision: str, calibration: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a file: what a program without us needs to use it."""
    run = run_of(student)
    told = {
        **calibration, **_origin(student), "source": student.path.name if student.path else "", "precision": precision,
        "classes": student.card["classes"], "input": student.reads.as_card(), "reading": student.reads.told(),
        "temperature": 1, "run": run.name if run else "", "versions": versions(),
    }  # fmt: skip
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}
    return {MARK: FORMAT, **texts}


def versions() -> dict[str, str]:
    """Of what makes such a file."""
    packages = [name for name in ("torch", "transformers", *PACKAGES) if importlib.util.find_spec(name)]
    return {"distill": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}


def _moved(student: Predictor, folder: Path) -> dict[str, Any]:
    """The student's card as it stands in another folder, from where its teachers are found too."""
    assert student.path is not None
    home, card = run_of(student) or student.path.parent, dict(student.card)

    def moved(fact: Mapping[str, Any]) -> dict[str, Any]:
        return {**fact, "path": os.path.relpath(home / fact["path"], folder)}

    if card.get("teacher"):
        card["teacher"] = moved(card["teacher"])
    if card.get("teachers"):
        card["teachers"] = {name: moved(fact) for name, fact in card["teachers"].items()}
    return card
