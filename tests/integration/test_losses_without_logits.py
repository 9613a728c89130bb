"""One loss per sample and modality in place of logits: a denoiser with two losses, by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import equimodal as eq
from equimodal.testing import spawn
from support import slow

ALPHA, TEMPERATURE = 0.4, 0.5
Losses = dict[str, Tensor]


class Denoiser(nn.Module):
    """Each modality in and out by layers of its own; a trunk is shared, and it is no head."""

    def __init__(self) -> None:
        super().__init__()
        self.audio_in, self.video_in = nn.Linear(4, 8), nn.Linear(6, 8)
        self.trunk = nn.Linear(8, 8)
        self.audio_out, self.video_out = nn.Linear(8, 4), nn.Linear(8, 6)

    def forward(self, audio: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        mixed = self.trunk(self.audio_in(audio) + self.video_in(video)).tanh()
        return self.audio_out(mixed), self.video_out(mixed)


def batch(size: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return audio, torch.randn(size, 6, generator=generator, dtype=torch.float64) * 0.4


class World:
    def __init__(self, ranks: bool = False) -> None:
        torch.manual_seed(0)
        self.model = Denoiser().double()
        self.wrapped: nn.Module = (
            DistributedDataParallel(self.model, find_unused_parameters=True)
            if ranks
            else self.model
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        m = self.model
        self.encoders = {"audio": [m.audio_in, m.audio_out], "video": [m.video_in, m.video_out]}

    def balance(self, method: eq.Method | None = None, **settings: Any) -> eq.Balancer:
        given = {"scores": eq.Given(temperature=TEMPERATURE), "track_every": 1, **settings}
        return eq.Balancer(
            method or eq.OGM(ALPHA), self.wrapped, self.encoders, None, self.optimizer, **given
        )

    def losses(self, audio: Tensor, video: Tensor) -> Losses:
        a, v = self.wrapped(audio, video)
        return {"audio": (a - audio).square().mean(1), "video": (v - video).square().mean(1)}

    def train(
        self,
        balancer: eq.Balancer,
        parts: list[tuple[Tensor, Tensor]],
        present: Sequence[Mapping[str, Tensor]] | None = None,
        lacking: str = "",
    ) -> dict[str, float]:
        for i, part in enumerate(parts):
            losses = self.losses(*part)
            losses.pop(lacking, None)
            has = None if present is None else present[i]
            balancer.backward(balancer.loss(losses=losses, present=has) / len(parts))
        balancer.modulate()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return balancer.metrics()

    def by_hand(
        self,
        parts: list[tuple[Tensor, Tensor]],
        present: Sequence[Mapping[str, Tensor]] | None = None,
        lacking: str = "",
    ) -> dict[str, float]:
        scores, counts = dict.fromkeys(self.encoders, 0.0), dict.fromkeys(self.encoders, 0)
        for i, part in enumerate(parts):
            total = torch.zeros((), dtype=torch.float64)
            for name, each in self.losses(*part).items():
                if name == lacking:
                    continue
                has = (present or [{} for _ in parts])[i].get(name, torch.ones(len(each)).bool())
                kept = [loss for loss, there in zip(each, has.tolist(), strict=True) if there]
                scores[name] += sum(math.exp(-loss.item() / TEMPERATURE) for loss in kept)
                counts[name] += len(kept)
                if kept:
                    total = total + torch.stack(kept).mean()
            torch.autograd.backward(total / len(parts))
        means = [scores[n] / counts[n] for n in self.encoders if counts[n]]
        ratios = slow.ratios(means) if len(means) > 1 else [math.nan]
        found: dict[str, float] = {}
        for module in self.encoders.get(lacking, []):  # what nobody has stays as it is
            module.zero_grad()
        for name, mean, ratio in zip([n for n in scores if counts[n]], means, ratios, strict=True):
            k = 1.0 if math.isnan(ratio) else slow.thresholded(ratio, ALPHA)
            found |= {f"evidence/{name}": mean, f"coefficient/{name}": k}
            slow.scale_matrices(self.encoders[name], k)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return found


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


def cut(whole: tuple[Tensor, Tensor], micro: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(*(tensor.chunk(micro) for tensor in whole), strict=True))


@pytest.mark.parametrize("micro", [1, 3])
@pytest.mark.parametrize("case", ["all there", "some missing", "audio alone"])
def test_equals_the_loop_by_hand(micro: int, case: str) -> None:
    world, hand = World(), World()
    balancer = world.balance()
    throttled = set()
    for seed in range(4):
        parts = cut(batch(seed=seed), micro)
        present = None
        if case == "some missing":
            present = [{"video": torch.arange(len(a)) % 3 > 0} for a, _ in parts]
        lacking = "video" if case == "audio alone" and seed == 1 else ""
        found = world.train(balancer, parts, present, lacking)
        for name, value in hand.by_hand(parts, present, lacking).items():
            assert found[name] == pytest.approx(value, rel=1e-9), name
            throttled.add(value < 1)
    assert throttled == {True, False}
    torch.testing.assert_close(weights(world.model), weights(hand.model), rtol=1e-9, atol=1e-12)


def test_a_batch_without_a_modality_leaves_it_alone() -> None:
    """Its losses are left out: no gradient reaches what is its own, and nobody warns."""
    world = World()
    before = weights(world.model.video_out)
    metrics = world.train(world.balance(), cut(batch(), 1), lacking="video")
    assert torch.equal(weights(world.model.video_out), before)
    assert metrics["coefficient/audio"] == 1
    assert math.isnan(metrics["ratio/audio"])


def test_a_joint_loss_of_ones_own() -> None:
    world, hand = World(), World()
    balancer = world.balance(eq.OGM(ALPHA, parameters="all"))
    a, v = batch()
    losses = world.losses(a, v)
    joint = 2 * losses["audio"].mean() + 0.1 * losses["video"].mean()
    loss = balancer.loss(losses=losses, joint=joint)
    assert loss == joint
    balancer.backward(loss)
    balancer.modulate()
    losses = hand.losses(a, v)
    torch.autograd.backward(2 * losses["audio"].mean() + 0.1 * losses["video"].mean())
    k = balancer.metrics()
    assert min(k["coefficient/audio"], k["coefficient/video"]) < 1
    for name, ours, theirs in zip(
        dict(world.model.named_parameters()), world.model.parameters(), hand.model.parameters(),
        strict=True,
    ):  # fmt: skip
        factor = k.get(f"coefficient/{name.split('_')[0]}", 1.0)
        torch.testing.assert_close(ours.grad, factor * theirs.grad)  # type: ignore[operator]


def on_ranks(rank: int) -> tuple[Tensor, list[dict[str, float]]]:
    world = World(ranks=True)
    balancer, metrics = world.balance(), []
    for seed in range(3):
        audio, video = batch(seed=seed)
        present = [{"video": torch.arange(6) % 3 > (0 if rank else -1)}]
        metrics.append(world.train(balancer, [(audio[rank::2], video[rank::2])], present))
    trained = weights(world.model)
    for lacking in ("video", "" if rank else "video"):  # both ranks, then one alone
        before = weights(world.encoders["video"][1])
        world.train(balancer, [(audio[rank::2], video[rank::2])], lacking=lacking)
        metrics.append(
            {"moved": float(not torch.equal(before, weights(world.encoders["video"][1])))}
        )
    metrics.append({"replica": weights(world.model).double().norm().item()})
    return trained, metrics


def test_two_ranks_equal_two_micro_batches() -> None:
    first, second = spawn(on_ranks)
    assert torch.equal(first[0], second[0])
    hand = World()
    for seed in range(3):
        audio, video = batch(seed=seed)
        parts = [(audio[rank::2], video[rank::2]) for rank in range(2)]
        present = [{"video": torch.arange(6) % 3 > (0 if rank else -1)} for rank in range(2)]
        expected = hand.by_hand(parts, present)
        for name, value in expected.items():
            assert first[1][seed][name] == pytest.approx(value, rel=1e-9)
    torch.testing.assert_close(first[0], weights(hand.model), rtol=1e-9, atol=1e-12)
    assert [found["moved"] for found in first[1][3:5]] == [0, 1]  # what one rank has, trains
    assert first[1][5] == second[1][5]


def test_without_gradients_nothing_is_recorded() -> None:
    world = World()
    balancer = world.balance()
    with torch.no_grad():
        losses = world.losses(*batch())
        loss = balancer.loss(losses=losses)
    assert loss == losses["audio"].mean() + losses["video"].mean()
    with pytest.raises(eq.StepError, match="was not computed"):
        balancer.backward(loss)


@pytest.mark.parametrize(
    "method",
    [eq.MMPareto, eq.AGM, eq.MultiLoss, eq.OPM, eq.MLA, eq.InfoReg, eq.CML, eq.ModalityDropout],
)
def test_methods_that_read_logits_are_refused_by_name(method: type[eq.Method]) -> None:
    world = World()
    balancer = world.balance(method(), epochs=2)
    with pytest.raises(eq.MatchError, match=rf"^{method.__name__} reads logits.*came without"):
        balancer.loss(losses=world.losses(*batch()))


@pytest.mark.parametrize(
    "method", [eq.OGM(0.3, space="update"), eq.OGMGE(0.3, smoothing=0.5), eq.Joint(), eq.GE()]
)
def test_methods_that_need_scores_alone_train(method: eq.Method) -> None:
    world = World()
    balancer = world.balance(method)
    first = world.train(balancer, cut(batch(), 2))["loss/joint"]
    for seed in range(30):
        metrics = world.train(balancer, cut(batch(seed=seed), 2))
    assert metrics["loss/joint"] < first
    assert {"loss/audio", "loss/video"} <= metrics.keys()


def flat(losses: Losses) -> Losses:
    return {name: each.mean() for name, each in losses.items()}


WRONG: dict[str, tuple[Any, str]] = {
    "scalars": (lambda x: {"losses": flat(x)}, r"losses\['audio'\].*shape \(B,\), found \(\)"),
    "nothing": (lambda x: {"losses": {}}, "found no entry"),
    "a list": (lambda x: {"losses": list(x.values())}, "expected a dict.*found list"),
    "misspelt": (lambda x: {"losses": x | {"vidoe": x["video"]}}, "no modality 'vidoe'"),
    "two sizes": (lambda x: {"losses": x | {"video": x["video"][1:]}}, "one size.*present="),
    "a joint loss per sample": (
        lambda x: {"losses": x, "joint": x["audio"]}, r"joint=.*\(\), found \(12,\)",
    ),
    "a mask of another size": (
        lambda x: {"losses": x, "present": {"video": torch.ones(3).bool()}}, r"present\['video'\]",
    ),
    "no graph": (lambda x: {"losses": {n: t.detach() for n, t in x.items()}}, "carry no graph"),
    "both": (lambda x: {"logits": x["audio"], "losses": x}, "found both"),
    "neither": (lambda x: {}, r"loss\(logits, target\) or loss\(losses="),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case: str) -> None:
    world = World()
    balancer = world.balance()
    arguments, words = WRONG[case]
    with pytest.raises(eq.MatchError, match=words):
        balancer.loss(**arguments(world.losses(*batch())))


def test_scores_and_losses_belong_together() -> None:
    world = World()
    probing = world.balance(scores=eq.Probe())
    with pytest.raises(eq.MatchError, match=r"Probe reads logits.*scores=eq\.Given\(\)"):
        probing.loss(losses=world.losses(*batch()))
    probing.detach()


def test_given_scores_need_losses() -> None:
    class One(Denoiser):
        def forward(self, *given: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(*given)[0]

    world = World()
    world.model.__class__ = One
    balancer = world.balance(criterion=nn.MSELoss())
    audio, video = batch()
    with pytest.raises(eq.MatchError, match=r"eq\.Given\(\).*loss\(losses="):
        balancer.loss(world.model(audio, video), audio)


def test_a_run_is_resumed() -> None:
    world, resumed = World(), World()
    balancer = world.balance(eq.OGMGE(ALPHA, smoothing=0.5))
    world.train(balancer, cut(batch(), 1))
    again = resumed.balance(eq.OGMGE(ALPHA, smoothing=0.5))
    resumed.model.load_state_dict(world.model.state_dict())
    # Momentum would be shared: torch takes over the tensors of a state as they are.
    resumed.optimizer.load_state_dict(copy.deepcopy(world.optimizer.state_dict()))
    again.load_state_dict(copy.deepcopy(balancer.state_dict()))
    for one, of in ((world, balancer), (resumed, again)):
        one.train(of, cut(batch(seed=1), 1))
    assert torch.equal(weights(world.model), weights(resumed.model))
