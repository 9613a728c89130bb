"""A denoiser of sound and picture: a loss for each modality, and no logits."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from support import slow
from support.families import Denoiser
from support.users import changed_lines

STEPS, ALPHA = 4, 0.8


def batch(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, v = (torch.randn(6, width, generator=generator).double() for width in (4, 5))
    return 3 * a, v, 3 * a + 0.1, v + torch.randn(6, 5, generator=generator)


def losses(outputs: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    pairs = zip(("audio", "video"), outputs, targets, strict=True)
    return {name: (out - target).square().mean(1) for name, out, target in pairs}


def plain(model: Denoiser, optimizer: torch.optim.Optimizer) -> None:
    for number in range(STEPS):
        *noisy, a, v = batch(number)
        each = losses(model(*noisy), (a, v))
        loss = each["audio"].mean() + each["video"].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def balanced(model: Denoiser, optimizer: torch.optim.Optimizer, method: eq.Method) -> None:
    balancer = eq.Balancer(method, model, {"audio": [model.audio, model.audio_out], "video": [model.video, model.video_out]}, optimizer=optimizer, scores=eq.Given(temperature=2.0))  # fmt: skip
    for number in range(STEPS):
        *noisy, a, v = batch(number)
        each = losses(model(*noisy), (a, v))
        loss = balancer.loss(losses=each)
        balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()


def by_hand(model: Denoiser, optimizer: torch.optim.Optimizer, noisy_gradients: bool) -> set[float]:
    """OGM, with a loss for what a probability is minus the logarithm of."""
    moved = set()
    encoders = {"audio": [model.audio, model.audio_out], "video": [model.video, model.video_out]}
    names = {p: n for n, of in encoders.items() for part in of for p in part.parameters()}
    order = {
        name: [p for p in model.parameters() if names.get(p) == name] for name in encoders
    }  # as in the model
    for step in range(STEPS):
        *noisy, a, v = batch(step)
        each = losses(model(*noisy), (a, v))
        scores = [sum(math.exp(-float(x) / 2.0) for x in of.detach()) for of in each.values()]
        (each["audio"].mean() + each["video"].mean()).backward()
        ks = [slow.thresholded(ratio, ALPHA) for ratio in slow.ratios(scores)]
        moved.update(ks)
        number = -1
        for k, parameters in zip(ks, order.values(), strict=True):
            for p in parameters:
                number += 1
                if p.ndim < 2 or p.grad is None:
                    continue
                sigma = slow.standard_deviation(p.grad.numpy()) + 1e-8
                p.grad.mul_(k)
                if noisy_gradients:
                    p.grad.add_(slow.noise(p.shape, p.dtype, 0, step, number), alpha=sigma)
        optimizer.step()
        optimizer.zero_grad()
    return moved


def made() -> tuple[Denoiser, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Denoiser().double()
    return model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def test_five_lines_are_changed() -> None:
    assert changed_lines(plain, balanced) <= 5


def equal(model: nn.Module, other: nn.Module) -> None:
    twins = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, twins[name], rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize("noise", [False, True])
def test_it_equals_the_loop_by_hand(noise: bool) -> None:
    model, optimizer = made()
    balanced(model, optimizer, eq.OGMGE(ALPHA) if noise else eq.OGM(ALPHA))
    truth, of_truth = made()
    assert len(by_hand(truth, of_truth, noise)) > 2
    equal(model, truth)


def test_joint_training_is_plain_training() -> None:
    model, optimizer = made()
    balanced(model, optimizer, eq.Joint())
    truth, of_truth = made()
    plain(truth, of_truth)
    equal(model, truth)


@pytest.mark.parametrize("make", [eq.MultiLoss, eq.Ensemble, eq.MMPareto, eq.AGM, eq.DGL, eq.MLA])
def test_what_reads_logits_is_refused_by_name(make: Callable[[], eq.Method]) -> None:
    model, optimizer = made()
    with pytest.raises(
        (eq.SetupError, eq.MatchError), match=rf"{make.__name__}.*logits.*(take|give|use|pass)"
    ):
        balanced(model, optimizer, make())
