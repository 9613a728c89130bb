"""Libraries that only some rooms need, and the line that installs them."""

from __future__ import annotations

import importlib.util


def require(extra: str, *libraries: str) -> None:
    """Refuse to go on without the libraries of an extra.

    Raises:
        ImportError: a library is missing; the message holds the pip line.
    """
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"this part of equimodal needs {', '.join(missing)}: pip install 'equimodal[{extra}]'"
        )
