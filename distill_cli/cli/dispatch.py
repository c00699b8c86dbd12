"""A command line -> its command, run once or as a sweep. Imports torch only once a command runs."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from distill_cli.base import files, world
from distill_cli.base.errors import CheckpointError, ConfigError, did_you_mean
from distill_cli.cli.pages import command_names, is_configured, page_of
from distill_cli.cli.words import arguments
from distill_cli.config.schema import COMMANDS

SPREAD = ("train", "teacher", "resume")  # what several processes do together


def dispatch(words: list[str]) -> int:
    """Run the command that the first word names; returns the exit code."""
    command, *rest = words
    if command not in command_names():
        guess = did_you_mean(command, command_names(), "distill ")
        raise ConfigError(f"there is no command {command!r}", f"{guess}commands: {', '.join(command_names())}")
    if world.called().size > 1:
        if command not in SPREAD:
            raise ConfigError(f"distill {command} runs in one process", f"torchrun is for {', '.join(SPREAD)}")
        if {"-m", "--multirun"} & set(rest):
            raise ConfigError(
                "-m: a sweep is started once and starts its runs itself; torchrun has started it several times",
                "distill train -m devices=N ... runs each of them on N devices",
            )
    if not is_configured(command):
        return command_run(command)(rest) or 0
    return configured(command, arguments(command, rest))


def command_run(command: str) -> Any:
    """The function that runs a command."""
    return importlib.import_module(f"distill_cli.cli.commands.{command}").run


def configured(command: str, args: argparse.Namespace) -> int:
    """Compose and check the configuration; then print it, or run the command on it once or as a sweep."""
    from distill_cli.base import ui
    from distill_cli.config import brought, compose, load, overrides

    rules = COMMANDS[command]
    if rules.actions and (not args.overrides or args.overrides.pop(0) not in rules.actions):
        usage = page_of(command).partition("usage: ")[2].splitlines()[0]
        raise ConfigError(f"distill {command}: what is it to do? {', '.join(rules.actions)}", usage)
    texts = [overrides.quoted(word, args.multirun) for word in args.overrides]
    parsed = overrides.parse(texts, args.multirun)
    checkpoint = overrides.value_of(parsed, rules.checkpoint) if rules.checkpoint else None
    if rules.checkpoint:
        brought.use_dataset_of(checkpoint)
    with compose.session(command, args.config_dir) as engine:
        if args.source is not None:
            texts = from_run(engine, args)
            parsed = overrides.parse(texts, args.multirun)
        if args.cfg or args.info:
            compose.print_config(engine, args, texts)
            return 0
        if rules.checkpoint and checkpoint is None:
            key = rules.checkpoint
            raise ConfigError(f"{key}: which checkpoint?", f"distill {command} {key}=outputs/train/<date>/<run>")
        run = command_run(command)
        if args.dry_run and args.multirun:
            raise ConfigError("--dry-run: tells of one run, and -m asks for many", "leave one of the two out")
        if args.dry_run:
            from distill_cli.cli.commands.train import dry_run as run
        if rules.sweeps and args.multirun:
            from distill_cli.sweep import sweep

            return sweep.run(engine, args.config_name, args.config_dir, texts, run)
        here = "--dry-run" if args.dry_run else None if rules.sweeps else f"distill {command}"
        if overrides.launcher(parsed, here):
            from distill_cli.sweep import submitted

            return submitted.run(engine, args.config_name, args.config_dir, parsed, run)
        # A list: every line is checked before the first one runs.
        for settings in [load.settings(engine, args.config_name, command, line) for line in overrides.expand(parsed)]:
            if getattr(settings, "devices", 1) != 1 and (args.dry_run or command not in SPREAD):
                ui.say(f"devices={settings.devices} has no effect: {here} works in one process")
            run(settings)
    return 0


def from_run(engine: Any, args: argparse.Namespace) -> list[str]:
    """The settings of the run that --from names, with those typed in their place; says what differs from that run."""
    from distill_cli.base import ui
    from distill_cli.config import load, overrides, vetting
    from distill_cli.runs import identity

    folder = files.place(args.source, "--from")
    if not (folder / identity.FILE).is_file():
        raise CheckpointError(
            f"--from: {folder} holds no run", "give the folder of a run; those of a sweep lie in its folder"
        )
    kept = identity.read(folder)
    texts = vetting.merged(kept, args.overrides, args.multirun)
    if args.config_name == "train":
        args.config_name = kept["name"]
    axes = [o for o in overrides.parse(texts, args.multirun) if o.is_sweep_override()]
    swept = {o.input_line for o in axes}
    one = vetting.merged(kept, [text for text in texts if text not in swept])
    config = identity.config_of(load.settings(engine, args.config_name, "train", one))
    changed = identity.changes(kept["config"], config) + [f"  {o.key_or_group}: several values" for o in axes]
    ui.show("\n".join([f"the recipe of {args.source}, {'with' if changed else 'unchanged'}", *changed, ""]))
    return texts
