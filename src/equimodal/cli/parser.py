"""The parser of commands: misspelt options get a suggestion, methods go by their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equimodal.cli import configured
from equimodal.cli.options import options_of
from equimodal.cli.text import described, wrapped
from equimodal.cli.words import bracketed, dashed, placeholder, refusal, words
from equimodal.errors import SetupError, unknown
from equimodal.system.extras import require

require("train", "jsonargparse")

from argparse import ArgumentError  # noqa: E402

from jsonargparse import ArgumentParser, Namespace  # noqa: E402

from equimodal.method import Method  # noqa: E402
from equimodal.methods.registry import available, find  # noqa: E402
from equimodal.methods.supplied import TEACHERS, Recipe, supplied  # noqa: E402

HIDDEN = ("help", "method", "method.help", "print_shtab")  # from what jsonargparse shows


class Parser:
    """jsonargparse's parser, with errors in one line, and help that fits into 80 columns.

    Args:
        command: of `equimodal`.
        description: what it does.
        configurable: whether it takes options from a file, and prints them as one.
    """

    def __init__(self, command: str, description: str, configurable: bool = False) -> None:
        self.command = command
        self.description = description
        self.configurable = configurable
        self.parser = ArgumentParser(allow_abbrev=False, exit_on_error=False)
        self._none = ""
        self._default: type[Method] | None = None
        self._method: type[Method] | None = None
        self._groups: dict[str, list[str]] = {"": []}  # titles, and the options under them

    def add(self, *names: str, **settings: Any) -> None:
        """Add an argument."""
        self._groups[""].append(self.parser.add_argument(*names, **settings).dest)

    def add_settings(
        self, kind: type, title: str, none: str, skip: set[str | int] | None = None
    ) -> None:
        """Add an option for every field of a dataclass, in a section of the help.

        Args:
            kind: the dataclass.
            title: of the section.
            none: what stands for None, in words.
            skip: fields to leave out.
        """
        self._none = none
        self._groups[title] = self.parser.add_class_arguments(kind, None, skip=skip)

    def add_method(self, default: type[Method]) -> None:
        """Add ``--method NAME`` and ``--method.OPTION VALUE``.

        What is read is a method; or a `Recipe`, where its run must supply something.
        """
        self._default = self._method = default

    def read(self, arguments: Sequence[str]) -> Namespace | None:
        """Parse arguments and make the objects that they describe.

        Returns:
            None after showing help, or the options as a file.

        Raises:
            SetupError: an argument is not known, or has a value that does not fit.
        """
        if any(argument in ("-h", "--help") for argument in arguments):
            print(self.help())
            return None
        spelt = [_underscored(argument) for argument in arguments]
        self._refuse_unknown(spelt)
        printing = self.configurable and configured.PRINT in spelt
        if self.configurable:
            spelt = self._configured([each for each in spelt if each != configured.PRINT], printing)
        if self._default is not None:
            spelt = self._named(spelt, self._default)
            self._add_options_of_method(spelt)
        spelt = self._listed(spelt)
        try:
            read = self.parser.parse_args(spelt)
            if printing:
                print(self._written(read.as_dict()), end="")
                return None
            made: Namespace = self.parser.instantiate(read, instantiators=[(_made, Method, True)])
        except ArgumentError as error:
            raise SetupError(refusal(str(error), self._kind)) from error
        return made

    def help(self) -> str:
        """Return usage, what the command does, and all options with their defaults."""
        positional = [action for action in self._actions() if not action.option_strings]
        usage = " ".join(
            f"[{action.dest.upper()}]" if action.nargs == "?" else action.dest.upper()
            for action in positional
        )
        parts = [f"usage: equimodal {self.command} {usage} [OPTIONS]", wrapped(self.description)]
        for title, names in self._groups.items():
            actions = [action for action in self._actions() if action.dest in names]
            entries = [_entry(action, self._none if title else "") for action in actions]
            if not title and self._default is not None:
                entries[len(positional) : len(positional)] = [
                    (
                        "--method NAME",
                        f"how to balance: {', '.join(available())} [{self._default.name}]",
                    ),
                    (
                        "--method.OPTION VALUE",
                        "an option of the method, such as --method.alpha 0.3; `equimodal methods "
                        "NAME` lists them",
                    ),
                ]
            if not title and self.configurable:
                entries += [
                    ("--config FILE", "YAML to take options from; those that are typed outrank it"),
                    ("--print-config", "print all options as such a file, and do nothing else"),
                ]
            if not title:
                entries.append(("-h, --help", "show this help"))
            parts.append("\n".join([*([f"{title}:"] if title else []), described(entries)]))
        parts.append("Defaults are in brackets.")
        return "\n\n".join(parts)

    def _configured(self, arguments: list[str], printing: bool) -> list[str]:
        """Put what a file says in front of what was typed, which so outranks it."""
        file, typed = configured.taken(arguments, configured.CONFIG)
        actions = self._actions()
        places = [action.dest for action in actions if not action.option_strings]
        flags = [action.dest for action in actions if action.option_strings and action.nargs == 0]
        known = [action.dest for action in actions]
        if self._default is not None:
            known.append(configured.METHOD)
        entries = {} if file is None else configured.read(Path(file), known, flags)
        positional = [str(entries.pop(name)) for name in places if name in entries]
        if configured.positional(typed, flags):
            positional = []
        elif printing and not positional:
            positional = [""] * len(places)
        spelt = configured.spelt(entries, typed, Path(file or ""))
        return [*positional, *spelt, *typed]

    def _written(self, read: dict[str, Any]) -> str:
        order = [action.dest for action in self._actions()]
        if self._default is not None:
            order.insert(1, configured.METHOD)
        held = {name: None if value == "" else value for name, value in read.items()}
        return configured.written(held, getattr(self._method, "name", None), order)

    def _actions(self) -> list[Any]:
        return [action for action in self.parser._actions if action.dest not in HIDDEN]

    def _kind(self, keys: Sequence[str]) -> Any:
        """Return the type of an option by the parts of its name; None if it is not known."""
        if len(keys) == 2 and keys[0] == "method" and self._method is not None:
            option = options_of(self._method).get(keys[1])
            return None if option is None else option.kind
        kinds = {action.dest: getattr(action, "_typehint", None) for action in self._actions()}
        return kinds.get(keys[0])

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
        self._method = chosen
        known = [name for name in options_of(chosen) if name != TEACHERS]
        for argument in spelt:
            if argument.startswith("--method."):
                option = _option(argument)
                if not known:
                    raise SetupError(f"--method.{option}: {chosen.name} takes no options")
                if option not in known:
                    raise SetupError(unknown(f"option of {chosen.name}", option, known))
        return spelt

    def _add_options_of_method(self, arguments: Sequence[str]) -> None:
        # Not before the method is known: jsonargparse would take over the defaults of one method
        # for what another calls the same.
        assert self._method is not None
        given = {_option(each) for each in arguments if each.startswith("--method.")}
        self.parser.add_subclass_arguments(
            Method,
            "method",
            default={"class_path": _path(self._method)},
            required=False,
            skip=set(supplied(self._method) - given),
        )

    def _listed(self, arguments: list[str]) -> list[str]:
        """Put brackets around lists that were given without."""
        spelt: list[str] = []
        for argument in arguments:
            name, equals, value = argument.partition("=")
            if equals and name.startswith("--"):
                argument = f"{name}={bracketed(value, self._kind(name[2:].split('.')))}"
            elif spelt and spelt[-1].startswith("--") and not argument.startswith("--"):
                argument = bracketed(argument, self._kind(spelt[-1][2:].split(".")))
            spelt.append(argument)
        return spelt

    def _refuse_unknown(self, arguments: Sequence[str]) -> None:
        known = [name for action in self._actions() for name in action.option_strings]
        known += ["--help"] if self._default is None else ["--help", "--method"]
        known += [configured.CONFIG, configured.PRINT] if self.configurable else []
        for argument in arguments:
            name = argument.split("=")[0]
            of_method = self._default is not None and name.startswith("--method.")
            if name.startswith("--") and name not in known and not of_method:
                spelt = [dashed(k) for k in known if not k.endswith("+")]
                first = dashed(name).split(".")[0]
                raise SetupError(unknown("option", first, spelt))


def _entry(action: Any, none: str) -> tuple[str, str]:
    kind = getattr(action, "_typehint", None)
    text = (action.help or "").rstrip(".")
    if not action.option_strings:
        return action.dest.upper(), text
    value = "" if kind is None else f" {placeholder(kind)}"
    if placeholder(kind) == "NAME" and kind is not str:
        text = f"{text}: {words(kind)}"
    default = action.default
    if isinstance(default, list):
        text = f"{text} {default}"
    elif isinstance(default, tuple):
        text = f"{text} [{', '.join(map(str, default))}]"
    elif isinstance(default, int | float | str) and not isinstance(default, bool):
        text = f"{text} [{default}]"
    elif default is None and none and "default" not in text:
        text = f"{text} [{none}]"
    return dashed(action.option_strings[0]) + value, text


def _option(argument: str) -> str:
    """Return which option of the method an argument is about."""
    return argument.removeprefix("--method.").split("=")[0].split(".")[0]


def _made(kind: type[Method], **options: Any) -> Method | Recipe:
    lacking = supplied(kind) - set(options)
    return Recipe(kind, options) if lacking else kind(**options)


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
    except (ImportError, AttributeError, ValueError) as error:
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
