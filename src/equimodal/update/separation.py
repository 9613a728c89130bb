"""Gradients of single loss terms, for methods that combine them by a rule of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from equimodal.errors import StepError
from equimodal.method import REST, Method
from equimodal.modalities import Modalities
from equimodal.system import ranks
from equimodal.system.late import Late
from equimodal.update.fingerprint import Fingerprint
from equimodal.update.passes import Buffers, Passes
from equimodal.update.reach import reaches


class Separation:
    """Buffers the gradients of the terms of the loss, and hands them to a method.

    On the encoders; on everything outside of them too, where the method declares `combines_rest`.

    The user's one backward pass fills `.grad` with the sum of all terms, through whatever reducer
    and scaler is in use. Of T terms, T - 1 get a pass of their own; the one that is left out is
    what remains of `.grad`. That holds only where `.grad` has nothing else in it: where the loss
    has further terms, where gradients were there before, and in half precision, all T are computed.

    Buffers belong to the gradients that they are parts of. Whatever one factor the user's loop
    multiplies these by until `combine` is followed; anything else that it does to them is refused.

    Args:
        method: the one that combines.
        modalities: the encoders.
        static: see `Passes`.
    """

    def __init__(self, method: Method, modalities: Modalities, static: bool = False) -> None:
        self.method = method
        self.modalities = modalities
        self._passes = Passes(method, static)
        self._changed, self._differing = Late(self._refuse_changed), Late(self._refuse_differing)
        self._hooked = Late(self._refuse_hooked)
        self.forget()

    def forget(self) -> None:
        """Drop what was separated: the gradients that it is part of are no more."""
        self._terms: Buffers = {}
        self._last = ""  # the term that can do without a pass of its own
        self._complete: bool | None = None  # whether it has had one; None before the first loss
        self._whole = False  # whether all of them must add up to what is in `.grad`
        self._print: Fingerprint | None = None

    def _parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters that are combined, by modality and under `REST`."""
        parts = {
            name: [owned.parameter for owned in self.modalities.trainable(name)]
            for name in self.modalities.names
        }
        if self.method.combines_rest:
            parts[REST] = [p for p in self.modalities.rest if p.requires_grad]
        return parts

    def backward(
        self,
        loss: Tensor,
        records: Sequence[Mapping[str, Tensor]],
        using: Callable[[Tensor], None],
    ) -> None:
        """Backpropagate a loss, and add the gradients of its terms, scaled as it is.

        Args:
            loss: what is to be backpropagated, scaled by the user or not.
            records: the terms of each loss that it was computed from.
            using: how to backpropagate. It may scale the loss further, as Accelerate does: the
                gradient that arrives at the loss says by how much.

        Raises:
            StepError: a term cannot be separated in this graph, or what is in `.grad` is not what
                was put there.
        """
        self._settle()
        own = [self._own(terms) for terms in records]
        if not any(own) and self._complete is None:
            using(loss)  # outside of its window the method has no terms
            return
        self.follow()
        parameters = [parameter for part in self._parts().values() for parameter in part]
        self._decide(loss, own, parameters)
        gradients = [self._gradients(loss, terms, parameters) for terms in own]
        if not self._complete and any(_sparse(of) for of in gradients):
            self._complete = True  # what remains of sparse gradients is not told by subtraction
            for of, terms in zip(gradients, own, strict=True):
                last = {name: term for name, term in terms.items() if name == self._last}
                of.update(self._gradients(loss, last, parameters))
        arrived: list[Tensor] = []
        handle = loss.register_hook(arrived.append)  # type: ignore[no-untyped-call]
        try:
            using(loss)
        finally:
            handle.remove()
        for of_terms in gradients:
            for name, buffers in of_terms.items():
                total = self._terms.setdefault(name, {})
                for parameter, gradient in buffers.items():
                    for scale in arrived:
                        gradient = gradient * scale
                    known = total.get(parameter)
                    total[parameter] = gradient if known is None else known + gradient
        self._print = Fingerprint({p: self._sum(p) for p in parameters})
        if self._whole:
            self._hooked.note(self._print.strange()[None].float())

    def _own(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms of the method, by their names there, and "joint" if it leads anywhere.

        A modality's own term is among them also where nothing leads on from it, as of one that a
        rank's batch lacks: every rank averages the same list.
        """
        prefix = f"{self.method.name}/"
        if not any(name.startswith(prefix) for name in terms):
            return {}
        return {
            name.removeprefix(prefix): term
            for name, term in terms.items()
            if name.startswith(prefix) or (name == "joint" and term.requires_grad)
        }

    def _decide(
        self, loss: Tensor, own: Sequence[Mapping[str, Tensor]], parameters: list[nn.Parameter]
    ) -> None:
        """Decide, at the first loss of a step, which term needs no pass of its own."""
        barrier = {term.grad_fn for terms in own for term in terms.values()} - {None}
        complete = reaches(loss, parameters, barrier)
        if self._complete is None:
            complete |= any(_there(parameter.grad) for parameter in parameters)
            # Each pass runs the hooks, and what they make of a sum need not be that of its terms.
            hooked = any(_hooked(parameter) for parameter in parameters)
            self._whole = hooked and not complete and ranks.world_size(None) == 1
            complete |= hooked
            half = any(p.dtype in (torch.float16, torch.bfloat16) for p in parameters)
            names = list(next(terms for terms in own if terms))
            self._complete = complete or half
            self._last = "joint" if "joint" in names else names[-1]
        elif complete and not self._complete:
            raise StepError(
                "balancer.backward: this loss has further terms, and an earlier one of the same "
                f"optimizer step had none, so that {type(self.method).__name__} cannot tell whose "
                "gradients are there: add the same terms to every loss of a step"
            )

    def _gradients(
        self, loss: Tensor, own: Mapping[str, Tensor], parameters: list[nn.Parameter]
    ) -> Buffers:
        """Return the gradient of every term that needs a pass of its own."""
        wanted = [name for name in own if self._complete or name != self._last]
        terms = {name: own[name] for name in wanted if own[name].requires_grad}
        found: Buffers = {name: {} for name in wanted}
        return found | self._passes.gradients(loss, terms, parameters) if terms else found

    def _sum(self, parameter: nn.Parameter) -> Tensor | None:
        """Return the sum of all that is buffered for a parameter."""
        of = [buffers[parameter] for buffers in self._terms.values() if parameter in buffers]
        return sum(of[1:], start=of[0]) if of else None

    def follow(self) -> None:
        """Multiply the buffers by what the user's loop has multiplied the gradients by since.

        Raises:
            StepError: it did something else to them.
        """
        if self._print is None:
            return
        factors, other = self._print.factors()
        self._changed.note(other[None].float())
        for buffers in self._terms.values():
            for parameter in list(buffers):
                if parameter not in factors:
                    del buffers[parameter]  # its gradient was cleared
                else:
                    buffers[parameter] = buffers[parameter] * factors[parameter]
        self._print = None

    def combine(self, group: dist.ProcessGroup | None) -> None:
        """Exchange the sum of the terms in `.grad` for the method's own combination.

        Raises:
            StepError: what is in `.grad` is not what was put there.
        """
        self._settle()
        if self._complete is None:
            return
        self.follow()
        parts = self._parts()
        self._average([p for part in parts.values() for p in part], group)
        for part, trainable in parts.items():
            parameters = [parameter for parameter in trainable if parameter.grad is not None]
            if parameters:
                self._exchange(part, parameters)
        self.forget()

    def _average(self, parameters: list[nn.Parameter], group: dist.ProcessGroup | None) -> None:
        """Average the buffers over the ranks: the same list on each, zeros where nothing came."""
        if ranks.world_size(group) == 1 or not parameters:
            return
        whole = torch.full((), float(bool(self._complete)), device=parameters[0].device)
        first = sorted(name for name in self._terms if name != self._last)
        self._averaged(first, parameters, group, [whole])
        if not self._complete:
            self._differing.note(whole[None])
            return
        if bool(whole < 1):  # waits for the device, in a case that is rare
            self._refuse_differing([1.0])
        self._averaged([self._last], parameters, group, [])

    def _averaged(
        self,
        names: list[str],
        parameters: list[nn.Parameter],
        group: dist.ProcessGroup | None,
        others: list[Tensor],
    ) -> None:
        flat = []
        for name in names:
            buffers = self._terms.setdefault(name, {})
            for parameter in parameters:
                # A copy: a gradient may be an expanded view, which cannot be written to.
                there = parameter in buffers
                buffer = buffers[parameter].clone() if there else torch.zeros_like(parameter)
                buffers[parameter] = buffer
                flat.append(buffer)
        ranks.average_([*flat, *others], group)

    def _settle(self) -> None:
        """Judge what an earlier step has noted on a device."""
        self._changed.settle()
        self._differing.settle()
        self._hooked.settle()

    def unreached(self) -> list[str]:
        """Return the modalities whose terms had gradients, and of which none is in `.grad`."""
        buffered = {parameter for buffers in self._terms.values() for parameter in buffers}
        return [
            name
            for name, of in self._parts().items()
            if name != REST and buffered.intersection(of) and all(p.grad is None for p in of)
        ]

    def _refuse_hooked(self, flags: list[float]) -> None:
        if any(flags):
            raise StepError(
                "hooks on parameters make of the gradient of a sum something else than of its "
                f"terms, and {type(self.method).__name__} combines these: clip or change gradients "
                "after balancer.modulate(), and take the hooks off"
            )

    def _refuse_changed(self, flags: list[float]) -> None:
        if any(flags):
            raise StepError(
                "balancer.modulate: the gradients were changed since balancer.backward by more "
                f"than one factor each, and {type(self.method).__name__} combines parts of them: "
                "clip by value or add to them after balancer.modulate(), or add to the loss"
            )

    def _refuse_differing(self, shares: list[float]) -> None:
        if any(shares):
            raise StepError(
                "the loss of one rank has further terms, or it had gradients before it, and "
                f"another's had none, so that {type(self.method).__name__} cannot tell whose "
                "gradients are there: add the same terms on every rank, 0 * term where one has none"
            )

    def _exchange(self, part: str, parameters: list[nn.Parameter]) -> None:
        total: list[Tensor] = [parameter.grad for parameter in parameters]  # type: ignore[misc]
        gradients = {
            name: [buffers[p] if p in buffers else torch.zeros_like(p) for p in parameters]
            for name, buffers in self._terms.items()
        }
        if not self._complete:
            rest = [gradient.clone() for gradient in total]
            for term in gradients.values():
                torch._foreach_sub_(rest, term)
            left = {self._last: rest}
            gradients = {**left, **gradients} if self._last == "joint" else {**gradients, **left}
        combined = self.method.combine(part, gradients)
        if combined is None:
            return
        if not self._complete:
            torch._foreach_copy_(total, combined)
            return
        for index, gradient in enumerate(total):  # one by one: some may be sparse
            for term in gradients.values():
                gradient -= term[index]
            gradient += combined[index]


def _hooked(parameter: nn.Parameter) -> bool:
    """Whether hooks of others than this package may change the gradient of a parameter."""
    hooks = [
        *(parameter._backward_hooks or {}).values(),
        *(getattr(parameter, "_post_accumulate_grad_hooks", None) or {}).values(),
    ]
    return any(not str(getattr(hook, "__module__", "")).startswith("equimodal.") for hook in hooks)


def _sparse(buffers: Buffers) -> bool:
    return any(gradient.is_sparse for of in buffers.values() for gradient in of.values())


def _there(gradient: Tensor | None) -> bool:
    """Whether there is a gradient already; one of zeros is none, where looking is free."""
    if gradient is None:
        return False
    return gradient.device.type != "cpu" or gradient.is_sparse or bool(gradient.any())
