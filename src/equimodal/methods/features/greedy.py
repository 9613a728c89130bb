"""Curation of greedy learning: a branch is cut off from the other while it learns too little."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equimodal.attach.capture import Hook
from equimodal.errors import MatchError, SetupError
from equimodal.evidence import Evidence
from equimodal.functional.greedy import speed_difference
from equimodal.method import Capabilities, Method
from equimodal.methods.features.gated_host import Gate, GatedHost
from equimodal.modalities import Modalities
from equimodal.planning import share
from equimodal.step import Step


class Greedy(Method):
    r"""Let the branch that leans on the other learn alone for some steps (Wu et al., ICML 2022).

    .. math::
        d = \log_{10} \frac{\mu^b_1}{\mu^m_1} - \log_{10} \frac{\mu^b_2}{\mu^m_2}, \quad
        \mu = \sum_t \frac{\sum_w \lVert g_w \rVert^2}{\sum_w \lVert w \rVert^2}

    For hosts with MMTM gates (`equimodal.nn.MMTM`) and a classifier per branch, of two modalities.
    The conditional learning speed of a modality compares what carries the other's information to it
    (b: its gates and the layers that all gates share) with its own branch (m). Where the speeds
    differ by more than a tolerance, the next steps are curated: the gates of the modality that
    learns more through the other (the first if d > 0) answer with their running mean, so that its
    branch has to do without. The loss is the sum of the branches' own.

    Args:
        tolerance: how far the speeds may differ before a curation, 0 or more.
        duration: optimizer steps that a curation takes, 1 or more.
        start: first epoch in which a curation may begin; speeds are summed from the first step. By
            default 2 in 300 of the training, as in the released code.

    Raises:
        SetupError: an argument is out of its range, or the model has no such gates.
    """

    name = "greedy"
    source = "Wu et al., ICML 2022"
    replaces_joint = True
    capabilities = Capabilities(compiled=False, most=2)
    modulates = False
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {
        "start": share(2, of=300, least=0)
    }

    def __init__(
        self, tolerance: float = 0.01, duration: int = 5, start: int | None = None
    ) -> None:
        super().__init__()
        if not (tolerance >= 0 and math.isfinite(tolerance)):
            raise SetupError(f"Greedy(tolerance): expected a number 0 or more, found {tolerance}")
        if duration < 1:
            raise SetupError(f"Greedy(duration): expected 1 step or more, found {duration}")
        if start is not None and start < 0:
            raise SetupError(f"Greedy(start): expected an epoch, 0 or more, found {start}")
        self.tolerance = tolerance
        self.duration = duration
        self.start = start
        self._host: GatedHost | None = None
        self._epoch = 0
        self._sums: Tensor | None = None  # of the gates of forwards that no loss has come from yet
        self._samples = 0
        self._proposed: dict[str, Tensor] = {}

    means: Tensor
    steps: Tensor
    bypass: Tensor
    main: Tensor
    left: Tensor
    curated: Tensor

    def attach(self, model: nn.Module, modalities: Modalities) -> Sequence[RemovableHandle]:
        self._host = GatedHost(model, modalities)
        if not any(hasattr(module, "unimodal_logits") for module in model.modules()):
            raise SetupError(
                "Greedy needs the logits of every branch: give the head of "
                f"{type(model).__name__} a method unimodal_logits(features), as equimodal.nn.MMTM's"
            )
        first = next(model.parameters()).detach()
        wide = first.new_zeros((), dtype=torch.promote_types(first.dtype, torch.float32))
        count = len(modalities.names)
        for name, value in {
            "means": wide.new_zeros(self._host.size),
            "steps": wide.new_zeros(()),
            "bypass": wide.new_zeros(count),
            "main": wide.new_zeros(count),
            "left": wide.new_zeros((), dtype=torch.long),
            "curated": wide.new_zeros((), dtype=torch.long),
        }.items():
            self.register_buffer(name, value)
        return [
            gate.module.register_forward_hook(Hook(functools.partial(self._answer, gate)))
            for gate in self._host.gates
        ]

    def objective(self, step: Step) -> dict[str, Tensor]:
        self._epoch = step.epoch
        head: Any = step.boundary
        if not hasattr(head, "unimodal_logits"):
            raise MatchError(
                f"Greedy: the head ({type(head).__name__}) has no method unimodal_logits(features),"
                " which gives the logits of every branch: name the one that has as head="
            )
        precision = next(head.parameters()).dtype
        logits = head.unimodal_logits({n: z.to(precision) for n, z in step.features.items()})
        losses = {name: step.loss(logits[name], modality=name) for name in self.names}
        return {"joint": step.logits.new_zeros(()), **losses}

    def measure(self, step: Step) -> dict[str, Tensor]:
        sums, samples = self._sums, self._samples
        self._sums, self._samples = None, 0
        if sums is None:
            sums = torch.zeros_like(self.means)
        return {"gates": sums, "samples": sums.new_full((), samples)}

    def coefficients(self, evidence: Evidence) -> None:
        """Take note of the step; no gradient is scaled."""
        assert self._host is not None
        curating = self.left > 0
        bypass, main = (
            torch.where(curating, past, past + now.to(past))
            for past, now in zip((self.bypass, self.main), self._host.speeds(), strict=True)
        )
        difference = speed_difference(bypass, main)
        begins = ~curating & (difference.abs() > self.tolerance)
        assert self.start is not None
        begins = begins & (self._epoch >= self.start)
        sums, samples = evidence.measured["gates"], evidence.measured["samples"]
        seen = (samples > 0).to(self.steps)
        mean = sums / samples.clamp(min=1)
        self._proposed = {
            "means": self.means + seen * (mean - self.means) / (self.steps + 1),
            "steps": self.steps + seen,
            "bypass": bypass,
            "main": main,
            "left": torch.where(begins, self.duration, (self.left - 1).clamp(min=0)),
            "curated": torch.where(begins, (difference < 0).long(), self.curated),
        }

    def commit(self) -> None:
        for name, value in self._proposed.items():
            setattr(self, name, value)
        self._proposed = {}

    def _answer(self, gate: Gate, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        """Add a gate to the running mean, and let the mean answer in its place in a curation."""
        if not (module.training and torch.is_grad_enabled()):
            return None
        if torch._C._current_graph_task_id() == -1:  # and not recomputed for the backward pass
            if self._sums is None:
                self._sums, self._samples = torch.zeros_like(self.means), 0
            self._sums[gate.place] += output.detach().sum(dim=0)
            self._samples += len(output) if gate.place.start == 0 else 0
        replaced = (self.left > 0) & (self.curated == gate.modality)
        return torch.where(replaced, self.means[gate.place].to(output), output)
