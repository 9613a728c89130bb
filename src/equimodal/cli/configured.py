"""Options from a file: what ``--print-config`` prints, ``--config`` takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from equimodal.cli.words import dashed
from equimodal.errors import SetupError, unknown
from equimodal.system.extras import require

require("train", "jsonargparse", "yaml")

import yaml  # noqa: E402

CONFIG, PRINT = "--config", "--print_config"
METHOD, NAME = "method", "name"


def taken(arguments: Sequence[str], flag: str) -> tuple[str | None, list[str]]:
    """Return the value of an option, None where it is not given, and the arguments without it.

    Raises:
        SetupError: it has no value, or is given twice.
    """
    rest: list[str] = []
    found: str | None = None
    following = iter(arguments)
    for argument in following:
        name, equals, value = argument.partition("=")
        if name != flag:
            rest.append(argument)
            continue
        if found is not None:
            raise SetupError(f"{flag}: expected one file, found two")
        found = value if equals else next(following, "")
        if not found or found.startswith("--"):
            raise SetupError(f"{flag}: expected a file, found none")
    return found, rest


def positional(arguments: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Return the arguments that are no options and no values of options."""
    found, expecting = [], False
    for argument in arguments:
        if argument.startswith("--"):
            expecting = "=" not in argument and argument[2:] not in flags
        elif not expecting:
            found.append(argument)
        else:
            expecting = False
    return found


def read(path: Path, known: Sequence[str], flags: Sequence[str]) -> dict[str, Any]:
    """Return the entries of a file by the names of options, without those that say nothing.

    Args:
        path: of YAML: ``option: value``; a method is its name, or ``name`` and its options.
        known: names of options, with underscores; "method" among them if there is one.
        flags: those that take no value.

    Raises:
        SetupError: it cannot be read, or holds what no option is called.
    """
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "not a text in UTF-8"
        raise SetupError(f"{CONFIG}: cannot read {path}: {said}") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        raise SetupError(f"{path}{line}: not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(held, Mapping):
        raise SetupError(f"{path}: expected lines of 'option: value', found {_kind(held)}")
    found = {}
    for key, value in held.items():
        name = str(key).removeprefix("--").replace("-", "_")
        if name not in known:
            raise SetupError(f"{path}: {unknown('entry', str(key), map(dashed, known))}")
        if name in flags and not isinstance(value, bool | None):
            raise SetupError(f"{path}: {key}: expected true or false, found {value!r}")
        if value is not None and value is not False:
            found[name] = value
    return found


def spelt(entries: Mapping[str, Any], typed: Sequence[str], path: Path) -> list[str]:
    """Return entries as one would type them; those of another method than is typed fall away.

    Raises:
        SetupError: a method has no name.
    """
    arguments = []
    for name, value in entries.items():
        if name == METHOD:
            arguments += _method(value, typed, path)
        elif value is True:
            arguments.append(f"--{name}")
        else:
            arguments.append(f"--{name}={_word(value)}")
    return arguments


def written(options: Mapping[str, Any], method: str | None, order: Sequence[str]) -> str:
    """Return options as a file that `read` takes.

    Args:
        options: what was parsed, as plain values.
        method: its name, None where the command takes none.
        order: of the options.
    """
    made: dict[str, Any] = {}
    for name in order:
        if name != METHOD:
            made[dashed(name)] = _plain(options[name])
        elif method is not None:
            given = options[METHOD].get("init_args") or {}
            made[METHOD] = {NAME: method, **{key: _plain(value) for key, value in given.items()}}
    text: str = yaml.safe_dump(made, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return text


def _method(value: Any, typed: Sequence[str], path: Path) -> list[str]:
    given = {NAME: value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or not isinstance(given.get(NAME), str):
        raise SetupError(f"{path}: method: expected its name, or a mapping with 'name' in it")
    chosen, _ = taken(typed, f"--{METHOD}")
    if chosen is not None and chosen != given[NAME]:
        return []
    options = [
        f"--{METHOD}.{str(key).replace('-', '_')}={_word(each)}"
        for key, each in given.items()
        if key != NAME and each is not None
    ]
    return [f"--{METHOD}={given[NAME]}", *options]


def _word(value: Any) -> str:
    """Spell a value as the parser reads it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_word, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _kind(held: Any) -> str:
    return "nothing" if held is None else f"a {type(held).__name__}"
