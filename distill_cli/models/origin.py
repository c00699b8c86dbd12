"""The file that a checkpoint names, and what it says of a teacher: its classes, the normalisation and size it was trained under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill_cli.base import ui
from distill_cli.base.errors import CheckpointError
from distill_cli.base.tensors import Inert, read_tensors
from distill_cli.config import schema
from distill_cli.data import Data
from distill_cli.models import EDITS, READY, Classifier, deployable, hub
from distill_cli.models.naming import listed, order_of, typed

FIT_EPOCHS = 6  # of a teacher that starts without a checkpoint, unless teacher.fit.epochs says otherwise
HEAD_EPOCHS = 30  # of a head alone, likewise: they cost next to nothing
BY_NAME, BY_PLACE = ("class_to_idx", "label2id"), ("idx_to_class", "id2label", "classes", "class_names")  # files' keys
DEPTH = 3  # of mappings in mappings in which a file's names are looked for


def fit_epochs(teacher: schema.Teacher, model: Classifier | None = None) -> int:
    """How many epochs the teacher is fitted for: as said, else more of a head alone, a few of adapters and of new weights, and none
    of a checkpoint's or of those that a model was brought with, all of them, for what is asked here.
    """
    if teacher.fit.epochs is not None:
        return teacher.fit.epochs
    if teacher.fit.freeze:
        return HEAD_EPOCHS
    ready = model is not None and hasattr(model.net, READY) and not teacher.fit.lora.rank
    return 0 if teacher.checkpoint or ready else FIT_EPOCHS


def weights_file(named: str, key: str) -> tuple[Path, dict[str, Any] | None]:
    """The weights' file that a model's checkpoint names, and its card where it is ours, whose bytes are then verified.

    Args:
        key: of the model, for messages.

    Raises:
        CheckpointError: it is not there, or its bytes are not those that were written.
    """
    path, card = deployable.source(named, f"{key}.checkpoint")
    return path if card is None else deployable.verified(path, card["sha256"]), card


def completed(teacher: schema.Teacher, data: Data, key: str) -> schema.Teacher:
    """The settings of a teacher with what its checkpoint says of it that they do not say and the data do not have.

    Args:
        key: of the teacher, for messages.

    Raises:
        CheckpointError: the checkpoint cannot be used, or does not know the data's classes.
    """
    if teacher.joint or not teacher.checkpoint:
        return teacher
    path, card = deployable.source(teacher.checkpoint, f"{key}.checkpoint")
    said = {} if card is None else _of_card(card, data, key)
    if teacher.classes is None:
        names = classes_of(teacher, key)
        places, missing = order_of(names, data.classes) if names else (None, [])
        if missing and not fit_epochs(teacher):
            raise _unknown(path, names, missing, data.classes, key)
        if missing:
            trained = f"{key}: {path.name} was trained on other classes ({len(names)}: {listed(names)})"
            ui.say(f"{trained}; the fit is to teach it the data's")
        said["classes"] = names if places else None
    said = {key: value for key, value in said.items() if getattr(teacher, key) is None}
    done = {EDITS: card["model"][EDITS]} if card and EDITS in card["model"] else {}
    return replace(teacher, plain={**teacher.plain, **said, **done}, **said)


def classes_of(teacher: schema.Teacher, key: str = schema.FIRST) -> Sequence[str]:
    """The names of what a teacher answers, in its order, as settings or its checkpoint say them; none where neither does.

    Raises:
        CheckpointError: the checkpoint cannot be used.
    """
    if teacher.classes is not None or not teacher.checkpoint:
        return teacher.classes or ()
    path, card = deployable.source(teacher.checkpoint, f"{key}.checkpoint")
    return _names(read_tensors(path)) if card is None else card["model"].get("classes") or card["classes"]


def folder_of(teacher: schema.Teacher, key: str = schema.FIRST) -> Path | None:
    """The folder in which a teacher that is brought lies, with the tokenizer that it reads by; None where it lies in none.

    Raises:
        CheckpointError: its checkpoint cannot be used. ConfigError: it is no folder, and there is none of that name on the hub.
    """
    if teacher.checkpoint:
        path, card = deployable.source(teacher.checkpoint, f"{key}.checkpoint")
        if card is not None:
            return path.parent
    name = teacher.plain.get("name")
    return hub.folder_of(name) if isinstance(name, str) else None


def _unknown(
    path: Path, names: Sequence[str], missing: Sequence[str], ours: Sequence[str], key: str
) -> CheckpointError:
    told = f"{path} was trained on other classes ({len(names)}: {listed(names)}): it does not know {listed(missing)}"
    way = f"{key}.fit.epochs={FIT_EPOCHS} trains it on the data"
    if len(names) == len(ours):
        way += "; if only the names differ, give it the data's in its own order: " + typed(f"{key}.classes", ours)
    return CheckpointError(told, way)


def _of_card(card: Mapping[str, Any], data: Data, key: str) -> dict[str, Any]:
    """The normalisation and size that a model of ours was trained under, where they are not the data's."""
    own = card["model"] if card.get("role") == "teacher" else {}
    now, said = data.input.as_card(), dict[str, Any]()
    if card["input"].get("_target_") != now.get("_target_"):
        raise CheckpointError(f"{key}.checkpoint: it was made for another kind of data than {data.input.kind}")
    before, after = (shown.get("range") for shown in (card["input"], now))
    if before and after and list(before) != list(after):
        low, high = before
        ui.warn(
            f"{key} was trained on greys from {low:g} to {high:g}: dataset.range=[{low:g},{high:g}] reads the data so"
        )
    scaled = {key: list(own.get(key) or card["input"][key]) for key in ("mean", "std") if key in card["input"]}
    if any(list(now[key]) != values for key, values in scaled.items()):
        said |= scaled
    if sides := card["input"].get("size"):
        side = own.get("size") or sides[0]
        square = own.get("size") or sides[0] == sides[1]
        if square and list(now["size"]) != [side, side]:
            said["size"] = side
    return said


def _names(content: Any, depth: int = DEPTH) -> list[str]:
    """The classes that a file lists beside its weights, in the order of its answers; none where it lists none."""
    content = vars(content) if isinstance(content, Inert) else content
    if not isinstance(content, Mapping):
        return []
    for key, value in content.items():
        if names := _listed(str(key).casefold(), value):
            return names
    inner = (_names(value, depth - 1) for value in content.values() if depth)
    return next((names for names in inner if names), [])


def _listed(key: str, value: Any) -> list[str]:
    if key in BY_PLACE and isinstance(value, list | tuple):
        return [str(name) for name in value] if all(isinstance(name, str) for name in value) else []
    if key not in (*BY_NAME, *BY_PLACE) or not isinstance(value, Mapping):
        return []
    pairs = value.items() if key in BY_PLACE else [(place, name) for name, place in value.items()]
    try:
        named = {int(place): str(name) for place, name in pairs}
    except (TypeError, ValueError):
        return []
    return [named[place] for place in sorted(named)] if sorted(named) == list(range(len(value))) else []
