"""What a user's function builds, as it was at first, as often as it is asked for."""

from __future__ import annotations

import copy

from equimodal.choosing.build import Build


class Anew:
    """Gives one build again and again, each time as it was at first.

    Data is loaded once for many short trials. What a training changes is put back: parameters,
    buffers, what is frozen, and optimizers; it must have been detached.

    Args:
        built: untrained.
    """

    def __init__(self, built: Build) -> None:
        self.built = built
        self._model = copy.deepcopy(built.model.state_dict())
        self._optimizers = [copy.deepcopy(each.state_dict()) for each in built.optimizers]
        self._trained = [parameter.requires_grad for parameter in built.model.parameters()]

    def __call__(self) -> Build:
        """Put everything back, and return it."""
        self.built.model.load_state_dict(self._model)
        for optimizer, state in zip(self.built.optimizers, self._optimizers, strict=True):
            optimizer.load_state_dict(state)
        for parameter, trained in zip(self.built.model.parameters(), self._trained, strict=True):
            parameter.requires_grad_(trained)
            parameter.grad = None
        return self.built
