"""Balancing preference training by TRL's DPOTrainer. Needs the extra ``trl``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equimodal import functional
from equimodal.errors import SetupError
from equimodal.functional.precision import at_least_single
from equimodal.integrations.transformers import BalancedTrainer
from equimodal.system.extras import require
from equimodal.system.modes import evaluation
from equimodal.system.randomness import restored_states

require("trl", "trl", "peft")

from peft import PeftModel  # noqa: E402
from trl import DPOTrainer  # noqa: E402
from trl.trainer.utils import use_adapter  # noqa: E402

Inputs = dict[str, Any]
Alone = Callable[[Inputs], Inputs]
BESIDE = {"completion_mask", "ref_chosen_logps", "ref_rejected_logps"}  # not for the model


class BalancedDPOTrainer(BalancedTrainer, DPOTrainer):
    r"""TRL's DPOTrainer whose steps are balanced: its loss is trained on as it is.

    .. math:: s_m = \sum_i \sigma\Big(\beta \log \frac{\pi(y^w_i \mid x_{i,m})}
        {\pi_0(y^w_i \mid x_{i,m})} - \beta \log \frac{\pi(y^l_i \mid x_{i,m})}
        {\pi_0(y^l_i \mid x_{i,m})}\Big)

    The evidence of modality m is the probability of the preferences (DPO, equation 7) where model
    and reference are both given that modality alone, :math:`x_{i,m}`. At the start the model is the
    reference, so that all scores are equal, whatever is left out. This evidence is ours; DPO says
    nothing of modalities.

    Args:
        args: as the DPOTrainer takes them, as all others are.
        alone: for each modality a function from the inputs of a batch to those in which all others
            are blank: the same entries in the same shapes, in a dict of its own. What is answered
            stays as it was, whatever it does to "input_ids".
        kwargs: as `BalancedTrainer` and the DPOTrainer take them. The balancer that `balance`
            makes has ``scores=eq.Given()``.

    Raises:
        SetupError: the loss is not of equation 7, so that this evidence would be of another; or,
            when trained, `alone` has other modalities than the balancer, or changes shapes.
    """

    def __init__(self, *args: Any, alone: Mapping[str, Alone], **kwargs: Any) -> None:
        self.alone = dict(alone)
        super().__init__(*args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Return the optimizer, and attach a balancer of the modalities of `alone`."""
        optimizer = super().create_optimizer(*args, **kwargs)
        names = self._in_training().names
        if set(names) != set(self.alone):
            self._detach()
            raise SetupError(
                f"BalancedDPOTrainer(alone): expected a function for each of {', '.join(names)}, "
                f"found {', '.join(self.alone) or 'none'}"
            )
        return optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Inputs,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return TRL's loss of a micro-batch, shape ``()``, which carries the evidence."""
        theirs: Any = DPOTrainer.compute_loss  # the next but one
        found = theirs(self, model, inputs, return_outputs, num_items_in_batch)
        if self.balancer is None or not torch.is_grad_enabled():
            return found
        joint, *outputs = found if return_outputs else (found,)
        given = {name: self.preferences(inputs, name) for name in self.balancer.names}
        loss = self.balancer.loss(losses=given, joint=joint)
        return (loss, *outputs) if return_outputs else loss

    @torch.no_grad()
    def preferences(self, inputs: Inputs, modality: str | None = None) -> Tensor:
        """Return the loss of each pair, shape ``(B,)``, given all modalities or one alone.

        Runs model and reference once more each, in evaluation mode; draws of later steps are those
        that they would have been.

        Raises:
            SetupError: `alone` changes the shape of what the model is given, or an entry is gone.
        """
        given = inputs if modality is None else self._alone(inputs, modality)
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        model: Any = self.accelerator.unwrap_model(self.model)
        with restored_states(labels.device), self.accelerator.autocast():
            policy = self._log_probabilities(model, given, labels)
            if self.ref_model is not None:
                reference = self._log_probabilities(self.ref_model, given, labels)
            else:
                assert isinstance(model, PeftModel)  # all others have a reference beside
                with use_adapter(model, "ref" if "ref" in model.peft_config else None):
                    reference = self._log_probabilities(model, given, labels)
        return functional.preference_losses(policy, reference, self.beta)

    def _log_probabilities(self, model: Any, given: Inputs, labels: Tensor) -> Tensor:
        """Return those of whole answers, shape ``(2, B)``: chosen and rejected."""
        known = {name: value for name, value in given.items() if name not in BESIDE}
        with evaluation(model):  # which leaves checkpointing out too
            found = model(**known, labels=labels, use_cache=False, fused_lm_head=True).log_probs
        return at_least_single(found[:, 1 - labels.shape[1] :]).sum(dim=1).view(2, -1)

    def _alone(self, inputs: Inputs, modality: str) -> Inputs:
        given = self.alone[modality](dict(inputs))
        for name, value in inputs.items():
            if not isinstance(value, Tensor):
                continue
            found = tuple(given[name].shape) if name in given else "none"
            if found != tuple(value.shape):
                raise SetupError(
                    f"BalancedDPOTrainer(alone)[{modality!r}]: expected {name!r} of shape "
                    f"{tuple(value.shape)}, found {found}: blank what is left out, in its place"
                )
        answered = inputs["completion_mask"].bool()
        return given | {
            "input_ids": torch.where(answered, inputs["input_ids"], given["input_ids"]),
            "attention_mask": torch.where(
                answered, inputs["attention_mask"], given["attention_mask"]
            ),
        }

    def _misfits_of_loss(self) -> list[tuple[bool, str]]:
        other = "and evidence is of the loss that is trained: "
        return [
            (
                list(self.loss_types) != ["sigmoid"] or self.f_divergence_type != "reverse_kl",
                f"loss_type {list(self.loss_types)} with f_divergence_type "
                f"{self.f_divergence_type!r} is not the probability of a preference, {other}"
                "expected loss_type=['sigmoid'], f_divergence_type='reverse_kl'",
            ),
            (
                self.ld_alpha is not None or self.use_weighting,
                f"ld_alpha and use_weighting weigh the loss, {other}leave them out",
            ),
            (
                self.precompute_ref_logps,
                "precompute_ref_log_probs keeps the reference of the whole input alone, and what "
                "it says of each modality cannot be known: set it to False",
            ),
        ]
