"""MMCosine against loops written from the paper, at training, inference and export."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import equimodal as eq
from equimodal import testing
from equimodal.functional.mmcosine import cosine_logits, unit_rows
from equimodal.methods.objective.mmcosine import HeadSlices, MMCosine, OwnVectors
from support.worlds import World, batch, train, weights

Array = NDArray[np.float64]


def own_vectors() -> eq.Method:
    return MMCosine(vectors=OwnVectors())


@pytest.mark.parametrize("check", testing.CHECKS[:-1], ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [own_vectors])
def test_conforms(make: Callable[[], eq.Method], check: Callable[[Any], None]) -> None:
    check(make)


# ---------------------------------------------------------------------- the equation


def slow_cosines(feature: Array, weight: Array, scale: float) -> Array:
    """One sample and one class at a time."""
    logits = np.zeros((len(feature), len(weight)))
    for i, z in enumerate(feature):
        for c, w in enumerate(weight):
            dot = sum(a * b for a, b in zip(z, w, strict=True))
            lengths = math.sqrt(sum(a * a for a in z)) * math.sqrt(sum(b * b for b in w))
            logits[i, c] = scale * dot / lengths
    return logits


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_logits_equal_the_loop(modalities: int, seed: int) -> None:
    world = World(modalities, seed=seed)
    balancer = world.balance(MMCosine(scale=7.0))
    *inputs, _ = batch(9, modalities, seed=seed)
    features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
    expected, start = {}, 0
    weight = world.model.head.weight.detach().numpy()
    for name, feature in zip(world.encoders, features, strict=True):
        width = feature.shape[1]
        slices = weight[:, start : start + width]
        expected[name] = torch.from_numpy(slow_cosines(feature.detach().numpy(), slices, 7.0))
        start += width
    with torch.no_grad():
        found = balancer.unimodal_logits(*inputs)
        fused = balancer.predict(*inputs)
    for name, logits in expected.items():
        torch.testing.assert_close(found[name], logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fused, sum(expected.values()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_ogm_beside_it_goes_by_the_cosines(seed: int) -> None:
    """Both were refused together, for a reason that was not so: the cosines are what is trained."""
    world = World(seed=seed)
    balancer = world.balance(eq.OGM(alpha=0.8), MMCosine(scale=7.0))
    *inputs, target = batch(9, seed=seed)
    weight = world.model.head.weight.detach().numpy()
    scores = []
    for m, (x, encoder) in enumerate(zip(inputs, world.encoders.values(), strict=True)):
        slices = weight[:, 8 * m : 8 * m + 8]
        logits = torch.from_numpy(slow_cosines(encoder(x).detach().numpy(), slices, 7.0))
        scores.append(float(logits.softmax(dim=1)[range(9), target].sum()))
    balancer.backward(balancer.loss(world.model(*inputs), target))
    before = {n: e[0].weight.grad.clone() for n, e in world.encoders.items()}  # type: ignore[index]
    balancer.modulate()
    ahead, behind = sorted(range(2), key=lambda m: -scores[m])
    ratio = scores[ahead] / scores[behind]
    expected = {ahead: 1 - math.tanh(0.8 * ratio), behind: 1.0}
    for m, (name, encoder) in enumerate(world.encoders.items()):
        found = encoder[0].weight.grad  # type: ignore[index]
        torch.testing.assert_close(found, expected[m] * before[name])


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_training_equals_the_hand_written_loop(modalities: int, seed: int) -> None:
    """Plain autograd, with the cosine written out. The head's bias only decays."""
    world, twin = World(modalities, seed=seed), World(modalities, seed=seed)
    batches = [batch(16, modalities, seed=10 * seed + step) for step in range(6)]
    train(world.balance(MMCosine(scale=4.0)), batches)
    for *inputs, target in batches:
        head, logits, start = twin.model.head, 0.0, 0
        for encoder, x in zip(twin.encoders.values(), inputs, strict=True):
            z = encoder(x)
            w = head.weight[:, start : start + z.shape[1]]
            start += z.shape[1]
            lengths = z.square().sum(1).sqrt()[:, None] * w.square().sum(1).sqrt()[None]
            logits = logits + 4.0 * (z @ w.T) / lengths
        probabilities = logits.exp() / logits.exp().sum(1, keepdim=True)
        loss = -probabilities[range(len(target)), target].log().mean()
        twin.optimizer.zero_grad()
        (loss + 0 * head.bias.sum()).backward()
        twin.optimizer.step()
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-9, atol=1e-12)


def test_own_vectors_equal_a_model_that_contains_them() -> None:
    """With a head that is not linear; the layers are trained by an optimizer like the user's."""
    world = World(head=nn.Sequential(nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3)))
    world.optimizer = torch.optim.SGD(world.model.parameters(), lr=0.1, momentum=0.9)
    balancer = world.balance(MMCosine(scale=4.0, vectors=OwnVectors()))
    twin = copy.deepcopy(dict(world.encoders))
    batches = [batch(16, seed=seed) for seed in range(5)]
    balancer.check(batches[0])
    (method,) = balancer.methods.methods
    assert isinstance(method, MMCosine)
    balancer.loss(world.model(*batches[0][:-1]), batches[0][-1])  # makes the layers
    assert isinstance(method.vectors, OwnVectors)
    layers = [copy.deepcopy(layer) for layer in method.vectors.readouts.layers]
    assert all(layer.bias is None for layer in layers)
    parameters = [p for module in (*twin.values(), *layers) for p in module.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    head = copy.deepcopy(world.model.head.state_dict())
    train(balancer, batches)
    for *inputs, target in batches:
        logits = 0.0
        for encoder, layer, x in zip(twin.values(), layers, inputs, strict=True):
            z, w = encoder(x), layer.weight
            logits = logits + 4.0 * (z / z.norm(dim=1)[:, None]) @ (w / w.norm(dim=1)[:, None]).T
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, target).backward()
        optimizer.step()
    for name, encoder in world.encoders.items():
        torch.testing.assert_close(weights(encoder), weights(twin[name]), rtol=1e-9, atol=1e-12)
    for name, value in world.model.head.state_dict().items():
        assert torch.equal(value, head[name])


# ---------------------------------------------------------------------- defects of public code


def test_widths_are_found_and_not_set_by_hand() -> None:
    """The released code cuts the head at 512; here the widths differ and are 3 and 5."""
    model = nn.ModuleDict({"a": nn.Linear(4, 3), "b": nn.Linear(5, 5), "head": nn.Linear(8, 2)})

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = model

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            joined = torch.cat([self.parts["b"](b), self.parts["a"](a)], dim=1)
            return self.parts["head"](joined)

    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    encoders = {"a": model["a"], "b": model["b"]}
    balancer = eq.Balancer(MMCosine(), net, encoders, model["head"], optimizer)
    a, b = torch.randn(6, 4), torch.randn(6, 5)
    with torch.no_grad():
        found = balancer.unimodal_logits(a, b)
        w = model["head"].weight
        expected = slow_cosines(model["b"](b).numpy(), w[:, :5].numpy(), 10.0)
    torch.testing.assert_close(found["b"], torch.from_numpy(expected).float())


def test_inference_is_by_cosines_and_training_never_uses_the_plain_head() -> None:
    world = World()
    balancer = world.balance(MMCosine())
    train(balancer, [batch(seed=seed) for seed in range(5)])
    *inputs, _ = batch(seed=9)
    with torch.no_grad():
        before = balancer.predict(*inputs)
        world.model.head.bias.fill_(100.0)
        world.model.head.weight[:, :8] *= 50.0  # a longer slice does not win
        torch.testing.assert_close(balancer.predict(*inputs), before)
        assert not torch.allclose(world.model(*inputs), before)
    assert before.abs().max() <= 2 * 10.0


def test_a_zero_feature_or_class_vector_gives_zero_and_finite_gradients() -> None:
    """As when a modality is missing and its feature is zero: 0/0 is not NaN."""
    feature = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.cat([torch.zeros(1, 4), torch.ones(2, 4)]).double().requires_grad_()
    logits = cosine_logits(feature, weight, 10.0)
    assert torch.equal(logits, torch.zeros(2, 3, dtype=torch.float64))
    (logits + cosine_logits(torch.ones_like(feature), weight, 10.0)).sum().backward()
    for gradient in (feature.grad, weight.grad):
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e3  # and not 1e12, the inverse of a threshold
    assert torch.autograd.gradcheck(unit_rows, torch.randn(3, 4).double().requires_grad_())


def test_three_modalities_reduce_to_two_when_the_third_is_zero() -> None:
    three, two = World(3), World(2)
    two.model.encoders.load_state_dict(
        {k: v for k, v in three.model.encoders.state_dict().items() if not k.startswith("text")}
    )
    with torch.no_grad():
        two.model.head.weight.copy_(three.model.head.weight[:, :16])
        for layer in three.model.encoders["text"]:
            if isinstance(layer, nn.Linear):
                layer.weight.zero_()
                layer.bias.zero_()
    *inputs, _ = batch(8, 3)
    with torch.no_grad():
        torch.testing.assert_close(
            three.balance(MMCosine()).predict(*inputs),
            two.balance(MMCosine()).predict(*inputs[:2]),
        )


class Muting(eq.Method):
    """Another method that takes a modality away from some samples, and makes others louder."""

    name = "muting"

    def gate(self, features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        first = torch.arange(len(features["audio"])) == 0
        return {"audio": (~first).double(), "visual": torch.full(first.shape, 3.0).double()}


def test_features_that_another_method_takes_away_are_gone_and_loudness_does_not_matter() -> None:
    world = World()
    balancer = world.balance(MMCosine(), Muting())
    *inputs, target = batch(6)
    loss = balancer.loss(world.model(*inputs), target)
    with torch.no_grad():
        alone = balancer.unimodal_logits(*inputs)
        logits = alone["audio"] + alone["visual"]
        logits[0] = alone["visual"][0]
    torch.testing.assert_close(loss.detach(), nn.functional.cross_entropy(logits, target))


# ---------------------------------------------------------------------- heads, export, ranks


@pytest.mark.parametrize(("make", "steps"), [(MMCosine, 0), (MMCosine, 3), (own_vectors, 3)])
def test_the_export_predicts_the_same_for_any_batch_size(
    make: Callable[[], eq.Method], steps: int
) -> None:
    world = World()
    balancer = world.balance(make())
    train(balancer, [batch(seed=seed) for seed in range(steps)])
    world.model.eval()
    *inputs, _ = batch(seed=9)
    plain = balancer.export(*inputs)
    with torch.no_grad():
        for size in (24, 7, 1):
            part = [x[:size] for x in inputs]
            torch.testing.assert_close(plain(*part), balancer.predict(*part))


def test_half_precision_outside_of_autocast() -> None:
    """The loop takes the loss after autocast: the features are half, the head's weights are not."""
    world = World(dtype=torch.float32)
    *inputs, target = batch(dtype=torch.float32)
    balancer = world.balance(MMCosine())
    exact = World(dtype=torch.float32).balance(MMCosine())
    with torch.autocast("cpu", torch.bfloat16):
        logits = world.model(*inputs)
    found = balancer.loss(logits, target)
    expected = exact.loss(exact.attached.model(*inputs), target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)


def test_other_heads_are_refused_with_what_to_do() -> None:
    world = World(head=nn.Sequential(nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3)))
    balancer = world.balance(MMCosine())
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match=r"found Sequential.*OwnVectors\(\)"):
        balancer.loss(world.model(*inputs), target)


def test_a_method_object_may_serve_a_second_model() -> None:
    method = MMCosine()
    *inputs, _ = batch()
    for seed in range(2):
        world = World(seed=seed)
        balancer = world.balance(method)
        with torch.no_grad():
            fresh = World(seed=seed).balance(MMCosine()).predict(*inputs)
            assert torch.equal(balancer.predict(*inputs), fresh)
        balancer.detach()


def test_logits_of_any_shape_that_the_head_gives() -> None:
    """One logit per sample, squeezed by the user, with binary cross-entropy."""

    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = testing.SmallModel(2, 1)

        def forward(self, *inputs: Tensor) -> Tensor:
            return self.net(*inputs).squeeze(1)

    model = Squeezed().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.functional.binary_cross_entropy_with_logits
    balancer = eq.Balancer(
        MMCosine(), model, model.net.encoders, model.net.head, optimizer, criterion=criterion
    )
    a, v, target = batch(classes=2)
    loss = balancer.loss(model(a, v), target.double())
    with torch.no_grad():
        expected = criterion(balancer.predict(a, v), target.double())
    torch.testing.assert_close(loss.detach(), expected)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_not_positive_is_refused(scale: float) -> None:
    with pytest.raises(eq.SetupError, match=r"MMCosine\(scale\): expected a positive number"):
        MMCosine(scale)


def test_what_is_no_source_of_class_vectors_is_refused() -> None:
    with pytest.raises(eq.SetupError, match=r"HeadSlices\(\) or eq\.OwnVectors\(\), found 'own'"):
        MMCosine(vectors="own")  # type: ignore[arg-type]
    assert isinstance(MMCosine().vectors, HeadSlices)


def test_ogm_is_judged_by_the_cosines() -> None:
    """They are what is trained: products without the lengths taken out would say something else."""
    world = World()
    with torch.no_grad():
        world.model.head.weight[:, :8] *= 50  # long class vectors of the first modality
    method = MMCosine()
    balancer = world.balance(eq.OGM(alpha=1.0), method)
    *inputs, target = batch(12)
    balancer.backward(balancer.loss(world.model(*inputs), target))
    balancer.modulate()
    features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
    slices = world.model.head.weight.split(8, dim=1)
    scores = [
        (10 * F.cosine_similarity(z[:, None], w[None], dim=2)).softmax(1)[range(12), target].sum()
        for z, w in zip(features, slices, strict=True)
    ]
    ratio = (scores[0] / scores[1]).item()
    assert balancer.metrics()["ratio/audio"] == pytest.approx(ratio, rel=1e-6)
