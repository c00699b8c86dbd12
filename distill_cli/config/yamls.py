"""YAML files of the user's, read strictly: what YAML takes for something else than it looks is refused by file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException
from yaml.constructor import SafeConstructor
from yaml.reader import ReaderError

from distill_cli.base.errors import ConfigError
from distill_cli.config.values import complaint, shown

PYTHON: Any = get_yaml_loader()  # OmegaConf's rules for what is a number; its complaints are those that WORDS knows
if yaml.__with_libyaml__:

    class Quick(yaml.cyaml.CParser, PYTHON):
        """The same rules on libyaml's parser, which reads eight times as fast."""

        def __init__(self, text: str) -> None:
            yaml.cyaml.CParser.__init__(self, text)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)


LENIENT = re.compile(r"[\t!\ufeff]|[|>][-+]?#")  # where libyaml takes what Python's parser refuses
TRICKY = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float")}  # what text may be taken for
OCTAL = re.compile(r"[-+]?0[0-7_]+")

# The parser's words that say little, and ours.
WORDS = {
    r"found character '\t'": "a tab, where YAML wants spaces; write spaces",
    "mapping values are not allowed": 'a second ": " in one line; put quotes around text that holds one',
    "could not find expected ':'": 'a line that is neither "key: value" nor "- entry"; write a colon and a space',
    "expected <block end>": "it is indented unlike the lines above; give keys of one mapping the same indentation",
    "another document": "a second document; take out the --- above it, a file holds one",
    "expected ',' or": "a list or mapping in brackets is not closed, or lacks a comma",
    "unexpected end of stream": "a quote that is not closed",
    "tag:yaml.org,2002:value": "= alone means nothing; put quotes around it",
    "could not determine a constructor": "! starts a tag, of which none is needed here; put quotes around text",
    "alias": "* starts an alias; put quotes around text that begins with *",
}


def read(path: Path) -> str:
    """A file's text.

    Raises:
        ConfigError: it cannot be opened, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{_name(path)}: cannot be read: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        message = f"byte 0x{byte:02x} is not UTF-8 ({chr(byte)!r} in Latin-1); save the file as UTF-8"
        raise ConfigError(f"{_name(path)}:{line}: {message}") from error


def load(path: Path) -> DictConfig:
    """The mapping that a file holds, its interpolations as they are written.

    Raises:
        ConfigError: as `read` and `parsed`.
    """
    return parsed(read(path), path)


def parsed(text: str, path: Path) -> DictConfig:
    """The mapping that the text of the file `path` holds; an empty file holds an empty one.

    Raises:
        ConfigError: naming file and line of whatever is wrong, and what to write instead.
    """
    name = _name(path)
    try:
        loader, root = _composed(text)
        if root is None:
            return OmegaConf.create({})
        if not isinstance(root, yaml.MappingNode):
            kind = "a list" if isinstance(root, yaml.SequenceNode) else "text"
            raise ConfigError(f"{name}:{_line(root)}: should hold keys and values, as in lr: 0.1, got {kind}")
        if faults := sorted(_faults(root, set())):
            raise ConfigError("\n".join(f"{name}:{line}: {fault}" for line, fault in faults))
        loaded = OmegaConf.create(loader.construct_document(root))
    except ReaderError as error:
        line, character = text.count("\n", 0, error.position) + 1, f"U+{ord(text[error.position]):04X}"
        raise ConfigError(f"{name}:{line}: holds the character {character}, unknown to YAML; take it out") from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{name}:{_place(error)}: cannot be read: {_words(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: cannot be read: it is nested too deeply") from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError) as error:
        raise ConfigError(f"{name}: cannot be read: {str(error).splitlines()[0]}") from error
    assert isinstance(loaded, DictConfig)
    return loaded


def _composed(text: str) -> tuple[Any, yaml.Node | None]:
    """The loader of a text, and its document as nodes; what the quick loader refuses is left to Python's to explain."""
    if yaml.__with_libyaml__ and not LENIENT.search(text):
        loader = Quick(text)
        with suppress(yaml.YAMLError):
            return loader, loader.get_single_node()
    loader = PYTHON(text)
    return loader, loader.get_single_node()


def plain(cfg: Any) -> dict[str, Any]:
    """A configuration's mapping as plain values, its interpolations resolved.

    Raises:
        ConfigError: a key is not text, or a value is nothing that JSON has, in which runs keep their configuration.
    """
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    _require_plain(values, "")
    return values


def _require_plain(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{where}{shown(key)}: a key should be text; put it in quotes")
            _require_plain(inner, f"{where}{key}.")
    elif isinstance(value, list):
        for inner in value:
            _require_plain(inner, where)
    elif not isinstance(value, str | int | float | bool | None):
        raise ConfigError(
            f"{where.removesuffix('.')}: should be text, a number, true, false or null, got {shown(value)}"
        )


def _name(path: Path) -> str:
    """The file as the user would type it from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _faults(node: yaml.Node, seen: set[int]) -> Iterator[tuple[int, str]]:
    """Line and complaint of every trap below a node."""
    if id(node) in seen:  # an alias, possibly of what holds it
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        if node.tag in TRICKY and node.style not in ("'", '"') and (fault := _trap(node)):
            yield _line(node), fault
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _faults(item, seen)
    else:
        yield from _key_faults([key for key, _ in node.value])
        for key, value in node.value:
            yield from _faults(key, seen)
            yield from _faults(value, seen)


def _key_faults(keys: list[yaml.Node]) -> Iterator[tuple[int, str]]:
    first: dict[str, int] = {}
    for key in keys:
        if not isinstance(key, yaml.ScalarNode):
            yield _line(key), "a list or a mapping stands where a key should; write a word"
        elif key.tag.endswith(":null"):
            yield _line(key), f"{key.value or 'nothing'} stands where a key should; write a word, or put it in quotes"
        elif key.value in first:
            yield _line(key), f"{key.value} is given twice, first in line {first[key.value]}; keep one of them"
        else:
            first[key.value] = int(key.start_mark.line) + 1


def _trap(node: yaml.ScalarNode) -> str | None:
    """What is wrong with a scalar that is not in quotes: it is not what it looks like, or no number to work with."""
    kind, text = node.tag.rpartition(":")[2], node.value
    try:
        value = SafeConstructor().construct_object(node)
    except (ValueError, KeyError):
        return f"{shown(text)} cannot be read as {kind}; put quotes around text"
    if kind == "bool" and text.lower() not in ("true", "false"):
        return _instead(text, shown(value), shown(value))
    if ":" in text:
        return _instead(text, f"the base-60 number {shown(value)}", shown(value))
    if OCTAL.fullmatch(text):
        digits = text.lstrip("+-0_") or "0"
        return _instead(text, f"the octal number {shown(value)}", f"{'-' if text[0] == '-' else ''}{digits}")
    return complaint(value, {}) if kind == "int" else None  # a number that is not finite is told by its key


def _instead(text: str, read_as: str, right: str) -> str:
    return f'{text} is read as {read_as}; write {right}, or "{text}" in quotes'


def _place(error: yaml.MarkedYAMLError) -> int:
    """The line to look at: where something was opened, when the parser only noticed at the end that it is not closed."""
    problem = str(error.problem)
    unclosed = any(words in problem for words in ("end of stream", "<stream end>", "expected ':'", "expected ',' or"))
    mark = (error.context_mark if unclosed else None) or error.problem_mark or error.context_mark
    return int(mark.line) + 1 if mark else 1


def _words(error: yaml.MarkedYAMLError) -> str:
    told = f"{error.context} {error.problem}"
    return next((ours for theirs, ours in WORDS.items() if theirs in told), str(error.problem))
