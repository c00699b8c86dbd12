"""A command line -> its command, run once or as a sweep; errors -> exit codes. Imports torch only once a command runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from distill_cli.cli.flags import flags_of
from distill_cli.cli.pages import command_names, is_configured

if TYPE_CHECKING:
    import argparse


def guarded(words: list[str]) -> int:
    """Dispatch, with every failure turned into one message and an exit code."""
    from distill_cli.base import endings

    return endings.guarded(lambda: dispatch(words))


def dispatch(words: list[str]) -> int:
    from distill_cli.base.errors import ConfigError, did_you_mean

    command, rest = words[0], words[1:]
    if command not in command_names():
        guess = did_you_mean(command, command_names(), "distill ")
        raise ConfigError(f"there is no command {command!r}", f"{guess}commands: {', '.join(command_names())}")
    if not is_configured(command):
        return command_run(command)(list(rest)) or 0
    return configured(command, arguments(command, rest))


def command_run(command: str) -> Any:
    import importlib

    return importlib.import_module(f"distill_cli.cli.commands.{command}").run


def arguments(command: str, rest: Sequence[str]) -> argparse.Namespace:
    """Flags and overrides in any order."""
    import argparse

    from distill_cli.base.errors import ConfigError

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            unknown = message.removeprefix("unrecognized arguments: ")
            hint = f"distill {command} --help shows the options"
            if unknown.startswith("--") and "=" in unknown:
                hint = f"settings are written without dashes: {unknown.split()[0].lstrip('-')}"
            raise ConfigError(message, hint)

    parser = Parser(prog=f"distill {command}", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.set_defaults(source=None, debug=False, config_name=command)
    for names, rules in flags_of(command).items():
        parser.add_argument(*names.split(), **rules)
    args = parser.parse_intermixed_args(rest)
    args.overrides += ["debug=true"] * args.debug
    return args


def configured(command: str, args: argparse.Namespace) -> int:
    """Compose and check the configuration; then print it, or run the command on it once or as a sweep."""
    from distill_cli.base.errors import ConfigError
    from distill_cli.config import brought, compose, load, overrides
    from distill_cli.config.schema import COMMANDS

    own = COMMANDS[command]
    texts = [overrides.quoted(word, args.multirun) for word in args.overrides]
    parsed = overrides.parse(texts, args.multirun)
    checkpoint = overrides.value_of(parsed, own.checkpoint) if own.checkpoint else None
    if own.checkpoint:
        brought.use_dataset_of(checkpoint)
    with compose.session(command, args.config_dir) as engine:
        if args.source is not None:
            texts = from_run(engine, args)
            parsed = overrides.parse(texts, args.multirun)
        if args.cfg or args.info:
            compose.print_config(engine, args, texts)
            return 0
        if own.checkpoint and checkpoint is None:
            key = own.checkpoint
            raise ConfigError(f"{key}: which checkpoint?", f"distill {command} {key}=outputs/train/<date>/<run>")
        run = command_run(command)
        if own.sweeps and args.multirun:
            from distill_cli.sweep import sweep

            return sweep.run(engine, args.config_name, args.config_dir, texts, run)
        jobs = list(overrides.expand(parsed)) if args.multirun else [texts]
        for settings in [load.settings(engine, args.config_name, command, job) for job in jobs]:
            run(settings)
    return 0


def from_run(engine: Any, args: argparse.Namespace) -> list[str]:
    """The settings of the run that --from names, with those typed in their place; says what differs from that run."""
    from pathlib import Path

    from distill_cli.base import ui
    from distill_cli.base.errors import CheckpointError
    from distill_cli.config import load, overrides, vetting
    from distill_cli.runs import identity

    folder = Path(args.source).expanduser()
    if not (folder / identity.FILE).is_file():
        raise CheckpointError(f"--from: {folder} holds no run", "give the folder of a run; a sweep's lie in its own")
    known = identity.read(folder)
    texts = vetting.merged(known, args.overrides, args.multirun)
    args.config_name = known["name"] if args.config_name == "train" else args.config_name
    axes = [o for o in overrides.parse(texts, args.multirun) if o.is_sweep_override()]
    swept = {o.input_line for o in axes}
    one = vetting.merged(known, [text for text in texts if text not in swept])
    config = identity.config_of(load.settings(engine, args.config_name, "train", one))
    changed = identity.changes(known["config"], config) + [f"  {o.key_or_group}: several values" for o in axes]
    ui.show("\n".join([f"the recipe of {args.source}, {'with' if changed else 'unchanged'}", *changed]))
    ui.show("")
    return texts
