"""Every key that can be typed, as Hydra composes it, with its values where these are few: what Tab offers, without help.

Keys are written as they are typed, teacher.fit.epochs, each with a list of its values: empty where any will do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.types import RunMode
from omegaconf import OmegaConf

from distill_cli.config import brought, compose, overrides, schema
from distill_cli.config.fields import keys
from distill_cli.config.places import OPTIONAL_GROUPS, conf_dir, group_files, group_names, user_conf_dirs

Keys = dict[str, list[str]]
PACKAGE = re.compile(r"^#\s*@package\s+(\S+)", re.MULTILINE)


def everything(config_dir: str | None) -> dict[str, Any]:
    """What holds for every line: `choices`, the keys each choice of each group brings; `roots`, the names that
    --config-name can have; `paths`, the keys whose values are paths.

    All choices are composed at once, each into a place of its own. One that cannot be composed brings no keys, and nor
    does an experiment: its keys depend on what it overrides, see `start`.
    """
    with compose.session("train", config_dir) as engine:
        ConfigStore.instance().store(name="choices", node={})
        choices: dict[str, dict[str, Keys]] = {group: {name: {} for name in group_files(group)} for group in _groups()}
        files = [(group, *file) for group in choices if group != "experiment" for file in group_files(group).items()]
        words = {f"n{number}": f"+{group}@each.n{number}{_package(group, path)}={overrides.in_quotes(name)}"
                 for number, (group, name, path) in enumerate(files)}  # fmt: skip
        for place, content in _composed_apart(engine, words).items():
            group, name, _ = files[int(place[1:])]
            choices[group][name] = dict(_keys(content, {"node": schema.Train}))
        folders = [*user_conf_dirs(), conf_dir()]
        roots = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    return {"choices": choices, "roots": roots, "paths": sorted({*overrides.PATH_KEYS, overrides.INPUT})}


def start(command: str, root: str, config_dir: str | None, experiment: str) -> dict[str, Keys]:
    """A command's keys without any group's choice, under "", and each group's with what its defaults list chooses.

    What cannot be composed, because a user's file is half written, is left out.

    Args:
        root: the name of the root YAML. experiment: the name of one, or "".
    """
    shape = schema.COMMANDS[command].shape
    fields = {key.name for key in keys(shape)}
    groups = [group for group in _groups() if shape is schema.Train or group in fields]
    chosen = [f"experiment={overrides.in_quotes(experiment)}"] if experiment else []
    with compose.session(command, config_dir) as engine:
        if schema.COMMANDS[command].checkpoint:
            brought.use_dataset_of(None)
        bare = _composed(engine, root, [*chosen, *(f"{group}=[]" for group in groups if group != "experiment")])
        if bare is None and experiment:
            return start(command, root, config_dir, "")
        whole = dict(_keys(_composed(engine, root, chosen), {"node": shape}))
    places = {group: f"{group.replace('/', '.')}." for group in groups}
    below = {g: {key: values for key, values in whole.items() if key.startswith(place)} for g, place in places.items()}
    return {"": dict(_keys(bare, {"node": shape})), **below}


def _groups() -> list[str]:
    return sorted([*group_names(), *OPTIONAL_GROUPS, *(f"hydra/{path.name}" for path in conf_dir().glob("hydra/*/"))])


def _composed_apart(engine: Any, words: Mapping[str, str]) -> dict[str, Any]:
    """What each word brings to its place below `each`; without those that stop Hydra, which are found by halving."""
    content = _composed(engine, "choices", list(words.values()))
    if content is not None or len(words) == 1:
        return dict((content or {}).get("each", {}))
    places = list(words)
    middle = len(places) // 2
    halves = [{place: words[place] for place in half} for half in (places[:middle], places[middle:])]
    return {**_composed_apart(engine, halves[0]), **_composed_apart(engine, halves[1])}


def _composed(engine: Any, root: str, words: Sequence[str]) -> dict[Any, Any] | None:
    """A configuration as it is written, its interpolations not worked out; None where it cannot be composed."""
    try:
        cfg = engine.compose_config(root, list(words), run_mode=RunMode.RUN, with_log_configuration=False)
        content = OmegaConf.to_container(cfg, resolve=False)
    except Exception:  # whatever is wrong with a user's file, the keys of all others are worth a Tab
        return None
    assert isinstance(content, dict)
    return content


def _package(group: str, path: Path) -> str:
    """Where a choice's keys come to stand, after a dot: what the first lines of its file say, else in the group."""
    header = PACKAGE.search(path.read_text(encoding="utf-8", errors="replace")[:512])
    package = header[1] if header else "_group_"
    return "" if package == "_global_" else "." + package.replace("_group_", group.replace("/", "."))


def _keys(value: Any, rules: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every key in a value that holds no others, and the values that its type or the schema allows."""
    if not isinstance(value, dict) or not value:
        if key:
            yield key, list(rules.get("choices", ("true", "false") if isinstance(value, bool) else ()))
        return
    shape = rules.get("node")
    below = {key.name: key.rules for key in keys(shape)} if shape else {}
    stage = dict.fromkeys(below) if shape is schema.Stage else {}  # which has all its keys, written or not
    for name, inner in {**stage, **value}.items():
        rule = {"node": rules["nodes"]} if "nodes" in rules else below.get(name, {})
        yield from _keys(inner, rule, f"{key}.{name}" if key else str(name))
