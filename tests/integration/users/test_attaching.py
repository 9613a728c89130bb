"""What real models taught about attaching: several outputs, several modules, no logits."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.attach.call import Call
from equimodal.criterion import Criterion
from support.users import probabilities


class Tower(nn.Module):
    """Returns its hidden state and a pooled output, as encoders of transformers do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 6)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = torch.tanh(self.layer(x))
        return {"hidden": hidden, "pooled": hidden * 1.5}


class Towers(nn.Module):
    """Two towers with projections, and a joint part that is no module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.towers = nn.ModuleDict({"audio": Tower(4), "text": Tower(5)})
        self.projections = nn.ModuleDict({"audio": nn.Linear(6, 8), "text": nn.Linear(6, 8)})
        self.out = nn.Linear(8, 3)

    def forward(self, audio: Tensor, text: Tensor) -> dict[str, Any]:
        hidden = {n: self.towers[n](x) for n, x in (("audio", audio), ("text", text))}
        z = {n: self.projections[n](h["pooled"]) for n, h in hidden.items()}
        late = {n: self.out(each) for n, each in z.items()}
        return {"logits": self.out(torch.relu(z["audio"] + z["text"])), "late": late, **hidden}


def make(**settings: Any) -> tuple[Towers, eq.Balancer]:
    torch.manual_seed(0)
    model = Towers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    parts = {n: [model.towers[n], model.projections[n]] for n in ("audio", "text")}
    given = {"encoders": parts, "scores": eq.Probe(), **settings}
    return model, eq.Balancer(eq.OGM(0.8), model, optimizer=optimizer, track_every=1, **given)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(9, 4), torch.randn(9, 5), torch.arange(9) % 3


def test_hidden_states_in_the_output_do_not_keep_the_graph_alive() -> None:
    model, balancer = make()
    for _ in range(3):
        *inputs, target = batch()
        balancer.backward(balancer.loss(model(*inputs)["logits"], target))
        balancer.modulate()
        model.zero_grad()
    gc.collect()
    assert sum(type(each) is Call for each in gc.get_objects()) == 0


def test_outputs_of_one_forward_may_be_joined_afterwards() -> None:
    model, balancer = make()
    *inputs, target = batch()
    late = model(*inputs)["late"]
    loss = balancer.loss(late["audio"] + late["text"], target)
    balancer.backward(loss)
    balancer.modulate()
    assert 0 < balancer.metrics()["evidence/audio"] < 1
    two = model(*inputs)["logits"] + model(*inputs)["logits"]
    with pytest.raises(eq.MatchError, match="2 forwards"):
        balancer.loss(two, target)


def test_joined_outputs_cannot_be_ablated() -> None:
    model, balancer = make(scores=eq.Ablation())
    *inputs, target = batch()
    late = model(*inputs)["late"]
    with pytest.raises(eq.MatchError, match=r"not what the head returned.*eq\.Probe"):
        balancer.loss(late["audio"] + late["text"], target)


def test_ablation_without_a_head_runs_the_whole_model() -> None:
    """The last module of an encoder is replaced, not the ones before it."""
    model, balancer = make(scores=eq.Ablation())
    *inputs, target = batch()
    balancer.backward(balancer.loss(model(*inputs)["logits"], target))
    balancer.modulate()
    for name, tower in model.towers.items():
        x = inputs[0 if name == "audio" else 1]
        alone = model.out(torch.relu(model.projections[name](tower(x)["pooled"])))
        expected = probabilities(alone, target) / 9
        assert balancer.metrics()[f"evidence/{name}"] == pytest.approx(expected, rel=1e-5)
    assert all(module.training for module in model.modules())


def test_which_output_is_the_logits_is_known_from_forward_or_from_the_first_loss() -> None:
    model, balancer = make(forward=lambda model, b: (model(b[0], b[1])["logits"], b[2]))
    *inputs, target = batch()
    assert balancer.check((*inputs, target)).logits == (9, 3)
    with pytest.raises(eq.MatchError, match=r"7 tensors.*at the first balancer\.loss"):
        balancer.evaluate(*inputs)
    logits = model(*inputs)["logits"]
    balancer.loss(logits, target)
    assert torch.equal(balancer.evaluate(*inputs)[0], logits)


def test_check_prints_scores_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    _, balancer = make(forward=lambda model, b: (model(b[0], b[1])["logits"], b[2]))
    balancer.check(batch())
    printed = capsys.readouterr().out
    assert "  scores  Probe: one linear layer per modality" in printed


def test_of_several_tensors_that_an_encoder_returns_the_one_that_is_used_is_found() -> None:
    towers = {"audio": "towers.audio", "text": "towers.text"}
    model, balancer = make(encoders=towers)
    *inputs, target = batch()
    balancer.backward(balancer.loss(model(*inputs)["logits"], target))
    assert str(balancer.attached.layout).startswith("audio from keyword audio['pooled']")
    balancer.detach()

    def pooled(audio: Any, text: Any) -> dict[str, Tensor]:
        return {"audio": audio["pooled"], "text": text["pooled"]}

    model, balancer = make(encoders=towers, features=pooled)
    balancer.backward(balancer.loss(model(*inputs)["logits"], target))


def test_the_output_or_the_loss_in_place_of_logits_is_refused_with_words() -> None:
    model, balancer = make()
    *inputs, target = batch()
    output = model(*inputs)
    with pytest.raises(eq.MatchError, match="found dict of logits, late, audio, text: pass"):
        balancer.loss(output, target)  # type: ignore[arg-type]
    with pytest.raises(eq.MatchError, match=r"a single number.*criterion="):
        balancer.loss(F.cross_entropy(output["logits"], target), target)


def test_encoders_may_be_a_module_dict() -> None:
    torch.manual_seed(0)
    model = Towers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = eq.Balancer(
        eq.OGM(0.8), model, model.projections, None, optimizer, scores=eq.Probe()
    )
    assert balancer.names == ("audio", "text")
    with pytest.raises(eq.SetupError, match="two or more"):
        eq.Balancer(eq.OGM(0.8), model, nn.ModuleDict(), None, optimizer, scores=eq.Probe())


def one_number(logits: Tensor, target: Tensor) -> Tensor:
    """CLIP's loss as it is often written: each sample's positive is on the diagonal."""
    return F.cross_entropy(logits, torch.arange(len(logits)))


def both_ways(logits: Tensor, target: Tensor) -> Tensor:
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


def test_a_criterion_between_samples_is_noticed() -> None:
    """Read sample by sample, the diagonal of a single row is its first column."""
    logits, target = torch.randn(6, 6), torch.arange(6)
    with pytest.warns(
        eq.BalanceWarning, match=r"one_number is .* samples see each other.*reduction"
    ):
        Criterion(one_number).per_sample(logits, target)
    with pytest.raises(eq.MatchError, match=r"none for a sample alone.*`reduction`"):
        Criterion(both_ways).per_sample(logits, target)
    means = Criterion(lambda u, y: F.cross_entropy(u, y)).per_sample(logits, target)
    sums = Criterion(lambda u, y: F.cross_entropy(u, y, reduction="sum")).per_sample(logits, target)
    expected = F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(means, expected)  # and no warning, which would be an error here
    torch.testing.assert_close(sums, expected)
