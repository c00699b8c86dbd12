"""Composing by Hydra: where it searches, one configuration, and its errors in our words. What values may be: checking.py."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from distill_cli.base import metrics
from distill_cli.base.errors import ConfigError, nearest
from distill_cli.base.names import overrides_slug, slug
from distill_cli.config import places, schema, structured, yamls
from distill_cli.config.fields import keys
from distill_cli.config.overrides import ALIASES
from distill_cli.config.values import short


class Folder(FileConfigSource):
    """A conf folder: its groups, with the models in it offered as teachers and as students.

    The tool's own root files come from the shipped folder alone: a train.yaml of another project's stays unread.
    """

    @staticmethod
    def scheme() -> str:
        return "distill"

    def _places(self, path: str) -> list[str]:
        """Where a path may lie in this folder, in order of preference."""
        group, slash, rest = path.partition("/")
        return [path, f"{places.SHARED_FOLDERS[group]}{slash}{rest}"] if group in places.SHARED_FOLDERS else [path]

    def load_config(self, config_path: str) -> ConfigResult:
        files = [Path(self.path, self._normalize_file_name(place)) for place in self._places(config_path)]
        path = next((file for file in files if file.is_file()), files[0])
        text = yamls.read(path)
        try:
            header = self._get_header_dict(text[:512])
        except ValueError as error:
            raise ConfigError(f"{path}: its header cannot be read: {error}") from error
        return ConfigResult(self.provider, self.full_path(), yamls.parsed(text, path), header)

    def is_group(self, config_path: str) -> bool:
        return any(map(super().is_group, self._places(config_path)))

    def is_config(self, config_path: str) -> bool:
        if config_path.removesuffix(".yaml") in schema.COMMANDS:
            return False
        return any(map(super().is_config, self._places(config_path)))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        folders = filter(super().is_group, self._places(config_path))
        return sorted({name for place in folders for name in super(Folder, self).list(place, results_filter)})


class Folders(SearchPathPlugin):
    """Search the user's conf folders before the shipped one: a file of the same name wins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in places.user_conf_dirs():
            search_path.prepend("user", f"distill://{folder}", SearchPathQuery(provider="main"))
        search_path.append("models", f"distill://{places.conf_dir()}")


@contextmanager
def session(command: str, config_dir: str | None = None) -> Iterator[Any]:
    """Start Hydra on `--config-dir`, the user's folders and the shipped conf/, in this order; yields its engine."""
    GlobalHydra.instance().clear()
    places.use_conf_dir(config_dir)
    if Folders not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(Folders)
        SourcesRegistry.instance().register(Folder)
        OmegaConf.register_new_resolver("first", lambda *values: next((v for v in values if v is not None), None))
        OmegaConf.register_new_resolver("slug", slug)
        name_runs_by(None)
        OmegaConf.register_new_resolver("direction", metrics.direction)
    structured.register(schema.COMMANDS[command].shape)
    # Hydra 1.4 drops version_base and warns when it is given.
    base: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
    with hydra.initialize_config_dir(str(places.conf_dir()), job_name=command, **base):
        engine = GlobalHydra.instance().hydra
        assert engine is not None
        yield engine


def name_runs_by(keys: Sequence[str] | None) -> None:
    """Name the folders of a sweep's runs by these of their settings from now on; None: by all."""
    OmegaConf.register_new_resolver("overrides_slug", functools.partial(overrides_slug, keys=keys), replace=True)


def compose(
    engine: Any, config_name: str, command: str, overrides: Sequence[str], mode: RunMode = RunMode.RUN
) -> DictConfig:
    """Compose one configuration, with Hydra's own node in it. What its values may be is checked in load.py.

    Args:
        mode: MULTIRUN: the configuration of a sweep as a whole, without what is swept over.

    Raises:
        ConfigError: for anything wrong in it.
    """
    with _explained(engine, config_name, overrides):
        cfg = _composed(engine, config_name, overrides, mode)
    HydraConfig.instance().set_config(cfg)  # ${hydra:...} is answered from there
    known = {"hydra", *(key.name for key in keys(schema.COMMANDS[command].shape))}
    if unknown := [str(key) for key in cfg if key not in known]:
        every = _all_keys(engine, config_name, overrides)
        raise ConfigError("\n".join(_unknown_key(key, every) for key in unknown))
    return cfg


def print_config(engine: Any, args: Any, overrides: Sequence[str]) -> None:
    """What --cfg and --info ask for, as Hydra prints it.

    Raises:
        ConfigError: the configuration does not compose.
    """
    name, words, handlers, level = args.config_name, list(overrides), logging.root.handlers[:], logging.root.level
    try:
        with _explained(engine, name, words):
            if args.cfg:
                engine.show_cfg(name, words, args.cfg, args.package, resolve=args.resolve)
            else:
                engine.show_info(args.info, config_name=name, overrides=words)
    finally:  # Hydra prints through the root logger, set up at DEBUG for it
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


def _composed(engine: Any, config_name: str, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
    cfg = engine.compose_config(config_name, list(overrides), run_mode=mode, with_log_configuration=False)
    assert isinstance(cfg, DictConfig)
    return cfg


@contextmanager
def _explained(engine: Any, config_name: str, overrides: Sequence[str]) -> Iterator[None]:
    """Hydra's and OmegaConf's exceptions as one ConfigError in our words."""
    try:
        yield
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file or config_name).rpartition("/")
        absent = f"--config-name: there is no {name}.yaml in the searched folders"
        raise ConfigError(
            places.unknown_choice(group, name, list(places.group_files(group))) if group else absent
        ) from error
    except (ConfigCompositionException, OmegaConfBaseException) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
        key, first = getattr(cause, "full_key", None), str(cause).splitlines()[0]
        if key and any(word in type(cause).__name__ for word in ("Key", "Attribute")):
            raise ConfigError(_unknown_key(key, _all_keys(engine, config_name, overrides))) from error
        raise ConfigError(f"{key}: {_plainly(key, first)}" if key else first) from error
    except (HydraException, YAMLError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        lines = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
        raise ConfigError(f"the configuration cannot be read: {lines}") from error


def _plainly(key: str, complaint: str) -> str:
    """OmegaConf's complaint about a value's type, in a user's words."""
    words = {"Float": "a number", "Integer": "a whole number", "Boolean": "true or false", "String": "text"}
    if typed := re.match(r"Value (.*) of type '\w+' could not be converted to (\w+)", complaint):
        return f"should be {words.get(typed[2], typed[2])}, got {short(typed[1])}"
    if listed := re.match(r"Cannot convert '\w+' to string: '(.*)'", complaint):
        return f"should be text, got {short(listed[1])}"
    if "ListConfig" in complaint:
        return f"should be a list, as in {key}=[NAME]"
    if "subclass of Stage" in complaint:
        return "a stage cannot be added on the command line: write a schedule of your own, conf/schedule/NAME.yaml"
    if re.fullmatch(r"schedule\.\w+", key) and "Optional" in complaint:
        return f"cannot be null; to leave a stage out: {key}.epochs=0"
    if complaint.endswith("is not Optional"):
        return f"cannot be null; for its default leave {key} out"
    return complaint


def _all_keys(engine: Any, config_name: str, overrides: Sequence[str]) -> list[str]:
    """Every key there is under the groups' choices among the overrides; the rest of these may be wrong."""
    groups = {*places.group_names(), *places.OPTIONAL_GROUPS}
    chosen = [text for text in overrides if text.partition("=")[0] in groups and "${" not in text]
    try:
        cfg = _composed(engine, config_name, chosen)
    except (HydraException, OmegaConfBaseException):
        cfg = _composed(engine, config_name, [])

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key in node if OmegaConf.is_dict(node) else []:
            if prefix or key != "hydra":
                yield f"{prefix}{key}"
                yield from walk(node._get_node(key), f"{prefix}{key}.")

    return list(walk(cfg, ""))


def _unknown_key(key: str, keys: Sequence[str]) -> str:
    close = nearest(key, [*keys, *ALIASES])
    close = ALIASES.get(close, close) if close and close not in keys else close
    parent = key.rpartition(".")[0]
    inside = [name.rpartition(".")[2] for name in keys if name.rpartition(".")[0] == parent]
    guess = f" did you mean {close}?" if close and close != key else ""
    choices = f"\nkeys{f' of {parent}' if parent else ''}: {', '.join(inside)}" if inside else ""
    return f"{key}: there is no such key.{guess}{choices}"
