"""How the pages stand in the sidebar: tutorials, how-to guides, reference, explanation."""

from __future__ import annotations

from collections.abc import Iterable

GENERATED = ("methods", "api/index", "changed")  # by `reference.py`, `changed.py`

SECTIONS: dict[str, tuple[str, ...]] = {
    "Tutorials": (
        "docs/tutorials/first-balance",
        "docs/tutorials/own-model",
        "docs/tutorials/diagnosis",
        "docs/tutorials/comparing",
        "docs/tutorials/video",
    ),
    "How-to guides": (
        "docs/choosing",
        "docs/attach",
        "docs/loop",
        "docs/trainers/README",
        "docs/models",
        "docs/hosts/README",
        "docs/tasks/README",
        "docs/data",
        "docs/raw-data",
        "docs/report",
        "docs/reproducing",
        "docs/engines",
        "docs/json",
        "docs/command-line",
        "docs/recipes",
        "CONTRIBUTING",
    ),
    "Reference": (
        "methods",
        "docs/methods/README",
        "docs/methods/results",
        "docs/methods/defaults",
        "api/index",
        "docs/optimizers",
        "docs/published-lists",
        "changed",
        "CHANGELOG",
    ),
    "Explanation": (
        "docs/README",
        "README",
        "docs/when-not-to-balance",
        "docs/ogm-ge-map",
        "docs/diagnosis",
        "docs/scores",
        "docs/scale",
        "docs/speed",
        "docs/design",
    ),
}
ABOUT = {
    "Tutorials": "Five lessons that run as they stand, from a first balanced model to video clips.",
    "How-to guides": "Your model, your loop, your trainer, your data: what to write.",
    "Reference": "Every method with its equations and costs, every public name, every change.",
    "Explanation": "When balancing helps, when it hurts, how that is measured, why it is so built.",
}


def sections(pages: Iterable[str]) -> dict[str, list[str]]:
    """Return the pages of each section; pages that are in none end the how-to guides.

    Pages in a folder with a page `README` are below that one.

    Args:
        pages: what there is, without suffix, as ``docs/methods/ogm``.
    """
    there = {*pages}
    below = {page.removesuffix("README") for page in there if page.endswith("/README")} - {"docs/"}
    found = {
        name: [page for page in listed if page in there or page in GENERATED]
        for name, listed in SECTIONS.items()
    }
    named = {page for listed in found.values() for page in listed}
    found["How-to guides"] += sorted(
        page
        for page in there - named
        if page.startswith("docs/") and not any(page.startswith(folder) for folder in below)
    )
    return found
