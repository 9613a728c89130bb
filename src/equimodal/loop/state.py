"""The state of a balancer, saved and restored."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from typing import Any

import torch

from equimodal.attach.sharding import is_sharded
from equimodal.errors import SetupError, StepError
from equimodal.evidence import EvidenceSum
from equimodal.loop.parts import Parts
from equimodal.step import Shapes

VERSION = 1


def save(parts: Parts) -> dict[str, Any]:
    """Return the state: tensors, numbers, strings, dicts and lists only."""
    if parts.running:
        raise StepError(
            "balancer.state_dict: a step is half done, and its weights may be moved: save after "
            "the loop over balancer.passes()"
        )
    shapes = None
    if parts.shapes is not None:
        shapes = {
            "features": parts.shapes.features,
            "logits": parts.shapes.logits,
            "dtype": str(parts.shapes.dtype).removeprefix("torch."),
        }
    state = {
        "version": VERSION,
        "modalities": list(parts.names),
        "seed": parts.seed,
        "epoch": parts.epoch,
        "steps": parts.steps,
        "shapes": shapes,
        "methods": {method.name: method.state_dict() for method in parts.methods},
        "scores": parts.scores.state_dict(),
        "own_optimizer": parts.own.state_dict(),
        "noise": parts.modulation.state,
        "evidence": parts.evidence.state_dict(),
    }
    return state if parts.attached.sharding is None else _packed(parts, state)


def _packed(parts: Parts, state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a sharded run: slices as they are, all else as bytes.

    torch's distributed checkpoint loads what the state of the balancer to be restored has entries
    for, and a fresh one has no modules of methods yet, nor what their optimizer remembers. So the
    entries are the same at any time.
    """
    if parts.evidence.micro_batches:
        raise StepError(
            f"balancer.state_dict: {parts.evidence.micro_batches} micro-batches were "
            "backpropagated since the last step, and each rank has evidence of its own: save a "
            "sharded run after optimizer.step()"
        )
    parts.modulation.complete_state()
    slices, noise = (
        {
            name: {key: value for key, value in values.items() if is_sharded(value) == sliced}
            for name, values in parts.modulation.state.items()
        }
        for sliced in (True, False)
    )
    buffer = io.BytesIO()
    torch.save({**state, "noise": noise}, buffer)
    return {
        "version": VERSION,
        "rest": buffer.getvalue(),
        "slices": {name: values for name, values in slices.items() if values},
    }


def _unpacked(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state that was packed, its slices sharded or whole; any other as it is."""
    if "rest" not in state:
        return state
    rest = torch.load(io.BytesIO(state["rest"]), map_location="cpu", weights_only=True)
    noise = {n: {**values, **state["slices"].get(n, {})} for n, values in rest["noise"].items()}
    return {**rest, "noise": noise}


def restore(parts: Parts, state: Mapping[str, Any]) -> None:
    """Restore what `save` returned, after checking that it fits."""
    if not isinstance(state, Mapping) or "version" not in state:
        found = list(state)[:5] if isinstance(state, Mapping) else type(state).__name__
        raise SetupError(
            "balancer.load_state_dict: expected what balancer.state_dict() returned, found "
            f"{found}: is it the state of the model or of the whole checkpoint?"
        )
    if state["version"] > VERSION:
        raise SetupError(
            f"this state has version {state['version']}, and this equimodal reads up to {VERSION}: "
            "install a newer one"
        )
    state = _unpacked(state)
    for what, found, expected in (
        ("modalities", list(state["modalities"]), list(parts.names)),
        ("methods", sorted(state["methods"]), [method.name for method in parts.methods]),
    ):
        if found != expected:
            raise SetupError(f"this state is of the {what} {found}, expected {expected}")
    state = copy.deepcopy(dict(state))  # what is restored must not change with what was saved
    if state["shapes"] is not None:
        device = next(parts.attached.bare_model.parameters()).device
        features = {name: tuple(shape) for name, shape in state["shapes"]["features"].items()}
        dtype = getattr(torch, state["shapes"]["dtype"])
        parts.make_modules(Shapes(features, tuple(state["shapes"]["logits"]), device, dtype))
    for method in parts.methods:
        method.load_state_dict(state["methods"][method.name])
    parts.scores.load_state_dict(state["scores"])
    parts.own.load_state_dict(state["own_optimizer"])
    parts.modulation.load_state(state["noise"])
    parts.ledger.evidence = EvidenceSum()
    parts.evidence.load_state_dict(state["evidence"])
    parts.ledger.restored = True
    parts.seed, parts.epoch, parts.steps = state["seed"], state["epoch"], state["steps"]
    parts.modulation.source.seed = state["seed"]
