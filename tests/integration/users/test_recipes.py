"""The recipes: they run, their pages show what is changed, and joint training is the original."""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from support.decoder import masked
from support.examples import ROOT, assert_page_shows_diff, changed_lines

FOLDER = ROOT / "examples" / "recipes"
RECIPES = {
    "vlm_lora": 20,
    "sft": 25,
    "dpo": 45,
    "policy": 20,
    "audio_video": 32,
}  # and how many lines are changed


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(FOLDER))  # as a script has it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers
        yield


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    script(name).main()
    return capsys.readouterr().out


def losses(text: str) -> list[float]:
    found = re.findall(r"(?:'loss': '|loss |video |audio )(\d+\.\d+)", text)
    return [float(number) for number in found]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_page_shows_what_is_changed(recipe: str) -> None:
    plain, balanced = (FOLDER / f"{recipe}_{way}.py" for way in ("plain", "balanced"))
    assert_page_shows_diff(ROOT / "docs" / "recipes.md", plain, balanced)
    assert changed_lines(plain, balanced) <= RECIPES[recipe]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_runs_and_joint_training_is_the_original(
    recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if recipe in ("sft", "dpo"):
        pytest.importorskip("trl", reason="TRL is not installed: pip install 'equimodal[trl]'")
    plain, balanced = (losses(printed(f"{recipe}_{way}", capsys)) for way in ("plain", "balanced"))
    monkeypatch.setattr(eq, "OGM", lambda *given, **settings: eq.Joint())
    joint = losses(printed(f"{recipe}_balanced", capsys))
    assert len(plain) == len(balanced) == len(joint) >= 3
    assert joint == pytest.approx(plain, rel=2e-3)
    assert balanced != pytest.approx(plain, rel=2e-3)
    assert all(number < 20 for number in balanced)


def test_other_losses_of_trl_are_refused(tmp_path: Path) -> None:
    """They would be left out without a word."""
    trl = pytest.importorskip("trl")
    recipe = script("sft_balanced")

    def made(**settings: Any) -> Any:
        arguments = trl.SFTConfig(str(tmp_path), use_cpu=True, bf16=False, **settings)
        rows = recipe.Dataset.from_dict({"number": [0]})
        options = {"data_collator": list, "processing_class": recipe.tokenizer(), "balance": list}
        return recipe.BalancedSFTTrainer(recipe.tiny(), arguments, train_dataset=rows, **options)

    skipped = {"dataset_kwargs": {"skip_prepare_dataset": True}, "max_length": None}
    made(**skipped)
    with pytest.raises(eq.SetupError, match="loss_type 'dft' is not applied: expected 'nll'"):
        made(**skipped, loss_type="dft")

    class Preferences(recipe.BalancedTrainer, trl.DPOTrainer):
        pass

    assert Preferences._loss_of_another(Preferences.__new__(Preferences)) == "DPOTrainer"
    pairs = script("dpo_plain")
    with pytest.raises(
        eq.SetupError, match=r"use equimodal\.integrations\.trl\.BalancedDPOTrainer, or"
    ):
        Preferences(
            pairs.tiny(),
            args=trl.DPOConfig(str(tmp_path), use_cpu=True, bf16=False, max_length=None),
            train_dataset=pairs.Dataset.from_list([pairs.pair(0)]),
            processing_class=pairs.tokenizer(),
            peft_config=pairs.LoraConfig(r=4, target_modules=["q_proj"]),
            balance=list,
        )


def test_the_adapters_of_qwen2_vl_are_separated_exactly() -> None:
    """Images of 4 and 8 tokens, checkpointed: against passes that some tokens alone train."""
    recipe = script("vlm_lora_plain")
    torch.manual_seed(0)
    adapted = recipe.LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    model = recipe.get_peft_model(recipe.tiny(), adapted).double()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # PEFT starts at zero, where half of the gradients are
            nn.init.normal_(parameter, std=0.1)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    batch = recipe.collate([recipe.sample(number) for number in range(6)])
    batch["pixel_values"] = batch["pixel_values"].double()
    image = batch["input_ids"] == recipe.IMAGE
    assert image.sum(1).unique().tolist() == [4, 8]
    lora = [m for n, m in model.named_modules() if "lora_" in n and isinstance(m, nn.Linear)]
    expected = {}
    for which, only in (("image", image), ("text", ~image)):
        model.zero_grad()
        with pytest.MonkeyPatch.context() as patch:
            for layer in lora:
                patch.setattr(layer, "forward", _trained_by(layer, only))
            model(**batch).loss.backward()
        expected[which] = {
            n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
        }
    model.zero_grad()
    inner = "base_model.model.model"
    balancer = eq.Balancer(
        eq.OGM(2.0),
        model,
        {"image": f"{inner}.visual.merger", "text": f"{inner}.language_model.embed_tokens"},
        optimizer=torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1),
        criterion=eq.TokenLoss(),
        scores=eq.Ablation(),
        tokens=eq.Tokens(
            f"{inner}.language_model", lambda input_ids, **_: {"image": input_ids == recipe.IMAGE}
        ),
        track_every=1,
    )
    balancer.backward(balancer.loss(model(**batch).logits, batch["labels"]))
    balancer.modulate()
    k = balancer.metrics()
    assert min(k["coefficient/image"], k["coefficient/text"]) < 1
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == len(lora) == 8
    of_image = [name for name in trained if expected["image"][name].any()]
    assert len(of_image) == 6  # no token looks at what image tokens ask in the last layer
    for name, parameter in trained.items():
        parts = {which: k[f"coefficient/{which}"] * expected[which][name] for which in expected}
        whole = sum(parts.values())  # norms within the model are taken in single precision
        assert (parameter.grad - whole).norm() < 1e-6 * whole.norm()  # type: ignore[union-attr]


def _trained_by(layer: nn.Linear, only: Tensor) -> Any:
    return lambda x: masked(layer, x, only)
