"""Hydra's sweeper that searches: Optuna suggests the next settings from what was reached so far, and can be gone on with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from distill_cli import ui
from distill_cli.errors import ConfigError

STUDY = "search.sqlite3"
STOPPED = "stopped"  # marks a trial that did not end by itself: it is not counted, its settings are tried again
DIGITS = 6  # of a suggested number, as the run gets it


class Search(Sweeper):
    """Runs trials that Optuna suggests, in batches, through any launcher.

    Args: as conf/hydra/sweeper/optuna.yaml says.

    Raises:
        ConfigError: Optuna is not installed, or a setting is not what it can search.
    """

    def __init__(
        self, n_trials: int, batch: int, seed: int, storage: str | None, direction: str, params: Mapping[str, str]
    ) -> None:
        for key, value in (("n_trials", n_trials), ("batch", batch)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"hydra.sweeper.{key}: should be a whole number from 1, got {value}")
        self.n_trials, self.batch, self.seed, self.storage, self.direction = n_trials, batch, seed, storage, direction

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.job = config
        self.runner = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until there are `n_trials` that ended; those of an earlier call of the same study count."""
        optuna = imported()
        parsed = OverridesParser.create().parse_overrides(arguments)
        fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
        space = {o.key_or_group: distribution(o) for o in parsed if o.is_sweep_override()}
        study = self._study(optuna)
        again(optuna, study)
        while (done := len(ended(study))) < self.n_trials:
            count = min(self.batch, self.n_trials - done)
            trials = [study.ask(space) for _ in range(count)]
            settings = [[f"{key}={_text(trial.params[key])}" for key in space] + fixed for trial in trials]
            results = self.runner.launch(settings, initial_job_idx=done)
            for trial, result in zip(trials, results, strict=True):
                value = result.return_value
                study.tell(trial, value, state=None if value is not None else optuna.trial.TrialState.FAIL)
        self._tell(study)

    def _study(self, optuna: Any) -> Any:
        folder = Path(self.job.hydra.sweep.dir).absolute()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            storage = optuna.storages.RDBStorage(self.storage or f"sqlite:///{folder / STUDY}")
            study = optuna.create_study(
                storage=storage, study_name=folder.name, direction=self.direction, load_if_exists=True
            )
            # A sampler that starts again with the same seed would suggest the same again.
            seed = self.seed + len(study.trials)
            study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=self.batch > 1, multivariate=True)
        return study

    def _tell(self, study: Any) -> None:
        complete = [trial for trial in ended(study) if trial.value is not None]
        if complete:
            found = " ".join(f"{key}={_text(value)}" for key, value in study.best_params.items())
            ui.show(f"search: {len(complete)} trials, best {self.job.optimize} {study.best_value:.4f}: {found}")


def imported() -> Any:
    """Optuna, quiet.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            f"hydra/sweeper=optuna: {error.name} is not installed", "pip install 'distill-cli[sweep]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def distribution(override: Override) -> Any:
    """What Optuna may suggest for a setting: one of several, or a number between two ends.

    Raises:
        ConfigError: it is neither.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    key, value = override.key_or_group, override.value()
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution([str(text) for text in override.sweep_string_iterator()])
    if isinstance(value, RangeSweep) and value.start is not None and value.stop is not None:
        if isinstance(value.start, int) and isinstance(value.stop, int) and isinstance(value.step, int):
            return IntDistribution(value.start, value.stop - 1, step=value.step)
        return CategoricalDistribution([str(text) for text in override.sweep_string_iterator()])
    if isinstance(value, IntervalSweep) and value.start is not None and value.end is not None:
        low, high, log = value.start, value.end, "log" in value.tags
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(low, high, log=log)
    raise ConfigError(f"{key}: a search takes a,b,c or interval(low,high), got {override.input_line}")


def again(optuna: Any, study: Any) -> None:
    """Have the trials that an earlier call left half done tried again: their run folders go on where they were."""
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        optuna.trial.Trial(study, trial._trial_id).set_user_attr(STOPPED, True)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)


def ended(study: Any) -> list[Any]:
    """The trials that ended by themselves, well or not."""
    return [trial for trial in study.trials if trial.state.is_finished() and STOPPED not in trial.user_attrs]


def _text(value: Any) -> str:
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)
