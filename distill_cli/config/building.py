"""The one function that builds what a YAML names by `_target_`, and the checks before it is called."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from distill_cli.base.errors import CheckpointError, ConfigError, DistillError, did_you_mean
from distill_cli.config.sources import files_of
from distill_cli.config.values import describe, fits

Built = TypeVar("Built")


def check(
    node: Mapping[str, Any], kind: type[Built], where: str, *, trust: Sequence[str] | None = None
) -> Callable[..., Built]:
    """Find what `node` names by `_target_` and check it and its arguments, without calling it; returns it.

    Args:
        node: `_target_` and its arguments, no keys of ours.
        kind: what must come out. The target must be a subclass of it, or a function annotated to return one.
        where: the config key, for messages.
        trust: None for what the user typed or keeps in a conf/. For what was read from a run folder or a
            checkpoint, the packages named by `trust=`: only these, ours, torch.optim and torchvision.models pass.

    Raises:
        ConfigError: the target does not exist, is of another kind, or does not take these arguments.
        CheckpointError: the target is not trusted.
    """
    path = node.get("_target_")
    target = _locate(path, where) if trust is None else trusted(path, where, trust)
    if not _makes(target, kind):
        raise ConfigError(f"{where}._target_: {path} is not a {kind.__name__}, nor a function annotated to return one")
    _check_arguments(_arguments(node), target, where)
    return target


def build(
    node: Mapping[str, Any], kind: type[Built], where: str, *, trust: Sequence[str] | None = None, **provided: Any
) -> Built:
    """Build what `node` names, called with the node's keys as keyword arguments; see `check`.

    Args:
        provided: arguments passed on where the signature takes them and the node does not set them.

    Raises:
        ConfigError, CheckpointError: as `check`, or an argument is missing or refused.
    """
    target = check(node, kind, where, trust=trust)
    parameters = inspect.signature(target).parameters
    arguments = _arguments(node)
    for name, value in provided.items():
        if name in parameters and arguments.get(name) is None:
            arguments[name] = value
    needed = [p.name for p in _named(parameters) if p.default is p.empty and p.name not in arguments]
    if needed:
        raise ConfigError(f"{where}: {node['_target_']} needs {', '.join(f'{where}.{name}' for name in needed)}")
    try:
        return target(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", error.hint) from error
    except DistillError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {node['_target_']} refused its arguments: {error}") from error


def _arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if not key.startswith("_")}


def _named(parameters: Mapping[str, inspect.Parameter]) -> list[inspect.Parameter]:
    return [p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def code_digest(path: str) -> str | None:
    """SHA-256 of the code behind a target of the user's, with what it imports from beside it; None for a library's."""
    if path.split(".")[0] in ("distill_cli", "torch", "torchvision", "timm"):
        return None
    module = _locate(path, "_target_").__module__
    source = Path(getattr(sys.modules[module], "__file__", None) or "")
    if not source.is_file():
        return None
    home = source.parents[module.count(".") + (source.stem == "__init__")]  # where Python found its package
    installed = home.name in ("site-packages", "dist-packages")
    content = hashlib.sha256()
    for file in [source] if installed else files_of([module], home):
        content.update(file.read_bytes())
    return content.hexdigest()


def trusted(path: Any, where: str, trust: Sequence[str]) -> Callable[..., Any]:
    """What a file names by `_target_`, which is looked up only where the name, and the module it leads to, are ours,
    torch.optim's, torchvision.models', or in a package of `trust`.

    Raises:
        CheckpointError: they are not. ConfigError: there is nothing of that name.
    """
    if not isinstance(path, str):
        raise CheckpointError(f"{where}: its description names no class to build: it is damaged")
    _require_trusted(path, path, where, trust)
    target = _locate(path, where)
    _require_trusted(str(getattr(target, "__module__", None)), path, where, trust)  # not what one of ours has imported
    return target


def _require_trusted(name: str, path: str, where: str, trust: Sequence[str]) -> None:
    allowed = ("distill_cli", "torch.optim", "torchvision.models", *trust)
    if not f"{name}.".startswith(tuple(f"{package}." for package in allowed)):
        raise CheckpointError(
            f"{where}._target_: {path} is named by a file, and building it would run its code",
            f"if you trust it, add trust=[{name.split('.')[0]}]",
        )


def _locate(path: Any, where: str) -> Callable[..., Any]:
    """Import the longest prefix of `path` that is a module, then follow the attributes."""
    if not isinstance(path, str) or "." not in path:
        raise ConfigError(f"{where}._target_: should be a dotted path as in mypackage.MyNet, got {path!r}")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # a console script does not see the user's own modules otherwise
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            target: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and (name == error.name or name.startswith(f"{error.name}.")):
                continue  # this prefix is not a module; a shorter one may be
            raise ConfigError(f"{where}._target_: {path} needs the package {error.name}, which is missing") from error
        for attribute in parts[cut:]:
            target = getattr(target, attribute, None)
        if target is None:
            break
        return target
    raise ConfigError(
        f"{where}._target_: cannot find {path}; modules are looked up on the Python path and in {Path.cwd()}"
    )


def _makes(target: Any, kind: type) -> bool:
    if inspect.isclass(target):
        return issubclass(target, kind)
    if not inspect.isfunction(target):
        return False
    returned = typing.get_type_hints(target).get("return")
    return inspect.isclass(returned) and issubclass(returned, kind)


def _check_arguments(arguments: Mapping[str, Any], target: Callable[..., Any], where: str) -> None:
    """Names and types against the signature, every fault in one message."""
    parameters = inspect.signature(target).parameters
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):  # annotations that only a type checker can resolve: names are checked, types are not
        hints = {}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = [p.name for p in _named(parameters)]
    problems = []
    for name, value in arguments.items():
        if name not in names and not takes_any:
            guess = did_you_mean(name, names, f"{where}.")
            problems.append(
                f"{where}.{name}: {target.__name__} takes no such key; {guess}it takes: {', '.join(names) or 'none'}"
            )
        elif name in hints and value is not None and not fits(value, hints[name]):
            problems.append(f"{where}.{name}: should be {describe(hints[name])}, got {value!r}")
    if problems:
        raise ConfigError("\n".join(problems))
