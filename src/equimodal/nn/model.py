"""A model with an encoder per modality and a fusion head."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.nn.heads.fusion_head import FusionHead
from equimodal.nn.refusals import refuse_inputs, refuse_names


class Multimodal(nn.Module):
    """An encoder per modality and a head on their features, in the same order.

    Args:
        encoders: for each modality the module that encodes it.
        head: takes the features positionally, in the order of the encoders.

    Attributes:
        encoders: the encoders by name, an `nn.ModuleDict`.
        head: as given.

    Raises:
        SetupError: a name cannot name a submodule, or the names, their order or the widths of the
            encoders are not those of the head.

    >>> import equimodal as eq
    >>> import torch
    >>> from equimodal.nn import MLP, CNN1d, Concat, Multimodal
    >>> encoders = {"audio": CNN1d(in_channels=1, features=16), "text": MLP(inputs=8, features=32)}
    >>> widths = {name: encoder.features for name, encoder in encoders.items()}
    >>> model = Multimodal(encoders, Concat(widths, classes=6))
    >>> model(torch.randn(2, 1, 40), torch.randn(2, 8)).shape
    torch.Size([2, 6])
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    >>> balancer = eq.Balancer(
    ...     eq.OGMGE(alpha=0.8), model, dict(model.encoders.items()), model.head, optimizer
    ... )
    """

    def __init__(self, encoders: Mapping[str, nn.Module], head: nn.Module) -> None:
        super().__init__()
        if not isinstance(encoders, Mapping | nn.ModuleDict) or not encoders:
            raise SetupError(
                "Multimodal(encoders): expected a dict of modalities and their modules, such as "
                f'{{"audio": ResNet18(1), "visual": ResNet18(3)}}, found {encoders}'
            )
        refuse_names(self, "encoders", encoders)
        for name, encoder in encoders.items():
            if not isinstance(encoder, nn.Module):
                raise SetupError(
                    f"Multimodal(encoders[{name!r}]): expected a module, found {encoder!r}"
                )
        if isinstance(head, FusionHead):
            _refuse_misfit(encoders, head)
        self.encoders = nn.ModuleDict(dict(encoders.items()))
        self.head = head

    def forward(self, *inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Return the logits of the head.

        Args:
            inputs: what each encoder takes, in order; a tuple where it takes several arguments,
                such as a sequence and its mask.
        """
        refuse_inputs(self, self.encoders, inputs)
        features = [  # a named tuple, such as a PackedSequence, is one argument
            encoder(*given) if type(given) is tuple else encoder(given)
            for encoder, given in zip(self.encoders.values(), inputs, strict=True)
        ]
        logits: Tensor = self.head(*features)
        return logits


def _refuse_misfit(encoders: Mapping[str, nn.Module], head: FusionHead) -> None:
    """Refuse a head of other modalities, of another order, or of other widths."""
    if list(encoders) != list(head.widths):
        raise SetupError(
            f"Multimodal(head): {type(head).__name__} takes the features of "
            f"{', '.join(head.widths)}, but the encoders are {', '.join(encoders)}: give both the "
            "same modalities in the same order"
        )
    for name, encoder in encoders.items():
        features = getattr(encoder, "features", head.widths[name])
        if isinstance(features, int) and features != head.widths[name]:
            raise SetupError(
                f"Multimodal(head): {type(head).__name__} expects features of {name} of width "
                f"{head.widths[name]}, but its encoder returns {features}"
            )
