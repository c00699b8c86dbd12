"""Hydra's machinery for sweeps, with our sweepers and launchers known to it for as long as it takes to choose them."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig

from distill_cli.base.errors import ConfigError, DistillError
from distill_cli.config.values import shown


def at_least_one(key: str, value: Any) -> None:
    """Check a count that a preset takes.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{key}: should be a whole number from 1, got {shown(value)}")


def grid() -> type:
    """Hydra's own sweeper, every combination in turn, which need not compose each once more: they have been checked."""
    basic = Plugins.instance().class_name_to_class["hydra._internal.core_plugins.basic_sweeper.BasicSweeper"]
    return type("Grid", (basic,), {"validate_batch_is_legal": lambda self, batch: None})


def multirun(
    engine: Any,
    config_name: str,
    task: TaskFunction,
    overrides: Sequence[str],
    plugins: Sequence[type],
    ready: Callable[[], None],
) -> None:
    """Run a sweep through Hydra's sweeper and launcher; what these raise, this raises.

    Args:
        plugins: sweepers and launchers of ours, which a preset's `_target_` names as hydra_plugins.distill.NAME.
        ready: called once both have taken their settings, before the first run.

    Raises:
        ConfigError: what was chosen is not installed.
    """
    cfg = _composed(engine, config_name, overrides)
    callbacks = Callbacks(cfg)
    callbacks.on_multirun_start(config=cfg, config_name=config_name)
    with _plugged(plugins) as registry:
        for kind in ("sweeper", "launcher"):
            _require(registry, cfg, kind)
        context = HydraContext(config_loader=engine.config_loader, callbacks=callbacks)
        try:
            sweeper = registry.instantiate_sweeper(config=cfg, hydra_context=context, task_function=task)
        except HydraException as error:  # what the constructor of a plugin of ours has to say
            if isinstance(error.__cause__, DistillError):
                raise error.__cause__ from None
            raise
    ready()
    sweeper.sweep(arguments=list(cfg.hydra.overrides.task))
    callbacks.on_multirun_end(config=cfg, config_name=config_name)


def single(engine: Any, config_name: str, task: TaskFunction, overrides: Sequence[str]) -> Any:
    """Do one task through Hydra's launcher, and wait for it; returns what it returned, and raises what the launcher raises.

    Raises:
        ConfigError: the launcher is not installed.
    """
    cfg = _composed(engine, config_name, overrides)
    with _plugged(()) as registry:
        _require(registry, cfg, "launcher")
        context = HydraContext(config_loader=engine.config_loader, callbacks=Callbacks(cfg))
        launcher = registry.instantiate_launcher(config=cfg, hydra_context=context, task_function=task)
    return launcher.launch([list(cfg.hydra.overrides.task)], 0)[0].return_value


def _composed(engine: Any, config_name: str, overrides: Sequence[str]) -> DictConfig:
    words = [*overrides, "hydra.mode=MULTIRUN"]
    cfg = engine.compose_config(config_name, words, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
    assert isinstance(cfg, DictConfig)
    return cfg


def _require(registry: Plugins, cfg: DictConfig, kind: str) -> None:
    if cfg.hydra[kind]._target_ not in registry.class_name_to_class:
        name = cfg.hydra.runtime.choices[f"hydra/{kind}"]
        raise ConfigError(f"hydra/{kind}={name}: it is not installed", "pip install 'distill-cli[sweep]'")


@contextmanager
def _plugged(plugins: Sequence[type]) -> Iterator[Plugins]:
    """Inside, Hydra knows our plugins: no other program in this environment is made to load them, and no launcher that
    sends Hydra's state to another machine takes them along.
    """
    registry, place = Plugins.instance(), "hydra_plugins.distill"
    ours = {plugin.__name__: type(plugin.__name__, (plugin,), {"__module__": place}) for plugin in [grid(), *plugins]}
    sys.modules.setdefault("hydra_plugins", types.ModuleType("hydra_plugins"))
    sys.modules[place] = types.ModuleType(place)
    vars(sys.modules[place]).update(ours)
    before = dict(registry.class_name_to_class)
    registry.class_name_to_class |= {f"{place}.{name}": plugin for name, plugin in ours.items()}
    try:
        yield registry
    finally:
        registry.class_name_to_class = before
        del sys.modules[place]
