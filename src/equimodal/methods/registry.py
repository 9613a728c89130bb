"""Methods by name: our own, and those that other packages register."""

from __future__ import annotations

import importlib.metadata

from equimodal.errors import SetupError, unknown
from equimodal.method import Method

ENTRY_POINTS = "equimodal.methods"


def available() -> dict[str, type[Method]]:
    """Return every method class by its name.

    Another package adds its methods with an entry point of the group ``equimodal.methods``::

        [project.entry-points."equimodal.methods"]
        my-method = "my_package:MyMethod"

    Raises:
        SetupError: an entry point does not lead to a subclass of `equimodal.Method`.
    """
    from equimodal import methods

    ours = {
        entry.name: entry
        for entry in (getattr(methods, name) for name in methods.__all__)
        if isinstance(entry, type) and issubclass(entry, Method)
    }
    theirs = {}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        found = point.load()
        if not (isinstance(found, type) and issubclass(found, Method)):
            raise SetupError(
                f"entry point {point.name} = {point.value} of the group {ENTRY_POINTS}: expected a "
                f"subclass of equimodal.Method, found {found!r}"
            )
        theirs[point.name] = found
    return dict(sorted({**theirs, **ours}.items()))


def find(name: str) -> type[Method]:
    """Return a method class by its name.

    Raises:
        SetupError: there is none; the message says what was probably meant.
    """
    known = available()
    if name not in known:
        raise SetupError(unknown("method", name, known))
    return known[name]
