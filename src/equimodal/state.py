"""The state of a balancer, saved and restored."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from equimodal.errors import SetupError
from equimodal.evidence import EvidenceSum
from equimodal.step import Shapes

if TYPE_CHECKING:
    from equimodal.balancer import Balancer

VERSION = 1


def save(balancer: Balancer) -> dict[str, Any]:
    """Return the state: tensors, numbers, strings, dicts and lists only."""
    shapes = None
    if balancer.shapes is not None:
        shapes = {
            "features": balancer.shapes.features,
            "logits": balancer.shapes.logits,
            "dtype": str(balancer.shapes.dtype).removeprefix("torch."),
        }
    return {
        "version": VERSION,
        "modalities": list(balancer.names),
        "seed": balancer.seed,
        "epoch": balancer.epoch,
        "steps": balancer.steps,
        "shapes": shapes,
        "methods": {method.name: method.state_dict() for method in balancer.methods},
        "scores": balancer.scores.state_dict(),
        "own_optimizer": balancer.own.state_dict(),
        "noise": balancer.modulation.state,
        "evidence": balancer.evidence.state_dict(),
    }


def restore(balancer: Balancer, state: Mapping[str, Any]) -> None:
    """Restore what `save` returned, after checking that it fits."""
    if state["version"] > VERSION:
        raise SetupError(
            f"this state has version {state['version']}, and this equimodal reads up to {VERSION}: "
            "install a newer one"
        )
    for what, found, expected in (
        ("modalities", list(state["modalities"]), list(balancer.names)),
        ("methods", sorted(state["methods"]), [method.name for method in balancer.methods]),
    ):
        if found != expected:
            raise SetupError(f"this state is of the {what} {found}, expected {expected}")
    state = copy.deepcopy(dict(state))  # what is restored must not change with what was saved
    if state["shapes"] is not None:
        device = next(balancer.attached.bare_model.parameters()).device
        features = {name: tuple(shape) for name, shape in state["shapes"]["features"].items()}
        dtype = getattr(torch, state["shapes"]["dtype"])
        balancer.make_modules(Shapes(features, tuple(state["shapes"]["logits"]), device, dtype))
    for method in balancer.methods:
        method.load_state_dict(state["methods"][method.name])
    balancer.scores.load_state_dict(state["scores"])
    balancer.own.load_state_dict(state["own_optimizer"])
    balancer.modulation.load_state(state["noise"])
    balancer.evidence = EvidenceSum()
    balancer.evidence.load_state_dict(state["evidence"])
    balancer.seed, balancer.epoch, balancer.steps = state["seed"], state["epoch"], state["steps"]
    balancer.modulation.source.seed = state["seed"]
