"""In words: how what was begun differs from what is asked for now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EXAMPLES = 3


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in what two plans differ, as JSON holds them; empty for equal ones.

    >>> changes({"name": "a", "recipe": {"fps": 1.0}}, {"name": "a", "recipe": {"fps": 25.0}})
    ['recipe: fps 1.0, now 25.0']
    >>> changes({"name": "grid"}, {"name": "ave"})
    ['name: grid, now ave']
    """
    if then.get("name") != now.get("name"):
        return [_pair("name", then.get("name"), now.get("name"))]  # all the rest differs too
    found = []
    for key, value in now.items():
        held = then.get(key)
        if held == value:
            continue
        if key == "files":
            found += _files(held or {}, value)
        elif key in ("clips", "failures"):
            found += _listed(key, held or [], value)
        elif isinstance(value, dict) and isinstance(held, dict):
            names = [n for n in {**held, **value} if held.get(n) != value.get(n)]
            found += [f"{key}: " + _pair(n, held.get(n), value.get(n), " ") for n in names]
        else:
            found.append(_pair(key, held, value))
    # The files first: the rest often follows from them.
    return sorted(found, key=lambda line: "files" not in line.split(":")[0])


def _files(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    other = [path for path in now if path in then and then[path] != now[path]]
    sizes = [
        f"{path} ({then[path][0]:,} bytes, now {now[path][0]:,})"
        if then[path][0] != now[path][0]
        else f"{path} (modified since)"
        for path in other
    ]
    return [
        *_some("new files", [path for path in now if path not in then]),
        *_some("files gone", [path for path in then if path not in now]),
        *_some("changed files", sizes),
    ]


def _listed(
    key: str, then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> list[str]:
    old = {each["id"]: each for each in then}
    new = {each["id"]: each for each in now}
    what = "clips" if key == "clips" else "clips without a file"
    found = [
        *_some(f"new {what}", [name for name in new if name not in old]),
        *_some(f"{what} gone", [name for name in old if name not in new]),
    ]
    altered = []
    for name in new:
        if name in old and old[name] != new[name]:
            differing = [key for key in new[name] if old[name].get(key) != new[name][key]]
            altered.append(f"{name} ({', '.join(differing)})")
    return [*found, *_some(f"changed {what}", altered)] or [f"{what}: in another order"]


def _some(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = ", ..." if len(names) > EXAMPLES else ""
    return [f"{what} ({len(names):,}): {', '.join(names[:EXAMPLES])}{more}"]


def _pair(name: str, then: Any, now: Any, link: str = ": ") -> str:
    if isinstance(then, list) and isinstance(now, list) and sorted(then) != sorted(now):
        gone = [each for each in then if each not in now]
        new = [each for each in now if each not in then]
        parts = [*_some("gone", gone), *_some("new", new)]
        return f"{name}{link}{'; '.join(parts)}"
    return f"{name}{link}{_short(then)}, now {_short(now)}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        more = ", ..." if len(value) > EXAMPLES else ""
        return ", ".join(map(str, value[:EXAMPLES])) + more
    return str(value)
