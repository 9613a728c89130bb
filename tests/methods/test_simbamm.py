"""SimBaMM against torch's own transformer layers, and what a sample lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.methods.objective.simbamm import SimBaMM
from support.worlds import World, batch, train, weights


def twin_of(method: SimBaMM, world: World) -> tuple[nn.Module, Callable[[list[Tensor]], Tensor]]:
    """The same fusion from torch's layers, with copies of the method's parameters."""
    fusion: Any = method.fusion
    width, heads = fusion.width, fusion.heads
    layers = nn.ModuleList()
    for block in fusion.blocks:
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        ).double()
        pairs = (
            (layer.self_attn.in_proj_weight, block.mixed.weight),
            (layer.self_attn.in_proj_bias, block.mixed.bias),
            (layer.self_attn.out_proj.weight, block.attended.weight),
            (layer.self_attn.out_proj.bias, block.attended.bias),
            (layer.linear1.weight, block.first.weight),
            (layer.linear1.bias, block.first.bias),
            (layer.linear2.weight, block.second.weight),
            (layer.linear2.bias, block.second.bias),
        )
        for theirs, ours in pairs:
            theirs.data.copy_(ours.data)
        layers.append(layer)
    projections = nn.ModuleList(nn.Linear(8, width).double() for _ in world.encoders)
    for theirs, ours in zip(projections, fusion.projections, strict=True):
        theirs.load_state_dict(ours.state_dict())
    norm, classifier = nn.LayerNorm(width).double(), nn.Linear(width, 3).double()
    classifier.load_state_dict(fusion.last[1].state_dict())
    whole = nn.ModuleList([layers, projections, norm, classifier])

    def run(features: list[Tensor]) -> Tensor:
        tokens = torch.stack([p(z) for p, z in zip(projections, features, strict=True)], dim=1)
        for layer in layers:
            tokens = layer(tokens)
        logits: Tensor = classifier(norm(tokens.mean(dim=1)))
        return logits

    return whole, run


@pytest.mark.parametrize("modalities", [2, 3])
def test_equals_torchs_own_layers(modalities: int) -> None:
    world, twin = World(modalities, lr=0.05), World(modalities, lr=0.05)
    method = SimBaMM(8, blocks=2, heads=2)
    balancer = world.balance(method)
    shapes = eq.Shapes(
        dict.fromkeys(world.encoders, (8,)), (3,), torch.device("cpu"), torch.float64
    )
    balancer.make_modules(shapes)
    whole, run = twin_of(method, twin)
    own = torch.optim.SGD(whole.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)
    head = weights(world.model.head)
    batches = [batch(9, modalities, seed=i) for i in range(4)]
    train(balancer, batches)
    for *inputs, target in batches:
        features = [e(x) for e, x in zip(twin.encoders.values(), inputs, strict=True)]
        twin.optimizer.zero_grad()
        own.zero_grad()
        F.cross_entropy(run(features), target).backward()
        twin.optimizer.step()
        own.step()
    assert torch.equal(weights(world.model.head), head)
    ours, theirs = weights(world.model.encoders), weights(twin.model.encoders)
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    *inputs, _ = batches[0]
    with torch.no_grad():
        features = [e(x) for e, x in zip(twin.encoders.values(), inputs, strict=True)]
        torch.testing.assert_close(balancer.predict(*inputs), run(features), rtol=1e-7, atol=1e-9)


def test_what_a_sample_lacks_is_not_attended_to() -> None:
    world = World(3)
    method = SimBaMM(8, heads=2)
    balancer = world.balance(method)
    *inputs, target = batch(8, 3)
    present = {"text": torch.arange(8) % 2 == 0}
    first = balancer.loss(world.model(*inputs), target, present=present)
    changed = [*inputs[:2], torch.where(present["text"][:, None], inputs[2], 1e3)]
    second = balancer.loss(world.model(*changed), target, present=present)
    torch.testing.assert_close(first, second)
    nobody = dict.fromkeys(world.encoders, torch.zeros(8, dtype=torch.bool))
    loss = balancer.loss(world.model(*inputs), target, present=nobody)
    balancer.backward(loss)
    assert loss == 0


def test_alone_a_modality_is_its_own_token() -> None:
    world = World()
    balancer = world.balance(SimBaMM(8, heads=2))
    *inputs, target = batch(6)
    balancer.loss(world.model(*inputs), target)
    with torch.no_grad():
        before = balancer.unimodal_logits(*inputs)
        after = balancer.unimodal_logits(inputs[0], torch.zeros_like(inputs[1]))
    torch.testing.assert_close(before["audio"], after["audio"])
    assert not torch.allclose(before["visual"], after["visual"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 0}, r"SimBaMM\(width\).*found 0"),
        ({"blocks": 0}, r"SimBaMM\(blocks\)"),
        ({"width": 10, "heads": 4}, "multiple of heads=4, found 10"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, int], said: str) -> None:
    with pytest.raises(eq.SetupError, match=said):
        SimBaMM(**settings)
