"""Gradients scaled on their way into what each modality answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.functional.agm import agm_coefficient, confidence_ratio
from equimodal.method import Capabilities, Method
from equimodal.methods.gradient.apart import apart
from equimodal.methods.gradient.responses import Responses
from equimodal.methods.objective.counted import counted
from equimodal.methods.window import checked_window
from equimodal.modalities import Modalities
from equimodal.noise import mix
from equimodal.search import Log, searched
from equimodal.step import Shapes, Step
from equimodal.system import ranks

WHOLE = "whole"  # the term of the user's loss as it is


class AGM(Method):
    r"""Adaptive gradient modulation: slow what is further ahead than it used to be.

    .. math::
        f = \sum_m o_m, \qquad
        \frac{\partial L}{\partial o_m} \leftarrow \kappa_m \frac{\partial L}{\partial o_m}, \qquad
        \kappa_m = \exp(\alpha \min(\tau_m - r_m, cap))

    The response o of a modality is its Shapley value of the logits, from the head with the
    features of others replaced by zeros: any fusion. Above six modalities it is estimated, unless
    the logits are a sum of parts, from arcs of a random circle of the modalities. r compares the
    losses of the responses in this step, :math:`\tau` their running means before it (Li et al.,
    ICCV 2023). The factors act on all parameters, those of the head too, as the gradient reaches
    them through the responses.

    Args:
        alpha: how strongly a difference counts, 0 or more.
        cap: the largest difference that counts.
        floor: the smallest probability of the true class, exp(-loss), that a loss is taken with, at
            least 0 and below 1; 0 takes losses as they are, which suits losses that are no
            cross-entropy.
        window: first and last epoch in which it acts, counted from 0, both included; always by
            default.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "agm"
    search = searched(alpha=Log(0.2, 3.0))
    source = "Li et al., ICCV 2023"
    replaces_joint = True
    combines_rest = True
    modulates = False
    single_pass = True
    capabilities = Capabilities(backwards="M - 1, or 0")

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        cap: float = 10.0,
        floor: float = 1e-8,
        window: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        for what, value in (("alpha", alpha), ("cap", cap)):
            if not 0 <= value < math.inf:
                raise SetupError(f"AGM({what}): expected a number of 0 or more, found {value}")
        largest = math.log(torch.finfo(torch.float32).max)
        if not alpha * cap <= largest:
            raise SetupError(
                f"AGM: expected alpha * cap of at most {largest:.0f}, found {alpha * cap:g}: the "
                "largest factor, exp(alpha * cap), has to be a number in single precision"
            )
        if not 0 <= floor < 1:
            raise SetupError(f"AGM(floor): expected at least 0 and below 1, found {floor}")
        self.alpha = alpha
        self.cap = cap
        self.floor = floor
        self.window = checked_window(window, "AGM")
        self.register_buffer("running", torch.empty(0))
        self.register_buffer("steps", torch.empty(0))
        self._asked = Responses()
        self._layer: tuple[nn.Linear, ...] = ()  # in a tuple: not a submodule of this one
        self._widths: dict[str, int] = {}  # of the columns of a linear head, in their order
        self._modalities: Modalities | None = None
        self._taken = 0  # steps
        self._responses: Tensor | None = None  # of the micro-batch that is being measured
        self._factors: Tensor | None = None  # of the step that is being judged
        self._proposed: tuple[Tensor, Tensor] | None = None

    running: Tensor
    steps: Tensor

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        self._asked = Responses()  # what was found is of another model

    def attach(self, model: nn.Module, modalities: Modalities) -> Sequence[RemovableHandle]:
        self._modalities = modalities
        return ()

    def build(self, shapes: Shapes) -> None:
        self.running = torch.zeros(len(self.names), dtype=shapes.dtype)
        self.steps = torch.zeros(len(self.names), dtype=shapes.dtype)

    def objective(self, step: Step) -> dict[str, Tensor]:
        nothing = step.logits.new_zeros(())
        several = ranks.world_size(step.process_group) > 1
        if not step.single and self._splits(step):
            with torch.no_grad():
                self._responses = self._asked.of(step, 0)
            if several:  # all average the same list of terms
                return {"joint": _as_it_is(step), **dict.fromkeys(self.names, nothing)}
            return {"joint": nothing, WHOLE: _as_it_is(step)}
        responses = self._asked.of(step, mix(self.seed, self._taken))
        self._responses = responses.detach()
        if step.single:
            return {"joint": step.loss(self._scaled(step, responses))}
        joint, share = step.joint.detach(), 1 / len(self.names)
        terms = {}
        for name, response in zip(self.names, responses, strict=True):
            # The value of the whole, and the gradient of this response alone.
            logits = step.logits.detach() + (response - response.detach())
            terms[name] = step.loss(logits) - (1 - share) * joint
        if several and self._layer:
            nothing = 0 * step.joint  # another rank's is the whole
        return {"joint": nothing, **terms}

    def _splits(self, step: Step) -> bool:
        """Whether factors can wait until the gradients of the step are there.

        They can where a linear layer makes the logits, on features that each come from an encoder
        alone: then a modality's part of the logits leads to its encoder and to its columns of the
        layer, and to nothing else but the bias, of which all have the same share.
        """
        layer = self._asked.linear(step)
        if layer is None or not step.handed_on or torch.compiler.is_compiling():
            return False
        assert self._modalities is not None
        rest = set(self._modalities.rest)
        if any(p is not None and p not in rest for p in (layer.weight, layer.bias)):
            return False
        self._layer, self._widths = (layer,), self._asked.widths(step)
        return apart(step.features, self._modalities)

    def _scaled(self, step: Step, responses: Tensor) -> Tensor:
        """Return the logits with the gradient of every response scaled by its factor.

        The factors follow from the responses, and no other micro-batch of the step has a say in
        them: so they are known before the backward pass.
        """
        measured = {name: step.summed(of) for name, of in self._losses(step, responses).items()}
        factors = self._judged(measured)[0].view(-1, *[1] * step.logits.ndim)
        return (factors * responses + (1 - factors) * responses.detach()).sum(dim=0)

    def measure(self, step: Step) -> dict[str, Tensor]:
        assert self._responses is not None
        responses, self._responses = self._responses, None
        return self._losses(step, responses)

    def _losses(self, step: Step, responses: Tensor) -> dict[str, Tensor]:
        """Return the sum of the losses of every response, and of how many samples, ``(M,)``."""
        responses = responses.detach()
        losses = step.criterion.each_per_sample(list(responses), step.target)
        if self.floor:
            losses = losses.clamp(max=-math.log(self.floor))
        ignored = step.criterion.ignored(step.target)
        rows = counted(step, None if ignored is None else ~ignored)
        rows = torch.ones_like(losses, dtype=torch.bool) if rows is None else rows
        return {
            "losses": torch.where(rows, losses, 0).sum(dim=1),
            "counts": rows.sum(dim=1).to(losses.dtype),
        }

    def coefficients(self, evidence: Evidence) -> None:
        self._factors, self._proposed = self._judged(evidence.measured)

    def _judged(self, measured: Mapping[str, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the factors of a step, and the running means with it and how many there are."""
        counts = measured["counts"]
        losses = torch.where(counts > 0, measured["losses"] / counts, math.nan)
        seen = losses.isfinite()
        past = self.running.to(losses)
        reference = confidence_ratio(torch.where(seen, past, math.nan))
        ratio = confidence_ratio(losses)
        factors = agm_coefficient(ratio, reference, self.alpha, self.cap)
        steps = self.steps.to(losses) + seen
        mean = past + (losses - past) / steps.clamp(min=1)
        return factors, (torch.where(seen, mean, past), steps)

    def combine(self, modality: str, gradients: Mapping[str, list[Tensor]]) -> list[Tensor]:
        assert self._factors is not None
        factors = dict(zip(self.names, self._factors, strict=True))
        scaled = [
            self._by_place(modality, of, factors)
            if name in ("joint", WHOLE)
            else torch._foreach_mul(of, factors[name])
            for name, of in gradients.items()
        ]
        if len(scaled) == 1:
            return list(scaled[0])
        return [torch.stack(parts).sum(dim=0) for parts in zip(*scaled, strict=True)]

    def _by_place(
        self, modality: str, gradients: list[Tensor], factors: Mapping[str, Tensor]
    ) -> list[Tensor]:
        """Return gradients of the whole loss, scaled as the responses that lead to them."""
        if modality in factors:
            return list(torch._foreach_mul(gradients, factors[modality]))
        assert self._modalities is not None
        (layer,) = self._layer
        of = torch.stack([factors[name] for name in self._widths])
        pieces = zip(of, self._widths.values(), strict=True)
        columns = torch.cat([factor.expand(width) for factor, width in pieces])
        there = [p for p in self._modalities.rest if p.requires_grad and p.grad is not None]
        by_parameter = {layer.weight: columns, layer.bias: of.mean()}
        return [
            gradient * by_parameter[parameter] if parameter in by_parameter else gradient
            for parameter, gradient in zip(there, gradients, strict=True)
        ]

    def commit(self) -> None:
        if self._proposed is not None:
            (self.running, self.steps), self._proposed = self._proposed, None
            self._taken += 1

    def get_extra_state(self) -> dict[str, int]:
        return {"taken": self._taken}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._taken = int(state["taken"])

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}_extra_state", {"taken": 0})  # of versions without it
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _as_it_is(step: Step) -> Tensor:
    """Return the user's loss, with the gradient of the mean over all samples.

    The joint loss leaves out of its mean those that lost all modalities to gates.
    """
    if not step.thinned:
        return step.joint
    loss = step.loss(step.logits)
    return step.joint.detach() + (loss - loss.detach())
