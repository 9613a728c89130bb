"""Encoders that do not train yet: said once, and modulated from the step in which they do."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from equimodal.errors import warn
from equimodal.update.modulation import Modulation
from equimodal.update.optimizers import Optimizer, held


def say_untrained(modulation: Modulation, optimizers: Sequence[Optimizer]) -> None:
    """Warn of encoders of which nothing that is to be modulated trains yet.

    Whether a parameter trains is looked at in every step, so that what is unfrozen, or added to the
    optimizer, later is modulated from then on.

    Args:
        modulation: which methods act on which parameters.
        optimizers: the user's.
    """
    trained = held(*optimizers)
    for index, name in enumerate(modulation.modalities.names):
        groups = [g for g in itertools.chain(*modulation.groups.values()) if g.modality == index]
        acting = sorted({i for group in groups for i in group.scaling})
        of = [member.owned.parameter for group in groups for member in group.members]
        of = of or [owned.parameter for owned in modulation.modalities.trainable(name)]
        unfrozen = [parameter for parameter in of if parameter.requires_grad]
        if not of or any(parameter in trained for parameter in unfrozen):
            continue
        methods = [type(modulation.methods[i]).__name__ for i in acting]
        if unfrozen:
            warn(
                f"encoders['{name}'] has {len(unfrozen)} trainable parameters, but none of them is "
                "in the optimizer: it does not train until optimizer.add_param_group adds them. If "
                "it is to train now, make the optimizer of model.parameters(), or pass all "
                "optimizers as a list"
            )
        else:
            warn(
                f"encoders['{name}'] has no trainable parameter that {' or '.join(methods)} acts "
                "on: nothing of it is modulated until it is unfrozen and in the optimizer. If it "
                "is to stay frozen, leave it out of the method's modalities: "
                f"{methods[0]}(modalities=...)"
            )
