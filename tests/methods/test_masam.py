"""MASAM against a loop that takes one loss after the other, against released numbers, and its edges."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional import along, displacement, progress
from equimodal.methods.gradient.masam import MASAM
from support.classifiers import ByHand
from support.worlds import World, batch, train, weights

SETTINGS = {"radius": 0.7, "weight": 0.6, "momentum": 0.8}


def gradient(loss: Tensor, module: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(module.parameters()), retain_graph=True))


def by_hand(
    hand: ByHand, batches: list[tuple[Tensor, ...]], radius: float, weight: float, momentum: float
) -> list[int]:
    """Plain numbers, one parameter after the other; who was moved in each step."""
    moved, mean, last = [], [math.nan] * 9, [math.nan] * 9
    for step, each in enumerate(batches):
        *alone, joint = hand.losses(each)
        scores, moves = [], []
        for m, encoder in enumerate(hand.model.encoders.values()):
            loss = alone[m].item()
            old = mean[m]
            mean[m] = loss if step == 0 else momentum * old + (1 - momentum) * loss
            decrease = 0.0 if step == 0 else max(0.0, last[m] - mean[m])
            last[m] = loss
            own, shared = gradient(alone[m], encoder), gradient(joint, encoder)
            cosines, direction = [], []
            for u, g in zip(own, shared, strict=True):
                product = float((u * g).sum())
                cosines.append(product / (float(u.norm()) * float(g.norm())))
                share = product / float((g * g).sum())
                direction.append(g if product < 0 else share * g)
            agreement = sum(cosines) / len(cosines)
            scores.append(weight * decrease + (1 - weight) * agreement)
            length = math.sqrt(sum(float((d * d).sum()) for d in direction))
            kappa = agreement if agreement > 0 else 1.0
            moves.append([radius * kappa * d / length for d in direction])
        who = max(range(len(scores)), key=scores.__getitem__)
        moved.append(who)
        hand.backward(sum(alone) + joint)  # type: ignore[arg-type]
        kept = {
            p: p.grad.clone()  # type: ignore[union-attr]
            for module in (hand.model.head, hand.heads)
            for p in module.parameters()
        }
        encoder = list(hand.model.encoders.values())[who]
        before = [p.detach().clone() for p in encoder.parameters()]
        with torch.no_grad():
            for p, move in zip(encoder.parameters(), moves[who], strict=True):
                p += move
        *alone, joint = hand.losses(each)
        hand.backward(sum(alone) + joint)  # type: ignore[arg-type]
        with torch.no_grad():
            for p, was in zip(encoder.parameters(), before, strict=True):
                p.copy_(was)
            for p, of_first in kept.items():
                p.grad = of_first
        hand.step()
    return moved


@pytest.mark.parametrize(("modalities", "seed"), [(2, 0), (2, 1), (3, 2)])
def test_equals_the_hand_written_loop(modalities: int, seed: int) -> None:
    batches = [batch(12, modalities, seed=10 * seed + i) for i in range(6)]
    world, twin = World(modalities, seed=seed), World(modalities, seed=seed)
    method = MASAM(**SETTINGS)
    train(world.balance(method), batches)
    hand = ByHand(twin)
    moved = by_hand(hand, batches, **SETTINGS)
    assert len(set(moved)) > 1, "one modality alone was moved"
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(weights(method.readouts), weights(hand.heads), rtol=1e-7, atol=1e-9)


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Released(nn.Module):
    """A layer without bias for each modality: with one tensor all agreements are the same."""

    def __init__(self) -> None:
        super().__init__()
        self.ehr, self.cxr = nn.Linear(3, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.head = nn.Linear(4, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([self.ehr(a).tanh(), self.cxr(b).tanh()], dim=1))
        return logits


def test_three_steps_of_the_released_code() -> None:
    """Its optimizer and its training step, on numbers of two decimals, SGD at 0.5."""
    of = json.loads(Path(__file__).with_name("released.json").read_text())["masam"]
    model, heads = Released().double(), {"audio": "le", "visual": "lc"}
    start = {name: double(value) for name, value in of["start"].items()}
    model.load_state_dict({n: v for n, v in start.items() if n[:2] not in ("le", "lc")})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    # The library's features are what the head is given: each encoder's output behind a tanh.
    method = MASAM()
    balancer = eq.Balancer(
        method,
        model,
        {"audio": model.ehr, "visual": model.cxr},
        model.head,
        optimizer,
        features={"audio": slice(0, 2), "visual": slice(2, 4)},
    )
    scores = []
    plain = method.perturb

    def noted(gradients: Any, evidence: Any) -> Any:
        found = {name: float(agreement) for name, (_, agreement) in method._found.items()}
        losses = (evidence.measured["losses"] / evidence.measured["samples"]).to(method.last)
        decrease, _ = progress(losses, method.last, method.average, method.momentum)
        scores.append(
            [0.8 * float(d) + 0.2 * found[n] for d, n in zip(decrease, found, strict=True)]
        )
        return plain(gradients, evidence)

    method.perturb = noted  # type: ignore[method-assign]
    for each in of["batches"]:
        a, b = double(each["a"]), double(each["b"])
        for _ in balancer.passes():
            loss = balancer.loss(model(a, b), torch.tensor(each["labels"]))
            if not scores and balancer.running == 1:  # made with the first loss, anew from theirs
                for layer, name in zip(method.readouts.layers, heads.values(), strict=True):
                    layer.load_state_dict({k: start[f"{name}.{k}"] for k in ("weight", "bias")})
                loss = balancer.loss(model(a, b), torch.tensor(each["labels"]))
            balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    assert scores == [pytest.approx(pair, rel=1e-7, abs=1e-9) for pair in of["scores"]]
    assert [max(pair) == pair[0] for pair in scores] == [True, False, False]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.detach(), double(of["end"][name]), rtol=1e-7, atol=1e-9
        )
    for layer, name in zip(method.readouts.layers, heads.values(), strict=True):
        expected = double(of["end"][f"{name}.weight"])
        torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("micro", [2, 3])
def test_micro_batches_give_the_step_of_the_one_batch(micro: int) -> None:
    batches = [batch(12, seed=i) for i in range(3)]
    whole, parted = World(), World()
    train(whole.balance(MASAM()), batches)
    train(parted.balance(MASAM()), batches, micro)
    torch.testing.assert_close(weights(whole.model), weights(parted.model), rtol=1e-9, atol=1e-12)


def test_a_modality_without_samples_is_not_moved_and_its_loss_is_not_forgotten() -> None:
    method, world = MASAM(), World()
    balancer = world.balance(method)
    train(balancer, [batch(12)])
    last = method.last.clone()
    *inputs, target = batch(12, seed=1)
    nobody = {"audio": torch.zeros(12, dtype=torch.bool)}
    before = weights(world.encoders["audio"])
    seen = []
    for number in balancer.passes():
        seen.append(torch.equal(weights(world.encoders["audio"]), before))
        balancer.backward(balancer.loss(world.model(*inputs), target, present=nobody))
        assert number == len(seen)
    assert seen == [True, True]
    balancer.modulate()
    world.optimizer.step()
    assert method.last[0] == last[0]
    assert method.last[1] != last[1]


def test_a_gradient_of_zero_moves_nothing() -> None:
    zero, one = [torch.zeros(3)], [torch.ones(3)]
    assert along(one, zero)[0].tolist() == [0, 0, 0]
    (move,) = displacement(zero, 0.3, torch.tensor(0.5))
    assert move.tolist() == [0, 0, 0]


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"radius": 0.0}, {"weight": 1.5}, {"momentum": 1.0}):
        with pytest.raises(eq.SetupError, match=rf"MASAM\({next(iter(wrong))}\)"):
            MASAM(**wrong)  # type: ignore[arg-type]


def test_a_sparse_gradient_is_refused() -> None:
    sparse = torch.eye(2).to_sparse()
    found = {"joint": [sparse], "audio": [sparse]}
    with pytest.raises(eq.StepError, match="sparse=False"):
        MASAM().combine("audio", found)
