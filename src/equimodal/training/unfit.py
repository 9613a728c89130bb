"""Data that no model can learn from, found before it is trained."""

from __future__ import annotations

from typing import Any

from equimodal.data import Arrays, Splits
from equimodal.errors import SetupError

NAMED = 5  # classes that a message lists


def refuse_constant(splits: Splits[Any]) -> None:
    """Refuse a modality that is the same in all training samples; of arrays in memory alone.

    Raises:
        SetupError: there is one.
    """
    if not isinstance(splits.train, Arrays):
        return
    for name, values in splits.train.features.items():
        if len(values) > 1 and bool((values == values[:1]).all()):
            raise SetupError(
                f"{name} is the same in all {len(values)} training samples, so that nothing can "
                f"be learnt from it: mend the file, or leave {name} out of modalities=..."
            )


def unseen(splits: Splits[Any]) -> str:
    """Say which classes are tested and never trained; "" if there are none."""
    trained = set(splits.train.target.flatten().tolist())
    tested = splits.test.target.flatten().tolist()
    missing = sorted(set(tested) - trained)
    if not missing:
        return ""
    share = sum(label not in trained for label in tested) / len(tested)
    more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    named = ", ".join(splits.classes[label] for label in missing[:NAMED])
    classes = "class" if len(missing) == 1 else "classes"
    return (
        f"{len(missing)} {classes} of the test split ({100 * share:.0f}% of it) in no training "
        f"sample, which no model can get right: {named}{more}"
    )
