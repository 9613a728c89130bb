"""What goes wrong with models of transformers and PEFT, said or refused where it can be known."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

import equimodal as eq
from support.decoder import PLACEHOLDER, Decoder, batch, tokens_of


class Projected(nn.Module):
    """A tower and a projector for each modality, and a head on both."""

    def __init__(self) -> None:
        super().__init__()
        self.tower, self.project = nn.Linear(5, 6), nn.Linear(6, 6)
        self.text, self.mixer, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        mixed = self.project(self.tower(image).relu()) + self.text(text)
        return self.head(self.mixer(mixed).relu())  # type: ignore[no-any-return]


def balance(model: nn.Module, image: Any, text: Any = "text", **settings: Any) -> eq.Balancer:
    trained = [p for p in model.parameters() if p.requires_grad]
    given = {"scores": eq.Ablation(), **settings}
    return eq.Balancer(
        eq.OGM(0.3), model, {"image": image, "text": text}, None,
        torch.optim.SGD(trained, 0.1), **given,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("config", "instead"),
    [
        ({"target_modules": ["tower"], "modules_to_save": ["project"]}, "modules_to_save"),
        ({"target_modules": ["project"]}, "lora_A"),
    ],
)
def test_an_encoder_named_before_peft_replaced_it_is_refused(
    config: dict[str, Any], instead: str
) -> None:
    model = Projected()
    project = model.project
    model = get_peft_model(model, LoraConfig(r=2, **config))  # type: ignore[assignment]
    place = "base_model.model.project"
    with pytest.raises(
        eq.SetupError, match=rf"encoders\['image'\] is the Linear.*{instead}.*here '{place}'"
    ):
        balance(model, [model.base_model.model.tower, project], model.base_model.model.text)  # type: ignore[union-attr]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "encoders.*'text'.*no trainable parameter")
        balancer = balance(model, place, model.base_model.model.text)  # type: ignore[union-attr]
    there = {owned.name for owned in balancer.attached.modalities.trainable("image")}
    assert there
    assert all(name.startswith(f"{place}.{instead}") or "lora_B" in name for name in there)


def test_adapters_belong_to_a_modality_by_their_name() -> None:
    """One trunk, an adapter for each modality: both are there at once, as in Phi-4-multimodal."""
    model: Any = get_peft_model(
        Projected(), LoraConfig(r=2, target_modules=["tower", "mixer"]), adapter_name="vision"
    )
    model.add_adapter("speech", LoraConfig(r=2, target_modules=["text"]))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    balancer = balance(model, [eq.Adapter("vision")], [eq.Adapter("speech")], scores=eq.Given())
    owned = {n: {o.name for o in of} for n, of in balancer.attached.modalities.owned.items()}
    assert all(".vision." in name for name in owned["image"])
    assert all(".speech." in name for name in owned["text"])
    assert (len(owned["image"]), len(owned["text"])) == (4, 2)
    model.base_model.set_adapter(["vision", "speech"])
    logits = model(torch.randn(6, 5), torch.randn(6, 4))
    each = nn.functional.cross_entropy(logits, torch.arange(6) % 3, reduction="none")
    balancer.backward(balancer.loss(losses={"image": each, "text": 2 * each}, joint=each.mean()))
    before = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    balancer.modulate()
    changed = {
        n for n, p in model.named_parameters() if n in before and (p.grad != before[n]).any()
    }
    assert changed == {name for name in owned["image"] if before[name].any()} != set()
    with pytest.raises(eq.SetupError, match=r"'visoin': did you mean 'vision'"):
        balance(model, [eq.Adapter("visoin")], [eq.Adapter("speech")])


def seeing(**config: Any) -> Decoder:
    torch.manual_seed(0)
    model = Decoder().double()
    model.config = SimpleNamespace(**config)  # type: ignore[assignment]
    return model


@pytest.mark.parametrize("key", ["image_token_id", "image_token_index"])
def test_placeholders_among_the_targets_are_said_once(key: str) -> None:
    model = seeing(**{key: PLACEHOLDER})
    balancer = balance(
        model, model.vision, model.embed, criterion=eq.TokenLoss(),
        tokens=eq.Tokens("trunk", tokens_of),
    )  # fmt: skip
    ids, patches, labels = batch()
    count = int((ids[:, 1:] == PLACEHOLDER).sum())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        balancer.backward(balancer.loss(model(ids, patches), labels))  # masked: nothing to say
        assert not [str(w.message) for w in caught if "placeholders" in str(w.message)]
        for _ in range(2):
            balancer.backward(balancer.loss(model(ids, patches), ids))
    said = [str(w.message) for w in caught if "placeholders" in str(w.message)]
    assert len(said) == 1
    assert f"{count} of {4 * 8} labels that count are placeholders of image" in said[0]
    assert "labels[labels == 0] = -100" in said[0]


def test_nothing_is_said_of_other_models() -> None:
    for model in (seeing(), seeing(image_token_id=None)):
        balancer = balance(model, model.vision, model.embed, criterion=eq.TokenLoss())
        ids, patches, _ = batch()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            balancer.backward(balancer.loss(model(ids, patches), ids))
