"""From samples to what a Hugging Face model is given: its template, its placeholders, its media."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from equimodal.diagnostics.blind.conflict import RESERVED
from equimodal.diagnostics.blind.filling import kind_of
from equimodal.diagnostics.blind.scores import UnableError
from equimodal.errors import SetupError

KINDS = ("image", "audio", "video")


@dataclass(frozen=True)
class Prompts:
    """What a model is given before an answer.

    Attributes:
        ids: tokens of every sample, without padding.
        beside: what goes with every token, such as its type, by name; as long as `ids`.
        media: what else the model is given, for all samples together.
    """

    ids: list[list[int]]
    beside: Mapping[str, list[list[int]]]
    media: Mapping[str, Tensor]


class Prompter:
    """Makes prompts by a processor.

    Args:
        processor: of the model.
        config: of the model, which knows its placeholder tokens.
    """

    def __init__(self, processor: Any, config: Any) -> None:
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.templated = bool(getattr(processor, "chat_template", None))
        self.placeholders = {kind: _placeholder(config, kind) for kind in KINDS}
        names = inspect.signature(processor.__call__).parameters
        self.audio = "audios" if "audios" in names and "audio" not in names else "audio"

    @property
    def tokens(self) -> set[int]:
        """Tokens in whose place the model puts media."""
        return {token for token in self.placeholders.values() if token is not None}

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> Prompts:
        """Return the prompts of samples; entries that are no modality are passed over.

        Raises:
            UnableError: nothing is left of a prompt, or it does not fit its media.
        """
        parts = [_parts(sample) for sample in samples]
        texts = [self._text(each) for each in parts]
        given: dict[str, Any] = {"text": texts, "return_tensors": "pt", "padding": True}
        pictures = [each["picture"] for each in parts]
        sounds = [sound for each in parts for sound in each["audio"]]
        if any(pictures):
            given["images"] = pictures
        if sounds:
            given[self.audio] = sounds
            given["sampling_rate"] = self.rate
        first = getattr(self.tokenizer, "bos_token", None)
        if first and all(text.startswith(first) for text in texts):
            given["add_special_tokens"] = False  # the template has put it there already
        if not any(texts) and not any(pictures) and not sounds:
            raise UnableError("nothing is left of the prompt")
        encoded = dict(self.processor(**given))
        made = _unpadded(encoded)
        self._refuse_unplaced(parts, made.ids)
        return made

    @property
    def rate(self) -> int | None:
        """Samples a second of sound that the model takes; None if it takes none."""
        extractor = getattr(self.processor, "feature_extractor", None)
        rate: int | None = getattr(extractor, "sampling_rate", None)
        return rate

    def answer(self, text: Any) -> list[int]:
        """Return the tokens of an answer, spelt by itself.

        Raises:
            SetupError: it is no text, or has no token.
        """
        if not isinstance(text, str | int | float):
            raise SetupError(f"answer: expected a text, found {text!r}")
        spelt = f"{text}" if self.templated else f" {text}"
        ids: list[int] = self.tokenizer(spelt, add_special_tokens=False)["input_ids"]
        if not ids:
            raise SetupError(f"answer: {text!r} has no token")
        return ids

    def _text(self, parts: Mapping[str, list[Any]]) -> str:
        words = " ".join(parts["text"]).strip()
        marks = {
            kind: [mark] * len(parts[part])
            for kind, part in (("image", "picture"), ("audio", "audio"))
            if (mark := self._mark(kind))
        }
        placed = {kind: words.count(self._mark(kind)) for kind in marks}
        for kind, found in placed.items():
            if found and not marks[kind]:
                words = words.replace(self._mark(kind), "").strip()
            elif found and found != len(marks[kind]):
                raise UnableError(
                    f"a prompt has {found} times {self._mark(kind)} for {len(marks[kind])} of its "
                    f"{kind}s"
                )
        unplaced = {
            kind: many
            for kind, part in (("image", "picture"), ("audio", "audio"))
            if (many := len(parts[part])) and not placed.get(kind)
        }
        if self.templated:
            content = [{"type": kind} for kind, many in unplaced.items() for _ in range(many)]
            told = [{"type": "text", "text": words}] if words else []
            turn = {"role": "user", "content": [*content, *told]}
            text: str = self.processor.apply_chat_template(
                [turn], add_generation_prompt=True, tokenize=False
            )
            return text
        if self._inserts():
            return words
        before = [mark for kind in unplaced for mark in marks.get(kind, ())]
        return " ".join([*before, words]).strip()

    def _mark(self, kind: str) -> str:
        """Return the placeholder of a kind as the processor spells it, "" if it has none."""
        mark = getattr(self.processor, f"{kind}_token", None)
        return str(getattr(mark, "content", mark) or "")

    def _inserts(self) -> bool:
        """Whether the processor puts placeholders in front of a text by itself, as BLIP-2's."""
        return getattr(self.processor, "num_query_tokens", None) is not None

    def _refuse_unplaced(
        self, parts: Sequence[Mapping[str, list[Any]]], ids: Sequence[Sequence[int]]
    ) -> None:
        for kind, part in (("image", "picture"), ("audio", "audio")):
            token = self.placeholders[kind]
            if token is None:
                continue
            for sample, tokens in zip(parts, ids, strict=True):
                times, many = tokens.count(token), len(sample[part])
                if bool(times) != bool(many) or times < many:
                    raise UnableError(
                        f"a prompt has {many} of {kind} and {times} tokens for it: "
                        + ("is it too short?" if many else "take its placeholder out of the text")
                    )


def _parts(sample: Mapping[str, Any]) -> dict[str, list[Any]]:
    parts: dict[str, list[Any]] = {"text": [], "picture": [], "audio": []}
    for name, value in sample.items():
        if name in RESERVED:
            continue
        try:
            values = value if kind_of(value) == "list" else [value]
            kinds = ["picture" if (kind := kind_of(each)) == "array" else kind for each in values]
        except SetupError as error:
            raise SetupError(f"{name}: {error}. Leave out what is no modality") from error
        if "text" in kinds and name != "text":
            raise SetupError(
                f"{name}: expected words in text, answer, choices and says alone, found "
                f"{value!r}: call the prompt text, and leave out what is no modality"
            )
        for kind, each in zip(kinds, values, strict=True):
            parts[kind].append(each)
    return parts


def _placeholder(config: Any, kind: str) -> int | None:
    for name in (f"{kind}_token_id", f"{kind}_token_index"):
        token: int | None = getattr(config, name, None)
        if token is not None:
            return token
    return None


def _unpadded(encoded: dict[str, Any]) -> Prompts:
    ids, mask = encoded.pop("input_ids"), encoded.pop("attention_mask").bool()
    encoded.pop("labels", None)  # PaliGemma's processor makes some, which only a loss wants
    rows = [row[there].tolist() for row, there in zip(ids, mask, strict=True)]
    if not all(rows):
        raise UnableError("nothing is left of a prompt: it has no token")
    tokens = {
        name: value
        for name, value in encoded.items()
        if isinstance(value, Tensor) and value.shape == ids.shape
    }
    beside = {
        name: [row[there].tolist() for row, there in zip(value, mask, strict=True)]
        for name, value in tokens.items()
    }
    media = {n: v for n, v in encoded.items() if n not in tokens and isinstance(v, Tensor)}
    return Prompts(rows, beside, media)
