"""What the user's loop made of gradients between `backward` and `modulate`: one factor, or refused.

Whoever exchanges a sum of gradients for another combination of its parts has to know that the sum
is still what it was. Neither identity nor the count of changes tells: a loss scaler unscales
gradients past both, as does ``p.grad.data.mul_``. Two numbers do: the norm of a gradient, and its
product with the parts that are known. A factor (clipping by norm, unscaling, division by a number
of tokens) moves both alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

TOLERANCE = 1e-3  # of the product of the norms; rounding in single precision is far below


class Fingerprint:
    """Of the gradients that are there now.

    Args:
        parts: for each parameter that has a gradient what of it is known, or None.
    """

    def __init__(self, parts: Mapping[nn.Parameter, Tensor | None]) -> None:
        self.parameters = [parameter for parameter in parts if parameter.grad is not None]
        self.known = [
            None if parameter.grad is not None and parameter.grad.is_sparse else parts[parameter]
            for parameter in self.parameters
        ]
        self.norms, self.products, self.sizes = self._taken()

    def _taken(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return norms, products with what is known, and its norms, shape ``(P,)`` each."""
        gradients = [_flat(parameter.grad) for parameter in self.parameters]
        if not gradients:
            return torch.ones(0), torch.ones(0), torch.ones(0)
        norms = torch.stack(torch._foreach_norm(gradients))
        zero = norms.new_zeros(())
        products = [
            zero if known is None else torch.dot(gradient, _flat(known).to(gradient.dtype))
            for gradient, known in zip(gradients, self.known, strict=True)
        ]
        sizes = [zero if known is None else known.norm() for known in self.known]
        return norms, torch.stack(products).to(norms), torch.stack(sizes).to(norms)

    def strange(self) -> Tensor:
        """Return whether a gradient is not the very sum of what is known, shape ``()``, bool."""
        both = self.norms * self.sizes
        apart = (self.norms - self.sizes).abs() > TOLERANCE * self.norms
        apart |= (self.products - both).abs() > TOLERANCE * both
        return (apart & self.norms.isfinite() & self.sizes.isfinite()).any()

    def factors(self) -> tuple[dict[nn.Parameter, Tensor], Tensor]:
        """Return by what every gradient was multiplied since, and whether it was anything else.

        Returns:
            Factors of shape ``()``, by parameter, without those whose gradient is gone; and a flag
            of shape ``()``, bool.
        """
        there = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        if not there:
            return {}, torch.zeros((), dtype=torch.bool)
        of = [self.parameters[index] for index in there]
        now = Fingerprint(
            {parameter: self.known[i] for i, parameter in zip(there, of, strict=True)}
        )
        norms, products = _chosen(self.norms, there), _chosen(self.products, there)
        factor = torch.where(norms > 0, now.norms / norms, 1.0)
        apart = (now.products - factor * products).abs()
        other = apart > TOLERANCE * now.norms * now.sizes + torch.finfo(norms.dtype).tiny
        other &= factor.isfinite()  # what is not finite is skipped by a scaler, or was so before
        return dict(zip(of, factor.unbind(), strict=True)), other.any()


def _flat(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    flat = tensor.detach()
    if flat.is_sparse:  # the same rows may be there several times
        flat = flat.coalesce().values()
    return (torch.view_as_real(flat) if flat.is_complex() else flat).reshape(-1)


def _chosen(values: Tensor, indices: Sequence[int]) -> Tensor:
    return values if len(indices) == len(values) else values[list(indices)]
