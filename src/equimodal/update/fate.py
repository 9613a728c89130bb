"""What became of gradients since they were last looked at.

Whatever the balancer keeps beside a gradient (evidence, gradients of single terms, a coefficient
for the update) is about that gradient alone. So it has to know whether the gradient is still there.
Neither the values tell (a gradient may be zero) nor the calls of the user's loop, which are not
seen: `optimizer.zero_grad`, `p.grad = None` and a backward pass of another loss are all the same to
us. The tensor itself tells: which one it is, how often it was changed in place, and what a backward
pass adds to.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equimodal.attach.sharding import is_sharded, local

ALIKE = 1e-3  # how far factors may lie apart that rounding alone makes different
ROUNDING = 1e-5  # of the norm, for sums that nearly vanish

Fate = Literal["same", "altered", "replaced", "added", "cleared"]
Measures = tuple[list[nn.Parameter], Tensor | None]  # shape ``(2, P)``


class Sentinel:
    """Watches the gradient of one parameter, which stands for those of several.

    Where this one is cleared and another is not, the user's loop has left out a layer, and what is
    kept belongs to the rest.

    Args:
        parameter: it requires a gradient.
        others: parameters that it stands for.
        handles: its hooks are noted here, for whoever takes them off.
    """

    def __init__(
        self,
        parameter: nn.Parameter,
        others: Sequence[nn.Parameter],
        handles: list[RemovableHandle],
    ) -> None:
        self.parameter = parameter
        self._others = others
        self._seen: list[tuple[nn.Parameter, Callable[[], Tensor | None], int]] = []
        self._noted: Callable[[], Tensor | None] = _nothing
        self._version = 0
        self._passes = 0  # backward passes that have reached the parameter since
        self._gone = False  # whether the gradient was cleared before the first of them
        hooked = weakref.ref(self)

        def arriving(gradient: Tensor) -> None:
            sentinel = hooked()
            if sentinel is not None and sentinel._passes == 0:
                sentinel._gone = sentinel._cleared() and not sentinel._left()

        def arrived(parameter: nn.Parameter) -> None:
            sentinel = hooked()
            if sentinel is not None:
                sentinel._passes += 1

        handles.append(parameter.register_hook(arriving))  # type: ignore[no-untyped-call]
        handles.append(parameter.register_post_accumulate_grad_hook(arrived))  # type: ignore[no-untyped-call]

    @property
    def has_gradient(self) -> bool:
        """Whether there is a gradient now."""
        return self.parameter.grad is not None

    @property
    def noted(self) -> bool:
        """Whether there was a gradient when it was last looked at."""
        return self._noted is not _nothing

    def note(self) -> None:
        """Look at the gradient that is there now."""
        gradient = self.parameter.grad
        self._noted = _nothing if gradient is None else weakref.ref(gradient)
        self._version = 0 if gradient is None else gradient._version
        self._passes, self._gone = 0, False
        there = ((other, other.grad) for other in self._others)
        self._seen = [(p, weakref.ref(g), g._version) for p, g in there if g is not None]

    def fate(self) -> Fate:
        """Say what became of the gradient that was noted; "same" where there was none."""
        if not self.noted:
            return "same"
        gradient = self.parameter.grad
        known = gradient is not None and gradient is self._noted()
        if self._gone:
            return "cleared"
        if (self._cleared() if self._passes == 0 else not known) and not self._left():
            return "cleared"
        if self._passes:
            return "added"
        if not known:
            return "altered" if gradient is None else "replaced"
        assert gradient is not None
        return "same" if gradient._version == self._version else "altered"

    def _cleared(self) -> bool:
        """Whether the gradient is no more, or was changed in place to zeros."""
        gradient = self.parameter.grad
        if gradient is None:
            return self.noted
        if gradient is not self._noted() or gradient._version == self._version:
            return False
        if is_sharded(gradient):
            return False  # a slice of zeros says nothing of the others, which must agree
        return not bool(gradient.any())  # waits for the device only where it was changed

    def _left(self) -> bool:
        """Whether another gradient is left where this one was cleared."""
        zeroed = self.parameter.grad is not None and self.parameter.grad is self._noted()
        for other, noted, version in self._seen:
            gradient = other.grad
            if gradient is None or gradient is not noted():
                continue
            # Changed once, it was clipped or added to; twice, it may have been zeroed before.
            if zeroed and gradient._version > version + 1:
                continue
            if gradient._version == version or is_sharded(gradient) or bool(gradient.any()):
                return True
        return False


class Fates:
    """The fates of the gradients of several parts of a model, each told by one parameter first.

    Args:
        handles: the hooks are noted here, for whoever takes them off.
    """

    def __init__(self, handles: list[RemovableHandle]) -> None:
        self._handles = handles
        self._sentinels: dict[object, Sentinel] = {}

    def note(self, part: object, candidates: Callable[[], Iterable[nn.Parameter]]) -> None:
        """Look at the gradient of a part that is there now.

        Args:
            part: a key.
            candidates: gives the parameters of the part; one that has a gradient stands for it.
        """
        sentinel = self._sentinels.get(part)
        if sentinel is None or not sentinel.has_gradient:
            of = list(candidates())
            parameter = next((p for p in of if p.requires_grad and p.grad is not None), None)
            if parameter is not None and (sentinel is None or parameter is not sentinel.parameter):
                others = [other for other in of if other is not parameter]
                sentinel = self._sentinels[part] = Sentinel(parameter, others, self._handles)
        if sentinel is not None:
            sentinel.note()

    def of(self, parts: Sequence[object]) -> set[Fate]:
        """Return what became of the gradients of these parts, of those that had one."""
        sentinels = [self._sentinels[part] for part in parts if part in self._sentinels]
        return {sentinel.fate() for sentinel in sentinels if sentinel.noted}

    def measures(self) -> Measures:
        """Return two numbers of every gradient that stands for a part now.

        Its norm, and its sum: a factor moves both alike, and hardly anything else does.
        """
        there = {
            sentinel.parameter: local(sentinel.parameter.grad)
            for sentinel in self._sentinels.values()
            if sentinel.noted
            and sentinel.parameter.grad is not None
            and not sentinel.parameter.grad.is_sparse
        }
        if not there:
            return [], None
        gradients = [torch.view_as_real(g) if g.is_complex() else g for g in there.values()]
        numbers = [*torch._foreach_norm(gradients), *(gradient.sum() for gradient in gradients)]
        return list(there), torch.stack(numbers).view(2, -1)


def factor(before: Measures, now: Measures) -> Tensor | None:
    """Return by what one factor gradients were multiplied, shape ``()``; None where some are gone.

    Where they were changed by different factors or in another way, or were zero, it is 1.

    Args:
        before: what `Fates.measures` returned.
        now: the same, later.
    """
    if before[1] is None or now[1] is None or before[0] != now[0]:
        return None
    factors, one = _factors(before[1], now[1])
    one &= factors.isfinite().any()  # where all gradients were zero, nothing says by what
    return torch.where(one, factors.nanmean(), 1.0)


def is_one_factor(before: Measures, now: Measures) -> bool:
    """Whether gradients were multiplied by one factor at most; waits for the device."""
    if before[1] is None or now[1] is None or before[0] != now[0]:
        return False
    return bool(_factors(before[1], now[1])[1])


def _factors(before: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factor of every gradient, NaN where it was zero, and whether it is but one."""
    (size, total), (found, sums) = before, now
    factors = found / size
    expected = factors * total
    alike = (sums - expected).abs() <= ALIKE * expected.abs() + ROUNDING * found
    low, high = factors.nan_to_num(torch.inf).amin(), factors.nan_to_num(-torch.inf).amax()
    return factors, (alike | factors.isnan()).all() & (high - low <= ALIKE * high)


def _nothing() -> None:
    return None
