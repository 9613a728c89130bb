"""Pages made of the code: a card for every method, and every public name with its docstring."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import equimodal as eq
from equimodal.method import Method
from equimodal.methods import shortlist

# In the order in which they are listed; a name is documented where it comes first.
MODULES = {
    "equimodal": "The core: a balancer, the contract of a method, scores, pieces of methods",
    "equimodal.functional": "The equations of the papers, as functions of tensors",
    "equimodal.nn": "Encoders, fusion heads and host models",
    "equimodal.criterion": "The user's loss: its kind, and what its mean counts",
    "equimodal.scores": "How well each modality does alone",
    "equimodal.planning": "How long training is",
    "equimodal.search": "Which values of a setting are tried",
    "equimodal.testing": "The conformance kit for methods",
    "equimodal.data": "What a model learns from",
    "equimodal.data.download": "What publishers offer",
    "equimodal.data.layouts": "What a download holds",
    "equimodal.data.media": "Sound and pictures out of media files",
    "equimodal.data.preparing": "From a listing to shards",
    "equimodal.diagnostics": "Which modality is ignored, and whether to balance",
    "equimodal.training": "The reference trainer",
    "equimodal.integrations.lightning": "Balancing in Lightning's loop",
    "equimodal.integrations.transformers": "Balancing in Hugging Face's loop",
    "equimodal.compare": "Methods against each other, over paired seeds",
    "equimodal.choosing": "Which method, on a model of your own",
    "equimodal.reproducing": "Tables of articles",
    "equimodal.report": "One page of results",
    "equimodal.tasks": "Many tasks on one machine or many",
}
PLACES = {
    "data": "On the data",
    "features": "On features before the head",
    "objective": "On the loss",
    "gradient": "On gradients and updates",
    "schedule": "On what trains when",
}
HEAD = "```{eval-rst}\n%s\n```\n"


def methods() -> dict[str, type[Method]]:
    """Return the methods of the library, by name."""
    return {
        name: kind
        for name, kind in eq.methods.available().items()
        if kind.__module__.startswith("equimodal.")
    }


def card(kind: type[Method], text: str) -> str:
    """Return a method's page, with what its class declares above and its reference below."""
    title, _, body = text.partition("\n")
    can = kind.capabilities
    abilities = {
        "several ranks": can.ranks,
        "mixed precision": can.autocast,
        "compilation": can.compiled,
        "FSDP2": can.sharded,
    }
    facts = {
        "class": f"`eq.{kind.__name__}`",
        "acts on": place(kind),
        "needs": ", ".join(sorted(kind.needs)) or "nothing beyond a step",
        "extra passes in every step": f"{can.forwards} forwards, {can.backwards} backwards",
        "accumulation": can.accumulation,
        "goes with": ", ".join(name for name, can_ in abilities.items() if can_),
        "against joint training, points": measured(kind.name),
    }
    rows = "".join(f"| {name} | {value} |\n" for name, value in facts.items() if value)
    api = HEAD % f".. autoclass:: equimodal.{kind.__name__}"
    return f"{title}\n\n| | |\n|---|---|\n{rows}\n{body}\n\n## Reference\n\n{api}"


def pages() -> dict[str, str]:
    """Return the pages of the reference, by path."""
    seen: set[int] = {id(kind) for kind in methods().values()}
    found = {}
    for name, about in MODULES.items():
        found[f"api/{name}.md"] = page(name, about, seen)
    rows = "".join(f"| [{name}]({name}.md) | {about} |\n" for name, about in MODULES.items())
    found["api/index.md"] = (
        "# Every public name\n\nMethods have [pages of their own](../methods.md). "
        f"Every name leads to its source.\n\n| module | what is in it |\n|---|---|\n{rows}\n"
        "```{toctree}\n:hidden:\n" + "\n".join(MODULES) + "\n```\n"
    )
    found["methods.md"] = overview()
    return found


def overview() -> str:
    """Return a page with a card for each method, from the registry."""
    parts = [
        "# Methods\n\nAll that there is, from what each class declares. "
        "[How to choose](docs/methods/README.md#how-to-choose), and "
        "[what each brought on real data](docs/methods/results.md).\n"
    ]
    for folder, acts in PLACES.items():
        cards = [
            f":::{{grid-item-card}} {name}\n:link: docs/methods/{name}\n:link-type: doc\n"
            f"{summary(kind)}\n:::\n"
            for name, kind in methods().items()
            if kind.__module__.split(".")[2] == folder
        ]
        grid = "::::{grid} 1 2 2 3\n:gutter: 2\n\n" + "\n".join(cards) + "::::\n"
        parts.append(f"## {acts}\n\n{grid}")
    return "\n".join(parts)


def page(name: str, about: str, seen: set[int]) -> str:
    """Return the page of a module: every public name that is not documented before.

    Args:
        name: of the module.
        about: a line on it.
        seen: the identities of what is documented; what is here is added.
    """
    module = import_module(name)
    groups: dict[str, list[str]] = {}
    for each in public(module):
        what = getattr(module, each)
        if isinstance(what, ModuleType) or (callable(what) and id(what) in seen):
            continue
        seen.add(id(what))
        home = getattr(what, "__module__", None) or name
        groups.setdefault(home if home in sys.modules else name, []).append(each)
    parts = [f"# {name}\n\n{about}.\n", HEAD % f".. py:module:: {name}"]
    if module.__doc__ and name != "equimodal":
        parts.append(HEAD % inspect.cleandoc(module.__doc__))
    for home in sorted(groups, key=lambda each: (each != name, each)):
        if len(groups) > 1:
            first = (sys.modules[home].__doc__ or home).strip().splitlines()[0].rstrip(".")
            parts.append(f"## {first}\n")
        parts += [HEAD % directive(module, each) for each in groups[home]]
    return "\n".join(parts)


def directive(module: ModuleType, name: str) -> str:
    """Return what tells Sphinx to document a name."""
    what = getattr(module, name)
    if inspect.isclass(what):
        return f".. autoclass:: {module.__name__}.{name}"
    if inspect.isroutine(what):
        return f".. autofunction:: {module.__name__}.{name}"
    return f".. py:data:: {module.__name__}.{name}\n\n   {constant(module, name)}"


def constant(module: ModuleType, name: str) -> str:
    """Return what a constant is: its comment, what it maps, what it stands for, or its class."""
    what = getattr(module, name)
    said = comment(module, name)
    if said:
        return f"{said[0].upper()}{said[1:]}."
    if isinstance(what, Mapping):
        return "By name: " + ", ".join(f"``{each}``" for each in what) + "."
    if type(what).__module__ in {"typing", "types", "collections.abc"}:
        return f"``{what}``".replace("typing.", "")
    return inspect.cleandoc(type(what).__doc__ or "").split("\n\n")[0].replace("\n", " ")


def comment(module: ModuleType, name: str) -> str:
    """Return what the source says of a constant, in the comment beside it or in the lines above."""
    for each in sys.modules.values():
        home = getattr(each, "__name__", "")
        if home.startswith("equimodal") and getattr(each, name, None) is getattr(module, name):
            found = re.search(
                rf"((?:^# .*\n)*)^{name}\b.* = .*?(?:# (.*))?$", source(each), flags=re.MULTILINE
            )
            if found:
                above = found[1].replace("# ", "").replace("\n", " ")
                return (found[2] or above).strip()
    return ""


@cache
def source(module: ModuleType) -> str:
    """Return the source of a module, empty where it has none."""
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        return ""


def public(module: ModuleType) -> list[str]:
    """Return the names that a module offers: those of `__all__`, else what is defined in it."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return sorted(listed, key=str.lower)
    return sorted(
        name
        for name, what in vars(module).items()
        if not name.startswith("_") and ours(what, module.__name__)
    )


def ours(what: Any, module: str) -> bool:
    """Return whether something is a class or function of a module."""
    kinds = inspect.isclass(what) or inspect.isfunction(what)
    return kinds and what.__module__ == module


def measured(name: str) -> str:
    """Return what a method brought and what its step costs, as far as that is recorded."""
    found = [
        f"{data} {of.mean:+.1f} [{of.low:+.1f}, {of.high:+.1f}]"
        for data, of in shortlist.differences(name).items()
    ]
    times = shortlist.step(name)
    found += [f"a step takes {times:.2f}x of a plain one"] if times else []
    return "; ".join(found)


def place(kind: type[Method]) -> str:
    """Return where in the step a method acts."""
    return PLACES[kind.__module__.split(".")[2]].lower().removeprefix("on ")


def summary(kind: type[Method]) -> str:
    """Return the first sentence on a method, and its source where the sentence does not say it."""
    said = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    known = not kind.source or kind.source.split(" (")[0] in said
    return said if known else f"{said}\n\n*{kind.source}*"
