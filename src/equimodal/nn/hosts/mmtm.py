"""Multimodal transfer modules between the branches of several modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.nn.hosts.branch import branches_of, items_of, pooled, stages_of
from equimodal.nn.hosts.named import BranchAverage
from equimodal.nn.initialisation import initialise
from equimodal.nn.refusals import refuse_inputs, refuse_names, refuse_sizes


class MMTMBlock(nn.Module):
    r"""Squeeze and excitation across modalities (Joze et al., CVPR 2020).

    .. math::
        h = \operatorname{relu}([\bar x_1, \dots, \bar x_M] W^\top + b), \quad
        g_m = \sigma(h W_m^\top + b_m), \quad
        x_m \leftarrow g_m \odot x_m

    with :math:`\bar x_m` the mean of the map over its positions. The maps may have any number and
    size of axes.

    Args:
        channels: for each modality the channels of its map; two or more.
        ratio: h is ``int(2 * sum of all channels / ratio)`` wide.

    Attributes:
        squeeze: from all means to h.
        gates: for each modality the module from h to its gate, shape ``(B, C_m)``, between 0 and
            1. A forward hook on ``gates["audio"]`` sees the gate, and may return another in its
            place, such as its running mean.

    Raises:
        SetupError: an argument is out of its range, or a map does not fit.

    >>> import torch
    >>> block = MMTMBlock({"audio": 8, "visual": 16})
    >>> maps = block({"audio": torch.randn(2, 8, 5, 5), "visual": torch.randn(2, 16, 3, 7, 7)})
    >>> maps["visual"].shape
    torch.Size([2, 16, 3, 7, 7])
    """

    def __init__(self, channels: Mapping[str, int], ratio: float = 4.0) -> None:
        super().__init__()
        if not isinstance(channels, Mapping) or len(channels) < 2:
            raise SetupError(
                "MMTMBlock(channels): expected a dict of two or more modalities and the channels "
                f'of their maps, such as {{"audio": 64, "visual": 64}}, found {channels}'
            )
        refuse_names(self, "channels", channels)
        refuse_sizes(self, **{f"channels[{name!r}]": size for name, size in channels.items()})
        total = sum(channels.values())
        if not 0 < ratio <= 2 * total:
            raise SetupError(
                f"MMTMBlock(ratio): expected above 0 and at most {2 * total}, twice the number of "
                f"all channels, found {ratio!r}"
            )
        hidden = int(2 * total / ratio)
        self.channels = dict(channels)
        self.squeeze = nn.Sequential(nn.Linear(total, hidden), nn.ReLU())
        self.gates = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(hidden, size), nn.Sigmoid())
                for name, size in channels.items()
            }
        )
        initialise(self)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the maps, each multiplied by its gate; shapes ``(B, C_m, ...)`` by modality."""
        for name, size in self.channels.items():
            shape = tuple(maps[name].shape) if name in maps else None
            if shape is None or len(shape) < 2 or shape[1] != size:
                raise SetupError(
                    f"MMTMBlock: expected a map of {name} of shape (B, {size}, ...), found "
                    f"{shape or ', '.join(map(str, maps))}"
                )
        squeezed = self.squeeze(torch.cat([pooled(maps[name]) for name in self.channels], dim=1))
        gated = {}
        for name, gate in self.gates.items():
            x = maps[name]
            gated[name] = x * gate(squeezed).view(x.shape[:2] + (1,) * (x.ndim - 2))
        return gated


class MMTM(nn.Module):
    """Branches with a classifier each, which talk through `MMTMBlock` (Joze et al., CVPR 2020).

    The prediction is the mean of the branches' logits.

    Args:
        branches: for each modality its encoder: `CNN1d`, `CNN2d`, `CNN3d`, `ResNet18`, `MLP` or
            `Branch`. Their stages are used, their pooling is not: every map is averaged over its
            positions at the end.
        classes: C, the number of logits.
        after: the stages, counted from 1, after which a block stands; by default all but the
            first, as far as the shortest branch goes.
        ratio: see `MMTMBlock`.

    Attributes:
        branches: a `Branch` for each modality.
        blocks: the blocks, by the number of the stage that they follow, as a string.
        head: a `BranchAverage`; its `unimodal_logits` are those of the branches.

    Raises:
        SetupError: an argument is out of its range, or an input does not fit.

    >>> import torch
    >>> from equimodal.nn import CNN2d
    >>> model = MMTM({"audio": CNN2d(1, 32), "visual": CNN2d(12, 32)}, classes=25)
    >>> model(torch.randn(2, 1, 48, 40), torch.randn(2, 12, 24, 36)).shape
    torch.Size([2, 25])
    >>> list(model.blocks)
    ['2', '3']
    """

    def __init__(
        self,
        branches: Mapping[str, nn.Module],
        classes: int,
        *,
        after: Sequence[int] | None = None,
        ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.branches = branches_of(self, branches)
        found = items_of(self.branches)
        shortest = min(len(branch.stages) for _, branch in found)
        after = range(2, shortest + 1) if after is None else after
        for stage in after:
            if not 1 <= stage <= shortest:
                raise SetupError(
                    f"MMTM(after): expected stages between 1 and {shortest}, the length of the "
                    f"shortest branch, found {stage!r}"
                )
        self.blocks = nn.ModuleDict(
            {
                str(stage): MMTMBlock({n: b.channels[stage - 1] for n, b in found}, ratio)
                for stage in sorted(set(after))
            }
        )
        self.head = BranchAverage({name: branch.channels[-1] for name, branch in found}, classes)

    @property
    def encoders(self) -> dict[str, list[nn.Module]]:
        """The stages of every branch: the modules that belong to one modality alone."""
        return stages_of(self.branches)

    def encode(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the features of every branch, shape ``(B, C_m)``, after all blocks."""
        found = items_of(self.branches)
        refuse_inputs(self, self.branches, inputs)
        maps = dict(zip(self.branches, inputs, strict=True))
        for stage in range(max(len(branch.stages) for _, branch in found)):
            for name, branch in found:
                if stage < len(branch.stages):
                    maps[name] = branch.stages[stage](maps[name])
            if (number := str(stage + 1)) in self.blocks:
                maps = self.blocks[number](maps)
        return {name: pooled(x) for name, x in maps.items()}

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits ``(B, C)`` of one input per branch, in order."""
        logits: Tensor = self.head(**self.encode(*inputs))
        return logits
