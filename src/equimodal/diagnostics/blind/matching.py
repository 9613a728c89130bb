"""Hugging Face models that compare: pictures or sounds with texts, as CLIP and CLAP do."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.blind.conditions import Condition
from equimodal.diagnostics.blind.filling import kind_of
from equimodal.diagnostics.blind.scores import Scores, UnableError
from equimodal.errors import SetupError
from equimodal.system.modes import evaluation
from equimodal.system.randomness import restored_states

KINDS = {"picture": "image", "array": "image", "audio": "audio"}


class Matcher:
    """A dual encoder of Hugging Face: the text that is most alike is the answer.

    A sample holds one picture (PIL) or sound (a waveform at the rate of the model), ``answer``, a
    text, and ``choices``, texts with the answer among them. The texts are what is chosen from, and
    are never filled.

    Metrics: ``likelihood``, the softmax of the model's logits over the choices, and ``accuracy``.

    Args:
        model: such as `CLIPModel`.
        processor: its own.
        name: for pages.
        choices: for samples that have none.
    """

    def __init__(
        self, model: Any, processor: Any, name: str = "", choices: Sequence[str] = ()
    ) -> None:
        self.model, self.processor = model, processor
        self.name = name or type(model).__name__
        self.choices = list(dict.fromkeys(choices))
        self._texts: dict[str, Tensor] = {}

    @property
    def rate(self) -> int | None:
        """Samples a second of sound that the model takes."""
        extractor = getattr(self.processor, "feature_extractor", None)
        rate: int | None = getattr(extractor, "sampling_rate", None)
        return rate

    def modalities(self, first: Mapping[str, Any]) -> list[str]:
        """Return the entry of a sample that is compared with texts.

        Raises:
            SetupError: there is none, or more than one.
        """
        found = [name for name, value in first.items() if _media(value)]
        if len(found) != 1:
            raise SetupError(
                f"{self.name} compares one picture or sound with texts, found "
                f"{', '.join(found) or 'none'} in a sample"
            )
        return found

    def __call__(self, samples: list[dict[str, Any]], condition: Condition) -> Scores:
        """Score samples.

        Raises:
            UnableError: what is compared was removed.
        """
        media = [value for sample in samples for value in sample.values() if _media(value)]
        if len(media) != len(samples):
            raise UnableError("without a picture or a sound there is nothing to compare")
        choices = [[str(each) for each in self._choices(sample)] for sample in samples]
        with (
            torch.no_grad(),
            evaluation(self.model),
            restored_states(self.model.device),
        ):
            looked = self._looked(media)
            texts = self._read(list(dict.fromkeys(each for row in choices for each in row)))
            rows = [self._logits(one, row, texts) for one, row in zip(looked, choices, strict=True)]
        right = [row.index(str(s["answer"])) for row, s in zip(choices, samples, strict=True)]
        shares = [row.softmax(dim=0) for row in rows]
        tied = [row == row.max() for row in rows]
        likely = torch.stack([share[place] for share, place in zip(shares, right, strict=True)])
        hit = torch.stack([t[p].double() / t.sum() for t, p in zip(tied, right, strict=True)])
        chosen = [row[int(t.int().argmax())] for row, t in zip(choices, tied, strict=True)]
        return Scores({"likelihood": likely, "accuracy": hit}, chosen)

    def _choices(self, sample: Mapping[str, Any]) -> Sequence[str]:
        choices: Sequence[str] = sample.get("choices", self.choices)
        answer = sample.get("answer")
        if len(choices) < 2 or len(set(choices)) < len(choices) or answer not in choices:
            raise SetupError(
                f"sample {sample.get('id', '')}: choices: expected two texts or more that differ, "
                f"the answer {answer!r} among them, found {list(choices)}"
            )
        return choices

    def _looked(self, media: Sequence[Any]) -> Tensor:
        if KINDS[kind_of(media[0])] == "image":
            return self._features("image", self.processor(images=list(media), return_tensors="pt"))
        names = inspect.signature(self.processor.__call__).parameters
        name = "audios" if "audios" in names and "audio" not in names else "audio"
        given = {name: list(media), "sampling_rate": self.rate, "return_tensors": "pt"}
        return self._features("audio", self.processor(**given))

    def _read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return features of texts; those of `choices` are kept."""
        new = [text for text in texts if text not in self._texts]
        made = dict(self._texts)
        if new:
            siglip = "siglip" in getattr(self.model.config, "model_type", "")
            padding = "max_length" if siglip else True  # as it was trained
            encoded = self.processor(text=new, padding=padding, return_tensors="pt")
            made |= zip(new, self._features("text", encoded), strict=True)
            kept = set(self.choices)
            self._texts = {text: feature for text, feature in made.items() if text in kept}
        return made

    def _features(self, kind: str, encoded: Mapping[str, Any]) -> Tensor:
        function = getattr(self.model, f"get_{kind}_features")
        given = {
            name: value.to(self.model.device, self.model.dtype)
            if value.is_floating_point()
            else value.to(self.model.device)
            for name, value in encoded.items()
        }
        found = function(**given)
        feature: Tensor = found if isinstance(found, Tensor) else found.pooler_output
        return torch.nn.functional.normalize(feature.cpu().double(), dim=-1)

    def _logits(self, one: Tensor, choices: Sequence[str], texts: Mapping[str, Tensor]) -> Tensor:
        cosine = torch.stack([texts[text] for text in choices]) @ one
        scale = getattr(self.model, "logit_scale", None)
        scale = getattr(self.model, "logit_scale_a", None) if scale is None else scale
        return cosine * (1.0 if scale is None else float(scale.exp()))


def _media(value: Any) -> bool:
    try:
        return kind_of(value) in KINDS
    except SetupError:
        return False
