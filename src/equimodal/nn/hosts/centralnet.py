"""A central network that reads the branches of all modalities at every level."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equimodal.errors import SetupError, unknown
from equimodal.nn.heads.classifiers import Classifiers
from equimodal.nn.hosts.branch import Branch, branches_of, items_of, pooled, stages_of
from equimodal.nn.hosts.named import NamedHead
from equimodal.nn.initialisation import initialise
from equimodal.nn.refusals import refuse_inputs, refuse_sizes

CENTRAL = "central"


class Merge(nn.Module):
    r"""A sum with learned scalars, :math:`\sum_k \alpha_k h_k`, that starts as the mean.

    Args:
        terms: how many tensors are added.
    """

    def __init__(self, terms: int) -> None:
        super().__init__()
        refuse_sizes(self, terms=terms)
        self.scalars = nn.Parameter(torch.full((terms,), 1 / terms))

    def forward(self, *terms: Tensor) -> Tensor:
        """Return the sum; all terms have one shape."""
        shapes = {tuple(term.shape) for term in terms}
        if len(shapes) > 1 or len(terms) != len(self.scalars):
            raise SetupError(
                f"CentralNet: expected {len(self.scalars)} maps of one shape to merge, found "
                f"{[tuple(term.shape) for term in terms]}: let the branches agree at every stage"
            )
        return (torch.stack(terms, dim=-1) * self.scalars).sum(dim=-1)


class CentralHead(NamedHead):
    r"""The last merge and the classifiers of a `CentralNet`.

    .. math:: f = W (\alpha_c h_c + \sum_m \alpha_m h_m) + b, \quad u_m = W_m h_m + b_m

    Args:
        names: the modalities, in order.
        width: of all features.
        classes: C, the number of logits.
    """

    def __init__(self, names: tuple[str, ...], width: int, classes: int) -> None:
        super().__init__(dict.fromkeys(names, width), classes)
        self.merge = Merge(1 + len(names))
        self.classifier = nn.Linear(width, classes)
        self.branches = Classifiers(self.widths, classes)
        initialise(self.classifier)

    def forward(self, *, central: Tensor, **features: Tensor) -> Tensor:
        """Return the logits ``(B, C)`` of the central network.

        Args:
            central: what the central network returned, shape ``(B, width)``.
            features: of every modality, shape ``(B, width)``.
        """
        merged = self.merge(central, *self.ordered(features).values())
        logits: Tensor = self.classifier(merged)
        return logits

    def unimodal_logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return for each modality the logits of its own classifier, shape ``(B, C)``."""
        return self.branches.unimodal_logits(features)


class CentralNet(nn.Module):
    r"""Branches and a central network that reads them at every level (Vielzeuf et al., 2018).

    With :math:`h_m^i` the map of modality m after stage i, and L stages:

    .. math::
        h_c^2 = \psi_1(\sum_m \alpha_m^1 h_m^1), \quad
        h_c^{i+1} = \psi_i(\alpha_c^i h_c^i + \sum_m \alpha_m^i h_m^i), \quad
        f = W \overline{(\alpha_c^L h_c^L + \sum_m \alpha_m^L h_m^L)} + b

    The bar averages over positions. Every branch has a classifier of its own, whose loss is added:
    see `branch_loss`.

    Args:
        branches: for each modality its encoder: `CNN1d`, `CNN2d`, `CNN3d`, `ResNet18`, `MLP` or
            `Branch`. All have two or more stages, as many as the others, and maps of the same
            shape after each.
        classes: C, the number of logits.
        central: :math:`\psi_1` to :math:`\psi_{L-1}`, as a `Branch`; by default copies of the
            first modality's later stages, drawn anew by `initialise`.

    Attributes:
        branches: a `Branch` for each modality.
        merges: the learned sums before the head.
        central: as given.
        head: a `CentralHead`; takes the features by keyword, and ``central=``.

    Raises:
        SetupError: an argument is out of its range, or the branches do not fit each other.

    >>> import torch
    >>> from equimodal.nn import CNN1d
    >>> model = CentralNet({"accelerometer": CNN1d(3, 32), "gyroscope": CNN1d(3, 32)}, classes=7)
    >>> model(torch.randn(2, 3, 100), torch.randn(2, 3, 100)).shape
    torch.Size([2, 7])
    """

    def __init__(
        self, branches: Mapping[str, nn.Module], classes: int, *, central: Branch | None = None
    ) -> None:
        super().__init__()
        self.branches = branches_of(self, branches)
        if CENTRAL in self.branches:
            raise SetupError("CentralNet(branches): 'central' is the central network: rename it")
        found = items_of(self.branches)
        (name, first), *others = found
        for other, branch in others:
            if branch.channels != first.channels:
                raise SetupError(
                    f"CentralNet(branches): expected the channels of {name} after every stage, "
                    f"{first.channels}, found {branch.channels} for {other}"
                )
        if len(first.channels) < 2:
            raise SetupError("CentralNet(branches): expected two or more stages, found 1")
        if central is None:
            central = Branch(copy.deepcopy(list(first.stages[1:])), first.channels[1:])
            initialise(central)
        if central.channels != first.channels[1:]:
            raise SetupError(
                f"CentralNet(central): expected stages of {first.channels[1:]} channels, "
                f"found {central.channels}"
            )
        self.central = central
        modalities = len(self.branches)
        self.merges = nn.ModuleList(
            Merge(modalities + (level > 0)) for level in range(len(central.stages))
        )
        self.head = CentralHead(tuple(self.branches), first.channels[-1], classes)

    @property
    def encoders(self) -> dict[str, list[nn.Module]]:
        """The stages of every branch: the modules that belong to one modality alone."""
        return stages_of(self.branches)

    def encode(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the features of every branch and of ``"central"``, shape ``(B, C_L)``."""
        found = items_of(self.branches)
        refuse_inputs(self, self.branches, inputs)
        maps = list(inputs)
        central: list[Tensor] = []  # empty before the first merge
        for level in range(len(self.merges) + 1):
            maps = [branch.stages[level](x) for (_, branch), x in zip(found, maps, strict=True)]
            if level < len(self.merges):
                merged = self.merges[level](*central, *maps)
                central = [self.central.stages[level](merged)]
        features = dict(zip(self.branches, map(pooled, maps), strict=True))
        return {CENTRAL: pooled(central[0]), **features}

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logits ``(B, C)`` of the central network; one input per branch, in order."""
        logits: Tensor = self.head(**self.encode(*inputs))
        return logits

    def branch_loss(
        self,
        features: Mapping[str, Tensor],
        target: Tensor,
        weights: float | Mapping[str, float] = 1.0,
        criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    ) -> Tensor:
        r"""Return :math:`\sum_m \beta_m L(u_m, y)`, to be added to the loss of the logits.

        Args:
            features: what `encode` returned.
            target: as the criterion takes it.
            weights: beta: one for all modalities, or one for each by name, 1 where left out.
            criterion: loss of (logits, target).

        Returns:
            Shape ``()``.

        Raises:
            SetupError: a weight is of an unknown modality.
        """
        by_name = weights if isinstance(weights, Mapping) else dict.fromkeys(self.branches, weights)
        for name in by_name:
            if name not in self.branches:
                known = list(self.branches)
                raise SetupError("branch_loss(weights): " + unknown("modality", name, known))
        alone = self.head.unimodal_logits({name: features[name] for name in self.branches})
        losses = [by_name.get(name, 1.0) * criterion(u, target) for name, u in alone.items()]
        return torch.stack(losses).sum()
