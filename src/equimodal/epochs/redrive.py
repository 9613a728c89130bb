"""Drive the user's own data loader in another order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    Sampler,
    WeightedRandomSampler,
)

from equimodal.errors import MatchError, SetupError
from equimodal.system import ranks


def refuse_stream(loader: object) -> None:
    """Refuse a loader that cannot be driven in another order.

    Raises:
        SetupError: it is no DataLoader over a data set with a length and an index, or it means
            other samples than all of them once.
    """
    problem, remedy = None, "Pass a DataLoader over a map-style data set"
    if not isinstance(loader, DataLoader):
        problem = f"it is a {type(loader).__name__}, not a torch.utils.data.DataLoader"
    elif isinstance(loader.dataset, IterableDataset):
        problem = f"its data set {type(loader.dataset).__name__} is a stream without an index"
    elif type(loader).__iter__ is not DataLoader.__iter__:
        problem = f"its class {type(loader).__name__} has an __iter__ of its own"
        remedy = "Pass a plain DataLoader, and do to its batches in the loop what __iter__ does"
    elif loader.batch_sampler is None:
        problem = "it does not batch (batch_size=None)"
    elif not hasattr(loader.batch_sampler, "batch_size"):
        kind = type(loader.batch_sampler).__name__
        problem = f"its batch sampler {kind} does not say a batch size"
    else:
        problem = _meant_otherwise(loader)
        remedy = "Pass a DataLoader of all its data once, as with shuffle=True; the data may be a "
        remedy += "torch.utils.data.Subset"
    if problem is not None:
        raise SetupError(f"this loader cannot be driven in the method's order: {problem}. {remedy}")


def _meant_otherwise(loader: DataLoader[Any]) -> str | None:
    """Say in what a sampler differs from all samples once, which an order starts from.

    What a sampler leaves out may be held out. One that is told the epoch divides the samples among
    ranks, and its length is not looked into.
    """
    batches: Any = loader.batch_sampler
    if not _known(batches, BatchSampler):
        return (
            f"its batch sampler {type(batches).__name__} has an __iter__ of its own, and an order "
            "would put plain batches in place of those"
        )
    sampler = getattr(batches, "sampler", None)
    kind = type(sampler).__name__
    if isinstance(sampler, WeightedRandomSampler):
        return f"its sampler {kind} chooses some more often than others, which an order would not"
    drawn = len(sampler) if isinstance(sampler, Sized) else None
    samples = len(loader.dataset)  # type: ignore[arg-type]
    if drawn is not None and not hasattr(sampler, "set_epoch"):
        if drawn < samples // ranks.world_size():
            return (
                f"its sampler {kind} goes through {drawn} of {samples} samples, and an order goes "
                "through those as well that it leaves out"
            )
        if drawn > samples:
            return (
                f"its sampler {kind} draws {drawn} times from {samples} samples, and an epoch of "
                "an order ends after each was there once"
            )
    if getattr(sampler, "replacement", False):
        return f"its sampler {kind} draws with replacement, which an order would not"
    if isinstance(sampler, Sampler) and not _known(sampler, Sampler):
        return (
            f"its sampler {kind} chooses samples by an __iter__ of its own, and an order would "
            "choose in place of it"
        )
    if isinstance(sampler, Sequence) and len(set(sampler)) < len(sampler):
        return f"its sampler, a {kind}, names samples more than once, which an order would not"
    return None


def _known(sampler: object, base: type) -> bool:
    """Whether a sampler goes through samples by code that is known to take each once."""
    for kind in type(sampler).__mro__:
        if "__iter__" in vars(kind):
            return kind is base or kind.__module__.split(".")[0] in KNOWN
    return True


# Each sample once, or a rank's share of that. Lightning and Accelerate wrap samplers for ranks.
KNOWN = ("torch", "equimodal", "lightning", "pytorch_lightning", "accelerate")


def redriven(
    loader: DataLoader[Any], indices: Sequence[int], whole: bool = False
) -> DataLoader[Any]:
    """Return a loader of these samples in this order.

    It has the data set, workers, collate function, batch size and pinning of the user's; only the
    sampler is exchanged.

    Args:
        loader: the user's.
        indices: positions in its data set.
        whole: keep a last batch that is not full, which the user's loader may drop.
    """
    sampler: Any = loader.batch_sampler
    drops = getattr(sampler, "drop_last", False) and not whole
    return of_batches(loader, BatchSampler(list(indices), sampler.batch_size, drops))


def of_batches(loader: DataLoader[Any], batches: Any) -> DataLoader[Any]:
    """Return a loader of these batches, each a list of positions, as the user's loads its own."""
    workers: dict[str, Any] = {}
    if loader.num_workers:
        workers = {
            "prefetch_factor": loader.prefetch_factor,
            "multiprocessing_context": loader.multiprocessing_context,
        }
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        generator=loader.generator,
        **workers,
    )


def pieces(indices: Sequence[int], loader: DataLoader[Any]) -> Iterator[slice]:
    """Yield for each batch of a redriven loader which part of the indices it holds."""
    size: int = loader.batch_sampler.batch_size  # type: ignore[union-attr]
    for start in range(0, len(indices), size):
        yield slice(start, min(start + size, len(indices)))


def narrowed(
    present: Mapping[str, Tensor] | None, kept: Mapping[str, Tensor]
) -> Mapping[str, Tensor] | None:
    """Return which samples have a modality, where the order of the epoch leaves some out.

    Args:
        present: which have it in the data, shape ``(B,)``, bool, by name; or None.
        kept: in which the order of the epoch keeps it.
    """
    if present is not None and not isinstance(present, Mapping):
        raise MatchError(
            "present: expected a dict from modality to a mask of the samples that have it, such as "
            f"{{'audio': mask}}, found {type(present).__name__}"
        )
    masks = dict(present or {})
    for name, mask in kept.items():
        if not mask.all():
            masks[name] = masks[name] & mask.to(masks[name].device) if name in masks else mask
    return masks or present
