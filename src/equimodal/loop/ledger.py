"""What belongs to the gradients that are there: it comes and goes with them.

Evidence, gradients of single terms, gradients of methods' own modules and what a loss led to are
about gradients that a backward pass has left. Where the user's loop drops these (a batch that was
not finite, an update that was too large), they are about nothing, and go too. The same holds for
what `modulate` has decided about the update that is to follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equimodal.errors import StepError
from equimodal.evidence import Evidence, EvidenceSum
from equimodal.loop.handout import Pending
from equimodal.loop.notices import Notices
from equimodal.method import REST, Method
from equimodal.modalities import Modalities
from equimodal.update.fate import Fate, Fates, Measures, factor, is_one_factor
from equimodal.update.modulation import Modulated, Modulation
from equimodal.update.optimizers import Optimizer, held
from equimodal.update.own import OwnOptimizer
from equimodal.update.reach import Reached
from equimodal.update.separation import Separation


@dataclass(frozen=True)
class Judged:
    """What was found of a step.

    Attributes:
        evidence: by method, under "" what all share.
        coefficients: by the position of the method.
        scored: whether scores are among the evidence.
    """

    evidence: Mapping[str, Evidence]
    coefficients: dict[int, Tensor]
    scored: bool

    def of(self, method: Method) -> Evidence:
        """Return the evidence of a method."""
        return self.evidence.get(method.name, self.evidence[""])


class Ledger:
    """Keeps what belongs to the gradients of a step, before and after it is judged.

    Args:
        modalities: the encoders.
        optimizers: the user's.
        own: of the methods' own modules, whose gradients belong to the same losses.
        separation: what buffers gradients of single terms, or None.
        modulation: of the gradients, whose noise learns from them.
        notices: what is said to the user.
        handles: hooks are noted here, for whoever takes them off.

    Attributes:
        evidence: of the micro-batches that were backpropagated since the last step.
        reached: what their losses lead to; None until somebody asks for it.
        judged: what was found of the gradients that are there before `modulate`, or None.
        modulated: the step between `modulate` and the optimizers' own, or None.
        restored: whether the evidence was loaded, and its gradients have not been looked at.
        lacking: modalities that each of those micro-batches lacks, see `Pending`.
        others: called where it is dropped, to drop what else belongs to the gradients.
    """

    def __init__(
        self,
        modalities: Modalities,
        optimizers: Sequence[Optimizer],
        own: OwnOptimizer,
        separation: Separation | None,
        modulation: Modulation,
        notices: Notices,
        handles: list[RemovableHandle],
    ) -> None:
        self.evidence = EvidenceSum()
        self.reached: Reached | None = None
        self.judged: Judged | None = None
        self.modulated: Modulated | None = None
        self.restored = False
        self.lacking: list[frozenset[str] | None] = []
        self.others: list[Callable[[], None]] = []
        self._lost = False  # whether evidence of this step went with gradients that were cleared
        self._modalities = modalities
        self._optimizers = optimizers
        self._own = own
        self._separation = separation
        self._modulation = modulation
        self._notices = notices
        self._fates = Fates(handles)
        self._measures: Measures = ([], None)

    def look(self) -> None:
        """Before a backward pass: drop what belongs to gradients that are there no more.

        Raises:
            StepError: gradients were modulated, and neither stepped with nor dropped.
        """
        if self.modulated is not None:
            self._notices.refuse_replaced()
            if self.waiting:
                raise StepError(
                    "balancer.backward: the gradients were modulated and have not been stepped "
                    "with since: call balancer.modulate() once per optimizer step, after its "
                    "last micro-batch; to leave a step out, call optimizer.zero_grad()"
                )
            self.leave()
        self.drop_cleared()

    def leave(self) -> None:
        """End a step between `modulate` and the optimizers' own, whether these have come or not."""
        if self.modulated is not None:
            used = self.modulated.stepped - self.modulated.void
            (self._modulation.keep if used else self._modulation.revert)()
        self.modulated = None

    @property
    def waiting(self) -> bool:
        """Whether gradients of encoders were judged, and are there for a step to come."""
        if self.modulated is None:
            return False
        left = [o for o in self._optimizers if o not in self.modulated.stepped]
        return bool(self._of_encoders(left) - {"cleared"})

    def drop_cleared(self) -> None:
        """Drop what was backpropagated, where its gradients are there no more."""
        if not self.evidence.micro_batches or torch.compiler.is_compiling():
            return
        parts = [part for each in self._optimizers for part in self._parts(each)]
        if self.restored:
            self.restored = False
            if all(p.grad is None for part in parts for p in self._candidates(*part)):
                self.drop()
                self._notices.once(
                    "the state that was loaded was saved between micro-batches, whose gradients "
                    "are not there: its evidence is dropped, and the step begins anew"
                )
                return
        if self._fates.of(parts) == {"cleared"}:
            self.drop()
            self._own.clear()
            self._lost = True

    def refuse_gathered(self) -> None:
        """Refuse gradients that a loop has cleared and put back as a sum of its own.

        Evidence goes with gradients that are cleared, as of a batch that was dropped. Where others
        than those of the last pass are in place afterwards, these may hold what was cleared.

        Raises:
            StepError: they were replaced by other tensors.
        """
        if not self._lost or torch.compiler.is_compiling():
            return
        changed = self._of_encoders(self._optimizers) & {"replaced", "altered"}
        if not changed or is_one_factor(self._measures, self._fates.measures()):
            return
        said = (
            "gradients were cleared after an earlier micro-batch, and what is in .grad now is not "
            "what the last backward pass has left: if it is a sum that the loop has kept itself, "
            "the evidence of all micro-batches but the last is missing. Let .grad add up: call "
            "optimizer.zero_grad() once per optimizer step, not after every micro-batch"
        )
        if "replaced" in changed:
            raise StepError(f"balancer.modulate: {said}")
        self._notices.once(said)

    def drop(self) -> None:
        """Drop what was backpropagated."""
        self.evidence, self.reached, self.judged = EvidenceSum(), None, None
        self.lacking = []
        self._lost = False
        if self._separation is not None:
            self._separation.forget()
        for forget in self.others:
            forget()

    def add(self, records: Sequence[Pending], reached: Reached | None) -> None:
        """Take in what belongs to losses that have just been backpropagated."""
        for record in records:
            self.evidence.add(record.scores, record.measured)
            self.lacking.append(record.lacking)
        if reached is not None:
            if self.reached is None:
                self.reached = Reached()
            self.reached.add(reached)
        self.note()

    def note(self) -> None:
        """Look at the gradients that a backward pass has left."""
        self.watch()
        if not torch.compiler.is_compiling():
            measured = self._lost or self._own.parameters
            self._measures = self._fates.measures() if measured else ([], None)

    def watch(self) -> None:
        """Look which gradients are there now, and not at their values: these have been judged."""
        self._measures = ([], None)
        if torch.compiler.is_compiling():
            return
        for optimizer in self._optimizers:
            for part in self._parts(optimizer):
                self._fates.note(part, lambda part=part: self._candidates(*part))  # type: ignore[misc]

    def factor(self) -> Tensor | None:
        """Return by what one factor the user's loop has multiplied the gradients since, or None.

        Shape ``()``. Unscaling by hand, a division by a number of tokens and clipping by norm act
        on the model's gradients, and are meant for those of methods' own modules as well.
        """
        if self._measures[1] is None or torch.compiler.is_compiling():
            return None
        return factor(self._measures, self._fates.measures())

    def fates(self, optimizer: Optimizer) -> dict[str, set[Fate]]:
        """Return what became of an optimizer's gradients, by modality and under `REST`."""
        return {part[1]: self._fates.of([part]) for part in self._parts(optimizer)}

    def _of_encoders(self, optimizers: Sequence[Optimizer]) -> set[Fate]:
        """Return what became of the gradients of encoders that some optimizers hold."""
        parts = [part for each in optimizers for part in self._parts(each) if part[1] != REST]
        return self._fates.of(parts)

    def _parts(self, optimizer: Optimizer) -> list[tuple[Optimizer, str]]:
        return [(optimizer, name) for name in (*self._modalities.names, REST)]

    def _candidates(self, optimizer: Optimizer, part: str) -> list[nn.Parameter]:
        stepped = held(optimizer)
        if part == REST:
            return [parameter for parameter in self._modalities.rest if parameter in stepped]
        owned = self._modalities.owned[part]
        return [each.parameter for each in owned if each.parameter in stepped]
