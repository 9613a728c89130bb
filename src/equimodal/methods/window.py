"""The epochs in which a method acts."""

from __future__ import annotations

from equimodal.errors import SetupError


def checked_window(
    window: tuple[int, int] | None, method: str, argument: str = "window"
) -> tuple[int, int] | None:
    """Return first and last epoch as given, None for all.

    Args:
        window: counted from 0, both included.
        method: how messages call the method.
        argument: how they call what was given.

    Raises:
        SetupError: the window does not begin at 0 or later, or ends before it begins.
    """
    if window is None:
        return None
    first, last = window
    if not 0 <= first <= last:
        raise SetupError(
            f"{method}({argument}): expected (first, last) epoch with 0 <= first <= last, found "
            f"{window}"
        )
    return first, last
