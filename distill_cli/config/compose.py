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
from hydra import initialize_config_dir
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
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from distill_cli.base.errors import ConfigError, nearest
from distill_cli.base.names import overrides_slug, slug
from distill_cli.config import schema, structured, yamls
from distill_cli.config.fields import keys
from distill_cli.config.overrides import ALIASES
from distill_cli.config.places import (
    OPTIONAL_GROUPS,
    SHARED_FOLDERS,
    conf_dir,
    group_files,
    group_names,
    unknown_choice,
    use_conf_dir,
    user_conf_dirs,
)
from distill_cli.config.values import short


class Folder(FileConfigSource):
    """A conf folder: its groups, with the models in it offered as teachers and as students.

    The tool's own root files come from the shipped folder alone: a train.yaml of another project's stays unread.
    """

    @staticmethod
    def scheme() -> str:
        return "distill"

    @staticmethod
    @functools.cache
    def _places(path: str) -> list[str]:
        """Where a path may lie in this folder, in order of preference."""
        group, _, rest = path.partition("/")
        return [path, f"{SHARED_FOLDERS[group]}/{rest}"] if group in SHARED_FOLDERS else [path]

    def load_config(self, config_path: str) -> ConfigResult:
        places = [place for place in self._places(config_path) if super(Folder, self).is_config(place)]
        path = Path(self.path, self._normalize_file_name(places[0] if places else config_path))
        text = yamls.read(path)
        try:
            header = self._get_header_dict(text[:512])
        except ValueError as error:
            raise ConfigError(f"{path}: its header cannot be read: {error}") from error
        return ConfigResult(self.provider, self.full_path(), yamls.parsed(text, path), header)

    def is_group(self, config_path: str) -> bool:
        return any(super(Folder, self).is_group(place) for place in self._places(config_path))

    def is_config(self, config_path: str) -> bool:
        ours = config_path.removesuffix(".yaml") in schema.COMMANDS
        return not ours and any(super(Folder, self).is_config(place) for place in self._places(config_path))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        places = [place for place in self._places(config_path) if super(Folder, self).is_group(place)]
        return sorted({name for place in places for name in super(Folder, self).list(place, results_filter)})


class Folders(SearchPathPlugin):
    """Search the user's conf folders before the shipped one: a file of the same name wins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in user_conf_dirs():
            search_path.prepend("user", f"distill://{folder}", SearchPathQuery(provider="main"))
        search_path.append("models", f"distill://{conf_dir()}")


@contextmanager
def session(command: str, config_dir: str | None = None) -> Iterator[Any]:
    """Start Hydra on `--config-dir`, the user's folders and the shipped conf/, in this order; yields its engine."""
    GlobalHydra.instance().clear()
    use_conf_dir(config_dir)
    if Folders not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(Folders)
        SourcesRegistry.instance().register(Folder)
        OmegaConf.register_new_resolver("first", lambda *values: next((v for v in values if v is not None), None))
        OmegaConf.register_new_resolver("slug", slug)
        name_runs_by(None)
        OmegaConf.register_new_resolver("direction", schema.direction)
    structured.register(schema.COMMANDS[command].shape)
    # Hydra 1.4 drops version_base and warns when it is given.
    version = tuple(int(part) for part in hydra.__version__.split(".")[:2])
    base: dict[str, Any] = {} if version >= (1, 4) else {"version_base": "1.3"}
    with initialize_config_dir(str(conf_dir()), job_name=command, **base):
        engine = GlobalHydra.instance().hydra
        assert engine is not None
        yield engine


def name_runs_by(keys: Sequence[str] | None) -> None:
    """Name the folders of a sweep's runs by these of their settings from now on; None: by all."""
    OmegaConf.register_new_resolver("overrides_slug", functools.partial(overrides_slug, keys=keys), replace=True)


def compose(
    engine: Any, config_name: str, command: str, overrides: Sequence[str], mode: RunMode = RunMode.RUN
) -> DictConfig:
    """Compose one configuration; it still holds Hydra's own node. What its values may be is checked in load.py.

    Args:
        mode: MULTIRUN: the configuration of a sweep as a whole, without what is swept over.

    Raises:
        ConfigError: for anything wrong in it.
    """
    with _explained(engine, config_name, overrides):
        cfg = engine.compose_config(
            config_name=config_name, overrides=list(overrides), run_mode=mode, with_log_configuration=False
        )
    HydraConfig.instance().set_config(cfg)  # ${hydra:...} is answered from there
    known = {key.name for key in keys(schema.COMMANDS[command].shape)}
    unknown = [str(key) for key in cfg if key != "hydra" and key not in known]
    if unknown:
        every = _all_keys(engine, config_name, overrides)
        raise ConfigError("\n".join(_unknown_key(key, every) for key in unknown))
    return cfg


def without_hydra(cfg: DictConfig) -> DictConfig:
    """The job's own part of a composed configuration."""
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.pop("hydra", None)
    return cfg


def print_config(engine: Any, args: Any, overrides: Sequence[str]) -> None:
    """What --cfg and --info ask for, as Hydra prints it.

    Raises:
        ConfigError: the configuration does not compose.
    """
    name, given = args.config_name, list(overrides)
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        with _explained(engine, name, given):
            if args.cfg:
                engine.show_cfg(name, given, args.cfg, args.package, resolve=args.resolve)
            else:
                engine.show_info(args.info, config_name=name, overrides=given)
    finally:  # Hydra prints through the root logger, set up at DEBUG for it
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


@contextmanager
def _explained(engine: Any, config_name: str, overrides: Sequence[str]) -> Iterator[None]:
    """Hydra's and OmegaConf's exceptions as one ConfigError in our words."""
    try:
        yield
    except MissingConfigException as error:
        missing = str(error.missing_cfg_file or "")
        group, _, name = missing.rpartition("/")
        if not group:
            raise ConfigError(
                f"--config-name: there is no {missing or config_name}.yaml in the searched folders"
            ) from error
        raise ConfigError(unknown_choice(group, name, list(group_files(group)))) from error
    except (ConfigCompositionException, OmegaConfBaseException) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
        key = getattr(cause, "full_key", None)
        first = str(cause).splitlines()[0]
        if key and any(word in type(cause).__name__ for word in ("Key", "Attribute")):
            raise ConfigError(_unknown_key(key, _all_keys(engine, config_name, overrides))) from error
        raise ConfigError(f"{key}: {_plainly(key, first)}" if key else first) from error
    except (HydraException, YAMLError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        lines = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
        raise ConfigError(f"the configuration cannot be read: {lines}") from error


def _plainly(key: str, complaint: str) -> str:
    """OmegaConf's complaint about a value's type, in a user's words."""
    found = re.match(r"Value (.*) of type '\w+' could not be converted to (\w+)", complaint)
    words = {"Float": "a number", "Integer": "a whole number", "Boolean": "true or false", "String": "text"}
    if found:
        return f"should be {words.get(found[2], found[2])}, got {short(found[1])}"
    listed = re.match(r"Cannot convert '\w+' to string: '(.*)'", complaint)
    if listed:
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
    groups = {*group_names(), *OPTIONAL_GROUPS}
    chosen = [text for text in overrides if text.partition("=")[0] in groups and "${" not in text]
    try:
        cfg = engine.compose_config(config_name, chosen, run_mode=RunMode.RUN, with_log_configuration=False)
    except (HydraException, OmegaConfBaseException):
        cfg = engine.compose_config(config_name, [], run_mode=RunMode.RUN, with_log_configuration=False)

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key in node if OmegaConf.is_dict(node) else []:
            if prefix or key != "hydra":
                yield f"{prefix}{key}"
                yield from walk(node._get_node(key), f"{prefix}{key}.")

    return list(walk(cfg, ""))


def _unknown_key(key: str, keys: Sequence[str]) -> str:
    close = nearest(key, [*keys, *ALIASES])
    close = ALIASES.get(close, close) if close else None
    parent = key.rpartition(".")[0]
    inside = [k.rpartition(".")[2] for k in keys if k.rpartition(".")[0] == parent]
    guess = f"did you mean {close}?" if close and close != key else ""
    choices = f"keys{f' of {parent}' if parent else ''}: {', '.join(inside)}" if inside else ""
    return "\n".join(line for line in (f"{key}: there is no such key. {guess}".rstrip(), choices) if line)
