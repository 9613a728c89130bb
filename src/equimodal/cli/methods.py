"""equimodal methods: what there is."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Sequence

from equimodal.cli.declared import declared
from equimodal.cli.equations import plain
from equimodal.cli.options import Option, options_of, sections
from equimodal.cli.text import WIDTH, described, wrapped
from equimodal.cli.words import dashed, words
from equimodal.errors import SetupError, unknown
from equimodal.method import Method
from equimodal.methods import available, find
from equimodal.methods.shortlist import differences, sets, shortlist, step
from equimodal.methods.supplied import TEACHERS, takes_teachers

PLACES = {
    "data": "on the data",
    "features": "on features before the head",
    "objective": "on the loss",
    "gradient": "on gradients and updates",
    "schedule": "on what trains when",
    "other": "of other packages",
}  # where in the step a method acts, in the order of the step

HELP = """usage: equimodal methods [NAME]

List the methods, those that are recommended first; or say all about one of
them: equation, what it needs and can do, what it brought, and its options."""


def run(arguments: Sequence[str]) -> int:
    """Print the table of methods, or one method in full."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(HELP)
        return 0
    if arguments and arguments[-1] == "--json":
        named = {name: find(name) for name in arguments[:-1] if not name.startswith("-")}
        print(json.dumps(declared(named or available()), indent=1, allow_nan=False))
        return 0
    for argument in arguments:
        if argument.startswith("-"):
            raise SetupError(unknown("option", argument, ["--help"]))
    if len(arguments) > 1:
        raise SetupError(f"methods: expected one name at most, found {' '.join(arguments)}")
    print(card(find(arguments[0])) if arguments else f"{recommended()}\n\n{table(available())}")
    return 0


def recommended() -> str:
    """Return the shortlist: what to try, in which order, and what each brought."""
    head = ("try in this order", "mean", "most", "least", "better on", "worse on", "step")
    rows = []
    for place, each in enumerate(shortlist(), 1):
        means = [on.mean for on in each.on.values()]
        better, of = sum(on.low > 0 for on in each.on.values()), len(each.on)
        points = (f"{value:+.1f}" for value in (each.mean, max(means), min(means)))
        counts = (f"{better} of {of}", f"0 of {of}", _step(each.name))
        rows.append((f"{place:>2} {each.name}", *points, *counts))
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        rest = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        return "  ".join([f"{row[0]:<{widths[0]}}", *rest])

    return "\n".join(
        [
            *map(line, (head, ["-" * width for width in widths], *rows)),
            wrapped(
                f"Points of test accuracy over joint training on {len(sets())} data sets, all "
                "tuned alike: train that first, and compare. Listed is what was better beyond the "
                "noise of seeds on one data set and worse on none; what helps depends on the data "
                "more than on the method. `equimodal choose` finds out on yours."
            ),
        ]
    )


def table(methods: dict[str, type[Method]]) -> str:
    """Return a table of methods and what each declares, within 80 columns."""
    head = ("method", "passes", "step", "accumulation", "M", "source")
    rows = {name: _row(name, kind) for name, kind in methods.items()}
    cells = [head, *rows.values()]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    margin = sum(widths[:-1]) + 2 * (len(head) - 1)  # where the sources begin

    def line(row: Sequence[str]) -> str:
        padded = [f"{cell:<{width}}" for cell, width in zip(row[:-1], widths, strict=False)]
        return "  ".join([*padded, wrapped(row[-1], margin)[margin:]]).rstrip()

    rules = [*widths[:-1], min(widths[-1], WIDTH - margin)]
    lines = [line(head), "  ".join("-" * width for width in rules)]
    for place, acts in PLACES.items():
        here = [line(row) for name, row in rows.items() if _place(methods[name]) == place]
        lines += [f"{acts}:", *here, ""] if here else []
    lines += [
        "passes: extra forwards + backwards of the model in every step",
        "step: its duration against a plain step, measured on a pair of small CNNs",
        "accumulation: whether N micro-batches give the step of one large batch (exact),",
        "or a method acts on each of them (micro-batch)",
        "M: how many modalities",
        "`equimodal methods NAME` says all about one; with --json, for programs.",
    ]
    return "\n".join(lines)


def card(kind: type[Method]) -> str:
    """Return all about a method: what it does, needs and can do, and its options."""
    can = kind.capabilities
    times = step(kind.name)
    yes = {True: "yes", False: "no"}
    facts = [
        ("acts on", _place(kind)),
        ("source", kind.source or "none"),
        ("needs", ", ".join([*sorted(kind.needs), *_taught(kind)]) or "nothing beyond a step"),
        ("modalities", "two or more" if can.most is None else f"two to {can.most}"),
        ("extra passes", f"forwards {can.forwards}, backwards {can.backwards}, in every step"),
        ("step", f"{times:.2f}x of a plain one" if times else "not measured"),
        ("against joint", _brought(kind.name)),
        ("accumulation", can.accumulation),
        ("several ranks", yes[can.ranks]),
        ("mixed precision", yes[can.autocast]),
        ("compiled", yes[can.compiled]),
        ("sharded (FSDP2)", yes[can.sharded]),
    ]
    options = [
        (
            f"--method.{dashed(name)}",
            f"{_plain(option.text).rstrip('.')}. Takes {words(option.kind)}"
            f"{_default(kind, name, option)}",
        )
        for name, option in options_of(kind).items()
        if name != TEACHERS
    ]
    parts = [
        f"{kind.name}: {_where(kind)}.{kind.__name__}",
        *(_paragraph(each) for each in sections(kind)[0].split("\n\n")),
        described(facts, 20),
        "\n".join(
            [f"options (equimodal train DATA --method {kind.name} ...):", described(options, 8)]
        )
        if options
        else "It has no options.",
    ]
    return "\n\n".join(parts)


def _row(name: str, kind: type[Method]) -> tuple[str, ...]:
    can = kind.capabilities
    passes = f"{can.forwards}+{can.backwards}"
    most = "2+" if can.most is None else "2" if can.most == 2 else f"2-{can.most}"
    how = can.accumulation.removeprefix("per ")  # narrow, so that most sources fit in a line
    return f"  {name}", passes, _step(name), how, most, kind.source


def _step(name: str) -> str:
    times = step(name)
    return "" if times is None else f"{times:.2f}x"


def _brought(name: str) -> str:
    brought = [
        f"{data} {of.mean:+.1f} [{of.low:+.1f}, {of.high:+.1f}]"
        for data, of in differences(name).items()
    ]
    return "; ".join(brought) or "not recorded"


def _place(kind: type[Method]) -> str:
    ours = kind.__module__.startswith("equimodal.methods.")
    return kind.__module__.split(".")[2] if ours else "other"


def _where(kind: type[Method]) -> str:
    return "equimodal" if kind.__module__.startswith("equimodal.") else kind.__module__


def _taught(kind: type[Method]) -> list[str]:
    return ["teachers (train and compare train them first)"] if takes_teachers(kind) else []


def _paragraph(text: str) -> str:
    """Wrap text, and say an equation in plain signs."""
    if text.startswith(".. math::") or text.lstrip().startswith("\\"):  # or goes on with one
        lines = plain(text.removeprefix(".. math::")).splitlines()
        return "\n".join(wrapped(line, 4) for line in lines)
    return wrapped(_plain(text))


def _plain(text: str) -> str:
    return re.sub(r":math:`([^`]*)`", lambda found: plain(found[1]), text)


def _default(kind: type[Method], name: str, option: Option) -> str:
    if name in kind.by_epochs:
        return " [from the number of epochs]"
    if option.default is inspect.Parameter.empty:
        return "; must be given"
    return f" [{'null' if option.default is None else option.default}]"
