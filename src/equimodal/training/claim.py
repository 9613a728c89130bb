"""What a folder of results holds, so that nothing else is mixed into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from equimodal.errors import SetupError
from equimodal.system.files import write_whole


class Claim:
    """A file in a folder that says what the results in it were made of.

    Args:
        path: of the file.
        kind: what the folder holds, with its article, such as "a run".
        plan: by name; what JSON can hold.
    """

    def __init__(self, path: Path, kind: str, plan: dict[str, Any]) -> None:
        self.path = path
        self.kind = kind
        self.plan: dict[str, Any] = json.loads(json.dumps(plan))  # as it will be read

    def held(self) -> dict[str, Any]:
        """Return what the folder holds, or an empty dict if it holds nothing yet.

        Raises:
            SetupError: the file is not one of ours.
        """
        try:
            found = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise SetupError(
                f"{self.path} is damaged or not equimodal's: expected what the folder holds, in "
                "JSON; name another folder"
            )
        return found

    def check(self, *ignored: str) -> None:
        """Refuse a folder that holds something else.

        Args:
            ignored: parts of the plan that may differ.

        Raises:
            SetupError: it does; the message says in what.
        """
        held = self.held()
        for name in self.plan:
            if held and name not in ignored and held.get(name) != self.plan[name]:
                there, here = _differing(held.get(name), self.plan[name])
                raise SetupError(
                    f"{self.path.parent} holds {self.kind} with {name} {there}, this one has "
                    f"{here}: name another folder"
                )

    def write(self) -> None:
        """Note the plan, unless one is noted already."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(self.plan, indent=1) + "\n")


def _differing(one: Any, other: Any) -> tuple[str, str]:
    """Leave out of two dicts what they agree on, and spell both."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        return _spelt({k: one.get(k) for k in keys}), _spelt({k: other.get(k) for k in keys})
    return _spelt(one), _spelt(other)


def _spelt(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
