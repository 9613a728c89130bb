"""What to expect of OGM-GE where it is named among the methods to try."""

from __future__ import annotations

from equimodal.diagnostics.advice.verdicts import Reason
from equimodal.methods.ogm_ge_map import Standing, standing


def throttling() -> Reason:
    """Return the reason that quotes the map of OGM-GE, `docs/ogm-ge-map.md`.

    It says nothing of the model that was examined, only how often a gain was seen elsewhere.

    >>> throttling().text.split(":")[0]
    'What to expect of OGM-GE'
    """
    multi_loss, joint = standing("multi-loss"), standing("joint")
    return Reason(
        f"What to expect of OGM-GE: in {joint.cells} settings of a study, all tuned alike, it was "
        f"better than multi-loss in {spelt(multi_loss)}, and than joint training in "
        f"{spelt(joint)}. It was worse in {len(multi_loss.worse)} and {len(joint.worse)}."
    )


def spelt(of: Standing) -> str:
    """Spell out in how many settings it was better, by how much, and what is left of it."""
    count = len(of.better)
    if not count:
        return "none"
    most = f"{count}, by at most {of.most:.1f} points"
    if of.kept == count:
        return most
    return f"{most}, of which {of.kept or 'none'} remained with larger learning rates for all"
