"""The batches of a step once more, on weights that a method has moved, in the user's own words.

What a method needs of a second pass is the user's forward and backward, with all that is around
them: parts of a batch, a reducer, autocast and a scaler. So the user's loop runs twice, and what is
done between its passes and after them is done here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from equimodal.errors import StepError
from equimodal.loop.modulate import judge
from equimodal.loop.parts import Gradients, Parts
from equimodal.loop.replay import Replay
from equimodal.method import REST, Method
from equimodal.system.randomness import noted
from equimodal.update.optimizers import held


def passes(parts: Parts) -> Iterator[int]:
    """Yield the numbers of the passes over the batches of a step: 1, and 2 where a method asks.

    Between them the weights are moved, and afterwards they are put back, bit for bit, as are the
    buffers that the second pass has changed. It draws the random numbers of the first. However the
    loop is left, nothing stays moved.

    Args:
        parts: of the balancer.

    Raises:
        StepError: the passes of a step are over already, or this is within another such loop.
    """
    method = parts.repeating()
    if method is None:
        yield 1
        return
    _refuse_late(parts, method)
    model, groups = parts.attached.bare_model, _groups(parts)
    parameters = [parameter for group in groups.values() for parameter in group]
    devices = {parameter.device for parameter in parameters}
    repeat = noted(devices)
    parts.replay = replay = Replay((*parts.acting(), parts.scores))
    parts.running = 1
    try:
        yield 1
        if not parts.evidence.micro_batches:
            return  # the user's loop has left this step out
        judged = judge(parts)
        moves = _moves(method, groups, judged.of(method))
        if moves:
            first, own = _taken(parameters), _taken(parts.own.parameters)
            parts.ledger.drop()
            done = noted(devices)
            repeat()
            try:
                with _moved(moves), _kept(model), replay.again():
                    parts.running = 2
                    yield 2
                if not parts.evidence.micro_batches:
                    return
                _merge(method, groups, first)
                _put(parts.own.parameters, own)
            finally:
                done()
                if not parts.evidence.micro_batches:
                    parts.own.clear()
        parts.ledger.judged = judged
    except BaseException:
        if parts.running == 2:  # half of a step is none
            _taken(parameters)
            parts.own.clear()
            parts.ledger.drop()
        raise
    finally:
        _add(parts.earlier or {})
        parts.running, parts.replay, parts.earlier = 0, None, None
        parts.ledger.note()


def begin(parts: Parts) -> None:
    """Before the first backward pass of a step: set aside gradients that are there already.

    Not sooner, because the body of the loop may clear those of the step before.
    """
    if parts.running == 1 and parts.earlier is None:
        parts.earlier = _taken([p for group in _groups(parts).values() for p in group])


def _refuse_late(parts: Parts, method: Method) -> None:
    kind = type(method).__name__
    if parts.running:
        raise StepError(
            f"balancer.passes: {kind} is in its pass {parts.running} over a step already: do not "
            "put this loop into another one over balancer.passes()"
        )
    parts.ledger.drop_cleared()
    if parts.evidence.micro_batches:
        raise StepError(
            f"balancer.passes: the passes over this step are done, and {kind} runs all of its "
            "micro-batches again: put all of them into one loop over balancer.passes(), and call "
            "balancer.modulate() after it"
        )


def _groups(parts: Parts) -> dict[str, list[nn.Parameter]]:
    """Return the parameters of each encoder, and under `REST` all others that are trained."""
    modalities = parts.attached.modalities
    groups = {n: [o.parameter for o in modalities.trainable(n)] for n in modalities.names}
    of_model = dict.fromkeys(parts.attached.bare_model.parameters())
    others = [p for p in held(*parts.optimizers) if p not in of_model]  # of a loss of the user's
    groups[REST] = [p for p in (*modalities.rest, *others) if p.requires_grad]
    return groups


def _taken(parameters: Sequence[nn.Parameter]) -> Gradients:
    """Take gradients away: copies, since a reducer may write into the memory of its own."""
    taken = {}
    for parameter in parameters:
        if parameter.grad is not None:
            taken[parameter] = parameter.grad.detach().clone()
            parameter.grad = None
    return taken


@torch.no_grad()
def _put(parameters: Sequence[nn.Parameter], gradients: Mapping[nn.Parameter, Tensor]) -> None:
    for parameter in parameters:
        gradient = gradients.get(parameter)
        if gradient is None or parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad.copy_(gradient)


@torch.no_grad()
def _add(gradients: Gradients) -> None:
    """Add what was there before the first pass, of losses that the user backpropagated alone."""
    for parameter, gradient in gradients.items():
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad += gradient


def _moves(
    method: Method, groups: Mapping[str, Sequence[nn.Parameter]], evidence: object
) -> Gradients:
    """Return by how much each parameter is moved; of none, where there is no second pass."""
    reached = {name: [p for p in of if p.grad is not None] for name, of in groups.items()}
    gradients = {name: [_dense(p, method) for p in of] for name, of in reached.items()}
    with torch.no_grad():
        found = method.perturb(gradients, evidence)  # type: ignore[arg-type]
    moves: Gradients = {}
    for name, of in found.items():
        shapes = [tuple(p.shape) for p in reached.get(name, ())]
        if [tuple(move.shape) for move in of] != shapes:
            raise StepError(
                f"{type(method).__name__}.perturb: expected for {name!r} one displacement for each "
                f"of its {len(shapes)} gradients, shaped like them, found {len(of)}: of shapes "
                f"{[tuple(move.shape) for move in of][:4]}"
            )
        moves.update(zip(reached[name], of, strict=True))
    return moves


def _dense(parameter: nn.Parameter, method: Method) -> Tensor:
    gradient = parameter.grad
    assert gradient is not None
    if gradient.is_sparse:
        raise StepError(
            f"{type(method).__name__} moves weights along their gradients, and one is sparse: make "
            "the embedding with sparse=False"
        )
    return gradient


@contextlib.contextmanager
def _moved(moves: Gradients) -> Iterator[None]:
    """Move parameters in place, and put their very bits back."""
    kept = {parameter: parameter.detach().clone() for parameter in moves}
    try:
        with torch.no_grad():
            for parameter, move in moves.items():
                parameter.add_(move)
        torch.clear_autocast_cache()  # an autocast around the loop remembers weights as they were
        yield
    finally:
        with torch.no_grad():
            for parameter, value in kept.items():
                parameter.copy_(value)
        torch.clear_autocast_cache()


@contextlib.contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    """Put back what a forward does to buffers, such as the running statistics of BatchNorm."""
    kept = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, name, buffer, value in kept:
            if module._buffers.get(name) is not buffer:
                module._buffers[name] = buffer
            # BatchNorm writes past the count of changes, and a graph may hold a buffer by it.
            buffer.data.copy_(value)


@torch.no_grad()
def _merge(method: Method, groups: Mapping[str, Sequence[nn.Parameter]], first: Gradients) -> None:
    """Make of the gradients of both passes those of the step."""
    for name, group in groups.items():
        of = [p for p in group if p in first or p.grad is not None]
        before = [first[p] if p in first else torch.zeros_like(p) for p in of]
        after = [torch.zeros_like(p) if p.grad is None else p.grad for p in of]
        merged = method.merge(name, before, after)
        _put(of, dict(zip(of, merged, strict=True)))
