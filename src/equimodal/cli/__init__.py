"""The `equimodal` command."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from equimodal import __version__
from equimodal.cli.spoken import told
from equimodal.commanded import hearing
from equimodal.errors import (
    BalanceWarning,
    DivergedError,
    MatchError,
    SetupError,
    StepError,
    unknown,
)

COMMANDS = {
    "download": "fetch a data set that its publisher offers to everyone",
    "prepare": "decode a downloaded data set into what training reads",
    "train": "train one model by one method",
    "compare": "compare methods over paired seeds, with intervals",
    "reproduce": "the tables of published articles, on your data",
    "choose": "find out which method to train with, on your own model",
    "predict": "what a trained model answers for each sample",
    "export": "a trained model as a file that runs without equimodal",
    "diagnose": "which modality a trained model ignores, and whether to balance",
    "blind": "which modalities a language model uses, by asking it without them",
    "report": "one HTML page about results",
    "runs": "list the results in a folder, and how far they are",
    "methods": "list the methods and what each of them can do",
    "completion": "a script that completes commands and options in your shell",
}
FAILED = 1
USAGE_ERROR = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    It is 0, 1 if the command could not do all of its work, 2 for wrong use, or 130 when it was
    interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_help())
        return 0 if given else USAGE_ERROR
    if given[0] in ("-V", "--version"):
        print(f"equimodal {__version__}")
        return 0
    name, *rest = given
    try:
        if name not in COMMANDS:
            raise SetupError(unknown("command", name, COMMANDS))
        command = import_module(f"equimodal.cli.{name}")
        warnings.formatwarning = _warned  # after Lightning, which sets its own
        with hearing():
            status: int = command.run(rest)
            sys.stdout.flush()  # while an interruption can still be one
    except (SetupError, MatchError, StepError, ImportError) as error:
        told(str(error))
        return USAGE_ERROR
    except DivergedError as error:
        told(str(error))
        return FAILED
    except KeyboardInterrupt as interruption:
        print(": ".join(["equimodal: interrupted", *map(str, interruption.args)]), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        return 0
    except OSError as error:  # a full disk, a folder that was taken away
        told(str(error))
        return FAILED
    return status


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Say a warning in one line: where in the source it was given helps no one at a shell."""
    return f"equimodal: {message}\n" if issubclass(category, BalanceWarning) else f"{message}\n"


def _help() -> str:
    lines = [f"  {name:<12}{what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: equimodal COMMAND [OPTIONS]",
            "",
            "Balanced multimodal learning for PyTorch.",
            "",
            *lines,
            "",
            "equimodal COMMAND --help says more about a command.",
        ]
    )
