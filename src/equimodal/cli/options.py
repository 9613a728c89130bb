"""The options of a method, read from its constructor and docstring. Needs torch alone."""

from __future__ import annotations

import inspect
import re
import typing
from dataclasses import dataclass
from typing import Any

from equimodal.method import Method
from equimodal.methods.registry import available

ELSEWHERE = re.compile(r"^see `(\w+)`(?:, as all that follow)?[.;]?\s*")


@dataclass(frozen=True)
class Option:
    """An argument of a method's constructor.

    Attributes:
        kind: its type.
        default: `inspect.Parameter.empty` if there is none.
        text: what the docstring says about it.
    """

    kind: Any
    default: Any
    text: str


def options_of(method: type[Method]) -> dict[str, Option]:
    """Return the options of a method by name, in the order of its constructor."""
    constructor = method.__init__
    kinds = typing.get_type_hints(constructor)
    texts = _texts(method)
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # of torch's modules
    return {
        name: Option(kinds.get(name, Any), parameter.default, texts.get(name, ""))
        for name, parameter in inspect.signature(constructor).parameters.items()
        if name != "self" and parameter.kind not in rest
    }


def sections(method: type[Method]) -> tuple[str, str]:
    """Return the docstring of a method before its arguments, and its arguments."""
    text = inspect.cleandoc(method.__doc__ or "")
    before, _, after = text.partition("\nArgs:\n")
    arguments = re.split(r"\n(?=\S)", after, maxsplit=1)[0]
    return re.split(r"\nRaises:\n", before)[0].strip(), arguments


def _texts(method: type[Method]) -> dict[str, str]:
    """Return what the docstring says about each argument, also where it points to another."""
    found = {}
    for entry in re.split(r"\n(?=    \S)", sections(method)[1]):
        name, _, text = entry.strip().partition(":")
        found[name.strip()] = " ".join(text.split())
    others = {kind.__name__: kind for kind in available().values()}
    for name, text in found.items():
        elsewhere = ELSEWHERE.match(text)
        if elsewhere and (other := others.get(elsewhere.group(1))) not in (None, method):
            rest = text[elsewhere.end() :]
            found[name] = f"{_texts(other)[name]} {rest[:1].upper()}{rest[1:]}".strip()
    return found
