r"""Where unimodal logits come from: the part of OGM that depends on the model.

The evidence of a modality is its score :math:`s_m = \sum_i \exp(-\ell_i(u_m, y_i))`, with the
user's loss and the unimodal logits u. For cross-entropy this is the paper's sum of true-class
probabilities; for any other per-sample loss it is the same code.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from equimodal import functional
from equimodal.attach.features import Features
from equimodal.errors import MatchError, SetupError, unknown
from equimodal.readout import Readouts
from equimodal.step import Shapes, Step


class Scores(nn.Module):
    """How well each modality does alone: unimodal logits for one micro-batch.

    Args:
        temperature: divides the per-sample losses before they become scores,
            exp(-loss/temperature): a scale for losses that are no log-likelihood, such as a
            squared error.
    """

    cost = "nothing"

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise SetupError(f"temperature: expected a positive number, found {temperature}")
        self.temperature = temperature
        self.names: tuple[str, ...] = ()
        self._head: tuple[nn.Module | None] = (None,)  # in a tuple: not a submodule of this one

    @property
    def head(self) -> nn.Module | None:
        """The user's fusion head."""
        return self._head[0]

    def bind(self, names: tuple[str, ...], head: nn.Module | None) -> None:
        """Learn the modalities and the head, once, before the first step."""
        self.names = names
        self._head = (head,)

    def build(self, shapes: Shapes, seed: int) -> None:
        """Make modules whose sizes depend on the features, once shapes are known."""

    def logits(self, step: Step) -> dict[str, Tensor]:
        """Return for each modality its unimodal logits, shaped like the step's logits."""
        raise NotImplementedError

    def objective(self, step: Step) -> Tensor | None:
        """Return a loss that trains modules of its own, or None."""
        return None


class Split(Scores):
    """The exact split of a linear head: u_m = z_m W_m^T + b/M (Peng et al., CVPR 2022).

    Exact for a linear layer on concatenated features, also inside a module of the user's, and for
    heads that give unimodal logits themselves through a method `unimodal_logits(features)`. The
    user may have squeezed or flattened what the head returned: unimodal logits are then, too.
    """

    cost = "one product with the head's weight"

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self._linear: tuple[nn.Linear, ...] = ()  # in a tuple: not a submodule of this one
        self._order: tuple[str, ...] = ()
        self._compared = False

    def bind(self, names: tuple[str, ...], head: nn.Module | None) -> None:
        super().bind(names, head)
        self._linear, self._order, self._compared = (), (), False  # those of another model

    def finds(self, step: Step) -> bool:
        """Whether the head has an exact split, as far as this step shows."""
        if hasattr(self.head, "unimodal_logits"):
            return True
        if not self._linear and (found := find_linear(self.head, step)):
            layer, self._order = found
            self._linear = (layer,)
        return bool(self._linear)

    def logits(self, step: Step) -> dict[str, Tensor]:
        if not self.finds(step):
            raise MatchError(
                f"scores: the head {type(self.head).__name__} is no linear layer on concatenated "
                "features: use eq.Ablation() or eq.Probe(), or give the head a method "
                "unimodal_logits(features)"
            )
        if not self._linear:
            return _shaped(self._given(step), step)
        (linear,) = self._linear
        slices = weight_slices(linear, self._order, step.features)
        return _shaped(functional.split_linear(step.features, slices, linear.bias), step)

    def _given(self, step: Step) -> dict[str, Tensor]:
        """Return what the head's own method gives, if the user's logits are in the same order."""
        assert self.head is not None
        unimodal: dict[str, Tensor] = dict(self.head.unimodal_logits(step.features))  # type: ignore[operator]
        if not self._compared:
            same = all(logits.shape == step.logits.shape for logits in unimodal.values())
            if step.logits.ndim > 2 or not same:  # classes and positions may have changed places
                with torch.no_grad(), evaluation(self.head):
                    step.head(step.features)  # refuses logits that are not what the head returned
            self._compared = True
        return unimodal


class Ablation(Scores):
    """The head with the features of all other modalities replaced.

    The head runs in evaluation mode, so that its BatchNorm, dropout and random state are as if it
    had not run. For a model without a head (``head=None``), as with early fusion, the whole model
    runs, with what the encoders of the others returned replaced.

    Args:
        fill: what stands for the other features: zeros, or their mean over the micro-batch. With
            the mean, N micro-batches come close to one large batch, but do not equal it.
        temperature: see `Scores`.
    """

    cost = "a forward of the head (or model) per modality"

    def __init__(self, fill: Literal["zero", "mean"] = "zero", temperature: float = 1.0) -> None:
        super().__init__(temperature)
        if fill not in ("zero", "mean"):
            raise SetupError(unknown("fill", fill, ("zero", "mean")))
        self.fill = fill

    def extra_repr(self) -> str:
        return f"fill={self.fill!r}"

    def logits(self, step: Step) -> dict[str, Tensor]:
        with evaluation(step.boundary):
            return {
                kept: step.head(
                    {
                        name: feature if name == kept else self._filled(feature)
                        for name, feature in step.features.items()
                    }
                )
                for kept in step.names
            }

    def _filled(self, feature: Tensor) -> Tensor:
        if self.fill == "zero":
            return torch.zeros_like(feature)
        return feature.detach().mean(dim=0, keepdim=True).expand_as(feature)


class Probe(Scores):
    """Linear probes on detached features, trained alongside: any fusion, any model.

    Nothing flows back into the encoders. The probes are trained by an optimizer of the balancer's
    own, of the class of the user's.
    """

    cost = "one linear layer per modality, trained alongside"

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self.readouts = Readouts()

    def build(self, shapes: Shapes, seed: int) -> None:
        self.readouts.build(shapes, seed)

    def logits(self, step: Step) -> dict[str, Tensor]:
        detached = {name: feature.detach() for name, feature in step.features.items()}
        return self.readouts(detached)  # type: ignore[no-any-return]

    def objective(self, step: Step) -> Tensor | None:
        logits = step.unimodal
        losses = [step.loss(logits[name], modality=name) for name in step.names]
        return torch.stack(losses).sum()


class Function(Scores):
    """The user's own function, from the features of all modalities to the unimodal logits of each.

    Args:
        function: takes a dict of features, returns a dict of logits that the criterion accepts.
        temperature: see `Scores`.
    """

    cost = "the user's function"

    def __init__(
        self, function: Callable[[Features], Mapping[str, Tensor]], temperature: float = 1.0
    ) -> None:
        super().__init__(temperature)
        self.function = function

    def logits(self, step: Step) -> dict[str, Tensor]:
        logits = dict(self.function(step.features))
        if set(logits) != set(step.names):
            raise MatchError(
                f"scores: expected logits of {', '.join(step.names)} from the function, "
                f"found {', '.join(map(str, logits)) or 'none'}"
            )
        taken = step.criterion.outputs  # the function gives what the criterion takes
        return {name: taken.logits(each) for name, each in logits.items()}


class Auto(Scores):
    """The exact split where it is exact, else ablation; decided at the first step, then kept.

    Where zeros in place of the others make the head deaf to a modality, as in a product with gates,
    ablation replaces the others by their mean.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self.split = Split(temperature)
        self.ablation = Ablation(temperature=temperature)
        self.filled = Ablation("mean", temperature)
        self.chosen: Scores | None = None

    @property
    def cost(self) -> str:  # type: ignore[override]
        return self.chosen.cost if self.chosen else "decided at the first step"

    def bind(self, names: tuple[str, ...], head: nn.Module | None) -> None:
        if head is None:
            raise SetupError(
                "head=None: say how to score each modality alone, with scores=eq.Probe(), "
                "eq.Ablation() (which runs the whole model) or a function from features to "
                "unimodal logits"
            )
        super().bind(names, head)
        self.split.bind(names, head)
        self.ablation.bind(names, head)
        self.filled.bind(names, head)
        self.chosen = None

    def logits(self, step: Step) -> dict[str, Tensor]:
        if self.chosen is not None:
            return self.chosen.logits(step)
        chosen = self._choose(step)
        if step.logits.isfinite().any():  # else there was nothing to tell by
            self.chosen = chosen
        return chosen.logits(step)

    def _choose(self, step: Step) -> Scores:
        if self.split.finds(step):
            return self.split
        with torch.no_grad():
            ablated = self.ablation.logits(step).values()
        deaf = step.size > 1 and any(torch.allclose(u, u[:1].expand_as(u)) for u in ablated)
        return self.filled if deaf else self.ablation


@contextlib.contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode, and each of its modules back to its own mode after."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


def _shaped(unimodal: Mapping[str, Tensor], step: Step) -> dict[str, Tensor]:
    shape = step.logits.shape
    return {n: u if u.shape == shape else u.reshape(shape) for n, u in unimodal.items()}


@torch.no_grad()
def find_linear(head: nn.Module | None, step: Step) -> tuple[nn.Linear, tuple[str, ...]] | None:
    """Find a linear layer of the head that maps the concatenated features to the logits.

    It is taken for exact only if it reproduces the logits of this step, and if nothing stands
    beside it that may act otherwise in another step, such as BatchNorm or dropout.

    Returns:
        The layer and the order in which the features are concatenated, or None.
    """
    features = {name: feature.detach() for name, feature in step.gated.items()}  # to compare logits
    if head is None or len({feature.shape[:-1] for feature in features.values()}) > 1:
        return None
    width = sum(feature.shape[-1] for feature in features.values())
    leaves = [m for m in head.modules() if next(m.children(), None) is None]
    layers = [m for m in leaves if isinstance(m, nn.Linear) and m.in_features == width]
    others = [m for m in leaves if m not in layers and m is not head]
    if not all(isinstance(module, nn.Identity | nn.Flatten) for module in others):
        return None
    # The order of the head's inputs, unless it joins them in another: with few, all are tried.
    orders = itertools.permutations(features) if len(features) <= 4 else [tuple(features)]
    tolerance = 1e-4 if step.logits.dtype in (torch.float32, torch.float64) else 3e-2
    for order, layer in itertools.product(orders, layers):
        joined = torch.cat([features[name] for name in order], dim=-1)
        joined = joined.to(layer.weight.dtype)  # half where the forward ran under autocast
        logits = nn.functional.linear(joined, layer.weight, layer.bias)  # no hook sees it
        if logits.numel() == step.logits.numel() and torch.allclose(
            logits.reshape(step.logits.shape).float(),
            step.logits.float(),
            rtol=tolerance,
            atol=tolerance,
            equal_nan=True,
        ):
            return layer, order
    return None


def weight_slices(
    linear: nn.Linear, order: Sequence[str], features: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the part of a linear layer's weight that belongs to each modality, shape ``(C, d_m)``.

    Args:
        linear: as from `find_linear`.
        order: in which it takes the features side by side, as from there.
        features: for each modality its feature, shape ``(B, ..., d_m)``.
    """
    widths = [features[name].shape[-1] for name in order]
    return dict(zip(order, torch.split(linear.weight, widths, dim=1), strict=True))


def scores_from(given: object) -> Scores:
    """Return the scores that the user asked for: "auto", an object, or a function."""
    if isinstance(given, Scores):
        return given
    if given == "auto":
        return Auto()
    if callable(given):
        return Function(given)
    if isinstance(given, str):
        raise SetupError(unknown("scores", given, ["auto"]) + ", eq.Probe(), eq.Ablation(), ...")
    raise SetupError(f'scores: expected "auto", eq.Probe(), ... or a function, found {given!r}')
