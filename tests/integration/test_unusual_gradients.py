"""Sparse gradients and complex weights: as dense and real ones, or refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional import tensor_std


class Bags(nn.Module):
    """Words and numbers; the words' embedding may have sparse gradients."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.text = nn.Sequential(nn.EmbeddingBag(20, 6, sparse=sparse), nn.Linear(6, 6))
        self.video = nn.Linear(5, 6)
        self.head = nn.Linear(12, 3)

    def forward(self, words: Tensor, video: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([self.text(words), self.video(video)], 1))
        return logits


def trained(sparse: bool, method: eq.Method) -> tuple[Tensor, dict[str, float]]:
    model = Bags(sparse)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = {"text": model.text, "video": model.video}
    balancer = eq.Balancer(method, model, encoders, model.head, optimizer, track_every=1, epochs=2)
    draws = torch.Generator().manual_seed(1)
    for _ in range(3):
        words = torch.randint(20, (8, 4), generator=draws)  # some come twice
        video = torch.randn(8, 5, generator=draws)
        target = torch.randint(3, (8,), generator=draws)
        balancer.backward(balancer.loss(model(words, video), target))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat([p.detach().flatten() for p in model.parameters()]), balancer.metrics()


@pytest.mark.parametrize(
    "make",
    [
        lambda: eq.OGM(0.8, parameters="all"),
        lambda: eq.OGM(0.8, parameters="all", space="update"),
        lambda: eq.AGM(),
        lambda: eq.MultiLoss(),
        lambda: eq.CGGM(),
    ],
)
def test_sparse_gradients_train_and_measure_as_dense_ones(make: object) -> None:
    (weights, metrics), (dense, expected) = (trained(s, make()) for s in (True, False))  # type: ignore[operator]
    torch.testing.assert_close(weights, dense, rtol=1e-5, atol=1e-7)
    assert metrics == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: eq.OGMGE(0.8), "TensorNoise() is added to whole gradients, and that of text.0"),
        (lambda: eq.GE(noise=eq.ElementNoise()), "is added to whole gradients"),
        (lambda: eq.MMPareto(), "MMPareto compares whole gradients, and one of encoders['text']"),
        (lambda: eq.InfoReg(), "InfoReg squares and pulls whole gradients"),
    ],
)
def test_what_needs_whole_gradients_refuses_sparse_ones(make: object, said: str) -> None:
    with pytest.raises(eq.StepError) as caught:
        trained(True, make())  # type: ignore[operator]
    assert said in str(caught.value)
    assert "sparse=False" in str(caught.value)


class Spectral(nn.Module):
    """A linear layer on complex numbers, and its real twin with the same arithmetic."""

    def __init__(self, complex_: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        pairs = torch.randn(6, 5, 2, dtype=torch.float64) / 3
        self.complex_ = complex_
        self.weight = nn.Parameter(torch.view_as_complex(pairs) if complex_ else pairs)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.complex_ else torch.view_as_complex(self.weight)
        return torch.view_as_real(x.to(weight.dtype) @ weight.T).flatten(1).tanh()


class Waves(nn.Module):
    def __init__(self, complex_: bool) -> None:
        super().__init__()
        self.audio = Spectral(complex_)
        torch.manual_seed(1)
        self.video = nn.Linear(5, 12).double()
        self.head = nn.Linear(24, 3).double()

    def forward(self, audio: Tensor, video: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([self.audio(audio), self.video(video)], 1))
        return logits


@pytest.mark.parametrize("space", ["gradient", "update"])
@pytest.mark.parametrize("noise", [eq.TensorNoise(), eq.ElementNoise()])
def test_complex_weights_are_pairs_of_real_ones(space: str, noise: eq.Noise) -> None:
    """Coefficients, norms and the very noise."""
    runs = []
    for complex_ in (True, False):
        model = Waves(complex_)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = eq.OGMGE(0.8, parameters="all", space=space, noise=noise)  # type: ignore[arg-type]
        encoders = {"audio": model.audio, "video": model.video}
        balancer = eq.Balancer(method, model, encoders, model.head, optimizer, track_every=1)
        draws = torch.Generator().manual_seed(1)
        for _ in range(3):
            audio, video = (torch.randn(8, 5, generator=draws).double() for _ in range(2))
            target = torch.randint(3, (8,), generator=draws)
            balancer.backward(balancer.loss(model(audio, video), target))
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
        weight = model.audio.weight.detach()
        runs.append((torch.view_as_real(weight) if complex_ else weight, balancer.metrics()))
    (weight, metrics), (real, expected) = runs
    torch.testing.assert_close(weight, real, rtol=1e-9, atol=1e-12)
    assert metrics == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("parts", [(3.0, 0.0), (0.0, 3.0), (3.0, 3.0)])
def test_the_deviation_of_complex_numbers_is_that_of_their_parts(
    parts: tuple[float, float],
) -> None:
    draws = torch.Generator().manual_seed(0)
    pairs = torch.randn(500, 2, generator=draws) * torch.tensor(parts)
    found = tensor_std(torch.view_as_complex(pairs))
    assert found.item() == pytest.approx(pairs.std().item(), rel=1e-5)
