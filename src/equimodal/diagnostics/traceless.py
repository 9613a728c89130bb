"""A pass over data of which no trace is left, however it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.subject import Subject
from equimodal.epochs.randomness import restored
from equimodal.errors import MatchError, SetupError
from equimodal.step import Step


@contextlib.contextmanager
def passing(subject: Subject, loader: Iterable[Any]) -> Iterator[Iterator[tuple[Step, int]]]:
    """Give, within a `with` block, a step for every batch and how many samples came before it.

    Evaluation mode and no gradients, as `Subject.steps`; when the block is left, also by an
    exception, modes and random states are as before. As a consequence, a loader that shuffles gives
    one order in several passes.

    Args:
        subject: the model.
        loader: batches as the subject takes them.

    Raises:
        MatchError: the head on the very features does not give the logits of the model.
        SetupError: the loader gave nothing.
    """
    with (
        restored(subject.model, loader),
        torch.no_grad(),
        contextlib.closing(_counted(subject, loader)) as steps,
    ):
        yield steps


def run(step: Step, kept: Iterable[str], others: Mapping[str, Tensor]) -> Tensor:
    """Run the head on the features of some modalities, with others in place of the rest.

    Args:
        step: one batch.
        kept: the modalities whose features are those of the step.
        others: features for the rest, shapes ``(B, ...)``, by modality.

    Returns:
        Logits, shape ``(B, ...)``.
    """
    kept = set(kept)
    features = step.features
    # Copies, because a head may write into what it is given.
    return step.head({n: (features if n in kept else others)[n].clone() for n in step.names})


def refuse_iterator(loader: Iterable[Any]) -> None:
    """Refuse what can be passed over once only, where two passes are needed.

    Raises:
        SetupError: the loader is an iterator.
    """
    if isinstance(loader, Iterator):  # not iter(loader) is loader: a DataLoader draws at iter()
        raise SetupError(
            f"the data are passed over twice, and a {type(loader).__name__} can be passed over "
            "once: give a DataLoader or a list of batches"
        )


def _counted(subject: Subject, loader: Iterable[Any]) -> Generator[tuple[Step, int]]:
    start = 0
    for step in subject.steps(loader):
        if start == 0:
            _refuse_other_logits(step)
        yield step, start
        start += step.size
    if start == 0:
        raise SetupError("the loader gave no batch")


def _refuse_other_logits(step: Step) -> None:
    again, logits = run(step, step.names, {}).float(), step.logits.float()
    largest = float(logits.abs().nan_to_num().max())
    if not torch.allclose(again, logits, rtol=0, atol=1e-2 * largest, equal_nan=True):
        raise MatchError(
            "the head was run again on the features of a batch and returned other logits, up to "
            f"{(again - logits).abs().max():.3g} away. It must depend on its inputs alone: is "
            "something random in evaluation mode, or does it change the features in place?"
        )
