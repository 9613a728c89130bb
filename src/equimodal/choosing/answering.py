"""What stands for the model in a user's forward, when it is to answer by the rule of its method."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from equimodal.balancer import Balancer


class Answering:
    """Stands for the model in the user's forward, and answers by the rule of the method.

    Args:
        balancer: of the model.
        alone: whether the modalities' own answers are wanted too.

    Attributes:
        alone: logits of each modality, of the latest call.
        called: whether the forward has called it, and not parts of the model alone.
    """

    def __init__(self, balancer: Balancer, alone: bool) -> None:
        self._balancer, self._wanted = balancer, alone
        self.alone: dict[str, Tensor] = {}
        self.called = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.called = True
        if not self._wanted:
            return self._balancer.predict(*args, **kwargs)
        output, self.alone = self._balancer.evaluate(*args, **kwargs)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._balancer.attached.model, name)
