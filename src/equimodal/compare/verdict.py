"""One sentence on what a comparison has shown, and what it has not."""

from __future__ import annotations

from collections.abc import Sequence

from equimodal.compare.significance import holm, t_test
from equimodal.compare.summary import REFERENCE, Row

ENOUGH = 5  # pairs; of fewer, even a t interval rests on a spread that nobody knows
ALPHA = 0.05


def verdict(rows: Sequence[Row]) -> str:
    """Say which methods are better than joint training, as far as the seeds can tell.

    A method counts as better or worse if it has at least `ENOUGH` pairs and the 95% interval of its
    paired difference leaves out 0. Where several are held against joint training, those that would
    stay so after Holm's correction for their number are named. Models of single modalities are no
    methods and do not count.
    """
    methods = [row for row in rows if row.entry.method not in ("unimodal", REFERENCE)]
    if not any(row.entry.label == REFERENCE for row in rows):
        return f"No run of {REFERENCE} training is finished: nothing can be held against it."
    if not methods:
        return f"No other method is held against {REFERENCE} training."
    pairs = {row.label: len(row.versus.values) if row.versus else 0 for row in methods}
    paired = [row for row in methods if pairs[row.label] >= ENOUGH]
    if not paired:
        most = max(pairs.values())
        many = "1 seed is" if most == 1 else f"{most} seeds are"
        return (
            f"{many} too few to tell a method from {REFERENCE} training: {ENOUGH} or more are "
            "needed, whatever the intervals look like."
        )
    better = [row for row in paired if row.versus is not None and row.versus.low > 0]
    worse = [row for row in paired if row.versus is not None and row.versus.high < 0]
    counts = sorted({pairs[row.label] for row in paired})
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    beyond = f"{REFERENCE} training beyond the noise of {seeds} seeds"
    if better:
        sentence = f"Better than {beyond}: {_listed(better)}."
        rest = [row for row in paired if row not in better and row not in worse]
        if rest:
            sentence += f" Not told apart from it: {', '.join(row.entry.label for row in rest)}."
    else:
        sentence = f"No method is better than {beyond}."
    if worse:
        sentence += f" Worse: {_listed(worse)}."
    if len(paired) > 1 and (better or worse):
        sentence += _corrected(paired, better + worse)
    return sentence


def _corrected(paired: Sequence[Row], apart: Sequence[Row]) -> str:
    chances = {row.label: t_test(row.versus.values) for row in paired if row.versus is not None}
    sure = {name for name, p in holm(chances).items() if p < ALPHA}
    staying = [row.entry.label for row in apart if row.label in sure]
    if len(staying) == len(apart):
        return f" All of this holds after correction for {len(paired)} methods (Holm)."
    named = ", ".join(staying) or "none"
    return (
        f" After correction for {len(paired)} methods (Holm) {named} "
        f"{'stands' if len(staying) < 2 else 'stand'} apart: repeat what matters with other seeds."
    )


def _listed(rows: Sequence[Row]) -> str:
    return ", ".join(
        f"{row.entry.label} ({100 * row.versus.mean:+.1f})" for row in rows if row.versus
    )
