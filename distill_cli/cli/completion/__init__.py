"""What Tab may add to a `distill ...` line; reads an index and imports neither Hydra nor torch: a key press should not wait."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_cli.cli.completion.index import Index
from distill_cli.cli.completion.settings import Settings
from distill_cli.cli.pages import command_names, is_configured, page_of, topics
from distill_cli.cli.words import flags_of
from distill_cli.config.schema import COMMANDS

Flag = tuple[str, Mapping[str, Any]]  # its longest name, and what argparse is told of it
END = "\0"  # stands at the cursor, so that the word there is seen even when it is empty


class Paths(list[str]):
    """Candidates that name files, and folders with a / at their end; the shell quotes them."""


def answer(words: Sequence[str]) -> int:
    """Print `words` or `paths`, then the candidates, one a line; nothing at all when anything is wrong. Returns 0.

    Args:
        words: the shell's name; the line up to the cursor; and the end of the line that the shell replaces, because
            bash ends a word at = and :.
    """
    with contextlib.suppress(Exception):  # a key press must not fill the line with a traceback
        _, line, replaced = words
        texts = candidates(line)
        there = len(shell_words(line.removesuffix(replaced))[-1])
        lines = ["paths" if isinstance(texts, Paths) else "words", *(text[there:] for text in texts)]
        sys.stdout.buffer.write(os.fsencode("".join(f"{text}\n" for text in lines)))
    return 0


def shell_words(line: str) -> list[str]:
    """The words of a line as a shell would pass them on; the last is the one at its end, empty after a space."""
    for closing in ("", '"', "'"):
        with contextlib.suppress(ValueError):  # a quote is open
            *words, last = shlex.split(f"{line}{END}{closing}")
            return [*words, last.removesuffix(END)]
    return [""]


def candidates(line: str) -> list[str]:
    """What the last word of a line may become: a word that is whole ends with a space, a key with =, and a node with a dot."""
    *before, word = shell_words(line)
    if len(before) < 2:
        return _finished([*command_names(), *(("--help", "--version") if word else ())], word)
    command = before[1]
    if command not in command_names():
        return []
    flags = {name: (names.split()[-1], rules) for names, rules in flags_of(command).items() for name in names.split()}
    typed, options, waiting = _sorted_out(before[2:], flags)
    index = Index(options.get("--config-dir"))
    name, equals, value = word.partition("=")
    if waiting:
        return _flag_value(*flags[waiting], index, word)
    if name in flags and equals:
        return _behind(f"{name}=", _flag_value(*flags[name], index, value))
    if word.startswith("-"):
        return _finished(["-h", "--help", *flags], word)
    if not is_configured(command):
        return _of_plain_command(command, index, typed, word)
    if (actions := COMMANDS[command].actions) and not typed:
        return _finished(actions, word)
    settings = Settings(index, command, options.get("--config-name", command), typed)
    return _values(settings, name, value) if equals else settings.keys(word)


def _sorted_out(typed: Sequence[str], flags: Mapping[str, Flag]) -> tuple[list[str], dict[str, str], str]:
    """The words that are no flags, each flag's value by the flag's long name, and the flag that waits for its value."""
    others, options, waiting = [], {}, ""
    for word in typed:
        name, equals, value = word.partition("=")
        if waiting:
            options[flags[waiting][0]], waiting = word, ""
        elif name not in flags:
            others.append(word)
        elif equals:
            options[flags[name][0]] = value
        elif "action" not in flags[name][1]:
            waiting = name
    return others, options, waiting


def _flag_value(name: str, rules: Mapping[str, Any], index: Index, typed: str) -> list[str]:
    if name in ("--config-dir", "--from"):
        return _paths(typed, folders=True)
    return _finished(index.content["roots"] if name == "--config-name" else rules.get("choices", ()), typed)


def _of_plain_command(command: str, index: Index, typed: Sequence[str], word: str) -> list[str]:
    """Candidates for a command without a configuration: its usage tells the words and keys it takes, and whether folders."""
    if command == "help":
        return [] if typed else _finished([*topics(), *command_names()], word)
    usage = re.search(r"^usage: distill \S+(.*(?:\n +distill .*)*)", page_of(command), re.MULTILINE)
    takes = usage[1] if usage else ""
    name, equals, value = word.partition("=")
    if equals and (command == "resume" or f" {name}=NAME" in takes):
        return _values(Settings(index, "train", "train", typed), name, value)
    if equals:
        is_path = re.search(rf"\b{re.escape(name)}=(PATH|DIR)\b", takes)
        return _behind(f"{name}=", _paths(value, folders=True)) if is_path else []
    # Capitals in a usage, except behind =, stand for a folder; dots behind them for several.
    if re.search(r"[A-Z]{3,} \.\.\." if typed else r"(?<![=\w])[A-Z]{3,}", takes) and (folders := _paths(word, True)):
        return folders
    if not typed and (first := re.search(r"^ \[?([a-z|]+)", takes)) and (words := _finished(first[1].split("|"), word)):
        return words
    keys = ["trust", *index.content["free"]] if command == "resume" else re.findall(r"(\w+)=", takes)
    words = _finished(re.findall(r"=\w+\|(\w+)", takes), word) if typed else []
    return [*words, *(f"{key}=" for key in keys if key.startswith(word))]


def _values(settings: Settings, key: str, typed: str) -> list[str]:
    """Candidates for a value, or for the last value of several: of a list in brackets, or of a sweep over a,b."""
    if key in settings.index.content["paths"]:
        return _behind(f"{key}=", _paths(typed, folders=key.endswith(("dir", "root"))))
    *others, last = re.split(r"[\[,]", typed)
    start = typed.removesuffix(last)
    end = "" if start.startswith("[") else " "  # a list goes on until its bracket is closed
    return [f"{key}={start}{choice}{end}" for choice in settings.choices(key)
            if choice.startswith(last) and choice not in others]  # fmt: skip


def _finished(choices: Iterable[str], word: str) -> list[str]:
    return [f"{choice} " for choice in choices if choice.startswith(word)]


def _behind(start: str, candidates: list[str]) -> list[str]:
    """The same candidates, of the same kind, behind the start of their word."""
    return type(candidates)(f"{start}{text}" for text in candidates)


def _paths(typed: str, folders: bool) -> Paths:
    """The paths that begin with `typed`; ~ stays as it was typed, and hidden names stay hidden."""
    parent, name = typed[: typed.rfind("/") + 1], typed[typed.rfind("/") + 1 :]
    paths = Paths()
    for path in Path(parent).expanduser().iterdir():
        hidden = path.name.startswith(".") and not name
        if path.name.startswith(name) and not hidden and (path.is_dir() or not folders):
            paths.append(f"{parent}{path.name}{'/' if path.is_dir() else ''}")
    return paths
