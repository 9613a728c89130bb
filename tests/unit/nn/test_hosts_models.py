"""Host models: shapes, gradients, modalities, what belongs to whom, and what they refuse."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.nn import (
    AVGA,
    MLP,
    MMTM,
    PSP,
    TSN,
    Branch,
    CentralNet,
    CNN1d,
    CNN2d,
    CNN3d,
    CrossModalTransformer,
    MMTMBlock,
    ResNet18,
    pair_similarity_loss,
    sample_segments,
)
from equimodal.nn.hosts import CrossModalLayer, GuidedAttention, NamedHead, Propagation

NAMES = ("audio", "visual", "text")


def central(modalities: int) -> nn.Module:
    return CentralNet({name: CNN1d(2, 6, width=4) for name in NAMES[:modalities]}, classes=4)


def transformer(modalities: int) -> nn.Module:
    sizes = dict(zip(NAMES[:modalities], (3, 4, 5), strict=False))
    return CrossModalTransformer(sizes, classes=4, features=8, heads=2)


def mmtm(modalities: int) -> nn.Module:
    encoders = [CNN2d(1, 6, width=4), ResNet18(3, width=4), CNN3d(1, 5, width=4)]
    return MMTM(dict(zip(NAMES[:modalities], encoders, strict=False)), classes=4)


def tsn(modalities: int) -> nn.Module:
    encoders = [CNN2d(1, 6, width=4), MLP(6, (5,), 4), CNN1d(2, 5, width=4)]
    return TSN(dict(zip(NAMES[:modalities], encoders, strict=False)), classes=4)


SMALL: dict[str, Any] = {"audio": 3, "visual": 5, "hidden": 4, "attention": 6}
Host = tuple[Callable[[int], Any], list[tuple[int, ...]], tuple[int, ...]]
HOSTS: dict[str, Host] = {  # how to make it, the shapes of a sample's inputs, and of its logits
    "tsn": (tsn, [(3, 1, 12, 10), (2, 2, 3), (4, 2, 20)], (4,)),
    "mmtm": (mmtm, [(1, 16, 12), (3, 33, 40), (1, 5, 9, 9)], (4,)),
    "centralnet": (central, [(2, 20)] * 3, (4,)),
    "cross-modal": (transformer, [(5, 3), (6, 4), (3, 5)], (4,)),
    "avga": (lambda _: AVGA(4, **SMALL), [(6, 3), (6, 2, 3, 5)], (6, 4)),
    "psp": (lambda _: PSP(4, threshold=0.1, **SMALL), [(6, 3), (6, 2, 3, 5)], (6, 4)),
}
ANY = ["tsn", "mmtm", "centralnet", "cross-modal"]
CASES = [(name, 2) for name in HOSTS] + [(name, 3) for name in ANY]
every = pytest.mark.parametrize(("name", "modalities"), CASES)


def world(name: str, modalities: int = 2) -> tuple[Any, list[Tensor]]:
    torch.manual_seed(0)
    make, shapes, _ = HOSTS[name]
    generator = torch.Generator().manual_seed(1)
    inputs = [
        torch.randn(5, *shape, generator=generator, dtype=torch.float64)
        for shape in shapes[:modalities]
    ]
    return make(modalities).double(), inputs


@every
def test_logits_have_their_shape(name: str, modalities: int) -> None:
    model, inputs = world(name, modalities)
    logits = model(*inputs)
    assert logits.shape == (5, *HOSTS[name][2])
    assert logits.isfinite().all()
    assert list(model.encoders) == list(NAMES[:modalities])


@every
def test_every_parameter_learns(name: str, modalities: int) -> None:
    model, inputs = world(name, modalities)
    loss = model(*inputs).square().sum()
    if name == "centralnet":
        loss = loss + model.branch_loss(model.encode(*inputs), torch.arange(5) % 4)
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        if parameter.ndim > 1:
            assert parameter.grad.any(), parameter_name


@every
def test_samples_are_independent_in_evaluation(name: str, modalities: int) -> None:
    model, inputs = world(name, modalities)
    model.eval()
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(model(*(x[order] for x in inputs)), model(*inputs)[order])


@every
def test_copies_and_pickles(name: str, modalities: int) -> None:
    model, inputs = world(name, modalities)
    model.eval()
    expected = model(*inputs)
    assert torch.equal(copy.deepcopy(model)(*inputs), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(*inputs), expected)


@every
def test_encoders_head_and_what_is_shared(name: str, modalities: int) -> None:
    """No parameter has two owners, and what modalities share has none."""
    model, _ = world(name, modalities)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = dict(model.encoders.items())
    with eq.Balancer(eq.OGM(0.8), model, encoders, model.head, optimizer) as balancer:
        found = balancer.attached.modalities
    assert found.shared == ()
    owned = [each.name for of in found.owned.values() for each in of]
    assert len(owned) == len(set(owned))
    rest = {n for n, _ in model.named_parameters()} - set(owned)
    head = {f"head.{n}" for n, _ in model.head.named_parameters()}
    beside = {"mmtm": "blocks.", "centralnet": ("central.", "merges."), "avga": "attention.score."}
    beside["psp"] = "attention.score."
    assert head <= rest
    assert rest - head == {n for n in rest if n.startswith(beside.get(name, "(none)"))}
    assert bool(rest - head) == (name in beside)


@pytest.mark.parametrize("name", ["mmtm", "cross-modal", "centralnet", "tsn"])
def test_the_order_of_modalities_is_only_a_name(name: str) -> None:
    """A model with its modalities in another order, and the same weights, gives the same logits."""
    make: dict[str, Callable[[tuple[str, ...]], Any]] = {
        "mmtm": lambda n: MMTM({m: CNN1d(2, 6, width=4) for m in n}, classes=4),
        "centralnet": lambda n: CentralNet({m: CNN1d(2, 6, width=4) for m in n}, classes=4),
        "tsn": lambda n: TSN({m: CNN1d(2, 6, width=4) for m in n}, classes=4),
        "cross-modal": lambda n: CrossModalTransformer(dict.fromkeys(n, 2), 4, features=8, heads=2),
    }
    shape = {"tsn": (5, 3, 2, 20), "cross-modal": (5, 6, 2)}.get(name, (5, 2, 20))
    inputs = {m: torch.randn(*shape, dtype=torch.float64) for m in NAMES}
    model, other = (make[name](n).double().eval() for n in (NAMES, NAMES[::-1]))
    if name == "centralnet":
        for merge in (*model.merges, model.head.merge):
            nn.init.uniform_(merge.scalars)  # all alike, their order would not matter
    state = model.state_dict()
    for key, value in state.items():
        if key.endswith("scalars"):  # the central network comes first, where it is there
            state[key] = torch.cat([value[:-3], value[-3:].flip(0)])
        elif key.endswith("squeeze.0.weight") or (name == "tsn" and key == "head.linear.weight"):
            state[key] = torch.cat(value.chunk(3, dim=1)[::-1], dim=1)
        elif key == "head.linear.weight":  # of the transformer: a block of columns for each pair
            pairs = [[(m, s) for m in n for s in n if s != m] for n in (NAMES, NAMES[::-1])]
            columns = dict(zip(pairs[0], value.chunk(6, dim=1), strict=True))
            state[key] = torch.cat([columns[pair] for pair in pairs[1]], dim=1)
    other.load_state_dict(state)
    turned_inputs = [inputs[m] for m in NAMES[::-1]]
    torch.testing.assert_close(other(*turned_inputs), model(*inputs.values()))


@pytest.mark.parametrize("name", ["mmtm", "cross-modal", "centralnet", "avga", "psp"])
def test_modalities_interact_before_the_logits(name: str) -> None:
    """The logits are not a sum of what each modality says, else there was nothing to prove."""
    model, inputs = world(name)
    model.eval()
    a, v = inputs
    mixed = model(a, v) - model(a.flip(0), v) - model(a, v.flip(0)) + model(a.flip(0), v.flip(0))
    assert mixed.abs().max() > 1e-6


def test_mmtm_features_depend_on_the_other_modality() -> None:
    model, inputs = world("mmtm")
    model.eval()
    changed = model.encode(inputs[0], inputs[1] + 1)["audio"]
    assert (changed - model.encode(*inputs)["audio"]).abs().max() > 1e-6


def test_a_branch_of_ones_own() -> None:
    stages = [nn.Conv2d(1, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 8, 3))]
    own = Branch(stages, (4, 8))
    model = MMTM({"audio": own, "visual": CNN2d(1, 6, width=3, depth=2)}, classes=2, after=[1, 2])
    assert model(torch.randn(2, 1, 9, 9), torch.randn(2, 1, 8, 8)).shape == (2, 2)
    assert model.encoders["audio"] == stages
    assert model.blocks["2"].channels == {"audio": 8, "visual": 6}


@pytest.mark.parametrize(
    "encoder", [CNN2d(3, 6, width=4), ResNet18(3, width=4), MLP(3 * 33 * 40, (5, 6), 4)]
)
def test_stages_in_a_row_are_the_encoder(encoder: Any) -> None:
    encoder = encoder.double().eval()
    x = torch.randn(2, 3, 33, 40, dtype=torch.float64)
    expected = encoder(x)
    model = MMTM({"a": encoder, "b": CNN2d(1, 4)}, classes=2)
    maps = model.branches["a"](x)
    torch.testing.assert_close(maps.flatten(2).mean(2) if maps.ndim > 2 else maps, expected)
    assert model.branches["a"].channels[-1] == encoder.features


def refusal(words: str, make: Callable[[], Any]) -> Any:
    return pytest.param(make, words)


SHARED = CNN2d(1, 4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        refusal(r"TSN\(encoders\).*dict of modalities", lambda: TSN([CNN2d(1)], 2)),  # type: ignore[arg-type]
        refusal(r"TSN\(encoders\['a'\]\).*features", lambda: TSN({"a": nn.Flatten()}, 2)),
        refusal("two or more modalities", lambda: TSN({"a": CNN2d(1)}, 2)),
        refusal(
            r"Consensus: expected a tensor of shape \(B, S",
            lambda: TSN({"a": CNN2d(1), "b": CNN2d(1)}, 2).encoders["a"](torch.ones(2, 3)),
        ),
        refusal(
            r"4 segments of 3 steps or more, found shape \(2, 11\)",
            lambda: sample_segments(torch.ones(2, 11), 4, 3),
        ),
        refusal(r"GuidedAttention\(hidden\)", lambda: GuidedAttention(3, 4, hidden=0)),
        refusal(r"AVGA\(visual\).*found 0", lambda: AVGA(3, visual=0)),
        refusal(r"AVGA: .*\(B, T, 128\), found \(2, 10, 64\)", lambda: AVGA(3)(torch.ones(2, 10, 64), torch.ones(2, 10, 4, 512))),
        refusal(r"AVGA: .*\(2, 10, P, 512\) or \(2, 10, H, W, 512\), found \(2, 9", lambda: AVGA(3)(torch.ones(2, 10, 128), torch.ones(2, 9, 4, 512))),
        refusal(r"SegmentHead: no features of visual", lambda: AVGA(3).head(audio=torch.ones(2, 3, 256))),
        refusal("unknown modality 'vidual': did you mean 'visual'", lambda: AVGA(3).head(audio=torch.ones(2, 3, 256), vidual=torch.ones(2, 3, 256))),
        refusal(r"Propagation\(threshold\).*found 1.5", lambda: Propagation(4, threshold=1.5)),
        refusal(r"Propagation\(dropout\)", lambda: PSP(3, dropout=1.0)),
        refusal("pair_similarity_loss: .*one shape", lambda: pair_similarity_loss(torch.ones(2, 3), torch.ones(3))),
        refusal(r"MMTMBlock\(channels\).*two or more", lambda: MMTMBlock({"a": 3})),
        refusal(r"MMTMBlock\(ratio\).*found 0", lambda: MMTMBlock({"a": 3, "b": 4}, ratio=0)),
        refusal(r"MMTMBlock\(ratio\).*at most 14", lambda: MMTMBlock({"a": 3, "b": 4}, ratio=99)),
        refusal(r"map of b of shape \(B, 4, \.\.\.\), found \(2, 5, 1\)", lambda: MMTMBlock({"a": 3, "b": 4})({"a": torch.ones(2, 3, 1), "b": torch.ones(2, 5, 1)})),
        refusal("map of b .*found a", lambda: MMTMBlock({"a": 3, "b": 4})({"a": torch.ones(2, 3, 1)})),
        refusal(r"MMTM\(branches\).*two or more", lambda: MMTM({"a": CNN2d(1)}, 2)),
        refusal("a and b share parameters", lambda: MMTM({"a": SHARED, "b": SHARED}, 2)),
        refusal(r"branches\['b'\]: expected .*found LSTM", lambda: MMTM({"a": CNN2d(1), "b": nn.LSTM(2, 2)}, 2)),
        refusal(r"MMTM\(after\).*between 1 and 3.*found 4", lambda: MMTM({"a": CNN2d(1), "b": CNN2d(1, depth=4)}, 2, after=[4])),
        refusal("MMTM: expected inputs of a, b, found 1", lambda: MMTM({"a": CNN2d(1), "b": CNN2d(1)}, 2)(torch.ones(2, 1, 8, 8))),
        refusal("1 stages and 2 channels", lambda: Branch([nn.Identity()], (1, 2))),
        refusal("'central' is the central network", lambda: CentralNet({"a": CNN1d(1), "central": CNN1d(1)}, 2)),
        refusal(r"channels of a after every stage, \(16, 32, 64\), found \(8, 16, 64\) for b", lambda: CentralNet({"a": CNN1d(1), "b": CNN1d(1, width=8)}, 2)),
        refusal("two or more stages, found 1", lambda: CentralNet({"a": CNN1d(1, depth=1), "b": CNN1d(1, depth=1)}, 2)),
        refusal(r"CentralNet\(central\).*\(32, 64\) channels, found \(3,\)", lambda: CentralNet({"a": CNN1d(1), "b": CNN1d(1)}, 2, central=Branch([nn.Identity()], (3,)))),
        refusal("maps of one shape to merge", lambda: CentralNet({"a": CNN1d(1), "b": CNN1d(1)}, 2)(torch.ones(2, 1, 40), torch.ones(2, 1, 30))),
        refusal("CentralNet: expected inputs of a, b, found 3", lambda: CentralNet({"a": CNN1d(1), "b": CNN1d(1)}, 2)(*[torch.ones(2, 1, 9)] * 3)),
        refusal(r"CrossModalTransformer\(inputs\)", lambda: CrossModalTransformer({"a": 3}, 2)),
        refusal("multiple of heads=4, found 10", lambda: CrossModalTransformer({"a": 3, "b": 3}, 2, features=10)),
        refusal(r"CrossModalLayer\(width\)", lambda: CrossModalLayer(6, heads=4)),
        refusal("TokenEncoder: .*found", lambda: CrossModalTransformer({"a": 3, "b": 3}, 2)(torch.ones(2, 5, 3), torch.ones(2, 5, 4))),
        refusal("expected inputs of a, b, found 1", lambda: CrossModalTransformer({"a": 3, "b": 3}, 2)(torch.ones(2, 5, 3))),
        refusal(r"NamedHead\(widths\): modality 'a.b'", lambda: NamedHead({"a.b": 3, "c": 3}, 2)),
    ],
)  # fmt: skip
def test_refuses_what_does_not_fit(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(eq.SetupError, match=words):
        make()
