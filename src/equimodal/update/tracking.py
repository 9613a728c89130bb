"""What the last step looked like, kept as tensors until somebody asks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from equimodal import functional
from equimodal.attach.sharding import Sharding, local
from equimodal.evidence import Evidence
from equimodal.modalities import Modalities


class Tracker:
    """Evidence, coefficients and norms of the latest step, as tensors on their device.

    Args:
        modalities: the encoders.
        every: measure norms of gradients and updates every so many steps, 0 for never. Norms of
            updates need a copy of the encoders' parameters during the step.
        sharding: how the parameters are sharded, None if they are not. Norms are those of the
            whole tensors, on every rank.
    """

    def __init__(
        self, modalities: Modalities, every: int, sharding: Sharding | None = None
    ) -> None:
        self.modalities = modalities
        self.every = every
        self.sharding = sharding
        self.latest: dict[str, Tensor] = {}
        self._evidence: Evidence | None = None
        self._coefficients: dict[int, Tensor] = {}
        self._before: dict[nn.Parameter, Tensor] = {}

    def due(self, step: int) -> bool:
        """Whether this step is measured."""
        return self.every > 0 and step % self.every == 0

    def losses(self, terms: dict[str, Tensor]) -> None:
        """Note the terms of the loss, in place of those of an earlier one, which may be others."""
        for name in [name for name in self.latest if name.startswith("loss/")]:
            del self.latest[name]
        for name, term in terms.items():
            self.latest[f"loss/{name}"] = term.detach()

    def judged(self, evidence: Evidence, coefficients: Mapping[int, Tensor]) -> None:
        """Note the evidence, and the coefficients that follow from it by method."""
        self._evidence, self._coefficients = evidence, dict(coefficients)

    def gradients(self) -> None:
        """Note the norm of every encoder's gradient, as the backward pass left it."""
        gradients = [
            [
                (o.parameter, self._held(o.parameter.grad))
                for o in self.modalities.owned[name]
                if o.parameter.grad is not None
            ]
            for name in self.modalities.names
        ]
        self._note("gradient_norm", self._norms(gradients))

    def before_update(self, parameters: set[nn.Parameter]) -> None:
        """Copy the encoders' parameters that an optimizer holds, to see what it does to them."""
        for name in self.modalities.names:
            for owned in self.modalities.trainable(name):
                if owned.parameter in parameters:
                    self._before[owned.parameter] = self._held(owned.parameter).detach().clone()

    def updates(self) -> None:
        """Note the norm of every encoder's update, and its ratio to the mean of the others."""
        changes = {}
        for name in self.modalities.names:
            parameters = [o.parameter for o in self.modalities.owned[name]]
            of = [
                (p, self._held(p).detach() - self._before[p])
                for p in parameters
                if p in self._before
            ]
            if of:
                changes[name] = of
        if changes:
            found = self._norms(list(changes.values())).unbind()
            self.latest |= {f"update_norm/{n}": v for n, v in zip(changes, found, strict=True)}
        known = [self.latest.get(f"update_norm/{name}") for name in self.modalities.names]
        all_norms = [value for value in known if value is not None]
        if self._before and len(all_norms) == len(known):
            norms = torch.stack(all_norms)  # counted, since several may have stood still
            ratios = functional.discrepancy_ratio(norms.log(), torch.ones_like(norms))
            self._note("update_ratio", ratios)
        self._before.clear()

    def forget(self) -> None:
        """Drop what was copied of parameters that were not updated."""
        self._before.clear()

    def floats(self) -> dict[str, float]:
        """Return everything as floats; the only place where the device is waited for."""
        if self._evidence is not None:
            evidence = self._evidence
            self._note("evidence", evidence.log_means.exp())
            self._note("ratio", evidence.ratios)
            if self._coefficients:
                first, *rest = self._coefficients.values()
                self._note("coefficient", math.prod(rest, start=first))
        if not self.latest:
            return {}
        values = torch.stack([value.double().cpu() for value in self.latest.values()])
        return dict(zip(self.latest, values.tolist(), strict=True))

    def _held(self, tensor: Tensor) -> Tensor:
        if tensor.is_sparse:  # rows that occur twice count once, as their sum
            return tensor.coalesce().values()
        return tensor if self.sharding is None else local(tensor)

    def _norms(self, of: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> Tensor:
        """Return norms, shape ``(N,)``, each of tensors that come with their parameters."""
        if self.sharding is not None:
            return self.sharding.norms(of)
        devices = (o.parameter.device for owned in self.modalities.owned.values() for o in owned)
        device = next(devices, torch.device("cpu"))
        return torch.stack([norm([tensor for _, tensor in pairs], device) for pairs in of])

    def _note(self, what: str, values: Tensor) -> None:
        for name, value in zip(self.modalities.names, values.unbind(), strict=True):
            self.latest[f"{what}/{name}"] = value


# What a modality may have no value of: in a step without it, or beside others that stand still.
ABSENT = ("evidence", "ratio", "coefficient", "update_ratio")


def existing(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that have a value in their step, for means over steps.

    A step without a modality has no ratio, and one in which the others stood still has no ratio of
    updates. A loss or a norm that is not finite stays: it is one.
    """
    return {
        name: value
        for name, value in metrics.items()
        if math.isfinite(value) or name.split("/")[0] not in ABSENT
    }


def norm(tensors: list[Tensor], device: torch.device) -> Tensor:
    """Return the Euclidean norm of all elements together, shape ``()``; of none, 0 on a device."""
    if not tensors:
        return torch.zeros((), device=device)
    total: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
    return total
