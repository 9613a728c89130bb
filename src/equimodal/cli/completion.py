"""equimodal completion: a script for the shell, which knows commands, options and methods.

The script holds the words itself: nothing is started while one presses the tab key.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from importlib import import_module

from equimodal.cli import COMMANDS
from equimodal.errors import SetupError, unknown
from equimodal.methods import available

SHELLS = ("bash", "zsh", "fish")
HELP = """usage: equimodal completion bash|zsh|fish

Print a script that completes commands, options, methods and files. To have it
in every new shell:

  equimodal completion bash > ~/.local/share/bash-completion/completions/equimodal
  equimodal completion zsh > ~/.equimodal-completion   # and source it in ~/.zshrc
  equimodal completion fish > ~/.config/fish/completions/equimodal.fish"""
BASH = """\
_equimodal() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local words=""
    if [[ $COMP_CWORD -eq 1 ]]; then
        words="{commands}"
    elif [[ $before == --method ]]; then
        words="{methods}"
    elif [[ $current == -* ]]; then
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    elif [[ ${{COMP_WORDS[1]}} == methods ]]; then
        words="{methods}"
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _equimodal equimodal
"""
ZSH = "autoload -Uz bashcompinit compinit && compinit -u && bashcompinit\n"


def run(arguments: Sequence[str]) -> int:
    """Print the script of a shell."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(HELP)
        return 0
    if len(arguments) != 1:
        found = " ".join(arguments) or "nothing"
        raise SetupError(f"completion: expected one of {', '.join(SHELLS)}, found {found}")
    (shell,) = arguments
    if shell not in SHELLS:
        raise SetupError(unknown("shell", shell, SHELLS))
    print(fish(options()) if shell == "fish" else bash(options(), zsh=shell == "zsh"), end="")
    return 0


def options() -> dict[str, list[str]]:
    """Return the options of every command, as its help lists them.

    Those of a command whose extra is not installed are its help alone.
    """
    found = {}
    for command in COMMANDS:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(ImportError):
            import_module(f"equimodal.cli.{command}").run(["--help"])
        listed = re.findall(r"^ +(?:-\w, )?(--[a-z][a-z-]*)(?![\w.-])", said.getvalue(), re.M)
        found[command] = sorted({*listed, "--help"})
    return found


def bash(of: Mapping[str, Sequence[str]], zsh: bool) -> str:
    """Return the script for bash, or for zsh by its emulation of bash."""
    cases = "\n".join(
        f'            {command}) words="{" ".join(words)}" ;;' for command, words in of.items()
    )
    script = BASH.format(commands=" ".join(of), methods=" ".join(available()), cases=cases)
    return (ZSH if zsh else "") + script


def fish(of: Mapping[str, Sequence[str]]) -> str:
    """Return the script for fish."""
    first = "not __fish_seen_subcommand_from"
    lines = [
        f"complete -c equimodal -f -n '{first} {' '.join(of)}' -a {command} -d '{_quoted(command)}'"
        for command in of
    ]
    for command, words in of.items():
        inside = f"__fish_seen_subcommand_from {command}"
        for word in words:
            values = f" -x -a '{' '.join(available())}'" if word == "--method" else ""
            lines.append(f"complete -c equimodal -n '{inside}' -l {word[2:]}{values}")
    methods = f"__fish_seen_subcommand_from methods' -f -a '{' '.join(available())}"
    return "\n".join([*lines, f"complete -c equimodal -n '{methods}'"]) + "\n"


def _quoted(command: str) -> str:
    return COMMANDS[command].replace("'", "\\'")
