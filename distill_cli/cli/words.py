"""The words of a command line: flags for argparse and for Tab, and the errors that words meet. Pages are in pages.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from distill_cli.base.errors import ConfigError, did_you_mean
from distill_cli.cli.pages import is_configured, page_of
from distill_cli.config.schema import COMMANDS

if TYPE_CHECKING:
    import argparse

FLAGS: dict[str, dict[str, Any]] = {
    "-m --multirun": {"action": "store_true"},
    "-cn --config-name": {},
    "-cd --config-dir": {},
    "--from": {"dest": "source"},
    "--debug": {"action": "store_true"},
    "--dry-run": {"action": "store_true"},
    "-c --cfg": {"choices": ("job", "hydra", "all")},
    "-p --package": {},
    "--resolve": {"action": "store_true"},
    "-i --info": {"choices": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
                  "nargs": "?", "const": "all"},
}  # fmt: skip


def flags_of(command: str) -> dict[str, dict[str, Any]]:
    """The flags a command takes, each by all its names; one without a configuration takes those that its page names."""
    if not is_configured(command):
        return {names: rules for names, rules in FLAGS.items() if names.split()[-1] in page_of(command)}
    others = {flag for name, other in COMMANDS.items() if name != command for flag in other.flags}
    return {names: rules for names, rules in FLAGS.items() if names not in others - set(COMMANDS[command].flags)}


def arguments(command: str, words: Sequence[str]) -> argparse.Namespace:
    """A command's flags, and all other words as `overrides`, which may stand in any order.

    Raises:
        ConfigError: a flag that it does not take, or one without its value.
    """
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            unknown = message.removeprefix("unrecognized arguments: ")
            hint = f"distill {command} --help shows the options"
            if unknown.startswith("--") and "=" in unknown:
                hint = f"settings are written without dashes: {unknown.split()[0].lstrip('-')}"
            raise ConfigError(message, hint)

    parser = Parser(prog=f"distill {command}", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.set_defaults(source=None, debug=False, dry_run=False, config_name=command)
    for names, rules in flags_of(command).items():
        parser.add_argument(*names.split(), **rules)
    args = parser.parse_intermixed_args(words)
    args.overrides += ["debug=true"] * args.debug
    return args


def refused(command: str, word: str, choices: Iterable[str]) -> ConfigError:
    """The error for a word that is none of those a command takes.

    Args:
        choices: those it takes, without what may stand behind =.
    """
    guess = did_you_mean(word.partition("=")[0], choices)
    return ConfigError(
        f"distill {command}: {word!r} is not a word it takes", f"{guess}distill {command} --help shows its words"
    )
