"""A head of several modules that the model calls one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from equimodal.attach.calls import Versions, versions
from equimodal.attach.features import tensors
from equimodal.errors import MatchError, SetupError


class Chain(nn.Module):
    """Modules in a row, each given what the one before returned, and nothing else.

    It stands for the head, and is no part of the model. That the model calls them so is proven in
    every forward that trains, by the very tensors handed on.

    Args:
        parts: modules of the model, in the order in which they run.
    """

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(set(parts)) < len(parts):
            raise SetupError("head: a module stands twice in the list of those that run in a row")
        self.parts = nn.ModuleList(parts)
        self._handed: tuple[int, Any, Versions] | None = None

    @property
    def training(self) -> bool:
        """Whether the modules are in training mode: the model puts them there, without this one."""
        parts = self._modules.get("parts")
        return parts is not None and any(part.training for part in parts.children())

    @training.setter
    def training(self, mode: bool) -> None:
        """Leave it to the modules themselves."""

    @property
    def first(self) -> nn.Module:
        """The module that takes the features."""
        return self.parts[0]

    @property
    def last(self) -> nn.Module:
        """The module that returns the logits."""
        return self.parts[-1]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run all of them."""
        first, *others = self.parts
        output = first(*args, **kwargs)
        for part in others:
            output = part(output)
        return output

    @property
    def running(self) -> bool:
        """Whether the row was begun and has not ended."""
        return self._handed is not None

    def start(self) -> None:
        """Note that the first module runs now."""
        self._handed = None

    def hand(self, place: int, output: Any) -> None:
        """Note what a module returned."""
        self._handed = place, output, versions(output)

    def take(self, place: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Check that a module goes on with what the one before returned.

        Raises:
            MatchError: it is given something else.
        """
        if self._handed is None:
            return  # called by itself, outside of the row
        before, output, changes = self._handed
        whole = len(args) == 1 and not kwargs and args[0] is output
        if before != place - 1 or not whole or changes != versions(output):
            before_it, this = (type(self.parts[i]).__name__ for i in (place - 1, place))
            raise MatchError(
                f"between {before_it} and {this} the forward does more than to hand on what "
                f"{before_it} returned ({_spelt(output)}; {this} was given {_spelt((args, kwargs))}"
                "): make them one module that includes it, or head=None"
            )

    def finish(self) -> None:
        """Forget what was handed on."""
        self._handed = None


def _spelt(tree: Any) -> str:
    if isinstance(tree, Tensor):
        return str(tuple(tree.shape))
    return ", ".join(str(tuple(tensor.shape)) for _, tensor in tensors(tree)) or "no tensor"
