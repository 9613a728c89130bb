"""equimodal methods: what there is."""

from __future__ import annotations

from collections.abc import Sequence

from equimodal.errors import SetupError
from equimodal.method import Method
from equimodal.methods import available


def run(arguments: Sequence[str]) -> int:
    """Print the table of methods, or one method in full."""
    known = available()
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: equimodal methods [NAME]\n\nList the methods, or say all about one of them.")
        return 0
    if len(arguments) > 1:
        raise SetupError(f"methods: expected one name at most, found {' '.join(arguments)}")
    if arguments:
        from equimodal.methods import find

        kind = find(arguments[0])
        print(f"{kind.name}: equimodal.{kind.__name__}\n\n{(kind.__doc__ or '').strip()}")
        return 0
    print(table(known))
    return 0


def table(methods: dict[str, type[Method]]) -> str:
    """Return a table of methods and what each declares, within 80 columns."""
    head = ("method", "acts on", "passes", "accumulation", "M", "source")
    rows = [head, *(_row(name, kind) for name, kind in methods.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines += ["", "passes: extra forwards + backwards of the model in every step; M: modalities"]
    return "\n".join(lines)


def _row(name: str, kind: type[Method]) -> tuple[str, ...]:
    can = kind.capabilities
    folder = kind.__module__.split(".")[-2] if kind.__module__.startswith("equimodal") else "other"
    passes = f"{can.forwards}+{can.backwards}"
    most = "2+" if can.most is None else f"2-{can.most}"
    return name, folder, passes, can.accumulation, most, kind.source
