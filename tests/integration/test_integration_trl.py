"""Preference training by TRL, against log-probabilities taken from logits by hand."""

from __future__ import annotations

import importlib.util
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from support import slow
from support.examples import ROOT

trl = pytest.importorskip("trl", reason="TRL is not installed: pip install 'equimodal[trl]'")
BETA, ALPHA, ROWS = 0.7, 0.4, 3
NAMES = ("image", "text")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers
        yield


@pytest.fixture(scope="module")
def recipe() -> Iterator[Any]:
    folder = ROOT / "examples" / "recipes"
    sys.path.insert(0, str(folder))  # as a script has it
    spec = importlib.util.spec_from_file_location("dpo_balanced", folder / "dpo_balanced.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers
        spec.loader.exec_module(module)
        yield module
    sys.path.remove(str(folder))


def made(
    recipe: Any, folder: Path, *, other: bool = False, reference: Any = None, **settings: Any
) -> Any:
    torch.manual_seed(0)
    chosen = {"max_steps": 1, "per_device_train_batch_size": ROWS, "beta": BETA} | settings
    quiet = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "bf16": False}
    kept = {"remove_unused_columns": False, "max_length": None, "logging_steps": 1}
    inner = recipe.INNER
    places = (f"{inner}.visual.merger", f"{inner}.language_model.embed_tokens")
    lora = recipe.LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    trainer = recipe.BalancedDPOTrainer(
        model=recipe.tiny(),
        args=trl.DPOConfig(str(folder), **chosen, **quiet, **kept),
        data_collator=recipe.collate,
        train_dataset=recipe.Dataset.from_list([recipe.pair(number) for number in range(12)]),
        processing_class=recipe.tokenizer(),
        ref_model=reference,
        peft_config=None if reference else lora,
        alone={"image": recipe.image_alone, "text": recipe.text_alone},
        balance=lambda model, optimizer: eq.Balancer(
            eq.OGM(ALPHA, space="update"),
            model,
            dict(zip(("picture", "sound") if other else NAMES, places, strict=True)),
            optimizer=optimizer,
            scores=eq.Given(),
            tokens=eq.Tokens(
                f"{inner}.language_model",
                lambda input_ids, **_: {"image": input_ids == recipe.IMAGE},
            ),
            track_every=1,
        ),
    )
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:  # PEFT starts at zero, where the model is the reference
            nn.init.normal_(parameter, std=0.3)
    return trainer


@pytest.fixture(scope="module")
def trainer(recipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made(recipe, tmp_path_factory.mktemp("dpo"), gradient_accumulation_steps=2)


def batch(trainer: Any, start: int = 0) -> dict[str, Tensor]:
    rows = trainer.train_dataset.select(range(start, start + ROWS))
    found: dict[str, Tensor] = trainer.data_collator(list(rows))
    return found


@torch.no_grad()
def by_hand(trainer: Any, inputs: dict[str, Tensor], given: dict[str, Tensor]) -> list[float]:
    """The loss of each pair, answer by answer and token by token."""

    def answers(model: Any) -> list[float]:
        known = {name: value for name, value in given.items() if name != "completion_mask"}
        logits = model(**known).logits.double()
        sums = []
        for row, ids in enumerate(inputs["input_ids"].tolist()):
            sums.append(0.0)
            for place, token in enumerate(ids):
                if inputs["completion_mask"][row, place]:
                    sums[-1] += logits[row, place - 1].log_softmax(0)[token].item()
        return sums

    trainer.model.eval()
    policy = answers(trainer.model)
    if trainer.ref_model is not None:
        reference = answers(trainer.ref_model)
    else:
        with trainer.model.disable_adapter():
            reference = answers(trainer.model)
    trainer.model.train()
    gains = torch.tensor(policy, dtype=torch.float64) - torch.tensor(reference, dtype=torch.float64)
    margins = BETA * (gains[:ROWS] - gains[ROWS:])
    found: list[float] = (1 + (-margins).exp()).log().tolist()
    return found


def test_of_all_modalities_it_is_the_loss_of_trl(trainer: Any) -> None:
    inputs = batch(trainer)
    losses = trainer.preferences(inputs)
    assert losses.tolist() == pytest.approx(by_hand(trainer, inputs, inputs), rel=1e-6)
    with torch.no_grad():
        joint = trl.DPOTrainer.compute_loss(trainer, trainer.model, inputs)
    assert losses.mean().item() == pytest.approx(joint.item(), rel=1e-6)
    assert losses.std() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_of_one_alone_it_is_that_of_the_blanked_inputs(trainer: Any, name: str) -> None:
    inputs = batch(trainer)
    drawn, kept = torch.get_rng_state(), {key: value.clone() for key, value in inputs.items()}
    losses = trainer.preferences(inputs, name)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert trainer.model.training
    assert all(torch.equal(inputs[key], value) for key, value in kept.items())
    given = trainer.alone[name](dict(inputs))
    answered = inputs["completion_mask"].bool()
    given["input_ids"] = inputs["input_ids"].where(answered, given["input_ids"])
    given["attention_mask"] = inputs["attention_mask"].where(answered, given["attention_mask"])
    assert losses.tolist() == pytest.approx(by_hand(trainer, inputs, given), rel=1e-6)
    assert losses.tolist() != pytest.approx(trainer.preferences(inputs).tolist(), rel=1e-3)


def test_a_reference_of_its_own_is_asked(recipe: Any, tmp_path: Path) -> None:
    """All of the model is trained; the reference lies beside it."""
    torch.manual_seed(1)
    reference = recipe.tiny()
    with torch.no_grad():  # of other answers, by more than a rounding
        reference.lm_head.weight.normal_(std=0.1)
    whole = made(recipe, tmp_path, reference=reference)
    inputs = batch(whole)
    given = whole._alone(inputs, "text")
    for name, of in ((None, inputs), ("text", given)):
        expected = by_hand(whole, inputs, of)
        assert whole.preferences(inputs, name).tolist() == pytest.approx(expected, rel=1e-6)
        assert max(expected) - min(expected) > 1e-3


def test_what_is_answered_is_never_blank(recipe: Any, trainer: Any) -> None:
    inputs = batch(trainer)
    given = recipe.image_alone(dict(inputs))
    answered = inputs["completion_mask"].bool()
    assert (given["input_ids"][answered] == recipe.PAD).all()  # what the recipe's function does
    found = trainer._alone(inputs, "image")
    assert torch.equal(found["input_ids"][answered], inputs["input_ids"][answered])
    assert (found["attention_mask"][answered] == 1).all()


def test_a_step_is_judged_by_the_preferences_of_each_alone(recipe: Any, trainer: Any) -> None:
    """Two micro-batches: the mean of the probabilities of all pairs, and OGM's coefficient."""
    seen = []

    def noted(rows: Any) -> dict[str, Tensor]:
        seen.append(recipe.collate(rows))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "data_collator", noted)
        expected: dict[str, list[float]] = {name: [] for name in NAMES}
        before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        trainer.train()
        after = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        trainer.model.load_state_dict(before, strict=False)
        for inputs in seen[:2]:
            for name in NAMES:
                losses = by_hand(trainer, inputs, trainer._alone(inputs, name))
                expected[name] += [math.exp(-loss) for loss in losses]
    means = [sum(each) / len(each) for each in expected.values()]
    found = trainer.balancer.metrics()
    assert len(expected["image"]) == 2 * ROWS
    for name, mean, ratio in zip(NAMES, means, slow.ratios(means), strict=True):
        assert found[f"evidence/{name}"] == pytest.approx(mean, rel=1e-6)
        assert found[f"coefficient/{name}"] == pytest.approx(
            slow.thresholded(ratio, ALPHA), rel=1e-6
        )
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_type": ["hinge"]}, r"\['hinge'\].*is not the probability of a preference"),
        ({"loss_type": ["sigmoid", "sft"]}, r"\['sigmoid', 'sft'\].*expected loss_type="),
        ({"f_divergence_type": "js_divergence"}, "f_divergence_type 'js_divergence' is not"),
        ({"ld_alpha": 0.5}, "ld_alpha and use_weighting weigh the loss"),
        ({"use_weighting": True}, "ld_alpha and use_weighting weigh the loss"),
    ],
)
def test_evidence_of_another_loss_is_refused(
    trainer: Any, settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setattr(trainer, {"loss_type": "loss_types"}.get(name, name), value)
    with pytest.raises(eq.SetupError, match=message):
        trainer._refuse_misfits()


def test_a_reference_of_the_whole_alone_is_refused(trainer: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "precompute_ref_logps", True)
        with pytest.raises(eq.SetupError, match="each modality cannot be known: set it to False"):
            trainer._refuse_misfits()


def test_other_modalities_than_the_balancers_are_refused(recipe: Any, tmp_path: Path) -> None:
    other = made(recipe, tmp_path, other=True)
    with pytest.raises(
        eq.SetupError, match="a function for each of picture, sound, found image, t"
    ):
        other.train()


def test_another_shape_is_refused(recipe: Any, trainer: Any) -> None:
    def shorter(inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs | {"input_ids": inputs["input_ids"][:, 1:]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trainer.alone, "text", shorter)
        with pytest.raises(eq.SetupError, match=r"\['text'\]: expected 'input_ids' of shape \(6, "):
            trainer.preferences(batch(trainer), "text")
