"""A command line -> its command, run once or as a sweep; errors -> exit codes. Imports torch only once a command runs."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from distill_cli.pages import command_names

if TYPE_CHECKING:
    import argparse

    from omegaconf import DictConfig


def guarded(words: list[str]) -> int:
    """Dispatch, with every failure turned into one message and an exit code."""
    from distill_cli import stopping, ui
    from distill_cli.errors import DistillError, Terminated, exit_code_of, translated

    stopping.listen()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show α shows a question mark
    try:
        with translated():
            return dispatch(words)
    except DistillError as error:
        ui.fail(str(error))
        return error.exit_code
    except KeyboardInterrupt as stopped:
        ui.fail("terminated" if isinstance(stopped, Terminated) else "interrupted")
        return exit_code_of(stopped)
    except Exception:
        if os.environ.get("DISTILL_DEBUG"):
            raise
        import traceback

        ui.fail("this is a bug in distill; the traceback:")
        traceback.print_exc()
        return 1


def dispatch(words: list[str]) -> int:
    from distill_cli.config import conf_dir
    from distill_cli.errors import ConfigError, did_you_mean

    command, rest = words[0], words[1:]
    if command not in command_names():
        guess = did_you_mean(command, command_names(), "distill ")
        raise ConfigError(f"there is no command {command!r}", f"{guess}commands: {', '.join(command_names())}")
    if not (conf_dir() / f"{command}.yaml").is_file():
        command_run(command)(list(rest))
        return 0
    return configured(command, arguments(command, rest))


def command_run(command: str) -> Any:
    import importlib

    return importlib.import_module(f"distill_cli.commands.{command}").run


def arguments(command: str, rest: Sequence[str]) -> argparse.Namespace:
    """Flags and overrides in any order."""
    import argparse

    from distill_cli.errors import ConfigError

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            unknown = message.removeprefix("unrecognized arguments: ")
            hint = f"distill {command} --help shows the options"
            if unknown.startswith("--") and "=" in unknown:
                hint = f"settings are written without dashes: {unknown.split()[0].lstrip('-')}"
            raise ConfigError(message, hint)

    parser = Parser(prog=f"distill {command}", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-cn", "--config-name", default=command)
    parser.add_argument("-cd", "--config-dir")
    parser.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    parser.add_argument("-p", "--package")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("-i", "--info", nargs="?", const="all",
                        choices=("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"))  # fmt: skip
    return parser.parse_intermixed_args(rest)


def configured(command: str, args: argparse.Namespace) -> int:
    """Compose and check the configuration; then print it, or run the command on it once or as a sweep."""
    from distill_cli import compose, overrides
    from distill_cli.errors import ConfigError

    texts = [overrides.quoted(word, args.multirun) for word in args.overrides]
    parsed = overrides.parse(texts, args.multirun)
    if command == "eval":
        compose.use_dataset_of(overrides.value_of(parsed, "ckpt"))
    with compose.session(command, args.config_dir) as engine:
        if args.cfg or args.info:
            compose.print_config(engine, args, texts)
            return 0
        if command == "eval" and overrides.value_of(parsed, "ckpt") is None:
            raise ConfigError("ckpt: which checkpoint?", "distill eval ckpt=outputs/train/<date>/<run>")
        if command == "train" and args.multirun:
            return sweep(engine, args.config_name, parsed, texts)
        jobs = list(overrides.expand(parsed)) if args.multirun else [texts]
        configurations = [compose.compose(engine, args.config_name, command, job) for job in jobs]
        run = command_run(command)
        if command == "train":
            compose.run(engine, args.config_name, run, texts)
            return 0
        for cfg in configurations:
            compose.make_current(cfg)
            run(compose.without_hydra(cfg))
    return 0


def sweep(engine: Any, config_name: str, parsed: Sequence[Any], texts: list[str]) -> int:
    """Run every combination, each in a folder of its own; a job that fails costs that job only."""
    from hydra.core.hydra_config import HydraConfig

    from distill_cli import compose, overrides, ui
    from distill_cli.errors import ConfigError

    if overrides.value_of(parsed, "run_dir") is not None:
        raise ConfigError("run_dir: names one folder, a sweep needs one for each run", "use hydra.sweep.dir=PATH")
    for job in overrides.combinations(parsed):
        compose.compose(engine, config_name, "train", job)
    run = command_run("train")
    keys = {override.key_or_group for override in parsed if override.is_sweep_override()}
    total = sum(1 for _ in overrides.expand(parsed))

    def named(job: Sequence[str]) -> str:
        return " ".join(text for text in job if text.partition("=")[0] in keys)

    def task(cfg: DictConfig) -> Any:
        job = HydraConfig.get()
        ui.show(f"\n[{job.job.num + 1}/{total}] {named(job.overrides.task)}")
        return run(cfg)

    values = compose.multirun(engine, config_name, task, texts)
    results = [(named(job), found) for job, found in values]
    done = [(name, found) for name, found in results if not isinstance(found, Exception)]
    rows = [[name, *(f"{found[s]['student']['accuracy']:.4f}" for s in ("val", "test"))] for name, found in done]
    ui.show(ui.table(f"{len(done)} of {len(results)} runs done", ["run", "val accuracy", "test accuracy"], rows))
    for name, found in results:
        if isinstance(found, Exception):
            ui.fail(f"{name}: {found}")
    return 0 if len(done) == len(results) else 1
