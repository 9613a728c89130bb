"""Messages of the library in the words of the command: options in place of arguments."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap

from equimodal.cli.words import dashed

# Arguments that options stand for, by how a message begins with them.
NAMES = {
    "modalities", "groups", "validation", "channels", "target", "view", "epochs", "batch_size",
    "lr", "momentum", "weight_decay", "lr_step", "clip", "accumulate", "seed", "seeds", "workers",
    "fill", "size", "frames", "classes",
}  # fmt: skip
OTHER = {"where": "filter", "folder": "out"}  # and those that are called otherwise
GIVEN = [  # arguments with a value, as Python spells them
    (re.compile(r"channels=\{'([^']+)': None\}"), r"--channels '\1=none'"),
    (re.compile(r"channels=\{'([^']+)': (\d+)\}"), r"--channels '\1=\2'"),
    (re.compile(r"\bwhere=\.\.\."), "--filter COLUMN=VALUE"),
    (re.compile(r"\b(target|groups|modalities|validation|lr)=\.\.\."), r"--\1"),
    (re.compile(r"learning rate \(lr\)"), "--lr"),
    (re.compile(r"\bleave out (groups|validation|channels)\b"), r"leave out --\1"),
]
QUOTED = re.compile(r"--channels '([\w.=-]+)'")
BEGINS = re.compile(r"^((?:[^:\s]+: )?)(\w+): ")
OF_METHOD = re.compile(r"^(\w+)\((\w+)\): ")


def spoken(message: str) -> str:
    """Return what an error says in options.

    >>> spoken("validation: expected a share between 0 and 1, found 3")
    '--validation: expected a share between 0 and 1, found 3'
    >>> spoken("a.npz: lips: say so with channels={'lips': 1}")
    'a.npz: lips: say so with --channels lips=1'
    >>> spoken("a.npz: where: slot is never 9")
    'a.npz: --filter: slot is never 9'
    >>> spoken("OGM(alpha): expected 0 or more")
    '--method.alpha: expected 0 or more'
    """
    from equimodal.methods import available  # takes a moment: only where there is an error

    begun = BEGINS.match(message)
    if begun and begun[2] in NAMES | OTHER.keys():
        option = f"--{dashed(OTHER.get(begun[2], begun[2]))}"
        message = f"{begun[1]}{option}: {message[begun.end() :]}"
    of = OF_METHOD.match(message)
    if of and of[1] in {kind.__name__ for kind in available().values()}:
        message = f"--method.{dashed(of[2])}: {message[of.end() :]}"
    for pattern, option in GIVEN:
        message = pattern.sub(option, message)
    return QUOTED.sub(r"--channels \1", message)


def told(message: str) -> None:
    """Print an error; broken between words where a terminal would break it anywhere."""
    text = f"equimodal: {spoken(message)}"
    if sys.stderr.isatty():
        width = max(20, shutil.get_terminal_size().columns - 1)
        text = "\n".join(
            textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
            for line in text.splitlines()
        )
    print(text, file=sys.stderr)
