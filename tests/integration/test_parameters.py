"""Whose parameters are modulated: shared, frozen, unused and single-element ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.modalities import Modalities, convolutions, everything
from support.worlds import Net, World, batch, train, weights


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def plain_and_modulated(
    world: World, balancer: eq.Balancer
) -> tuple[dict[str, Tensor | None], dict[str, Tensor | None]]:
    *inputs, target = batch()
    balancer.backward(balancer.loss(world.model(*inputs), target))
    before = gradients(world.model)
    balancer.modulate()
    return before, gradients(world.model)


def changed(before: dict[str, Tensor | None], after: dict[str, Tensor | None]) -> set[str]:
    return {
        name
        for name, gradient in before.items()
        if gradient is not None and not torch.equal(gradient, after[name])
    }


def test_weights_of_encoders_and_nothing_else() -> None:
    world = World()
    before, after = plain_and_modulated(world, world.balance(eq.GE()))
    expected = {f"encoders.{m}.{layer}.weight" for m in ("audio", "visual") for layer in (0, 2)}
    assert changed(before, after) == expected


def test_all_parameters_of_encoders() -> None:
    world = World()
    before, after = plain_and_modulated(world, world.balance(eq.GE(parameters="all")))
    assert changed(before, after) == {n for n in before if n.startswith("encoders")}


def test_the_users_own_selection() -> None:
    world = World()
    balancer = world.balance(eq.GE(parameters=lambda owned: owned.name.endswith("2.weight")))
    before, after = plain_and_modulated(world, balancer)
    assert changed(before, after) == {f"encoders.{m}.2.weight" for m in ("audio", "visual")}


def test_convolutions_are_told_by_their_layer() -> None:
    model = nn.ModuleDict(
        {
            "a": nn.Sequential(
                nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(4, 2)
            ),
            "v": nn.Sequential(nn.ConvTranspose2d(1, 2, 3), nn.GroupNorm(1, 2)),
        }
    )
    modalities = Modalities(model, {"a": model["a"], "v": model["v"]})
    chosen = {
        o.name for name in modalities.names for o in modalities.owned[name] if convolutions(o)
    }
    assert chosen == {"a.0.weight", "v.0.weight"}
    assert all(everything(o) for name in modalities.names for o in modalities.owned[name])


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("norm", ["weight_norm", "parametrizations.weight_norm", "spectral"])
def test_convolutions_that_are_normalised_are_convolutions(norm: str) -> None:
    wrap = {
        "weight_norm": nn.utils.weight_norm,
        "parametrizations.weight_norm": nn.utils.parametrizations.weight_norm,
        "spectral": nn.utils.parametrizations.spectral_norm,
    }[norm]
    model = nn.ModuleDict(
        {
            "a": nn.Sequential(wrap(nn.Conv1d(1, 2, 3)), nn.Flatten(), wrap(nn.Linear(4, 2))),
            "v": nn.Conv1d(1, 2, 3),
        }
    )
    modalities = Modalities(model, {"a": model["a"], "v": model["v"]})
    chosen = {o.name for o in modalities.owned["a"] if convolutions(o)}
    first = {
        name for name, p in model.named_parameters() if name.startswith("a.0.") and p.ndim == 3
    }
    assert chosen == first != set()


class Sharing(Net):
    """A layer that both encoders contain, and one that an encoder shares with the head."""

    def __init__(self) -> None:
        super().__init__()
        trunk = nn.Linear(8, 8)
        for name in self.encoders:
            self.encoders[name] = nn.Sequential(self.encoders[name], trunk)
        self.tied = self.encoders["audio"][0][0].bias


def test_shared_parameters_are_left_alone_and_named() -> None:
    world = World()
    torch.manual_seed(0)
    world.model = Sharing().double()
    world.optimizer = torch.optim.SGD(world.model.parameters(), lr=0.1)
    balancer = world.balance(eq.GE(parameters="all"))
    before, after = plain_and_modulated(world, balancer)
    shared = set(balancer.attached.modalities.shared)
    assert len(shared) == 3  # weight and bias of the trunk, and the bias that lives elsewhere too
    assert not changed(before, after) & shared
    text = str(balancer.check(batch()))
    assert "shared, never modulated: 3 parameters" in text
    for name in shared:
        assert name in text


def test_an_encoder_that_shares_everything_cannot_be_modulated() -> None:
    model = nn.Module()
    model.net, model.head = nn.Linear(4, 8), nn.Linear(16, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = {"rgb": model.net, "flow": model.net}
    told = {"features": {"rgb": slice(0, 8), "flow": slice(8, 16)}}
    with pytest.raises(eq.SetupError, match="shares all its parameters"):
        eq.Balancer(eq.OGM(), model, encoders, model.head, optimizer, **told)
    eq.Balancer(eq.Joint(), model, encoders, model.head, optimizer, **told)


def test_a_partly_frozen_encoder_is_modulated_where_it_trains() -> None:
    world = World()
    frozen = world.model.encoders["audio"][0]
    frozen.requires_grad_(False)
    before, after = plain_and_modulated(world, world.balance(eq.GE()))
    assert "encoders.audio.2.weight" in changed(before, after)
    assert "encoders.audio.0.weight" not in changed(before, after)
    assert frozen.weight.grad is None


def test_a_frozen_encoder_is_said_unless_the_method_leaves_it_out() -> None:
    world = World()
    world.encoders["visual"].requires_grad_(False)
    with pytest.warns(eq.BalanceWarning, match="visual.*no trainable parameter") as caught:
        world.balance(eq.OGM(0.8)).detach()
    assert "OGM(modalities=...)" in str(caught[0].message)
    balancer = world.balance(eq.OGM(0.8, modalities=["audio"]), track_every=1)
    train(balancer, [batch()])
    metrics = balancer.metrics()
    assert metrics["evidence/visual"] > 0  # still read
    assert metrics["ratio/audio"] == pytest.approx(1 / metrics["ratio/visual"])


def test_parameters_unfrozen_later_are_modulated_from_then_on() -> None:
    world = World()
    layer = world.model.encoders["audio"][0]
    layer.requires_grad_(False)
    balancer = world.balance(eq.GE())
    layer.requires_grad_(True)
    before, after = plain_and_modulated(world, balancer)
    assert "encoders.audio.0.weight" in changed(before, after)


class Unused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.encoders["audio"].add_module("spare", _Skipped(4, 4))


class _Skipped(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_unused_parameters_have_no_gradient_and_get_none() -> None:
    world = World()
    torch.manual_seed(0)
    world.model = Unused().double()
    world.optimizer = torch.optim.SGD(world.model.parameters(), lr=0.1)
    _, after = plain_and_modulated(world, world.balance(eq.OGMGE(0.8, parameters="all")))
    assert after["encoders.audio.spare.weight"] is None
    world.optimizer.step()


class Scaled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.scale = inner, nn.Parameter(torch.ones(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.scale


def test_a_single_element_is_scaled_and_gets_no_noise() -> None:
    world = World()
    world.model.encoders["audio"] = Scaled(world.model.encoders["audio"]).double()
    world.optimizer = torch.optim.SGD(world.model.parameters(), lr=0.1)
    before, after = plain_and_modulated(world, world.balance(eq.GE()))
    assert "encoders.audio.scale" not in changed(before, after)
    assert after["encoders.audio.scale"].isfinite().all()


def test_an_encoder_may_be_several_modules_or_names() -> None:
    by_module, by_name = World(), World()
    parts = {n: list(e) for n, e in by_module.encoders.items()}
    layers = {n: [layer for layer in of if isinstance(layer, nn.Linear)] for n, of in parts.items()}
    a = eq.Balancer(
        eq.OGMGE(0.8),
        by_module.model,
        layers,
        by_module.model.head,
        by_module.optimizer,
        features={"audio": slice(0, 8), "visual": slice(8, 16)},
    )
    b = eq.Balancer(
        eq.OGMGE(0.8),
        by_name.model,
        {n: f"encoders.{n}" for n in ("audio", "visual")},
        "head",
        by_name.optimizer,
    )
    train(a, [batch(seed=seed) for seed in range(3)])
    train(b, [batch(seed=seed) for seed in range(3)])
    assert torch.equal(weights(by_module.model), weights(by_name.model))


def test_an_encoder_applied_to_several_segments_is_one_encoder() -> None:
    class Segments(Net):
        def forward(self, *inputs: Tensor) -> Tensor:
            x, y = inputs
            y = torch.stack([self.encoders["visual"](part) for part in (y, y + 1, y - 1)]).mean(0)
            return self.head(torch.cat([self.encoders["audio"](x), y], dim=1))

    world = World()
    world.model.__class__ = Segments
    balancer = world.balance(eq.OGMGE(0.8), track_every=1)
    train(balancer, [batch(seed=seed) for seed in range(3)])
    assert 0 < balancer.metrics()["evidence/visual"] < 1


SETUPS: list[tuple[Any, list[str]]] = [
    (lambda w: {"encoders": {"audio": w.encoders["audio"]}}, ["two or more modalities", "audio"]),
    (lambda w: {"encoders": list(w.encoders.values())}, ["expected a dict", "list"]),
    (lambda w: {"encoders": {"audio": nn.Linear(1, 1), "visual": w.encoders["visual"]}},
     ["encoders['audio'] is not a module of the model", "pass the model that contains it"]),
    (lambda w: {"encoders": {"audio": "encoders.audo", "visual": "encoders.visual"}},
     ["unknown module 'encoders.audo'", "did you mean 'encoders.audio'"]),
    (lambda w: {"encoders": {"audio": 3, "visual": "encoders.visual"}}, ["encoders['audio']", "int"]),
    (lambda w: {"encoders": {"audio": w.model, "visual": "encoders.visual"}}, ["the whole model"]),
    (lambda w: {"encoders": {"audio": "encoders", "visual": "encoders.visual"}},
     ["encoders['visual'] lies inside encoders['audio']"]),
    (lambda w: {"head": nn.Linear(16, 3)}, ["head is not a module of the model"]),
    (lambda w: {"head": w.model.encoders["audio"][2]}, ["the head lies inside encoders['audio']"]),
    (lambda w: {"head": w.model.encoders}, ["lies inside the head"]),
    (lambda w: {"head": []}, ["head is empty"]),
    (lambda w: {"optimizer": None}, ["expected optimizer="]),
    (lambda w: {"optimizer": torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=1)},
     ["no parameter of the model is in the optimizer"]),
    (lambda w: {"optimizer": torch.optim.LBFGS(w.model.parameters())}, ["LBFGS"]),
    (lambda w: {"optimizer": "sgd"}, ["torch.optim.Optimizer", "str"]),
    (lambda w: {"model": nn.DataParallel(w.model)}, ["DistributedDataParallel"]),
    (lambda w: {"methods": eq.OGM}, ["expected a method", "write OGM(...)"]),
    (lambda w: {"methods": []}, ["empty list"]),
    (lambda w: {"methods": "ogm"}, ["expected a method", "'ogm'"]),
    (lambda w: {"methods": [eq.OGM(), eq.OGM()]}, ["'ogm' is given 2 times"]),
    (lambda w: {"methods": [eq.MultiLoss(), eq.Ensemble()]}, ["MultiLoss", "cannot be combined"]),
    (lambda w: {"methods": [eq.OGMGE(), eq.GE(noise=eq.ElementNoise())]}, ["noise is drawn once"]),
    (lambda w: {"methods": eq.OGM(modalities=["lips"])}, ["no modality 'lips'"]),
    (lambda w: {"methods": eq.Unimodal("visul")}, ["did you mean 'visual'"]),
    (lambda w: {"methods": eq.MultiLoss({"audo": 1.0})}, ["did you mean 'audio'"]),
    (lambda w: {"methods": eq.OGM(parameters="convolutions")}, ["none that OGM acts on"]),
    (lambda w: {"scores": "atuo"}, ["unknown scores 'atuo'", "did you mean 'auto'"]),
    (lambda w: {"scores": 3}, ["scores", "3"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), SETUPS)
def test_what_does_not_fit_is_refused_and_nothing_is_attached(
    change: Any, words: list[str]
) -> None:
    world = World()
    settings = {
        "methods": eq.OGM(0.8),
        "model": world.model,
        "encoders": world.encoders,
        "head": world.model.head,
        "optimizer": world.optimizer,
        **change(world),
    }
    with pytest.raises(eq.SetupError) as caught:
        eq.Balancer(**settings)
    for word in words:
        assert word in str(caught.value)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in world.model.modules())
    assert not world.optimizer._optimizer_step_pre_hooks
    assert not world.optimizer._optimizer_step_post_hooks
