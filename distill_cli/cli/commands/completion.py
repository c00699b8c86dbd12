"""Print a script that lets Tab complete `distill` lines in a shell.

usage: distill completion bash

  source <(distill completion bash)                            in this shell
  echo 'source <(distill completion bash)' >> ~/.bashrc        in every new one
  mkdir -p ~/.local/share/bash-completion/completions
  distill completion bash > ~/.local/share/bash-completion/completions/distill
                                                               or so, where the package bash-completion is installed

Tab then completes commands, options, groups and their choices, keys of the configuration with the groups chosen on the
line, few-valued settings and paths; your own YAML in ./conf, --config-dir and $DISTILL_CONF too. It needs bash 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from distill_cli.base.errors import ConfigError, did_you_mean

SHELLS = ("bash",)

# bash takes = and : for the end of a word, so it passes on which end of the line it is about to replace. Paths are left
# to it to quote, and their / to add where it can see the folder, because that / comes behind a quote that it closes.
# Everything else comes with the space behind it, or none.
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
        ConfigError: there is none for it.
    """
    if list(words) != ["bash"]:
        named = " ".join(words)
        wrong = f"nothing is known of {named!r}; {did_you_mean(named, SHELLS)}" if words else "for which shell? "
        raise ConfigError(f"distill completion: {wrong}choices: {', '.join(SHELLS)}", "distill completion bash")
    print(BASH.strip())
