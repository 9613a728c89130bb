"""Files that may be missing, cut off or of another kind, read without trusting them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class UnreadableError(ValueError):
    """A file is not what it should be; the message says why."""


def object_in(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, without characters that no page may hold.

    Raises:
        UnreadableError: there is no file, or it holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnreadableError("it is missing") from error
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise UnreadableError("it is damaged: not JSON, or cut off") from error
    if not isinstance(found, dict):
        raise UnreadableError(f"expected a JSON object, found {_kind(found)}")
    return dict(cleaned(found))


def cleaned(value: Any) -> Any:
    r"""Replace, in all text of a JSON value, what neither XML nor UTF-8 can hold.

    >>> cleaned({"a\x00b": ["\ud800"]})
    {'a�b': ['�']}
    """
    if isinstance(value, str):
        return CONTROL.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {cleaned(str(name)): cleaned(each) for name, each in value.items()}
    if isinstance(value, list):
        return [cleaned(each) for each in value]
    return value


def number_in(value: Any) -> float | None:
    """Return a JSON value as a number, NaN and infinities included; None if it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None


def numbers_in(value: Any) -> dict[str, float]:
    """Return the entries of a JSON object that are numbers."""
    if not isinstance(value, Mapping):
        return {}
    found = {name: number_in(each) for name, each in value.items()}
    return {name: each for name, each in found.items() if each is not None}


def finite(value: float | None) -> bool:
    """Whether there is a value, and it is a number."""
    return value is not None and math.isfinite(value)


def _kind(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
