"""Gradients of a shared trunk by tokens: against passes in which some tokens alone train it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import equimodal as eq
from equimodal.testing import spawn
from support import slow
from support.decoder import PLACEHOLDER, Decoder, batch, through, tokens_of

LOSS = eq.TokenLoss()
OGM = {"alpha": 0.5, "parameters": "all"}


class World:
    """A decoder, its optimizer and how both are balanced."""

    def __init__(self, ranks: bool = False, **settings: Any) -> None:
        torch.manual_seed(0)
        self.model = Decoder(**settings).double()
        self.wrapped: nn.Module = DistributedDataParallel(self.model) if ranks else self.model
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)

    def balance(self, method: Any = None, which: Any = tokens_of, **settings: Any) -> eq.Balancer:
        given = {"scores": eq.Ablation(), "criterion": LOSS, "track_every": 1, **settings}
        m = self.model
        return eq.Balancer(
            method or eq.OGM(**OGM), self.wrapped, {"image": m.vision, "text": m.embed},
            None, self.optimizer, tokens=eq.Tokens("trunk", which), **given,
        )  # fmt: skip

    def parts(self, given: tuple[Tensor, ...], scale: float = 1.0) -> tuple[Any, Any]:
        """Gradients through image tokens alone, and through all others alone."""
        *inputs, labels = given

        def loss() -> Tensor:
            return LOSS(self.model(*inputs), labels) * scale  # type: ignore[no-any-return]

        image = inputs[0] == PLACEHOLDER
        return through(self.model, image, loss), through(self.model, ~image, loss)

    def adapters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((n, p) for n, p in self.model.named_parameters() if "lora" in n)


def packed(seed: int = 0) -> tuple[Tensor, ...]:
    """Two samples in every row, an image in some; labels say which sample a token belongs to."""
    ids, patches, labels = batch(seed)
    samples = torch.arange(ids.shape[1]).gt(4).long().expand_as(ids)
    return ids, patches, samples, (labels, samples)  # type: ignore[return-value]


CASES = {
    "plain": ({}, batch),
    "checkpointed": ({"checkpointed": True}, batch),
    "packed": ({}, packed),
    "packed and checkpointed": ({"checkpointed": True}, packed),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [0, 1, 2])  # images of 0 to 5 tokens, in one batch
def test_parts_equal_masked_passes_and_add_up(case: str, seed: int) -> None:
    settings, make = CASES[case]
    world, given = World(**settings), make(seed)
    image, text = World().parts(given)
    balancer = world.balance()
    balancer.backward(balancer.loss(world.wrapped(*given[:-1]), given[-1]))
    found = {n: balancer.trunk.reader.parts[p] for n, p in world.adapters()}  # type: ignore[union-attr]
    assert len(found) == 16
    balancer.modulate()
    k = balancer.metrics()
    assert min(k["coefficient/image"], k["coefficient/text"]) < 1
    for name, parameter in world.adapters():
        torch.testing.assert_close(found[name][0], image[name], rtol=1e-9, atol=1e-12)
        expected = k["coefficient/image"] * image[name] + k["coefficient/text"] * text[name]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-10)
        whole = image[name] + text[name]
        with torch.no_grad():
            assert not torch.allclose(whole * k["coefficient/text"], expected)
    for name, of in (("image", image), ("text", text)):
        norm = torch.cat([of[n].flatten() for n, _ in world.adapters()]).norm().item()
        assert k[f"trunk_norm/{name}"] == pytest.approx(norm, rel=1e-6)


def test_nothing_changes_where_nothing_is_throttled() -> None:
    world, plain = World(), World()
    balancer = world.balance(eq.Joint())
    balancer.backward(balancer.loss(world.model(*batch()[:-1]), batch()[-1]))
    balancer.modulate()
    LOSS(plain.model(*batch()[:-1]), batch()[-1]).backward()
    for ours, theirs in zip(world.model.parameters(), plain.model.parameters(), strict=True):
        assert ours.grad is theirs.grad is None or torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]


def train(world: World, balancer: eq.Balancer, parts: list[tuple[Tensor, ...]]) -> dict[str, float]:
    for *inputs, labels in parts:
        balancer.backward(balancer.loss(world.wrapped(*inputs), labels) / len(parts))
    balancer.modulate()
    found = balancer.metrics()
    world.optimizer.step()
    world.optimizer.zero_grad()
    return found


def by_hand(world: World, parts: list[tuple[Tensor, ...]], k: Mapping[str, float]) -> None:
    """The same step from masked passes, with the coefficients that were found."""
    each = [world.parts(part, 1 / len(parts)) for part in parts]
    for *inputs, labels in parts:
        (LOSS(world.model(*inputs), labels) / len(parts)).backward()
    for name, parameter in world.model.named_parameters():
        if "lora" in name:
            parameter.grad = sum(
                k["coefficient/image"] * image[name] + k["coefficient/text"] * text[name]
                for image, text in each
            )  # type: ignore[assignment]
        elif parameter.grad is not None:
            owner = {"vision": "image", "embed": "text"}.get(name.split(".")[0])
            parameter.grad *= 1 if owner is None else k[f"coefficient/{owner}"]
    world.optimizer.step()
    world.optimizer.zero_grad()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("micro", [1, 3])
def test_steps_equal_those_by_hand(micro: int) -> None:
    world, hand = World(), World()
    balancer = world.balance()
    for step in range(3):
        parts = [batch(10 * step + i) for i in range(micro)]
        by_hand(hand, parts, train(world, balancer, parts))
        torch.testing.assert_close(weights(world.model), weights(hand.model), rtol=1e-6, atol=1e-9)


def on_ranks(rank: int) -> tuple[Tensor, list[dict[str, float]]]:
    world = World(ranks=True)
    balancer = world.balance()
    found = []
    for step in range(2):
        with world.wrapped.no_sync():  # type: ignore[operator]
            *inputs, labels = batch(4 * step + rank)
            balancer.backward(balancer.loss(world.wrapped(*inputs), labels) / 2)
        *inputs, labels = batch(4 * step + 2 + rank)
        balancer.backward(balancer.loss(world.wrapped(*inputs), labels) / 2)
        balancer.modulate()
        found.append(balancer.metrics())
        world.optimizer.step()
        world.optimizer.zero_grad()
    return weights(world.model), found


def test_two_ranks_that_accumulate_equal_the_step_by_hand() -> None:
    (first, found), (second, _) = spawn(on_ranks)
    assert torch.equal(first, second)
    hand = World()
    for step in range(2):
        by_hand(hand, [batch(4 * step + i) for i in range(4)], found[step])
    torch.testing.assert_close(first, weights(hand.model), rtol=1e-6, atol=1e-9)


def test_noise_is_as_strong_as_each_part() -> None:
    world, given = World(), batch()
    image, text = world.parts(given)
    balancer = world.balance(eq.OGMGE(0.5))
    balancer.backward(balancer.loss(world.model(*given[:-1]), given[-1]))
    balancer.modulate()
    k = balancer.metrics()
    linear = [n for n, _ in world.model.named_parameters() if "base" in n or "lora" in n]
    for name, parameter in world.adapters():
        number = linear.index(name)  # frozen ones have a number too
        expected = torch.zeros_like(parameter)
        for place, (modality, of) in enumerate((("image", image), ("text", text))):
            sigma = slow.standard_deviation(of[name].numpy()) + 1e-8
            drawn = slow.noise(parameter.shape, parameter.dtype, 0, 0, 3 + 2 * number + place)
            expected += k[f"coefficient/{modality}"] * of[name] + sigma * drawn
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-9)


class Freezing(eq.Method):
    """Whose tokens train the trunk is told from outside."""

    name = "freezing"
    modulates = False

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.left = frozenset(names)

    def frozen(self) -> frozenset[str]:
        return self.left


@pytest.mark.parametrize("names", [("image",), ("text",), ("image", "text")])
def test_frozen_modalities_do_not_train_the_trunk(names: tuple[str, ...]) -> None:
    world, given = World(), batch(1)
    image, text = world.parts(given)
    balancer = world.balance(Freezing(*names))
    balancer.backward(balancer.loss(world.model(*given[:-1]), given[-1]))
    balancer.modulate()
    assert {"image", "text"} - {
        name
        for name, module in (("image", world.model.vision), ("text", world.model.embed))
        if module.weight.grad is None
    } == {"image", "text"} - set(names)
    for name, parameter in world.adapters():
        if len(names) == 2:
            assert parameter.grad is None
        else:
            expected = (text if names == ("image",) else image)[name]
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-10)


def test_a_modality_that_a_method_leaves_out_keeps_its_part() -> None:
    world, given = World(), batch()
    image, text = world.parts(given)
    balancer = world.balance(eq.OGM(5.0, parameters="all", modalities=["text"]))
    balancer.backward(balancer.loss(world.model(*given[:-1]), given[-1]))
    balancer.modulate()
    k = balancer.metrics()["coefficient/text"]
    for name, parameter in world.adapters():
        torch.testing.assert_close(parameter.grad, image[name] + k * text[name])


def three(ids: Tensor, *given: Tensor) -> Mapping[str, Tensor]:
    even = torch.arange(ids.shape[1]).expand_as(ids) % 2 == 0
    image = ids == PLACEHOLDER
    return {"image": image, "text": ~image & even}  # the others belong to none


def test_tokens_may_belong_to_none() -> None:
    world, given = World(), batch(2)
    ids, patches, labels = given

    def loss() -> Tensor:
        return LOSS(world.model(ids, patches), labels)  # type: ignore[no-any-return]

    masks = dict(three(ids))
    of = {name: through(world.model, mask, loss) for name, mask in masks.items()}
    rest = through(world.model, ~(masks["image"] | masks["text"]), loss)
    balancer = world.balance(which=three)
    balancer.backward(balancer.loss(world.model(ids, patches), labels))
    balancer.modulate()
    k = balancer.metrics()
    for name, parameter in world.adapters():
        expected = rest[name] + sum(k[f"coefficient/{n}"] * of[n][name] for n in of)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-10)


def test_one_factor_of_the_loop_is_followed_and_anything_else_refused() -> None:
    def grads(after: Any) -> dict[str, Tensor]:
        world, given = World(), batch()
        balancer = world.balance()
        balancer.backward(balancer.loss(world.model(*given[:-1]), given[-1]))
        after(world.model)
        balancer.modulate()
        return {name: parameter.grad for name, parameter in world.adapters()}  # type: ignore[misc]

    def scale(model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.data.mul_(0.25)  # past the count of changes, as a scaler does

    plain, scaled = grads(lambda model: None), grads(scale)
    for name, gradient in scaled.items():
        torch.testing.assert_close(gradient, 0.25 * plain[name])
    with pytest.raises(eq.StepError, match=r"by\s+more than one factor.*after balancer\.modulate"):
        grads(lambda model: nn.utils.clip_grad_value_(model.parameters(), 1e-3))


def test_what_a_loop_drops_leaves_no_trace() -> None:
    world, other = World(), World()
    balancer, twin = world.balance(), other.balance()
    for to_none in (True, False):
        *inputs, labels = batch(5)
        balancer.backward(balancer.loss(world.model(*inputs), labels))
        world.optimizer.zero_grad(set_to_none=to_none)
        found = [train(w, b, [batch(2)]) for w, b in ((world, balancer), (other, twin))]
        assert found[0] == found[1]
    assert torch.equal(weights(world.model), weights(other.model))


def test_gradients_that_are_asked_for_beside_the_step_do_not_count() -> None:
    world, given = World(), batch()
    image, _ = world.parts(given)
    balancer = world.balance()
    loss = balancer.loss(world.model(*given[:-1]), given[-1])
    torch.autograd.grad(loss, world.model.embed.weight, retain_graph=True)
    balancer.backward(loss)
    for name, parameter in world.adapters():
        part = balancer.trunk.reader.parts[parameter][0]  # type: ignore[union-attr]
        torch.testing.assert_close(part, image[name])


def test_a_pass_beside_balancer_backward_is_refused() -> None:
    world, (*inputs, labels) = World(), batch()
    balancer = world.balance()
    LOSS(world.model(*inputs), labels).backward()
    with pytest.raises(eq.StepError, match=r"another backward pass.*add that loss"):
        balancer.backward(balancer.loss(world.model(*inputs), labels))


def test_no_memory_is_held_after_the_pass() -> None:
    """What a layer was given goes with the pass, although the loss still lives."""
    world, (*inputs, labels) = World(), batch()
    balancer = world.balance()
    loss = balancer.loss(world.model(*inputs), labels)
    balancer.backward(loss)
    with pytest.raises((eq.StepError, RuntimeError)):
        loss.backward()
    assert balancer.trunk is not None
    balancer.modulate()
    assert not balancer.trunk.reader.parts


def test_hooks_come_off_and_copies_carry_none() -> None:
    world = World()
    balancer = world.balance()
    train(world, balancer, [batch()])
    twin = copy.deepcopy(world.model)
    balancer.detach()
    for model in (world.model, twin):
        LOSS(model(*batch()[:-1]), batch()[-1]).backward()
        assert not any(m._forward_hooks for m in world.model.modules())
    assert not balancer.trunk.reader.parts  # type: ignore[union-attr]


def test_a_fused_attention_is_left_alone_and_named() -> None:
    class Fused(Decoder):
        def __init__(self) -> None:
            super().__init__(layers=1)
            self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
            self.trunk.append(self.attention)

        def forward(self, ids: Tensor, patches: Tensor) -> Tensor:  # type: ignore[override]
            x = self.embed(ids)
            x = x.masked_scatter((ids == PLACEHOLDER)[..., None], self.vision(patches))
            x = self.trunk[0](x, torch.ones(9, 9).bool().tril()[None])
            return self.out(x + self.attention(x, x, x)[0])  # type: ignore[no-any-return]

    world = World()
    world.model = world.wrapped = Fused().double()  # type: ignore[assignment]
    world.optimizer = torch.optim.SGD(world.model.parameters(), 0.1)
    balancer = world.balance()
    *inputs, labels = batch()
    LOSS(world.model(*inputs), labels).backward()
    expected = world.model.attention.out_proj.weight.grad.clone()  # type: ignore[union-attr, operator]
    world.optimizer.zero_grad()
    for _ in range(2):  # what the first leaves there is no stray gradient
        balancer.backward(balancer.loss(world.model(*inputs), labels) / 2)
    with pytest.warns(eq.BalanceWarning, match=r"trunk\.1\.out_proj\.weight.*left as they are"):
        balancer.modulate()
    torch.testing.assert_close(world.model.attention.out_proj.weight.grad, expected)  # type: ignore[union-attr]


def said(world: World, which: Any = tokens_of, *settings: Any, **more: Any) -> None:
    balancer = world.balance(*settings, which=which, **more)
    *inputs, labels = batch()
    balancer.backward(balancer.loss(world.model(*inputs), labels))


WRONG: dict[str, tuple[Any, str]] = {
    "none told": (lambda ids, p: {}, r"tokens of image, text, of which one.*found \[\]"),
    "misspelt": (lambda ids, p: {"pixels": ids == 0}, r"image, text.*found \['pixels'\]"),
    "numbers": (lambda ids, p: {"image": (ids == 0).long()}, "bool masks of one shape.*int64"),
    "of another shape": (
        lambda ids, p: {"image": (ids == 0)[:, 1:]},
        r"trunk\.0\.q\.lora_A was given tokens of shape \(4, 9\).*\(4, 8\)",
    ),
    "both": (
        lambda ids, p: {"image": ids == 0, "text": ids < 5}, "belongs to two modalities",
    ),
    "a list": (lambda ids, p: [ids == 0], "found list"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_masks_that_do_not_fit_are_refused(case: str) -> None:
    which, words = WRONG[case]
    with pytest.raises(eq.MatchError, match=words):
        said(World(), which)


def test_reentrant_checkpointing_is_refused() -> None:
    world = World(checkpointed="reentrant")
    balancer = world.balance(scores=eq.Given())
    *inputs, labels = batch()
    loss = LOSS(world.model(*inputs), labels)
    each = dict.fromkeys(("image", "text"), loss.detach().expand(4))
    with pytest.raises(eq.StepError, match="use_reentrant=False"):
        balancer.backward(balancer.loss(losses=each, joint=loss))


@pytest.mark.parametrize("method", [eq.MMPareto, eq.MASAM])
def test_methods_with_passes_of_their_own_are_refused(method: type[eq.Method]) -> None:
    world = World()
    with pytest.raises(eq.SetupError, match=rf"{method.__name__} runs backward.*eq\.OGM"):
        world.balance(method())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in world.model.modules())


def test_what_cannot_be_separated_is_refused_at_once() -> None:
    world = World()
    with pytest.raises(eq.SetupError, match=r"running moments.*TensorNoise"):
        world.balance(eq.OGMGE(noise=eq.ElementNoise()))
    with pytest.raises(eq.SetupError, match=r"no torch\.nn\.Linear in LayerNorm"):
        eq.Balancer(
            eq.OGM(), world.model, {"image": "vision", "text": "embed"}, None, world.optimizer,
            tokens=eq.Tokens("trunk.0.norm", tokens_of),
        )  # fmt: skip
    with pytest.raises(eq.SetupError, match=r"expected a module and a function.*found 'trunk'"):
        eq.Tokens("trunk", {"image": 1})  # type: ignore[arg-type]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in world.model.modules())
