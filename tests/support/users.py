"""A user's view: what changes in a plain training loop, and OGM written into it by hand."""

from __future__ import annotations

import ast
import copy
import difflib
import inspect
import math
import pickle
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import equimodal as eq
from support import slow

ALPHA = 0.8


def changed_lines(plain: Callable[..., Any], balanced: Callable[..., Any]) -> int:
    """How many lines one has to write or change to get from one loop to the other.

    A statement counts as one line however often it is wrapped. `yield balancer`, which lets the
    test look at every step, is not counted; the import, which both need not show, is.
    """
    before, after = _statements(plain), _statements(balanced)
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    return 1 + sum(
        max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in matcher.get_opcodes() if tag != "equal"
    )


def _statements(loop: Callable[..., Any]) -> list[str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(loop)))
    _, *body = ast.unparse(tree).splitlines()
    return [line.strip() for line in body if line.strip() != "yield balancer"]


def probabilities(logits: Tensor, target: Tensor) -> float:
    """Sum over the batch of the probability of the true class, one sample at a time."""
    return slow.score(logits.detach().double().numpy(), target.tolist())


Read = Callable[[nn.Module, Any], tuple[Tensor, Mapping[str, float]]]


def ogm_by_hand(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Any],
    read: Read,
    encoders: Mapping[str, Sequence[str]],
    update: bool = False,
) -> list[list[float]]:
    """Train as a user would who pastes OGM into the loop, and return all coefficients.

    Args:
        model: to train.
        optimizer: of the model.
        batches: what `read` takes.
        read: from model and batch to the loss, and to the score of every modality.
        encoders: dotted names of the modules of each modality.
        update: multiply the change that the optimizer makes, and not the gradient.
    """
    chosen = {
        name: [p for m in modules for p in model.get_submodule(m).parameters() if p.ndim >= 2]
        for name, modules in encoders.items()
    }
    history = []
    for batch in batches:
        optimizer.zero_grad()
        loss, scores = read(model, batch)
        loss.backward()
        ratios = slow.ratios([scores[name] for name in encoders])
        ks = [slow.thresholded(ratio, ALPHA) for ratio in ratios]
        before = {p: p.detach().clone() for of in chosen.values() for p in of}
        for k, parameters in zip(ks, chosen.values(), strict=True):
            for parameter in parameters if not update else ():
                if parameter.grad is not None:
                    parameter.grad = k * parameter.grad
        optimizer.step()
        for k, parameters in zip(ks, chosen.values(), strict=True):
            for parameter in parameters if update else ():
                with torch.no_grad():
                    parameter.copy_(before[parameter] + k * (parameter - before[parameter]))
        history.append(ks)
    return history


Loop = Callable[[nn.Module, torch.optim.Optimizer, Sequence[Any]], Any]


def assert_equals_the_loop_by_hand(
    model: nn.Module,
    make: Callable[[nn.Module], torch.optim.Optimizer],
    batches: Sequence[Any],
    balanced: Loop,
    read: Read,
    encoders: Mapping[str, Sequence[str]],
    update: bool = False,
) -> list[dict[str, float]]:
    """Train the model and a copy of it both ways, compare all parameters, and return the metrics.

    A coefficient must have been at work, so that equal parameters prove that it acts where it
    should and nowhere else.
    """
    copied = copy.deepcopy(model)
    history = ogm_by_hand(copied, make(copied), batches, read, encoders, update)
    metrics = [balancer.metrics() for balancer in balanced(model, make(model), batches)]
    assert min(k for ks in history for k in ks) < 0.9, "the test must see a coefficient at work"
    found = [[step[f"coefficient/{name}"] for name in encoders] for step in metrics]
    assert len(found) == len(history)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(history), rtol=1e-5, atol=1e-6)
    theirs = dict(copied.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter, theirs[name], rtol=1e-6, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}"
        )
    return metrics


def assert_evidence_moves(metrics: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
    for name in names:
        seen = [step[f"evidence/{name}"] for step in metrics]
        assert all(math.isfinite(value) and value > 0 for value in seen), (name, seen)
        assert max(seen) - min(seen) > 1e-3 * max(seen), (name, seen)


def assert_no_trace(model: nn.Module, balancer: eq.Balancer, keys: Sequence[str]) -> None:
    """A deep copy, a pickle and the state of a model that is attached know of no balancer."""
    assert list(model.state_dict()) == list(keys)
    copied = copy.deepcopy(model)
    assert list(copied.state_dict()) == list(keys)
    for each in (model, copied, balancer.export()):
        pickled = pickle.dumps(each).replace(b"equimodal.nn", b"")  # which a user may build on
        assert b"equimodal" not in pickled
    assert not any(module._forward_hooks for module in balancer.export().modules())
