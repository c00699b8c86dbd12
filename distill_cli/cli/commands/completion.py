"""Print a script that lets Tab complete `distill` lines in a shell.

usage: distill completion bash

  source <(distill completion bash)                            in this shell
  echo 'source <(distill completion bash)' >> ~/.bashrc        in every new one
  mkdir -p ~/.local/share/bash-completion/completions
  distill completion bash > ~/.local/share/bash-completion/completions/distill
                                                               or so, where the package bash-completion is installed

Tab then completes commands, options, groups and their choices, the keys that exist with the groups chosen on the line,
values where there are few, and paths; your own YAML in ./conf, --config-dir and $DISTILL_CONF too. It needs bash 4.
The keys are kept in ~/.cache/distill (or $XDG_CACHE_HOME); the first Tab after a change in one of these folders takes
about a second, because it composes them anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from distill_cli.base.errors import ConfigError, did_you_mean

# bash ends a word at = and :, so the script passes on which end of the line bash is about to replace. bash quotes paths,
# and adds the / behind a folder itself, because it must come after the closing quote. All other words already end with
# their space, or with none.
BASH = r"""
_distill() {
    local kind
    COMPREPLY=()
    {
        read -r kind
        mapfile -t COMPREPLY
    } < <("${1/#\~/$HOME}" --complete bash "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null)
    if [[ $kind == paths ]]; then
        compopt -o filenames
        [[ ${COMPREPLY[0]-} == */ ]] || compopt +o nospace
        [[ ! -d ${COMPREPLY[0]-} ]] || COMPREPLY=("${COMPREPLY[@]%/}")
    fi
}
complete -o nospace -F _distill distill
"""


def run(words: Sequence[str]) -> None:
    """Print the script for the shell that the words name.

    Raises:
        ConfigError: there is no script for it, or no shell is named.
    """
    if list(words) != ["bash"]:
        named = " ".join(words)
        wrong = f"there is no script for {named!r}; {did_you_mean(named, ['bash'])}" if words else "for which shell? "
        raise ConfigError(f"distill completion: {wrong}choices: bash", "distill completion bash")
    print(BASH.strip())
