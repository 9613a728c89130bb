"""predict, unimodal_logits, export and check."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import equimodal as eq
from support.worlds import World, batch, train, weights


def trained(method: eq.Method, **settings: Any) -> tuple[World, eq.Balancer]:
    world = World(**settings)
    balancer = world.balance(method)
    train(balancer, [batch(seed=seed) for seed in range(5)])
    return world, balancer


@pytest.mark.parametrize("method", [eq.OGMGE(0.8), eq.Joint(), eq.MultiLoss()])
def test_a_method_without_a_rule_of_its_own_predicts_as_the_model(method: eq.Method) -> None:
    world, balancer = trained(method)
    *inputs, _ = batch(seed=9)
    assert torch.equal(balancer.predict(*inputs), world.model(*inputs))


def test_an_ensemble_predicts_by_the_mean_of_its_models_probabilities() -> None:
    world, balancer = trained(eq.Ensemble())
    (method,) = balancer.methods.methods
    *inputs, _ = batch(seed=9)
    features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
    alone = [layer(f) for layer, f in zip(method.readouts.layers, features, strict=True)]
    with torch.no_grad():
        found = balancer.predict(*inputs)
        singles = balancer.unimodal_logits(*inputs)
    torch.testing.assert_close(found.exp(), (alone[0].softmax(1) + alone[1].softmax(1)) / 2)
    torch.testing.assert_close(singles["visual"], alone[1])
    averaging = trained(eq.Ensemble("logits"))[1]
    with torch.no_grad():
        singles = averaging.unimodal_logits(*inputs)
        torch.testing.assert_close(
            averaging.predict(*inputs), (singles["audio"] + singles["visual"]) / 2
        )


def test_unimodal_training_predicts_by_its_modality() -> None:
    _, balancer = trained(eq.Unimodal("visual"))
    a, v, _ = batch(seed=9)
    with torch.no_grad():
        assert torch.equal(balancer.predict(a, v), balancer.predict(torch.zeros_like(a), v))
        assert not torch.equal(balancer.predict(a, v), balancer.predict(a, torch.zeros_like(v)))


def test_unimodal_logits_are_read_through_the_joint_head() -> None:
    world, balancer = trained(eq.OGM(0.8))
    *inputs, _ = batch(seed=9)
    with torch.no_grad():
        singles = balancer.unimodal_logits(*inputs)
        torch.testing.assert_close(sum(singles.values()), world.model(*inputs))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_reading_leaves_training_undisturbed(mode: Any) -> None:
    world, balancer = trained(eq.OGMGE(0.8))
    plain, reference = trained(eq.OGMGE(0.8))
    *inputs, target = batch(seed=7)
    logits = world.model(*inputs)
    with mode():
        balancer.unimodal_logits(*inputs)
        balancer.predict(*inputs)
    balancer.backward(balancer.loss(logits, target))
    balancer.modulate()
    world.optimizer.step()
    train(reference, [(*inputs, target)])
    assert torch.equal(weights(world.model), weights(plain.model))


def test_singles_can_be_read_before_any_training() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    *inputs, _ = batch()
    with torch.no_grad():
        assert set(balancer.unimodal_logits(*inputs)) == {"audio", "visual"}


def test_singles_can_be_read_after_a_restart() -> None:
    _, balancer = trained(eq.Ensemble())
    world = World(seed=3)
    other = world.balance(eq.Ensemble())
    other.load_state_dict(balancer.state_dict())
    world.model.load_state_dict(balancer.attached.model.state_dict())
    *inputs, _ = batch()
    with torch.no_grad():
        assert torch.equal(other.predict(*inputs), balancer.predict(*inputs))


def test_the_export_of_a_plain_method_is_a_copy_of_the_model() -> None:
    world, balancer = trained(eq.OGMGE(0.8))
    plain = balancer.export()
    assert type(plain) is type(world.model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in plain.modules())
    *inputs, _ = batch()
    assert torch.equal(plain(*inputs), world.model(*inputs))
    assert any(m._forward_hooks for m in world.model.modules())


@pytest.mark.parametrize("method", [eq.Ensemble(), eq.Unimodal("audio")])
def test_the_export_of_a_rule_of_its_own_needs_no_equimodal(
    method: eq.Method, tmp_path: Path
) -> None:
    world, balancer = trained(method)
    world.model.eval()
    *inputs, _ = batch()
    with pytest.raises(eq.SetupError, match=r"balancer\.export\(audio, visual\)"):
        balancer.export()
    plain = balancer.export(*inputs)
    with torch.no_grad():
        for size in (24, 7, 1):
            part = [x[:size] for x in inputs]
            torch.testing.assert_close(plain(*part), balancer.predict(*part))
    program = torch.export.export(plain, tuple(inputs))
    torch.export.save(program, tmp_path / "model.pt2")
    torch.save(inputs, tmp_path / "inputs.pt")
    code = (
        "import sys; sys.modules['equimodal'] = None\n"
        "import torch\n"
        f"model = torch.export.load({str(tmp_path / 'model.pt2')!r}).module()\n"
        f"print(model(*torch.load({str(tmp_path / 'inputs.pt')!r})).sum().item())"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    with torch.no_grad():
        assert float(result.stdout) == pytest.approx(balancer.predict(*inputs).sum().item())


def test_check_says_what_was_found_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    world = World(head=nn.Sequential(nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 3)))
    balancer = world.balance(eq.OGMGE(0.8))
    before = {name: value.clone() for name, value in world.model.state_dict().items()}
    state = torch.get_rng_state()
    found = balancer.check(batch())
    printed = capsys.readouterr().out
    assert all(torch.equal(world.model.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in world.model.parameters())
    assert all(m.training for m in world.model.modules())
    assert str(found).strip() == printed.strip()
    assert max(map(len, printed.splitlines())) <= 80
    for word in (
        "audio", "Sequential", "99 parameters, 99 trainable, 84 modulated", "feature (24, 8)",
        "audio 0:8, visual 8:16 of argument 0", "logits  (24, 3)", "Ablation", "ogm-ge",
    ):  # fmt: skip
        assert word in printed
    assert found.modalities[0].modulated == 84


def test_check_takes_the_users_forward() -> None:
    world = World()
    balancer = world.balance(
        eq.OGM(0.8), forward=lambda model, batch: (model(batch["a"], batch["v"]), batch["y"])
    )
    a, v, y = batch()
    assert balancer.check({"a": a, "v": v, "y": y}).logits == (24, 3)
    with pytest.raises(eq.SetupError, match="forward=lambda model, batch"):
        World().balance(eq.OGM(0.8)).check({"a": a})


def test_batches_hands_back_the_loader_itself() -> None:
    loader = [1, 2, 3]
    assert World().balance(eq.OGMGE(0.8)).batches(loader) is loader


def test_metrics_before_the_first_step_are_empty() -> None:
    assert World().balance(eq.OGM(0.8)).metrics() == {}


def test_a_method_is_not_a_layer() -> None:
    with pytest.raises(TypeError, match=r"pass it to eq\.Balancer"):
        eq.OGM(0.8)(torch.ones(1))
    assert "alpha=0.8" in repr(eq.OGM(0.8))
    assert math.isclose(eq.OGM(0.8).alpha, 0.8)
