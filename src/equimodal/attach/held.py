"""Whether a forward ran on the parameters that the model holds."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

FOREIGN = (
    "this forward ran on other parameters than those that the head holds, as those of "
    "torch.func.functional_call, and how well a modality does alone would be read with these: use "
    "scores that do not run the head, such as eq.Probe()"
)
Held = tuple[int, ...]


class Holding:
    """Remembers where a module's parameters are held, to see which it holds at some time.

    Args:
        module: the head, or a model without one.
        leave_out: modules whose parameters do not matter, as those of encoders.
    """

    def __init__(self, module: nn.Module, leave_out: Iterable[nn.Module]) -> None:
        outside = {part for each in leave_out for part in each.modules()}
        self._places = [
            (part._parameters, name)
            for part in module.modules()
            if part not in outside
            for name in part._parameters
        ]

    def now(self) -> Held:
        """Return which parameters are held now."""
        return tuple([id(held.get(name)) for held, name in self._places])
