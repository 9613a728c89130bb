"""One position in which a head is asked: all its numbers are random."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.attach.features import Features, Inputs, tensors
from equimodal.scores.numbers import Numbers
from equimodal.scores.question import Question
from equimodal.scores.substitution import mapped, substituted
from equimodal.system.randomness import states

Linear = tuple[nn.Linear, tuple[str, ...]]
ROUNDING = 1e-6  # of a head that computes a part in single precision, whatever it is given


@dataclass(frozen=True)
class Findings:
    """What holds of a head in one position.

    Attributes:
        affine: its logits add up over the modalities, and grow with the features.
        linear: one linear layer was given the features side by side, and its output handed on.
        heard: modalities that change the logits where zeros stand for the others.
        heard_by_means: the same where their means over the batch stand for the others.
    """

    affine: bool
    linear: Linear | None
    heard: frozenset[str]
    heard_by_means: frozenset[str]


class Position:
    """A head with other numbers.

    Args:
        question: the head, and how it was called.
        dtype: of all numbers; None for those of the head.
        training: the mode that it runs in.
        seed: of the numbers.
        positive: take positive numbers, for a head that takes logarithms or roots.
        moved: move its buffers too, and what else it was given: what is zero now need not stay so.
    """

    def __init__(
        self,
        question: Question,
        dtype: torch.dtype | None,
        training: bool,
        seed: int,
        positive: bool,
        moved: bool,
    ) -> None:
        self.question, self.dtype, self.training, self.moved = question, dtype, training, moved
        self.numbers = Numbers(seed, positive)
        self.features: Features = {
            name: self._random_like(feature)
            for name, feature in question.layout.read(question.inputs).items()
        }
        self._known: dict[int, Tensor] = {}
        self._inputs = _each(question.inputs, self._kept)
        self._device = next(iter(self.features.values())).device
        self._drew = False

    def findings(self, tolerance: float) -> Findings:
        """Return what holds here.

        Args:
            tolerance: relative to how much the logits change with the features.

        Raises:
            ArithmeticError: no answer is a number.
        """
        zeros = {name: torch.zeros_like(feature) for name, feature in self.features.items()}
        with self._watched() as calls:
            whole = self.answer(self.features)
        linear = self._linear(calls, whole)
        nothing = self.answer(zeros)
        # On the other side of zero, where a ReLU answers otherwise, unless that is forbidden.
        factor = 0.3 if self.numbers.positive else -1.7
        other = self.answer({name: factor * feature for name, feature in self.features.items()})
        alone = {n: self.answer({**zeros, n: z}) for n, z in self.features.items()}
        answers = torch.stack([whole, nothing, other, *alone.values()])
        usable = answers.isfinite().all(dim=0)
        if not bool(usable.any()):
            raise ArithmeticError("its answers are not finite")
        whole, nothing, other, *each = answers[:, usable].unbind()
        response = _largest(whole - nothing)
        near = tolerance * response + ROUNDING * float(answers[:, usable].abs().max())
        added = torch.stack(each).sum(dim=0) - (len(each) - 1) * nothing
        grown = nothing + factor * (whole - nothing)
        affine = not self._drew and bool(usable.all())
        affine &= bool((added - whole).abs().max() <= near)
        affine &= bool((grown - other).abs().max() <= near)
        heard = self._heard(tolerance)
        silent = [name for name in alone if name not in heard]
        by_means = frozenset(n for n in silent if self._heard_by_means(n, tolerance))
        return Findings(affine, linear if affine else None, heard, by_means)

    def by_rows(self, tolerance: float) -> bool:
        """Whether two sets of rows in one call are answered as in a call each."""
        other = {
            name: self._random_like(feature)
            for name, feature in self.question.layout.read(self.question.inputs).items()
        }
        both = {name: torch.cat([self.features[name], other[name]]) for name in other}
        apart = [self.answer(features).flatten() for features in (self.features, other)]
        expected, found = torch.cat(apart), self.answer(both).flatten()
        if self._drew or found.shape != expected.shape or not bool(expected.isfinite().all()):
            return False
        near = tolerance * _largest(expected - expected.mean()) + ROUNDING * _largest(expected)
        return bool((found - expected).abs().max() <= near)

    def given_side_by_side(self) -> Linear | None:
        """Return the linear layer that makes the logits, where features cannot be replaced."""
        inputs = _each(self.question.inputs, self._random_like)
        self.features = self.question.layout.read(inputs)
        with self._watched() as calls:
            whole = self._run(inputs)
        return None if self._drew else self._linear(calls, whole)

    def answer(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the logits on features."""
        given = {name: feature.clone() for name, feature in features.items()}
        return self._run(self.question.layout.write(_each(self._inputs, Tensor.clone), given))

    def _run(self, inputs: Inputs) -> Tensor:
        before = states(self._device)
        with substituted(self.question.modules, self._stand_in, self.training):
            output = self.question.run(inputs)
        self._drew |= states(self._device) != before
        leaves = dict(tensors(output))
        place = self.question.outputs.get(self.training)
        if place not in leaves and len(leaves) != 1:
            mode = "training" if self.training else "evaluation"
            raise ValueError(f"in {mode} mode it does not return its logits in the same place")
        logits = (
            next(iter(leaves.values()))
            if place is None
            else leaves.get(place, next(iter(leaves.values())))
        )
        return logits if logits.dtype == torch.float64 else logits.float()

    def _heard(self, tolerance: float) -> frozenset[str]:
        """Return the modalities that are heard where zeros stand for the others.

        A bias in place of what is gated lets a modality through, whatever it is at present.
        """
        if self.training:  # ablation runs in evaluation mode
            return frozenset(self.features)
        zeros = {name: torch.zeros_like(feature) for name, feature in self.features.items()}
        whole, nothing = self.answer(self.features), self.answer(zeros)
        alone = {n: self.answer({**zeros, n: z}) for n, z in self.features.items()}
        near = tolerance * _largest(whole - nothing)
        return frozenset(n for n, logits in alone.items() if _largest(logits - nothing) > near)

    def _heard_by_means(self, name: str, tolerance: float) -> bool:
        means = {n: z.mean(dim=0, keepdim=True).expand_as(z) for n, z in self.features.items()}
        if len(self.features[name]) < 2:
            return True  # the mean of one sample is the sample itself
        logits = self.answer({**means, name: self.features[name]})
        if logits.ndim == 2 and logits.shape[1] > 1:  # no class is told from another by a constant
            logits = logits - logits.mean(dim=1, keepdim=True)
        spread = float((logits - logits.mean(dim=0)).abs().max())
        return spread > tolerance * float(logits.abs().max()) + ROUNDING

    # ------------------------------------------------------------------ linear layers

    @contextlib.contextmanager
    def _watched(self) -> Iterator[list[tuple[nn.Linear, Tensor, Tensor]]]:
        """Note what plain linear layers are given and return, within a `with` block."""
        calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

        def note(layer: Any, args: tuple[Any, ...], output: Any) -> None:
            if len(args) == 1 and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                calls.append((layer, args[0], output.clone()))

        handles = [
            module.register_forward_hook(note)
            for module in self.question.modules
            if isinstance(module, nn.Linear)
            and type(module).forward is nn.Linear.forward
            and "weight" in module._parameters  # not made of others in each forward
        ]
        try:
            yield calls
        finally:
            for handle in handles:
                handle.remove()

    def _linear(
        self, calls: list[tuple[nn.Linear, Tensor, Tensor]], whole: Tensor
    ) -> Linear | None:
        """Find the layer that was given the very features, and whose output is the logits."""
        for layer, given, returned in calls:
            if (
                sum(layer is other for other, _, _ in calls) > 1
                or returned.numel() != whole.numel()
            ):
                continue
            order = _order(given, self.features)
            if order and torch.equal(returned.to(whole.dtype).flatten(), whole.flatten()):
                return layer, order
        return None

    # ------------------------------------------------------------------ numbers

    def _dtype(self, tensor: Tensor) -> torch.dtype:
        if self.dtype is None or not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor.dtype
        return self.dtype.to_complex() if tensor.is_complex() else self.dtype

    def _random_like(self, tensor: Tensor) -> Tensor:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor.detach().clone()
        return self.numbers.like(tensor, self._dtype(tensor))

    def _kept(self, tensor: Tensor) -> Tensor:
        """Return a copy of what is no parameter: as it is, or moved up."""
        copied = tensor.detach().to(self._dtype(tensor), copy=True)
        if self.moved and copied.is_floating_point():
            copied += self.numbers.like(copied, copied.dtype).abs()  # a variance stays positive
        return copied

    def _stand_in(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self._known:
            self._known[id(tensor)] = (
                self._parameter(tensor) if isinstance(tensor, nn.Parameter) else self._kept(tensor)
            )
        known = self._known[id(tensor)]
        # What the head overwrites is as before in the next answer.
        return known if isinstance(tensor, nn.Parameter) else known.clone()

    def _parameter(self, parameter: Tensor) -> Tensor:
        if not (parameter.is_floating_point() or parameter.is_complex()):
            return parameter.detach().clone()  # quantised
        inputs = parameter[0].numel() if parameter.ndim > 1 and len(parameter) else 1
        return self.numbers.like(parameter, self._dtype(parameter), max(inputs, 1) ** -0.5)


def _largest(values: Tensor) -> float:
    """Return the largest magnitude among the numbers that are finite."""
    return float(values[values.isfinite()].abs().max()) if bool(values.isfinite().any()) else 0.0


def _each(tree: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return nested tuples, lists and dicts with each tensor replaced."""
    if isinstance(tree, Tensor):
        return function(tree)
    return mapped(tree, lambda value: _each(value, function))


def _order(given: Tensor, features: Features) -> tuple[str, ...] | None:
    """Return in which order a tensor holds the features side by side, None if it does not."""
    order: list[str] = []
    start = 0
    left = dict(features)
    while left:
        for name, feature in left.items():
            width = feature.shape[-1] if feature.ndim else 0
            piece = given[..., start : start + width]
            if piece.shape == feature.shape and torch.equal(piece, feature.to(piece.dtype)):
                order.append(name)
                start += width
                del left[name]
                break
        else:
            return None
    return tuple(order) if start == given.shape[-1] else None
