"""Settings that a run's or a sweep's folder brings: used again only once none of them can make foreign code run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString

from distill_cli.base.errors import CheckpointError, ConfigError
from distill_cli.config import building, overrides, places

PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
PLACE = re.compile(r"(chain|teachers)\.[A-Za-z0-9_-]+")  # where a further model may be put
RESOLVER = re.compile(r"\$\{[^}]*[:$]")  # ${name:...}, or one inside another

# The settings of Hydra's own that a sweep's folder may bring: which preset, and how much of it.
OF_HYDRA = {"hydra/launcher", "hydra/sweeper", "hydra.launcher.n_jobs", "hydra.launcher.gpus", "hydra.sweeper.n_trials",
            "hydra.sweeper.batch", "hydra.sweeper.seed", "hydra.sweeper.max_batch_size"}  # fmt: skip
# And those of loggers: none that says where to a run's numbers are sent.
OF_LOGGERS = {"project", "experiment"}


def merged(known: Mapping[str, Any], typed: Sequence[str], multirun: bool = False) -> list[str]:
    """The settings of a folder, vetted, and those typed now, which replace settings of the same key.

    Args:
        known: what run.json or sweep.json says: "name" of the root YAML, and "overrides". typed: among them trust=[...],
        packages whose classes the stored settings may name.

    Raises:
        CheckpointError: a stored one could make something run that is not ours or trusted.
    """
    trust = [word for word in typed if word.startswith("trust=")]
    packages = _listed(overrides.value_of(overrides.parse(trust, multirun=False), "trust") or [])
    texts = [overrides.quoted(word, multirun) for word in typed if word not in trust]
    anew = {(o.key_or_group, o.package) for o in overrides.parse(texts, multirun)}
    if not PLAIN.fullmatch(known["name"]):
        raise CheckpointError(f"it was started with --config-name {known['name']!r}, which is not a name")
    stored = [o for o in overrides.parse(known["overrides"], multirun) if (o.key_or_group, o.package) not in anew]
    groups = {group.name for folder in (places.conf_dir(), *places.user_conf_dirs()) for group in folder.iterdir()}
    for override in stored:
        _vet(override, groups | set(places.SHARED_FOLDERS), [str(name) for name in packages])
    return [*(override.input_line or "" for override in stored), *texts]


def _vet(override: Override, groups: set[str], trust: Sequence[str]) -> None:
    """Refuse a setting that reaches beyond our own parts and those trusted.

    Choices of groups are names of files in the shipped and the user's own conf/; a class is named by `_target_` alone.
    """
    key, value, text = override.key_or_group, override.value(), override.input_line
    values = [_bare(item) for item in value.list] if isinstance(value, ChoiceSweep) else [value]
    root = re.split(r"[./]", key)[0]
    parts = key.split(".")
    whole = any(isinstance(item, Mapping) for value in values for item in _listed(value))
    sent = parts[0] == "logger" and (whole or (len(parts) > 1 and parts[-1] not in OF_LOGGERS))
    packed = override.package is not None and not (
        root in places.SHARED_FOLDERS.values() and PLACE.fullmatch(override.package)
    )
    if sent or (root == "hydra" and key not in OF_HYDRA) or packed:
        raise CheckpointError(f"it was started with {text}, which is not used again from its folder", "type it again")
    if RESOLVER.search(str(text)):
        raise CheckpointError(f"it was started with {text}, whose value comes from outside the run")
    chosen = [name for value in values for name in _listed(value) if not isinstance(name, Mapping)]
    if isinstance(value, Glob):
        chosen = [re.sub(r"[*?]", "x", pattern) for pattern in value.include]  # of names that are there
    if root in groups and "." not in key and not all(PLAIN.fullmatch(str(name)) for name in chosen):
        raise CheckpointError(f"it was started with {text}, which is not a name")
    for where, target in itertools.chain(*(_targets(key, value) for value in values)):
        building.trusted(target, where, trust)


def _bare(value: Any) -> Any:
    """A value without the quotes that were typed around it."""
    if isinstance(value, list):
        return [_bare(item) for item in value]
    return value.text if isinstance(value, QuotedString) else value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _targets(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every `_target_` that a setting gives, however deep, after the key it belongs to."""
    where, _, last = key.rpartition(".")
    if last == "_target_":
        yield where, value
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        yield from _targets(f"{key}.{name}", item)


def same_directory(directory: str, output_dir: str, typed: Sequence[str]) -> None:
    """Relative paths mean what they meant, unless where results lie is said anew.

    Raises:
        ConfigError: they would not.
    """
    if any(text.startswith("output_dir=") for text in typed) or Path(output_dir).is_absolute():
        return
    if Path(directory) != Path.cwd():
        message = f"this was started in {directory}, and its results and data are found from there"
        raise ConfigError(message, f"cd {directory}, or give output_dir={Path(directory) / output_dir}")
