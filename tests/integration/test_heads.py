"""Heads that take their features in any way, and scores for all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from support.worlds import Net, World, batch, train, weights


class Positional(nn.Module):
    def __init__(self, modalities: int = 2) -> None:
        super().__init__()
        self.out = nn.Linear(8 * modalities, 3)

    def forward(self, *features: Tensor) -> Tensor:
        return self.out(torch.cat(features, dim=1))


class AsDict(Positional):
    def forward(self, features: dict[str, Tensor]) -> Tensor:
        return self.out(torch.cat([features[n] for n in ("visual", "audio")], dim=1))


class ByKeyword(Positional):
    def forward(self, *, audio: Tensor, visual: Tensor, scale: float = 1.0) -> Tensor:
        return self.out(torch.cat([audio, visual], dim=1))


class AsList(Positional):
    def forward(self, features: list[Tensor], flag: bool = True) -> Tensor:
        return self.out(torch.cat(features, dim=1))


class Caller(Net):
    """Calls its head in the way that the test names."""

    way = "concatenated"

    def forward(self, *inputs: Tensor) -> Tensor:
        z = {n: e(x) for (n, e), x in zip(self.encoders.items(), inputs, strict=True)}
        a, v = z["audio"], z["visual"]
        return {
            "concatenated": lambda: self.head(torch.cat([a, v], dim=1)),
            "swapped": lambda: self.head(torch.cat([v, a], dim=1)),
            "pooled": lambda: self.head(torch.cat([v.view(-1, 2, 4).flatten(1) * 2, a + 1], dim=1)),
            "positional": lambda: self.head(a, v),
            "positional swapped": lambda: self.head(v, a),
            "dict": lambda: self.head(z),
            "keyword": lambda: self.head(visual=v, audio=a),
            "list": lambda: self.head([v, a], flag=False),
        }[self.way]()


def world(way: str, head: nn.Module) -> World:
    made = World(head=head)
    made.model.__class__ = Caller
    made.model.way = way
    return made


WAYS: list[tuple[str, type[nn.Module]]] = [
    ("concatenated", nn.Linear), ("swapped", nn.Linear), ("pooled", nn.Linear),
    ("positional", Positional), ("positional swapped", Positional), ("dict", AsDict),
    ("keyword", ByKeyword), ("list", AsList),
]  # fmt: skip


@pytest.mark.parametrize(("way", "kind"), WAYS)
def test_the_layout_is_found_and_the_split_is_exact(way: str, kind: type[nn.Module]) -> None:
    torch.manual_seed(4)
    made = world(way, nn.Linear(16, 3) if kind is nn.Linear else kind())
    balancer = made.balance(eq.OGM(0.8))
    *inputs, target = batch()
    step = balancer.attached.step(made.model(*inputs), target, None, None, 0)
    for (name, encoder), x in zip(made.encoders.items(), inputs, strict=True):
        expected = encoder(x)
        if way == "pooled":
            expected = expected + 1 if name == "audio" else expected * 2
        torch.testing.assert_close(step.features[name], expected)
    torch.testing.assert_close(sum(step.unimodal.values()), step.logits)
    assert type(balancer.scores.chosen).__name__ == "Split"
    again = step.head({n: torch.zeros_like(f) for n, f in step.features.items()})
    bias = made.model.head.bias if kind is nn.Linear else made.model.head.out.bias
    torch.testing.assert_close(again, bias.expand(24, 3))


class WithLoss(nn.Module):
    """An encoder that returns a loss of its own beside its feature, as mixtures of experts do."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.encoder(x)
        return feature, feature.square().mean()


def test_encoders_that_return_a_number_beside_their_feature() -> None:
    class Taking(Net):
        def forward(self, *inputs: Tensor) -> Tensor:
            z = [e(x)[0] for e, x in zip(self.encoders.values(), inputs, strict=True)]
            return self.head(torch.cat(z, dim=1))

    plain, made = World(), World()
    made.model.__class__ = Taking
    for name, encoder in made.encoders.items():
        made.model.encoders[name] = WithLoss(encoder)
    for each in (plain, made):
        train(each.balance(eq.OGM(0.8)), [batch(seed=s) for s in range(3)])
    assert torch.equal(weights(made.model), weights(plain.model))


def test_three_features_side_by_side_in_any_order() -> None:
    class Mixed(Net):
        def forward(self, *inputs: Tensor) -> Tensor:
            a, v, t = (e(x) for e, x in zip(self.encoders.values(), inputs, strict=True))
            return self.head(torch.cat([t, a, v], dim=1))

    made = World(3)
    made.model.__class__ = Mixed
    balancer = made.balance(eq.OGM(0.8))
    train(balancer, [batch(modalities=3)])
    assert str(balancer.attached.layout) == "text 0:8, audio 8:16, visual 16:24 of argument 0"


def test_maps_of_different_widths_are_pooled_and_concatenated() -> None:
    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.v = nn.Conv2d(1, 5, 3), nn.Conv1d(2, 6, 3)
            self.head = nn.Linear(11, 3)

        def forward(self, a: Tensor, v: Tensor) -> Tensor:
            return self.head(torch.cat([self.v(v).mean(2), self.a(a).amax((2, 3))], dim=1))

    model = Maps()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = eq.Balancer(
        eq.OGMGE(0.8), model, {"a": model.a, "v": model.v}, model.head, optimizer, track_every=1
    )
    a, v, y = torch.randn(9, 1, 7, 7), torch.randn(9, 2, 12), torch.randint(3, (9,))
    train(balancer, [(a, v, y)])
    assert str(balancer.attached.layout) == "v 0:6, a 6:11 of argument 0"
    assert 0 < balancer.metrics()["evidence/a"] < 1


class Interacting(Net):
    """The branches see each other before the head: where a feature came from says nothing."""

    def forward(self, *inputs: Tensor) -> Tensor:
        a, v = (e(x) for e, x in zip(self.encoders.values(), inputs, strict=True))
        return self.head(a + 0.1 * v, v + 0.1 * a)


def test_features_that_interacted_need_to_be_told_apart() -> None:
    made = World(head=Positional())
    made.model.__class__ = Interacting
    *inputs, target = batch()
    balancer = made.balance(eq.OGM(0.8))
    with pytest.raises(eq.MatchError) as caught:
        balancer.loss(made.model(*inputs), target)
    for word in ("argument 0 of shape (24, 8) from ['audio', 'visual']", "features={'audio': 0"):
        assert word in str(caught.value)
    told = World(head=Positional())
    told.model.__class__ = Interacting
    train(told.balance(eq.OGM(0.8), features={"audio": 0, "visual": 1}), [batch()])


@pytest.mark.parametrize(
    ("way", "kind", "features"),
    [
        ("concatenated", nn.Linear, {"audio": slice(0, 8), "visual": slice(8, 16)}),
        ("concatenated", nn.Linear, {"audio": slice(None, 8), "visual": slice(8, None)}),
        ("positional", Positional, {"audio": 0, "visual": 1}),
        ("keyword", ByKeyword, {"audio": "audio", "visual": "visual"}),
        ("positional", Positional, lambda a, v: {"audio": a, "visual": v}),
    ],
)
def test_features_that_are_told_are_taken_as_told(way: str, kind: Any, features: Any) -> None:
    found, told = (world(way, nn.Linear(16, 3) if kind is nn.Linear else kind()) for _ in range(2))
    batches = [batch(seed=seed) for seed in range(3)]
    train(found.balance(eq.OGMGE(0.8)), batches)
    train(told.balance(eq.OGMGE(0.8), features=features), batches)
    assert torch.equal(weights(found.model), weights(told.model))


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"audio": slice(0, 8)}, ["no entry for visual"]),
        ({"audio": slice(0, 8), "visul": slice(8, 16)}, ["did you mean 'visual'"]),
        ({"audio": slice(0, 8), "visual": 1}, ["slices for all modalities or for none"]),
        ({"audio": slice(0, 8), "visual": slice(8, 8)}, ["features['visual']", "positive length"]),
        ({"audio": slice(0, 8), "visual": slice(8, 16, 2)}, ["step 1"]),
        ({"audio": slice(0, 8), "visual": slice(7, 16)}, ["do not overlap", "head=None"]),
    ],
)
def test_features_that_make_no_sense_are_refused(features: Any, words: list[str]) -> None:
    made = World()
    *inputs, target = batch()
    with pytest.raises(eq.SetupError) as caught:
        balancer = made.balance(eq.OGM(0.8), features=features)
        balancer.loss(made.model(*inputs), target)
    for word in words:
        assert word in str(caught.value)


def test_a_function_of_features_cannot_be_ablated_and_says_so() -> None:
    made = world("positional", nn.Sequential())
    made.model.head = Bilinear().double()
    made.optimizer = torch.optim.SGD(made.model.parameters(), lr=0.1)
    balancer = made.balance(eq.OGM(0.8), features=lambda a, v: {"audio": a * 2, "visual": v})
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match=r"eq\.Probe"):
        balancer.loss(made.model(*inputs), target)


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Bilinear(8, 8, 3)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.mix(a, v)


class Deep(nn.Module):
    """BatchNorm and dropout, which a careless ablation would disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(16), nn.Linear(16, 12), nn.ReLU(), nn.Dropout(0.5),
            nn.BatchNorm1d(12), nn.Linear(12, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_batchnorm_and_dropout_of_the_head_do_not_notice_the_ablation() -> None:
    scored, plain = World(head=Deep()), World(head=Deep())
    scored.model.load_state_dict(plain.model.state_dict())
    batches = [batch(seed=seed) for seed in range(4)]
    torch.manual_seed(9)
    # A coefficient of 1 throughout: any difference comes from reading the evidence.
    train(scored.balance(eq.OGM(0.0), scores=eq.Ablation()), batches)
    torch.manual_seed(9)
    train(plain.balance(eq.Joint()), batches)
    for (name, ours), theirs in zip(
        scored.model.state_dict().items(), plain.model.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    assert scored.model.head.layers[0].num_batches_tracked == 4
    assert all(module.training for module in scored.model.modules())


def test_modules_of_the_head_that_were_in_evaluation_mode_stay_there() -> None:
    made = World(head=Deep())
    made.model.head.layers[0].eval()
    train(made.balance(eq.OGM(0.8)), [batch()])
    assert not made.model.head.layers[0].training
    assert made.model.head.layers[3].training


@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_ablation_against_a_slow_twin(fill: Any) -> None:
    made = World(3, head=nn.Sequential(nn.Linear(24, 9), nn.Tanh(), nn.Linear(9, 3)))
    balancer = made.balance(eq.OGM(0.8), scores=eq.Ablation(fill), track_every=1)
    *inputs, target = batch(modalities=3)
    features = [e(x).detach() for e, x in zip(made.encoders.values(), inputs, strict=True)]
    expected = {}
    for kept, name in enumerate(made.encoders):
        parts = [
            f if i == kept else torch.zeros_like(f) if fill == "zero" else f.mean(0).expand_as(f)
            for i, f in enumerate(features)
        ]
        probabilities = made.model.head(torch.cat(parts, dim=1)).softmax(1)
        expected[name] = probabilities[torch.arange(24), target].mean().item()
    train(balancer, [(*inputs, target)])
    for name, score in expected.items():
        assert balancer.metrics()[f"evidence/{name}"] == pytest.approx(score, rel=1e-9)


def test_auto_takes_the_split_only_where_it_is_exact() -> None:
    for head, chosen in (
        (nn.Linear(16, 3), "Split"),
        (Deep(), "Ablation"),
        (nn.Sequential(nn.Linear(16, 3), nn.Tanh()), "Ablation"),
    ):
        made = World(head=head)
        balancer = made.balance(eq.OGM(0.8))
        train(balancer, [batch()])
        assert type(balancer.scores.chosen).__name__ == chosen
    made = World(head=Deep())
    balancer = made.balance(eq.OGM(0.8), scores=eq.Split())
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match="no linear layer on concatenated features"):
        balancer.loss(made.model(*inputs), target)


class Gates(nn.Module):
    """Without the other modality there is nothing to gate: zeros make the head deaf to it."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(8, 3)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.out(a.sigmoid() * v)


def test_auto_fills_with_means_where_zeros_make_the_head_deaf() -> None:
    made = world("positional", Gates())
    balancer = made.balance(eq.OGM(0.8), track_every=1)
    a, v, target = batch()
    z = [e(x).detach() for e, x in zip(made.encoders.values(), (a, v), strict=True)]
    alone = made.model.head(z[0], z[1].mean(0).expand_as(z[1])).softmax(1)
    train(balancer, [(a, v, target)])
    assert repr(balancer.scores.chosen) == "Ablation(fill='mean')"
    expected = alone[torch.arange(24), target].mean().item()
    assert balancer.metrics()["evidence/audio"] == pytest.approx(expected)


def test_probes_learn_and_leave_the_model_alone() -> None:
    probed, plain = World(head=Deep()), World(head=Deep())
    plain.model.load_state_dict(probed.model.state_dict())
    balancer = probed.balance(eq.Joint(), scores=eq.Probe(), track_every=1)
    evidence = []
    for seed in range(60):
        torch.manual_seed(seed)
        train(balancer, [batch(64, seed=seed % 5)])
        evidence.append(balancer.metrics()["evidence/visual"])
    assert evidence[-1] > evidence[0] + 0.1
    reference = plain.balance(eq.Joint())
    for seed in range(60):
        torch.manual_seed(seed)
        train(reference, [batch(64, seed=seed % 5)])
    torch.testing.assert_close(weights(probed.model), weights(plain.model), rtol=1e-9, atol=1e-12)


def test_the_users_own_scores() -> None:
    made = World(head=Deep())
    weight = torch.randn(3, 8, dtype=torch.float64)
    balancer = made.balance(
        eq.OGM(0.8),
        scores=lambda features: {n: f @ weight.T for n, f in features.items()},
        track_every=1,
    )
    *inputs, target = batch()
    feature = made.encoders["visual"](inputs[1])
    expected = (feature @ weight.T).softmax(1)[torch.arange(24), target].mean().item()
    train(balancer, [(*inputs, target)])
    assert balancer.metrics()["evidence/visual"] == pytest.approx(expected, rel=1e-9)
    wrong = made.balance(eq.OGM(0.8), scores=lambda features: {"audio": features["audio"][:, :3]})
    with pytest.raises(eq.MatchError, match="expected logits of audio, visual"):
        wrong.loss(made.model(*inputs), target)


class Headless(nn.Module):
    """Two encoders and a similarity: nothing that could be called a head."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(4, 6), nn.Linear(5, 6)

    def forward(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        i = nn.functional.normalize(self.image(image), dim=1)
        t = nn.functional.normalize(self.text(text), dim=1)
        return {"logits": i @ t.T * 5, "other": i}


def similarity(features: dict[str, Tensor]) -> dict[str, Tensor]:
    i, t = (nn.functional.normalize(features[n], dim=1) for n in ("image", "text"))
    return {"image": i @ t.detach().T, "text": t @ i.detach().T}


def test_a_model_without_a_head() -> None:
    model = Headless()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = eq.Balancer(
        eq.OGMGE(0.8),
        model,
        {"image": model.image, "text": model.text},
        optimizer=optimizer,
        scores=similarity,
        track_every=1,
    )
    image, text = torch.randn(9, 4), torch.randn(9, 5)
    before = weights(model)
    for _ in range(3):
        logits = model(image, text)["logits"]
        balancer.backward(balancer.loss(logits, torch.arange(9)))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    assert not torch.equal(weights(model), before)
    assert 0 < balancer.metrics()["evidence/text"] < 1


def test_a_head_that_never_runs_is_said() -> None:
    class Bypassing(Net):
        def forward(self, *inputs: Tensor) -> Tensor:
            pairs = zip(self.encoders.values(), inputs, strict=True)
            return nn.functional.linear(torch.cat([e(x) for e, x in pairs], 1), self.head.weight)

    made = World()
    made.model.__class__ = Bypassing
    balancer = made.balance(eq.OGM(0.8))
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match=r"no recorded forward of the head \(Linear\)"):
        balancer.loss(made.model(*inputs), target)
    with pytest.raises(eq.MatchError, match="did not call its head"):
        balancer.unimodal_logits(*inputs)


def test_a_modality_missing_from_the_batch_is_said() -> None:
    class Optional(Net):
        def forward(self, a: Tensor, v: Tensor | None) -> Tensor:
            z = self.encoders["audio"](a)
            return self.head(z, torch.zeros_like(z) if v is None else self.encoders["visual"](v))

    made = World(head=Positional())
    made.model.__class__ = Optional
    balancer = made.balance(eq.OGM(0.8))
    a, v, target = batch()
    with pytest.raises(eq.MatchError, match="the encoder of visual did not run"):
        balancer.loss(made.model(a, None), target)
    train(balancer, [(a, v, target)])  # from now on it is known which input is which
    with pytest.raises(eq.MatchError, match=r"the encoder of visual did not run.*present="):
        balancer.loss(made.model(a, None), target)
    absent = {"visual": torch.zeros(24, dtype=torch.bool)}
    loss = balancer.loss(made.model(a, None), target, present=absent)
    balancer.backward(loss)
    balancer.modulate()


@pytest.mark.parametrize("method", [eq.OGM(0.8), eq.MultiLoss()])
def test_evidence_and_unimodal_losses_come_from_samples_that_have_the_modality(
    method: eq.Method,
) -> None:
    a, v, target = batch()
    present = {"visual": torch.arange(24) % 3 == 0}
    v = v.masked_fill(~present["visual"][:, None], torch.nan).nan_to_num(1e3)
    made, alone = World(), World()
    balancer = made.balance(method, track_every=1)
    loss = balancer.loss(made.model(a, v), target, present=present)
    balancer.backward(loss)
    balancer.modulate()
    reference = alone.balance(eq.OGM(0.8), track_every=1)
    few = present["visual"]
    reference.backward(reference.loss(alone.model(a[few], v[few]), target[few]))
    reference.modulate()
    found, expected = balancer.metrics(), reference.metrics()
    assert found["evidence/visual"] == pytest.approx(expected["evidence/visual"])


@pytest.mark.parametrize(
    ("present", "words"),
    [
        ({"visul": torch.ones(24, dtype=torch.bool)}, ["no modality 'visul'"]),
        ({"visual": torch.ones(24)}, ["expected bool", "float32"]),
        ({"visual": torch.ones(23, dtype=torch.bool)}, ["(24,)", "(23,)"]),
    ],
)
def test_present_that_does_not_fit_is_refused(present: Any, words: list[str]) -> None:
    made = World()
    balancer = made.balance(eq.OGM(0.8))
    *inputs, target = batch()
    with pytest.raises(eq.MatchError) as caught:
        balancer.loss(made.model(*inputs), target, present=present)
    for word in words:
        assert word in str(caught.value)
