"""What methods declare, as JSON values; the schema is in `docs/json.md`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from equimodal.cli.options import options_of, sections
from equimodal.cli.words import dashed, words
from equimodal.method import Method
from equimodal.methods.supplied import TEACHERS, takes_teachers

FORMAT = 1


def declared(methods: Mapping[str, type[Method]]) -> dict[str, Any]:
    """Return what methods do, need and can do, by name."""
    return {
        "format": FORMAT,
        "kind": "methods",
        "methods": [_one(*each) for each in methods.items()],
    }


def _one(name: str, kind: type[Method]) -> dict[str, Any]:
    can = kind.capabilities
    return {
        "name": name,
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "summary": " ".join(sections(kind)[0].split("\n\n")[0].split()),
        "source": kind.source,
        "needs": sorted(kind.needs),
        "teachers": takes_teachers(kind),
        "modalities_most": can.most,
        "extra_forwards": can.forwards,
        "extra_backwards": can.backwards,
        "accumulation": can.accumulation,
        "ranks": can.ranks,
        "autocast": can.autocast,
        "compiled": can.compiled,
        "sharded": can.sharded,
        "options": [
            {
                "name": dashed(option),
                "takes": words(found.kind),
                "required": found.default is inspect.Parameter.empty
                and option not in kind.by_epochs,
                "by_epochs": option in kind.by_epochs,
            }
            for option, found in options_of(kind).items()
            if option != TEACHERS
        ],
    }
