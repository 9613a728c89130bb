"""Gradients scaled on their way into what each modality answers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.functional.agm import agm_coefficient, confidence_ratio, shapley_responses
from equimodal.method import Capabilities, Method
from equimodal.methods.objective.counted import counted
from equimodal.methods.window import checked_window
from equimodal.scores import evaluation
from equimodal.search import Log, searched
from equimodal.step import Shapes, Step


class AGM(Method):
    r"""Adaptive gradient modulation: slow what is further ahead than it used to be.

    .. math::
        f = \sum_m o_m, \qquad
        \frac{\partial L}{\partial o_m} \leftarrow \kappa_m \frac{\partial L}{\partial o_m}, \qquad
        \kappa_m = \exp(\alpha \min(\tau_m - r_m, cap))

    The response o of a modality is its Shapley value of the logits, from the head with the
    features of others replaced by zeros: any fusion. r compares the losses of the responses in this
    step, :math:`\tau` their running means before it (Li et al., ICCV 2023). The factors act on
    all parameters, those of the head too, as the gradient reaches them through the responses.

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
    capabilities = Capabilities(backwards="M - 1")

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
        self._responses: Tensor | None = None  # of the micro-batch that is being measured
        self._factors: Tensor | None = None  # of the step that is being judged
        self._proposed: tuple[Tensor, Tensor] | None = None

    running: Tensor
    steps: Tensor

    def build(self, shapes: Shapes) -> None:
        self.running = torch.zeros(len(self.names), dtype=shapes.dtype)
        self.steps = torch.zeros(len(self.names), dtype=shapes.dtype)

    def objective(self, step: Step) -> dict[str, Tensor]:
        responses = self.responses(step)
        self._responses = responses.detach()
        if step.single:
            return {"joint": step.loss(self._scaled(step, responses))}
        joint, share = step.joint.detach(), 1 / len(self.names)
        terms = {}
        for name, response in zip(self.names, responses, strict=True):
            # The value of the whole, and the gradient of this response alone.
            logits = step.logits.detach() + (response - response.detach())
            terms[name] = step.loss(logits) - (1 - share) * joint
        return {"joint": step.logits.new_zeros(()), **terms}

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
        scaled = [torch._foreach_mul(of, factors[name]) for name, of in gradients.items()]
        return [torch.stack(parts).sum(dim=0) for parts in zip(*scaled, strict=True)]

    def commit(self) -> None:
        if self._proposed is not None:
            (self.running, self.steps), self._proposed = self._proposed, None

    def responses(self, step: Step) -> Tensor:
        """Return the response of every modality, shape ``(M, *logits)``; they sum to the logits."""
        everything = 2 ** len(step.names) - 1
        with evaluation(step.boundary):  # BatchNorm and dropout of the head do not notice
            coalitions = [
                step.head(
                    {
                        name: feature if number >> index & 1 else torch.zeros_like(feature)
                        for index, (name, feature) in enumerate(step.gated.items())
                    }
                )
                for number in range(1, everything)
            ]
        return shapley_responses(torch.stack([*coalitions, step.logits]))
