"""What Tab may add to a `distill ...` line; imports neither Hydra, omegaconf nor torch, because a key press should not wait."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from distill_cli.cli.completion import source
from distill_cli.cli.completion.conf import Conf, Settings
from distill_cli.cli.pages import command_names, page_of
from distill_cli.config.shipped import conf_folder

END = "\0"  # stands at the cursor, so that the word there is seen even when it is empty

# Commands without a configuration: the constant in their file that lists the words they take.
WORDS = {"cache": "ACTIONS", "list": "KINDS", "completion": "SHELLS"}


class Paths(list[str]):
    """Candidates that name files and folders, these with a / at their end; the shell quotes them."""


def answer(words: Sequence[str]) -> int:
    """Print `words` or `paths`, then the candidates, one a line; nothing at all when anything is wrong. Returns 0.

    Args:
        words: the shell's name; the line up to the cursor; and the end of it that the shell would replace, since bash
            takes = and : for the end of a word.
    """
    try:
        _, line, replaced = words
        found = candidates(line)
        kept = len(shell_words(line.removesuffix(replaced))[-1])
        lines = ["paths" if isinstance(found, Paths) else "words", *(text[kept:] for text in found)]
        sys.stdout.buffer.write(os.fsencode("".join(f"{text}\n" for text in lines)))
    except Exception:  # a key press must not fill the line with a traceback
        return 0
    return 0


def shell_words(line: str) -> list[str]:
    """The words of a line as a shell would pass them on; the last is the one at its end, empty after a space."""
    for closing in ("", '"', "'"):
        try:
            *words, last = shlex.split(f"{line}{END}{closing}")
        except ValueError:  # a quote is open
            continue
        return [*words, last.removesuffix(END)]
    return [""]


def candidates(line: str) -> list[str]:
    """What the last word of a line may become: finished words end with a space, keys with =, what holds keys with a dot."""
    *before, word = shell_words(line)
    if len(before) < 2:
        return _finished([*command_names(), *(("--help", "--version") if word else ())], word)
    command = before[1]
    if command not in command_names():
        return []
    flags = source.flags(command, _is_configured(command))
    typed, options, waiting = _sorted_out(before[2:], flags)
    conf = Conf(options.get("--config-dir"))
    name, equals, value = word.partition("=")
    if waiting:
        return _flag_value(waiting, flags, conf, word)
    if name in flags and equals:
        return _behind(f"{name}=", _flag_value(name, flags, conf, value))
    if word.startswith("-"):
        return _finished(flags, word)
    if not _is_configured(command):
        return _of_plain_command(command, conf, typed, word)
    settings = Settings(conf, command, options.get("--config-name", command), typed)
    return _values(settings, name, value) if equals else settings.keys(word)


def _is_configured(command: str) -> bool:
    return Path(conf_folder(), f"{command}.yaml").is_file()


def _sorted_out(typed: Sequence[str], flags: Mapping[str, source.Flag]) -> tuple[list[str], dict[str, str], str]:
    """The words that are no flags; the values of those that are, by long name; the flag that waits for its value."""
    others, options, waiting = [], {}, ""
    for word in typed:
        name, equals, value = word.partition("=")
        if waiting:
            options[flags[waiting].name], waiting = word, ""
        elif name not in flags:
            others.append(word)
        elif equals:
            options[flags[name].name] = value
        elif flags[name].takes_value:
            waiting = name
    return others, options, waiting


def _flag_value(given: str, flags: Mapping[str, source.Flag], conf: Conf, typed: str) -> list[str]:
    flag = flags[given]
    if flag.name in ("--config-dir", "--from"):
        return _paths(typed, folders=True)
    return _finished(conf.roots() if flag.name == "--config-name" else flag.choices, typed)


def _of_plain_command(command: str, conf: Conf, typed: Sequence[str], word: str) -> list[str]:
    """Candidates for a command without a configuration: its usage tells its keys, and whether it wants folders."""
    usage = re.search(r"^usage: distill \S+(.*)", page_of(command), re.MULTILINE)
    takes = usage[1] if usage else ""
    name, equals, value = word.partition("=")
    if equals and command == "resume":
        return _values(Settings(conf, "train", "train", typed), name, value)
    if equals:
        is_path = re.search(rf"\b{re.escape(name)}=(PATH|DIR)\b", takes)
        return _behind(f"{name}=", _paths(value, folders=True)) if is_path else []
    # In a usage, capitals stand for what each user has a name of their own for: here a folder.
    wants_path = re.search(r"[A-Z]{3,} \.\.\." if typed else r"(?<![=\w])[A-Z]{3,}", takes)
    if wants_path and (folders := _paths(word, folders=True)):
        return folders
    listed = source.constant(f"cli/commands/{command}", WORDS[command]) if command in WORDS else ()
    found = _finished(re.findall(r"=\w+\|(\w+)", takes) if typed else listed, word)
    if found and not typed:
        return found
    keys = ["trust", *source.constant("runs/identity", "FREE")] if command == "resume" else re.findall(r"(\w+)=", takes)
    return [*found, *(f"{key}=" for key in keys if key.startswith(word))]


def _values(settings: Settings, key: str, typed: str) -> list[str]:
    """Candidates for a value, or for the last of several: in a list in brackets, or in a sweep over a,b."""
    if key in source.constant("config/overrides", "PATH_KEYS"):
        return _behind(f"{key}=", _paths(typed, folders=key.endswith(("dir", "root"))))
    *others, last = re.split(r"[\[,]", typed)
    start = typed[: len(typed) - len(last)]
    end = "" if start.startswith("[") else " "  # a list goes on until its bracket is closed
    choices = [choice for choice in settings.choices(key) if choice.startswith(last) and choice not in others]
    return [f"{key}={start}{choice}{end}" for choice in choices]


def _finished(choices: Iterable[str], word: str) -> list[str]:
    return [f"{choice} " for choice in choices if choice.startswith(word)]


def _behind(start: str, found: list[str]) -> list[str]:
    """The same candidates, of the same kind, behind what comes before them in their word."""
    return type(found)(f"{start}{text}" for text in found)


def _paths(typed: str, folders: bool) -> Paths:
    """What `typed` may be the beginning of; ~ stays as it was typed, and hidden names hidden."""
    slash = typed.rfind("/") + 1
    parent, name = typed[:slash], typed[slash:]
    found = Paths()
    for path in Path(parent).expanduser().iterdir():
        if path.name.startswith(name) and (name or not path.name.startswith(".")):
            if path.is_dir():
                found.append(f"{parent}{path.name}/")
            elif not folders:
                found.append(f"{parent}{path.name}")
    return found
