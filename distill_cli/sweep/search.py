"""Hydra's sweeper that searches: Optuna suggests the next settings from earlier results; a stopped search can be resumed."""

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

from distill_cli.base import metrics, ui
from distill_cli.base.errors import ConfigError
from distill_cli.sweep import jobs, plugins

STUDY = "search.sqlite3"
DIGITS = 6  # of a suggested number, as the run gets it


class Search(Sweeper):
    """Runs trials that Optuna suggests, in batches, through any launcher.

    Args: as conf/hydra/sweeper/optuna.yaml says.

    Raises:
        ConfigError: Optuna is not installed, or a setting is not what it can search.
    """

    def __init__(
        self, n_trials: int, batch: int, seed: int, storage: str | None, direction: str, params: Mapping[str, str]
    ) -> None:  # params: sweep.read has put them among the settings
        for key, value in (("n_trials", n_trials), ("batch", batch)):
            plugins.at_least_one(f"hydra.sweeper.{key}", value)
        self.n_trials, self.batch, self.seed, self.storage, self.direction = n_trials, batch, seed, storage, direction

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Open the study, and hold what is searched against what was.

        Raises:
            ConfigError: the choices of a setting are not those that the study began with.
        """
        self.job, self.optuna = config, imported()
        self.runner = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        parsed = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        self.fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
        self.space = {o.key_or_group: distribution(o) for o in parsed if o.is_sweep_override()}
        self.study = self._study()
        for trial in self.study.trials:
            for key, old in trial.distributions.items():
                if key in self.space and _choices(old) != _choices(self.space[key]):
                    message = f"{key}: the choices of a search cannot change once it has begun"
                    raise ConfigError(message, "choose another hydra.sweep.dir")

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until there are `n_trials` with a result or, in this call, a failure."""
        study, failed = self.study, self.optuna.trial.TrialState.FAIL
        first = len(study.trials)
        again(self.optuna, study)
        while (done := len(ended(study, first))) < self.n_trials:
            count = min(self.batch, self.n_trials - done)
            trials = [study.ask(self.space) for _ in range(count)]
            settings = [[f"{key}={_text(trial.params[key])}" for key in self.space] + self.fixed for trial in trials]
            results = self.runner.launch(settings, initial_job_idx=done)
            for trial, result in zip(trials, results, strict=True):
                value = result.return_value
                study.tell(trial, value, state=None if value is not None else failed)
        complete = [trial for trial in ended(study, first) if trial.value is not None]
        if complete:
            best = " ".join(f"{key}={_text(value)}" for key, value in study.best_params.items())
            ui.show(f"search: {len(complete)} trials, best {self._told(study.best_value)}: {best}")

    def _told(self, value: float) -> str:
        """What a search is told of a run, see `jobs.score_of`, for people."""
        if self.job.optimize:
            return f"{self.job.optimize} {value:.4f}"
        summaries = map(jobs.summary_of, sorted(Path(self.job.hydra.sweep.dir).iterdir()))
        metric = metrics.judged(next(filter(None, summaries), {}))
        return f"val.{metric.name} {metric.gain(value):.4f}"

    def _study(self) -> Any:
        folder = Path(self.job.hydra.sweep.dir).absolute()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = self.optuna.create_study(
                storage=self.optuna.storages.RDBStorage(self.storage or f"sqlite:///{folder / STUDY}"),
                study_name=folder.name if self.storage else "search",  # a folder of its own may be moved
                direction=self.direction,
                load_if_exists=True,
            )
            # A sampler that starts again with the same seed would suggest the same again.
            seed = self.seed + len(study.trials)
            study.sampler = self.optuna.samplers.TPESampler(seed=seed, constant_liar=self.batch > 1, multivariate=True)
        return study


def imported() -> Any:
    """Optuna, quiet.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        message = f"hydra/sweeper=optuna: {error.name} is not installed"
        raise ConfigError(message, "pip install 'distill-cli[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def distribution(override: Override) -> Any:
    """What Optuna may suggest for a setting: one of several, or a number between two ends.

    Raises:
        ConfigError: it is neither.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    key, value, ends = override.key_or_group, override.value(), list[Any]()
    if isinstance(value, IntervalSweep | RangeSweep):
        ends = [value.start, value.end if isinstance(value, IntervalSweep) else value.stop]
    if None in ends or not isinstance(value, ChoiceSweep | RangeSweep | IntervalSweep):
        raise ConfigError(f"{key}: a search takes a,b,c or interval(low,high), got {override.input_line}")
    whole = all(isinstance(end, int) for end in ends)
    try:
        if isinstance(value, IntervalSweep):
            return (IntDistribution if whole else FloatDistribution)(ends[0], ends[1], log="log" in value.tags)
        if isinstance(value, RangeSweep) and whole and isinstance(value.step, int):
            return IntDistribution(ends[0], ends[1] - 1, step=value.step)
        return CategoricalDistribution([str(text) for text in override.sweep_string_iterator()])
    except ValueError as error:  # Optuna's own words: low above high, a logarithm of 0
        raise ConfigError(f"{key}: {error}") from error


def again(optuna: Any, study: Any) -> None:
    """Try again what earlier calls left without a result: runs resume from their folders."""
    states = optuna.trial.TrialState
    for trial in study.get_trials(states=[states.RUNNING]):
        study.tell(trial.number, state=states.FAIL)
    settled = [trial.params for trial in study.get_trials(states=[states.COMPLETE])]
    settled += [trial.system_attrs.get("fixed_params") for trial in study.get_trials(states=[states.WAITING])]
    for trial in study.get_trials(states=[states.FAIL]):
        if trial.params and trial.params not in settled:
            study.enqueue_trial(trial.params)
            settled.append(trial.params)


def ended(study: Any, first: int) -> list[Any]:
    """The trials with a result, and those from number `first` on that failed."""
    return [t for t in study.trials if t.state.is_finished() and (t.value is not None or t.number >= first)]


def _choices(distribution: Any) -> Any:
    return getattr(distribution, "choices", None)


def _text(value: Any) -> str:
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)
