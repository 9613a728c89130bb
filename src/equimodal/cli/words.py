"""Types in the words of a user: what an option takes, and what was wrong about a value."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

PLAIN = {
    int: ("a whole number", "N"),
    float: ("a number", "NUMBER"),
    str: ("a word", "NAME"),
    bool: ("true or false", "BOOL"),
    Path: ("a path", "PATH"),
}


def words(kind: Any) -> str:
    """Say what a type takes.

    >>> words(float | None)
    'a number or null'
    >>> words(list[str])
    'a list such as [a, b]'
    >>> words(Literal["sgd", "adamw"])
    'sgd or adamw'
    """
    if kind in PLAIN:
        return PLAIN[kind][0]
    if kind is type(None):
        return "null"
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return _or([str(each) for each in arguments])
    if _is_union(kind):
        return " or ".join(dict.fromkeys(words(each) for each in arguments))
    if get_origin(kind) is tuple and arguments[1:] != (...,):
        return f"a pair such as [{', '.join(_samples(arguments))}]"
    if _is_list(kind):
        return f"a list such as [{', '.join(_samples(arguments[:1] * 2))}]"
    if get_origin(kind) is dict:
        key, value = _samples(arguments)
        return f"{{{key}: {value}, ...}}"
    if get_origin(kind) is Callable or kind is Callable:
        return "a function, by its import path"
    if isinstance(kind, type):
        named = [each.__name__ for each in _leaves(kind)]
        return _or(named) if named else kind.__name__
    return str(kind)


def placeholder(kind: Any) -> str:
    """Return what stands for a value in a usage line, such as ``N`` or ``sgd|adamw``."""
    if kind in PLAIN:
        return PLAIN[kind][1]
    arguments = [each for each in get_args(kind) if each is not type(None)]
    if get_origin(kind) is Literal:
        choices = "|".join(map(str, arguments))
        return choices if len(choices) <= 14 else "NAME"
    if _is_union(kind):
        return placeholder(arguments[0]) if len(arguments) == 1 else "VALUE"
    if get_origin(kind) in (list, tuple, Sequence):
        return "LIST"
    return "VALUE"


def bracketed(value: str, kind: Any) -> str:
    """Return a value with the brackets that a list may go without: ``a,b`` for ``[a, b]``.

    >>> bracketed("a,b", list[str] | None), bracketed("all", Literal["all"] | list[str])
    ('[a,b]', 'all')
    """
    kinds = get_args(kind) if _is_union(kind) else (kind,)
    literal = [each for of in kinds if get_origin(of) is Literal for each in get_args(of)]
    plain = value[:1] not in ("[", "{") and value not in ("null", *literal)
    return f"[{value}]" if plain and any(map(_is_list, kinds)) else value


def refusal(message: str, kind_of: Callable[[Sequence[str]], Any]) -> str:
    """Say in one line what jsonargparse says in several.

    Args:
        message: of jsonargparse.
        kind_of: returns the type of an option by the parts of its name, or None.
    """
    keys = tuple(re.findall(r'Parser key "([^"]+)"', message))
    last = re.sub(r'^Parser key "[^"]+":\s*', "", message.strip().splitlines()[-1].strip())
    if not keys:
        line = " ".join(message.split())
        line = re.sub(r"^argument (--[\w.]+)", lambda found: dashed(found.group(1)), line)
        needed = line.removeprefix("the following arguments are required: ")
        return line if needed == line else f"missing: {needed}; --help says what it may be"
    # A list names its elements too.
    name = dashed(f"--{'.'.join(dict.fromkeys(keys))}")
    found = re.search(r"(?:Got|Given) value: (.*)$", message, re.MULTILINE)
    kind = kind_of(keys)
    if "arguments are required" in last:
        return f"{name}.{dashed(last.rpartition(': ')[2])}: missing"
    if found is None or kind is None:
        return f"{name}: {last[:1].lower()}{last[1:]}".replace("typing.", "")
    return f"{name}: expected {words(kind)}, found {found.group(1).strip() or 'nothing'}"


def dashed(name: str) -> str:
    """Spell an option as it is shown: ``--batch-size``."""
    return name.replace("_", "-")


def _or(options: Sequence[str]) -> str:
    *most, last = options
    return f"{', '.join(most)} or {last}" if most else last


def _samples(kinds: Sequence[Any]) -> list[str]:
    """Return examples of values of these types."""
    numbers = iter(("0", "50") if len(kinds) == 2 else ("1",) * len(kinds))
    fractions = iter(("0.1", "0.3", "0.8"))
    letters = iter("abcdef")
    sample: dict[Any, Iterator[str]] = {int: numbers, float: fractions, str: letters}
    return [str(next(sample[each])) if each in sample else "..." for each in kinds]


def _is_list(kind: Any) -> bool:
    """Whether a type holds any number of values; those of a pair are two."""
    origin = get_origin(kind)
    return origin in (list, Sequence) or (origin is tuple and get_args(kind)[1:] == (...,))


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (typing.Union, types.UnionType)


def _leaves(kind: type) -> list[type]:
    """Return the public classes that stand at the ends of a class's tree."""
    children: list[type] = kind.__subclasses__()
    below = {leaf for child in children for leaf in _leaves(child) or [child]}
    return sorted(below, key=lambda each: each.__name__)
