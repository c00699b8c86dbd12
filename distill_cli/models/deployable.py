"""A model that leaves: its weights beside model.json, the card that tells how to build it again. A card is not believed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from distill_cli import __version__, models
from distill_cli.base import files, world
from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.config.schema import Dataset, Open
from distill_cli.data import Data, Spec, read_spec
from distill_cli.models import Classifier, edits, naming, quantized, weights
from distill_cli.runs import checkpoints

CARD, FORMAT = "model.json", 1
LARGEST = 2**16  # no channels, layers or other counts of a network are beyond it


@dataclass(frozen=True)
class Deployable:
    """A network with what its card says of it.

    Attributes:
        card: how to build the network, its role, the names of its classes, what it gets to see.
        path: the file that its weights were read from, if they were.
    """

    card: Mapping[str, Any]
    network: Classifier
    path: Path | None = None

    @classmethod
    def read(cls, path: Path, trust: Sequence[str] = (), spec: Spec | None = None) -> Self:
        """The model that `path` names: a folder with a card, a weights file with its card beside it, or a checkpoint.

        Args:
            trust: packages whose classes a card may name. spec: what the inputs are like that it is to be given, where they
                are not those its card tells of.

        Raises:
            CheckpointError: there is no such file, it is damaged, or it names code that is not trusted.
        """
        path = path.absolute()
        if path.is_dir():
            path = path / Path(read_card(path)["weights"]).name
        if path.suffix == ".safetensors":
            card = read_card(path.parent)
            state: Mapping[str, Tensor] = weights.read_weights(verified(path, card["sha256"]))
        else:
            loaded = checkpoints.read(path)
            card, state = require_card(loaded.get("card"), path), loaded["student"]
        own = read_spec(card["input"], trust, path.parent)
        spec = spec.fed(own) if spec else own
        return cls(card, rebuild(card, spec, state, str(path), trust), path)

    @property
    def spec(self) -> Spec:
        """What the network gets to see."""
        return self.network.spec

    def in_8_bits(self) -> Classifier | None:
        """A copy of a network that learnt to round, as `torch.onnx` writes it: weights in int8, inputs of layers through Q and DQ.

        Its ranges are those it learnt under. They stand on the card, under model.edits, as
        {"kind": "quantize", "ranges": {path of a layer: [scale, zero point]}}. None: the network does not round.
        """
        if not quantized.is_quantized(self.network.net):
            return None
        copied = copy.copy(self.network)
        copied._modules = {**self.network._modules, "net": quantized.stored(self.network.net)}
        return copied

    def write(self, folder: Path) -> str:
        """Have the first rank write the weights, the card and what that names; returns the SHA-256 of the weights' file."""
        return world.decided(lambda: self._write(folder))

    def _write(self, folder: Path) -> str:
        name = f"{self.card['role']}.safetensors"
        digest = weights.save_weights(folder / name, self.network.net)
        self.spec.write(folder)
        node = models.rebuild_node(self.card["model"], self.network)
        files.write_json(folder / CARD, {**self.card, "model": node, "weights": name, "sha256": digest})
        return digest


def card_of(role: str, chosen: Open, model: Classifier, data: Data, dataset: Dataset) -> dict[str, Any]:
    """The card of a model: how to rebuild it, and what its inputs and classes are.

    Args:
        role: teacher or student. chosen, dataset: the settings that it and its data were made by.
    """
    node = dict(dataset.plain)
    for place in ("root", "unlabeled"):
        if node.get(place):
            node[place] = str(Path(node[place]).expanduser().absolute())  # found again from any directory
    return {
        "format": FORMAT,
        "distill": __version__,
        "role": role,
        "names": {"dataset": dataset.name, "model": chosen.name},
        "model": models.rebuild_node(chosen.plain, model),
        "classes": list(data.classes),
        "task": data.task,
        "input": model.spec.as_card(),
        "dataset": node,
    }


def load_into(net: nn.Module, folder: Path) -> dict[str, Any]:
    """Load the weights that `Deployable.write` left in `folder` into a network, their bytes verified; returns the card.

    Raises:
        CheckpointError: something is missing, damaged, or of another architecture.
    """
    card = read_card(folder)
    path = weights_file(folder, card)
    edits.redo(net, card["model"].get(edits.EDITS, ()))
    weights.load_into(net, weights.read_weights(path), str(path))
    return card


def read_card(folder: Path) -> dict[str, Any]:
    """The folder's model.json; a CheckpointError where it is missing or damaged."""
    return require_card(files.read_json(folder / CARD), folder / CARD, ("weights", "sha256"))


def require_card(card: Any, source: Path, more: Sequence[str] = ()) -> dict[str, Any]:
    """The card itself; a CheckpointError where it lacks a key of a model's card, or of the texts in `more`."""
    needed = {"model": dict, "input": dict, "classes": list, "names": dict, "dataset": dict} | dict.fromkeys(more, str)
    entries = card if isinstance(card, Mapping) else {}
    wrong = [k for k, kind in needed.items() if not isinstance(entries.get(k), kind)]
    if not wrong and not isinstance(card["names"].get("dataset"), str):
        wrong = ["names.dataset"]
    if wrong:
        raise CheckpointError(f"{source} is damaged: {', '.join(wrong)} missing or not as written")
    return dict(card)


def source(named: str, key: str) -> tuple[Path, dict[str, Any] | None]:
    """The file that a key for weights names, a file or a folder that a model was left in, and its card where it is ours.

    Raises:
        CheckpointError: there is none.
    """
    path = files.place(named, key)
    folder, last = path if path.is_dir() else path.parent, path / "checkpoints" / checkpoints.LAST
    if not path.exists():
        raise CheckpointError(f"there is no file {path.absolute()}", f"check {key}")
    if not (folder / CARD).is_file() and last.is_file():
        raise CheckpointError(f"{path} holds a run that is not finished", f"{key}={last} has what it reached so far")
    if path.is_file() and not (path.suffix == ".safetensors" and (folder / CARD).is_file()):
        return path, None
    card = read_card(folder)
    file = folder / Path(card["weights"]).name
    return (file, card) if path.is_dir() or path.name == file.name else (path, None)


def weights_file(folder: Path, card: Mapping[str, Any]) -> Path:
    """The weights' file that a folder's card names, verified."""
    return verified(folder / Path(card["weights"]).name, card["sha256"])


def verified(path: Path, digest: str) -> Path:
    """The same path; a CheckpointError where the file is missing, or its SHA-256 is not `digest`."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path.absolute()}")
    if files.sha256(path) != digest:
        raise CheckpointError(f"{path} is not what was written (its SHA-256 differs from {CARD}'s): it was not loaded")
    return path


def rebuild(
    card: Mapping[str, Any], spec: Spec, state: Mapping[str, Tensor], source: str, trust: Sequence[str]
) -> Classifier:
    """The model that a card from a file describes, with the weights `state`.

    Args:
        spec: what it gets to see. source: where the weights are from, for messages. trust: as in `Deployable.read`.

    Raises:
        CheckpointError: it names code that is not trusted, or describes another network than the weights are of; that is
            found out before memory is taken for it.
    """
    role = "teacher" if card.get("role") == "teacher" else "student"
    try:
        num_classes, order = naming.answers(card["model"], role, card["classes"])
        described = card["model"], role, spec, num_classes, trust
        _check_outline(described, card, state, source)
        model = models.build(*described, order)
    except ConfigError as error:
        raise CheckpointError(
            f"{source}: what its card describes cannot be built: {error.message}", error.hint
        ) from error
    weights.load_into(model.net, state, source)
    return model


def _check_outline(described: Any, card: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> None:
    """Hold the weights against the network without memory for its numbers, where it can be built without them."""
    try:
        with torch.device("meta"):
            outline = models.network(*described)
        weights.load_into(outline, {name: tensor.to("meta") for name, tensor in state.items()}, source)
    except models.OURS:
        raise
    except Exception as error:  # it cannot be built without numbers, or is of a size that has none
        if _largest(card["model"]) > LARGEST:
            raise CheckpointError(f"{source}: what its card describes cannot be built: {error}") from error


def _largest(value: Any) -> int:
    """The largest whole number anywhere in a node."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int) else 0
