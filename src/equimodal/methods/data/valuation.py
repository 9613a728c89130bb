"""What samples are worth with some modalities left out: what both kinds of valuation share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from equimodal.epochs.run import Run
from equimodal.errors import MatchError, SetupError
from equimodal.functional.valuation import coalitions, contributions
from equimodal.method import Capabilities, Method, Order
from equimodal.noise import mix
from equimodal.planning import share
from equimodal.step import Shapes, Step

Correct = Callable[[Tensor, Any], Tensor]
ORDER, SUBSET = 101, 102  # so that draws for different purposes have different seeds


class Valuation(Method):
    """Values samples at the end of an epoch; lets some come again with one modality alone.

    A pass over the training data in its own order, in evaluation mode, gives for every sample the
    Shapley value of each modality: the head runs on every subset of the features, the others zero.
    Subclasses say which samples come again.

    Args:
        warm_up: epochs before the first that is resampled.
        correct: from logits and target to whether each sample is right, bool, shape ``(B,)``; by
            default whether the largest logit is that of the class.

    Raises:
        SetupError: `warm_up` is negative, or the logits have no largest and `correct` is not given.
    """

    source = "Wei et al., CVPR 2024"
    needs = frozenset({"training data", "sample identities"})
    capabilities = Capabilities(compiled=False, order="drawn")
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {"warm_up": share(5, of=60)}

    def __init__(self, warm_up: int | None, correct: Correct | None) -> None:
        super().__init__()
        if warm_up is not None and warm_up < 0:
            raise SetupError(
                f"{type(self).__name__}(warm_up): expected 0 or more epochs, found {warm_up}"
            )
        self.warm_up = warm_up
        self.correct = correct

    def build(self, shapes: Shapes) -> None:
        if self.correct is None and (len(shapes.logits) != 1 or shapes.logits[0] < 2):
            raise SetupError(
                f"{type(self).__name__}: expected logits of two or more classes, shape (B, C), "
                f"found (B, {', '.join(map(str, shapes.logits))}): say which predictions are right "
                "with correct=lambda logits, target: ..."
            )

    def again(self, samples: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Return which samples come again with each modality alone.

        Args:
            samples: size of the data set.
            generator: for what is chosen at random.

        Returns:
            For every modality positions in the data set, int64, shape ``(K,)``; nothing before the
            first valuation.
        """
        raise NotImplementedError

    def order(self, samples: int, epoch: int) -> Order | None:
        """Return all samples and those that come again, shuffled."""
        generator = torch.Generator().manual_seed(mix(self.seed, ORDER, epoch))
        assert self.warm_up is not None
        again = {} if epoch < self.warm_up else self.again(samples, generator)
        if not again:
            return None
        parts = [torch.arange(samples), *again.values()]
        indices = torch.cat(parts)
        of = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(p) for p in parts]))
        shuffled = torch.randperm(len(indices), generator=generator)
        of = of[shuffled]
        keep = {name: (of == 0) | (of == number) for number, name in enumerate(again, start=1)}
        return Order(indices[shuffled].tolist(), keep)

    def value(self, run: Run, samples: Sequence[int] | None = None) -> Tensor:
        """Return the contribution of every modality to every sample, shape ``(M, K)``, on the CPU.

        NaN for samples that the criterion ignores, and for a modality that a sample lacks. It is
        the same on every rank.

        Args:
            run: what the balancer offers between epochs.
            samples: positions in the data set; all of them by default.
        """
        assert run.train_loader is not None
        steps = run.steps(run.train_loader, identify=True, samples=samples)
        valued = [self._value(step) for step in steps]
        return run.shared(torch.cat(valued, dim=1)).cpu()

    def _value(self, step: Step) -> Tensor:
        judge = top_class if self.correct is None else self.correct
        absent = {name: torch.zeros_like(feature) for name, feature in step.features.items()}
        correct = []
        for members in coalitions(len(step.names))[1:].tolist():
            features = {
                name: (step.features if kept else absent)[name]
                for name, kept in zip(step.names, members, strict=True)
            }
            logits = step.logits if all(members) else step.head(features)
            correct.append(judge(logits, step.target))
            if correct[-1].shape != (step.size,) or correct[-1].dtype != torch.bool:
                raise MatchError(
                    f"{type(self).__name__}(correct): expected bool of shape ({step.size},), found "
                    f"{correct[-1].dtype} of shape {tuple(correct[-1].shape)}"
                )
        values = contributions(torch.stack(correct))
        for at, name in enumerate(step.names):
            if name in step.present:
                values[at].masked_fill_(~step.present[name].to(values.device), torch.nan)
        ignored = step.criterion.ignored(step.target)
        return values if ignored is None else values.masked_fill(ignored, torch.nan)


def top_class(logits: Tensor, target: Tensor) -> Tensor:
    """Return whether the largest logit is that of the class, bool, shape ``(B,)``.

    Args:
        logits: shape ``(B, C)``.
        target: classes of shape ``(B,)``, or their probabilities of shape ``(B, C)``.
    """
    return logits.argmax(dim=1) == (target.argmax(dim=1) if target.ndim == 2 else target)


def checked_samples(kind: str, valued: int, samples: int) -> None:
    """Refuse to resample other data than was valued."""
    if valued != samples:
        raise SetupError(
            f"{kind}: train_loader has a data set of {valued} samples, but that of the loader "
            f"given to balancer.batches has {samples}: give both the same data"
        )
