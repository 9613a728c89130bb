"""The parser of commands: misspelt options get a suggestion, methods go by their names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equimodal.errors import SetupError, unknown
from equimodal.extras import require

require("train", "jsonargparse")

from argparse import ArgumentError  # noqa: E402

from jsonargparse import ArgumentParser, Namespace  # noqa: E402

from equimodal.method import Method  # noqa: E402
from equimodal.methods.registry import available, find  # noqa: E402


class Parser:
    """jsonargparse's parser, with errors in one line and exit status 2.

    Args:
        command: of `equimodal`.
        description: what it does.
    """

    def __init__(self, command: str, description: str) -> None:
        self.parser = ArgumentParser(
            prog=f"equimodal {command}",
            description=description,
            allow_abbrev=False,
            exit_on_error=False,
        )
        self._default: type[Method] | None = None

    def add(self, *names: str, **settings: Any) -> None:
        """Add an argument."""
        self.parser.add_argument(*names, **settings)

    def add_settings(self, kind: type, skip: set[str | int] | None = None) -> None:
        """Add an option for every field of a dataclass."""
        self.parser.add_class_arguments(kind, None, skip=skip)

    def add_method(self, default: type[Method]) -> None:
        """Add ``--method NAME`` and ``--method.OPTION VALUE``."""
        self._default = default
        self.parser.add_subclass_arguments(
            Method,
            "method",
            default={"class_path": _path(default)},
            required=False,
            help=f"how to balance: {', '.join(available())}; `equimodal methods NAME` lists the "
            "options of one, given as --method.OPTION",
        )

    def read(self, arguments: Sequence[str]) -> Namespace:
        """Parse arguments and make the objects that they describe.

        Raises:
            SetupError: an argument is not known, or has a value that does not fit.
        """
        spelt = [_underscored(argument) for argument in arguments]
        if self._default is not None:
            spelt = self._named(spelt, self._default)
        self._refuse_unknown(spelt)
        try:
            parsed: Namespace = self.parser.instantiate(self.parser.parse_args(spelt))
        except ArgumentError as error:
            raise SetupError(_in_short(str(error))) from error
        return parsed

    def _named(self, arguments: list[str], default: type[Method]) -> list[str]:
        """Replace the names of methods by their classes, and check the options of the method."""
        chosen = default
        spelt = []
        expecting = False
        for argument in arguments:
            if expecting and not argument.startswith("-"):
                chosen = _method(argument)
                argument = _path(chosen)
            elif argument.startswith("--method="):
                chosen = _method(argument.removeprefix("--method="))
                argument = f"--method={_path(chosen)}"
            expecting = argument == "--method"
            spelt.append(argument)
        options = set(inspect.signature(chosen.__init__).parameters) - {"self"}
        for argument in spelt:
            if argument.startswith("--method."):
                option = argument.removeprefix("--method.").split("=")[0].split(".")[0]
                if option not in {*options, "help"}:
                    raise SetupError(unknown(f"option of {chosen.name}", option, options))
        return spelt

    def _refuse_unknown(self, arguments: Sequence[str]) -> None:
        known = [name for action in self.parser._actions for name in action.option_strings]
        for argument in arguments:
            name = argument.split("=")[0]
            if name.startswith("--") and name not in known and "." not in name:
                spelt = [k for k in known if re.fullmatch(r"--\w+", k)]
                raise SetupError(unknown("option", name, spelt))


def _in_short(message: str) -> str:
    """Say in one line what jsonargparse says in several."""
    keys = re.findall(r'Parser key "([^"]+)"', message)
    last = message.strip().splitlines()[-1].strip()
    last = re.sub(r'^Parser key "[^"]+":\s*', "", last).replace("typing.", "")
    if not keys:
        return " ".join(message.split())
    return f"--{'.'.join(dict.fromkeys(keys))}: {last[:1].lower()}{last[1:]}"


def existing_or_new_folder(text: str) -> Path:
    """Take a folder to write to.

    Raises:
        SetupError: it is a file, or cannot be written to.
    """
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise SetupError(f"--out: {path} is a file, expected a folder")
    return path


def _method(name: str) -> type[Method]:
    """Find a method by its name, or by its class as Python spells it."""
    known = available()
    by_class = {kind.__name__: kind for kind in known.values()}
    if name in by_class:
        return by_class[name]
    if "." in name:
        return _class(name)
    return find(name)


def _class(path: str) -> type[Method]:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(__import__(module, fromlist=[name]), name)
    except (ImportError, AttributeError) as error:
        raise SetupError(f"--method: cannot import {path}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise SetupError(f"--method: expected a subclass of equimodal.Method, found {path}")
    return found


def _path(kind: type[Method]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _underscored(argument: str) -> str:
    """Take --batch-size for --batch_size."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value
