"""Frozen is what only the replaced joint loss reaches: not a backbone that unimodal losses go
through, nor what another loss of the user's trains."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq

REPLACING: dict[str, Callable[[], eq.Method]] = {
    "aug": eq.AUG,
    "ensemble": eq.Ensemble,
    "iprm": eq.IPRM,
    "lfm": eq.LFM,
    "midas": lambda: eq.MIDAS(warm_up=3),
    "mla": eq.MLA,
    "pretraining": lambda: eq.Pretraining(3),
    "reconboost": eq.ReconBoost,
    "unimodal": lambda: eq.Unimodal("audio"),
}


class Shared(nn.Module):
    """A backbone that both modalities go through, a decoder, and a branch that is trained apart."""

    def __init__(self, recompute: bool | None = None) -> None:
        super().__init__()
        self.audio, self.visual = nn.Linear(5, 16), nn.Linear(6, 16)
        self.backbone, self.head = nn.Linear(16, 16), nn.Linear(32, 4)
        self.decoder, self.apart = nn.Linear(16, 5), nn.Linear(5, 1)
        self.recompute = recompute

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, second = (self.through(f) for f in (self.audio(audio), self.visual(visual)))
        logits = self.head(torch.cat([first, second], dim=1))
        return logits, self.decoder(first), self.apart(audio)

    def through(self, feature: Tensor) -> Tensor:
        feature = feature.relu()
        if self.recompute is None:
            return self.backbone(feature)  # type: ignore[no-any-return]
        return checkpoint(self.backbone, feature, use_reentrant=self.recompute)  # type: ignore[no-any-return]


def data() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(8, 5, generator=generator)
    visual = torch.randn(8, 6, generator=generator)
    return audio, visual, torch.randint(4, (8,), generator=generator)


def moved(
    method: eq.Method, extra: bool = True, recompute: bool | None = None, keep: bool = False
) -> dict[str, float]:
    """Return how far each part moves in three steps with momentum and weight decay."""
    torch.manual_seed(0)
    model, (audio, visual, target) = Shared(recompute), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    loader = DataLoader(TensorDataset(audio, visual, target), 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    balancer = eq.Balancer(
        method,
        model,
        {"audio": model.audio, "visual": model.visual},
        model.head,
        optimizer,
        train_loader=loader,
        val_loader=loader,
        epochs=3,
        features={"audio": slice(0, 16), "visual": slice(16, 32)},
    )
    for _ in range(3):
        logits, reconstructed, apart = model(audio, visual)
        loss = balancer.loss(logits, target)
        if extra:
            loss = loss + F.mse_loss(reconstructed, audio) + apart.square().mean()
        balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad(set_to_none=not keep)
    balancer.detach()
    return {
        part: (model.state_dict()[f"{part}.weight"] - before[f"{part}.weight"]).norm().item()
        for part in ("audio", "backbone", "decoder", "apart", "head")
    }


@pytest.mark.parametrize("keep", [False, True], ids=["gradients of None", "gradients of zero"])
@pytest.mark.parametrize("name", REPLACING)
def test_what_another_loss_reaches_is_trained(name: str, keep: bool) -> None:
    found = moved(REPLACING[name](), keep=keep)
    assert found.pop("head") == 0.0, "the joint loss alone would have trained it"
    assert all(distance > 1e-3 for distance in found.values()), found


@pytest.mark.parametrize("name", REPLACING)
def test_what_nothing_reaches_stays(name: str) -> None:
    found = moved(REPLACING[name](), extra=False, keep=True)
    assert found["head"] == found["decoder"] == found["apart"] == 0.0
    assert found["backbone"] > 1e-3


def test_what_is_recomputed_is_seen_by_its_gradients() -> None:
    found = moved(eq.Ensemble(), recompute=False)
    assert found["head"] == 0.0
    assert found["backbone"] > 1e-3


def test_the_gradient_of_a_shared_backbone_is_that_of_the_loss() -> None:
    """No method touches what belongs to no modality, but through the terms of its loss."""
    torch.manual_seed(0)
    model, (audio, visual, target) = Shared(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = {"audio": model.audio, "visual": model.visual}
    for method in (eq.OGMGE(0.8), eq.MLA(), eq.Ensemble(), eq.MultiLoss()):
        with eq.Balancer(
            method,
            model,
            encoders,
            model.head,
            optimizer,
            features={"audio": slice(0, 16), "visual": slice(16, 32)},
        ) as balancer:
            loss = balancer.loss(model(audio, visual)[0], target)
            (truth,) = torch.autograd.grad(loss, model.backbone.weight, retain_graph=True)
            balancer.backward(loss)
            balancer.modulate()
            torch.testing.assert_close(model.backbone.weight.grad, truth)
            optimizer.zero_grad()
