"""Go on with a run where it stopped, to the same result as if it had not.

usage: distill resume RUN [key=value ...] [options]

  distill resume outputs/train/<date>/<run>
  distill resume RUN workers=4 device=cpu               what does not change the result may be set anew
  distill resume RUN trust=[mypackage]                  let its configuration name classes of that package
  distill resume RUN --config-dir mine                  where it was started so

It is what `distill train ... run_dir=RUN`, typed as the run was, does as well. A finished run shows its summary.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_cli import compose, config, identity, overrides
from distill_cli.commands import train
from distill_cli.errors import CheckpointError, ConfigError

PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
RESOLVER = re.compile(r"\$\{[^}]*[:$]")  # ${name:...}, or one inside another


def run(words: Sequence[str]) -> None:
    """Go on with the run that the words name.

    Raises:
        ConfigError: the words do not name one, or it was started in another folder. CheckpointError: what the run
            folder says cannot be used, names code that is not trusted, or differs from what is there now.
    """
    folder, config_dir, typed = _read(words)
    known = identity.read(folder)
    trust, texts = _trusted(typed)
    stored = _vetted(known, trust)
    _same_directory(known, [*stored, *texts])
    texts = [*stored, *texts, overrides.quoted(f"run_dir={folder}")]
    overrides.parse(texts, multirun=False)
    with compose.session("train", config_dir) as engine:
        compose.compose(engine, known["name"], "train", texts)
        compose.run(engine, known["name"], train.run, texts)


def _read(words: Sequence[str]) -> tuple[Path, str | None, list[str]]:
    """The run's folder, --config-dir, and the settings."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("-cd", "--config-dir")
    try:
        found, unknown = parser.parse_known_intermixed_args(words)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error), "distill resume --help shows the options") from error
    if unknown:
        raise ConfigError(f"unrecognized arguments: {' '.join(unknown)}", "distill resume --help shows the options")
    settings = [word for word in found.words if "=" in word and not Path(word).is_dir()]
    folders = [word for word in found.words if word not in settings]
    if len(folders) != 1:
        raise ConfigError("which run?", "distill resume outputs/train/<date>/<run>")
    folder = Path(folders[0]).expanduser()
    if not (folder / identity.FILE).is_file():
        raise CheckpointError(f"{folder.absolute()} holds no run ({identity.FILE} is missing)", "give a run's folder")
    return folder, found.config_dir, settings


def _trusted(typed: Sequence[str]) -> tuple[list[str], list[str]]:
    """The packages that trust=[...] names, and the other settings."""
    trust = [word for word in typed if word.startswith("trust=")]
    names = overrides.value_of(overrides.parse(trust, multirun=False), "trust") if trust else []
    texts = [overrides.quoted(word) for word in typed if word not in trust]
    return [str(name) for name in (names if isinstance(names, list) else [names])], texts


def _vetted(known: Mapping[str, Any], trust: Sequence[str]) -> list[str]:
    """The settings a run folder brings, once none of them can make anything run that is not ours or trusted.

    Choices of groups are names of files in the shipped and the user's own conf/; a class is named by `_target_` alone.

    Raises:
        CheckpointError: one of them could.
    """
    folders = [config.conf_dir(), *config.user_conf_dirs()]
    groups = {group.name for folder in folders for group in folder.iterdir()} | set(config.SHARED_FOLDERS)
    if not PLAIN.fullmatch(known["name"]):
        raise CheckpointError(f"{identity.FILE} is damaged: its name is {known['name']!r}")
    for override in overrides.parse(known["overrides"], multirun=False):
        key, value, text = override.key_or_group, override.value(), override.input_line
        root = re.split(r"[./]", key)[0]
        if root == "hydra" or override.package is not None:
            raise CheckpointError(f"{identity.FILE} says {text}, which no run folder may")
        if RESOLVER.search(str(text)):
            raise CheckpointError(f"{identity.FILE} says {text}, which works out its value elsewhere")
        if root in groups and "." not in key and not all(PLAIN.fullmatch(str(name)) for name in _texts(value)):
            raise CheckpointError(f"{identity.FILE} chooses {text}, which is not a name")
        for where, target in _targets(key, value):
            config.trusted(target, where, trust)
    return list(known["overrides"])


def _texts(value: Any) -> list[Any]:
    """The choices in a group's override that are names; keys and values given in their place are no choice."""
    return [name for name in (value if isinstance(value, list) else [value]) if not isinstance(name, Mapping)]


def _targets(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every `_target_` that a setting gives, however deep, after the key it belongs to."""
    where, _, last = key.rpartition(".")
    if last == "_target_":
        yield where, value
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        yield from _targets(f"{key}.{name}", item)


def _same_directory(known: Mapping[str, Any], texts: Sequence[str]) -> None:
    """Relative paths mean what they meant, unless where results lie is said anew."""
    given = any(text.startswith("output_dir=") for text in texts if text not in known["overrides"])
    started = Path(known["directory"])
    if given or started == Path.cwd() or Path(known["config"]["output_dir"]).is_absolute():
        return
    raise ConfigError(
        f"this run was started in {started}, and its results and data are found from there",
        f"cd {started}, or give output_dir={started / known['config']['output_dir']}",
    )
