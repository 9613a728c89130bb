r"""What a head is, told by its function and not by its present weights or the first batch.

The head is asked in generic position: random parameters and features in double precision, in
evaluation and in training mode. What holds there holds of the function: weights that start at zero,
gates that are closed in this step and batches of one sample say nothing. The user's modules, inputs
and random states are as before afterwards.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch

from equimodal.errors import MatchError
from equimodal.scores.position import Findings, Linear, Position
from equimodal.scores.question import Question
from equimodal.system.randomness import restored_states

# Relative to how much the logits change with the features. A function that is not affine misses it
# by far in generic position.
TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-3}
DRAWS = 2


@dataclass(frozen=True)
class Structure:
    """What a head is.

    Attributes:
        affine: whether its logits are a constant plus a linear map of each modality's feature.
        linear: the linear layer that is given all features side by side and makes the logits, and
            the order of the features, where there is one.
        silenced: modalities that it does not hear where zeros stand for the others.
        mute: those of them that means over the batch do not make heard either.
    """

    affine: bool
    linear: Linear | None = None
    silenced: tuple[str, ...] = ()
    mute: tuple[str, ...] = ()


def ask(question: Question) -> Structure:
    """Ask a head what it is.

    Raises:
        MatchError: it cannot be asked, or its features cannot be replaced; the message says why.
    """
    device = next(iter(question.layout.read(question.inputs).values())).device
    failed: Exception | None = None
    with torch.no_grad(), restored_states(device):
        for dtype in (torch.float64, torch.float32, None):
            try:
                with _precision(device.type, dtype):
                    return _asked(question, dtype)
            except MatchError:
                raise
            except Exception as error:  # whatever a forward of the user's may raise
                failed = failed or error
    reason = (str(failed).splitlines() or [""])[0][:200]
    raise MatchError(
        f"scores: this head ({question.name}) cannot be asked what it does with random features "
        f"({type(failed).__name__}: {reason}): give scores=, such as eq.Ablation() or eq.Probe()"
    ) from failed


def by_rows(question: Question, training: bool) -> bool:
    """Whether every row of a head's answer follows from the same row of its features alone.

    Twice as many rows must give twice the answers, in one mode, whatever the rows are.
    """
    device = next(iter(question.layout.read(question.inputs).values())).device
    with torch.no_grad(), restored_states(device):
        for dtype in (torch.float64, torch.float32, None):
            try:
                with _precision(device.type, dtype):
                    tolerance = TOLERANCES.get(dtype, 0.0) if dtype else _own_tolerance(question)
                    return all(
                        Position(question, dtype, training, draw, False, draw > 0).by_rows(
                            tolerance
                        )
                        for draw in range(DRAWS)
                    )
            except Exception:  # whatever a forward of the user's may raise: the next, or none
                continue
    return False


def _asked(question: Question, dtype: torch.dtype | None) -> Structure:
    tolerance = TOLERANCES.get(dtype, 0.0) if dtype else _own_tolerance(question)
    try:
        question.layout.write(question.inputs, question.layout.read(question.inputs))
    except MatchError:
        linear = _side_by_side(question, dtype)
        if linear is None:
            raise
        return Structure(True, linear)
    found: list[Findings] = []
    names = set(question.layout.read(question.inputs))
    heard: set[str] = set()
    by_means: set[str] = set()
    affine = True
    for training in (False, True):
        for draw in range(DRAWS):
            try:
                here = _found(question, dtype, training, draw, tolerance)
            except MatchError:
                raise
            except Exception:
                if not training:
                    raise
                affine = False  # a module that computes otherwise in training, as BatchNorm does
                break
            found.append(here)
            if not training:  # as ablation runs
                heard |= here.heard
                by_means |= here.heard_by_means
            affine &= here.affine
        if not affine and not training and heard == names:
            break
    linears = {here.linear for here in found}
    (linear,) = linears if affine and len(linears) == 1 else (None,)
    silenced = tuple(name for name in question.layout.read(question.inputs) if name not in heard)
    return Structure(affine, linear, silenced, tuple(n for n in silenced if n not in by_means))


def _found(
    question: Question, dtype: torch.dtype | None, training: bool, draw: int, tolerance: float
) -> Findings:
    """Ask in the first position that the head runs in."""
    failed: Exception | None = None
    # Some numbers must be positive, and some buffers are no numbers to be moved.
    for positive, moved in ((False, draw > 0), (False, False), (True, False)):
        try:
            return Position(question, dtype, training, draw, positive, moved).findings(tolerance)
        except MatchError:
            raise
        except Exception as error:
            failed = failed or error
    assert failed is not None
    raise failed


def _side_by_side(question: Question, dtype: torch.dtype | None) -> Linear | None:
    found = {
        Position(question, dtype, training, draw, False, draw > 0).given_side_by_side()
        for training in (False, True)
        for draw in range(DRAWS)
    }
    (linear,) = found if len(found) == 1 else (None,)
    return linear


def _own_tolerance(question: Question) -> float:
    """Return how far a head is off that computes in a precision of its own choice."""
    features = question.layout.read(question.inputs).values()
    numbers = [*features, *(p for m in question.modules for p in m.parameters(recurse=False))]
    half = any(number.dtype in (torch.float16, torch.bfloat16) for number in numbers)
    half |= any(torch.is_autocast_enabled(number.device.type) for number in numbers)
    return 5e-2 if half else 1e-3


def _precision(device: str, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    """Return where a head computes in a precision, as a context manager."""
    if dtype is None or not torch.is_autocast_enabled(device):
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=torch.get_autocast_dtype(device), enabled=False)
