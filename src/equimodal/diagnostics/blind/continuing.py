"""How likely a language model holds answers after prompts; what they share is read once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.blind.prompts import Prompts

Rows = Sequence[Sequence[int]]
EQUAL = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Told:
    """What a model holds of one answer per sample.

    Attributes:
        total: log-probability of the answer, float64, shape ``(B,)``.
        length: its tokens, shape ``(B,)``.
        chosen: the likeliest token at every place of the answer, given the right ones before it.
        exact: whether these are the answer, bool, shape ``(B,)``: then it is what is generated
            when the likeliest token is taken each time.
    """

    total: Tensor
    length: Tensor
    chosen: list[tuple[int, ...]]
    exact: Tensor


class Continuing:
    """A causal model that continues prompts.

    Args:
        model: takes ``input_ids`` and ``attention_mask``, returns ``logits``.
        placeholders: tokens in whose place it puts media.
    """

    def __init__(self, model: Any, placeholders: set[int]) -> None:
        self.model = model
        self.placeholders = placeholders
        names = inspect.signature(model.forward).parameters
        self.keeps = "logits_to_keep" in names
        self.places = "position_ids" in names
        known = [name for name in ("cache", "past_key_values") if name in names]
        self.cache = known[0] if known else ""  # what the model calls its keys and values
        self.types: dict[str, int] = {}  # of an answer's tokens, where they are not 0
        self.off = 0.0  # by how much a cached answer was off, where the cache is not used
        self._sure: set[tuple[str, ...]] = set()  # with which media the cache gives the same
        # Qwen2-VL keeps how far the places of the last pictures went, also for prompts without.
        self._drifting = [part for part in model.modules() if hasattr(part, "rope_deltas")]

    def plain(self, prompts: Prompts, answers: Rows) -> Told:
        """Read prompts and answers from their beginning."""
        ids = [[*ours, *theirs] for ours, theirs in zip(prompts.ids, answers, strict=True)]
        kept = max(map(len, ids)) - min(map(len, prompts.ids)) + 1
        output = self._forward(ids, prompts.beside, prompts.media, kept)
        starts = torch.tensor([len(each) - 1 for each in prompts.ids])
        return _told(output.logits, starts - (max(map(len, ids)) - output.logits.shape[1]), answers)

    def several(self, prompts: Sequence[Prompts], answers: Sequence[Rows]) -> list[list[Told]]:
        """Read several answers after each of several prompts that have the same media.

        What the prompts of a sample begin with, media included, is read once, and kept as keys and
        values while their ends and the answers are read. The first time both ways are gone, and
        where they differ the cache is used no more.

        Args:
            prompts: of the same samples.
            answers: of the same samples.

        Returns:
            By prompts and by answers.
        """
        if not self.cache or len(prompts) * len(answers) == 1:
            return [[self.plain(one, each) for each in answers] for one in prompts]
        shared = self._shared(prompts)
        if shared is None:  # media after words that differ
            return [self.several([one], answers)[0] for one in prompts]
        found: list[list[Told]] | None = None
        try:
            found = self._cached(prompts, answers, shared)
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            pass  # what reading from the beginning says decides whose fault it is
        media = tuple(sorted(prompts[0].media))
        if found is not None and media in self._sure:
            return found
        plain = [[self.plain(one, each) for each in answers] for one in prompts]
        if found is None:
            self.cache, self.off = "", float("inf")
            return plain
        gaps = [
            (ours.total - theirs.total).abs() / ours.length
            for one, other in zip(found, plain, strict=True)
            for ours, theirs in zip(one, other, strict=True)
        ]
        off = float(torch.cat(gaps).max())
        if off <= EQUAL.get(self.model.dtype, 1e-4):
            self._sure.add(media)
        else:
            self.cache, self.off = "", off
        return plain

    def ahead(self, prompts: Prompts, answers: Rows) -> tuple[bool, bool]:
        """Return whether the model looks ahead, and whether it differs from run to run.

        Some read what has one type in both directions, and what has another as it is generated:
        PaliGemma. Where answers have types, the other one is tried.
        """
        whole = [[*ours, *theirs] for ours, theirs in zip(prompts.ids, answers, strict=True)]
        short, repeated, long = (
            self._next(prompts, ids) for ids in (prompts.ids, prompts.ids, whole)
        )
        limit = 10 * EQUAL.get(self.model.dtype, 1e-4)
        random = bool((short - repeated).abs().max() > limit)
        ahead = not random and bool((short - long).abs().max() > limit)
        if ahead and "token_type_ids" in prompts.beside and not self.types:
            self.types = {"token_type_ids": 1}
            return self.ahead(prompts, answers)
        return ahead, random

    def _next(self, prompts: Prompts, ids: Rows) -> Tensor:
        """Return log-probabilities of the token after each prompt, shape ``(B, V)``."""
        longest, shortest = max(map(len, ids)), min(map(len, prompts.ids))
        output = self._forward(ids, prompts.beside, prompts.media, longest - shortest + 1)
        left = longest - output.logits.shape[1]
        places = torch.tensor([len(each) - 1 - left for each in prompts.ids])
        rows = torch.arange(len(places))
        found: Tensor = output.logits[rows, places].float().log_softmax(-1)
        return found

    def _shared(self, prompts: Sequence[Prompts]) -> list[int] | None:
        """Return how many tokens the prompts of each sample share; None if media are beyond."""
        lengths = []
        for rows in zip(*(each.ids for each in prompts), strict=True):
            shortest = min(map(len, rows)) - 1
            same = (len(set(tokens)) == 1 for tokens in zip(*rows, strict=False))
            length = next((place for place, equal in enumerate(same) if not equal), shortest)
            length = min(length, shortest)
            if length < 1 or any(self.placeholders & set(row[length:]) for row in rows):
                return None
            lengths.append(length)
        return lengths

    def _cached(
        self, prompts: Sequence[Prompts], answers: Sequence[Rows], shared: list[int]
    ) -> list[list[Told]]:
        first = prompts[0]
        heads = [row[:length] for row, length in zip(first.ids, shared, strict=True)]
        beside = {
            name: [row[:length] for row, length in zip(rows, shared, strict=True)]
            for name, rows in first.beside.items()
        }
        drifted = [part.rope_deltas for part in self._drifting]
        for part in self._drifting:
            part.rope_deltas = None
        try:
            read = self._forward(heads, beside, first.media, 1, use_cache=True)
            offset = next((part.rope_deltas for part in self._drifting), None)
        finally:
            for part, before in zip(self._drifting, drifted, strict=True):
                part.rope_deltas = before
        past = getattr(read, "cache", None) or read.past_key_values
        begun, starts = _mask(heads), torch.tensor(shared)
        found = []
        for one in prompts:
            ends = [row[length:] for row, length in zip(one.ids, shared, strict=True)]
            found.append(
                [
                    self._tail(copy.deepcopy(past), begun, offset, starts, ends, each)
                    for each in answers
                ]
            )
        return found

    def _tail(
        self, past: Any, begun: Tensor, offset: Any, starts: Tensor, ends: Rows, answers: Rows
    ) -> Told:
        ids = [[*ours, *theirs] for ours, theirs in zip(ends, answers, strict=True)]
        more: dict[str, Any] = {self.cache: past, "use_cache": True}
        if self.places:
            places = starts[:, None] + torch.arange(max(map(len, ids)))
            if offset is not None:  # three axes, counted on from the last place of a picture
                places = (places + offset.cpu().view(-1, 1)).expand(3, -1, -1)
            more["position_ids"] = places.to(self.model.device)
        output = self._forward(ids, {}, {}, 0, begun, **more)
        return _told(output.logits, torch.tensor([len(each) - 1 for each in ends]), answers)

    def _forward(
        self,
        ids: Rows,
        beside: Mapping[str, Rows],
        media: Mapping[str, Tensor],
        kept: int,
        begun: Tensor | None = None,
        **more: Any,
    ) -> Any:
        device, dtype = self.model.device, self.model.dtype
        mask = _mask(ids) if begun is None else torch.cat([begun, _mask(ids)], dim=1)
        given = {"input_ids": _padded(ids), "attention_mask": mask}
        length = given["input_ids"].shape[1]
        given |= {n: _padded(rows, length, self.types.get(n, 0)) for n, rows in beside.items()}
        if self.keeps:
            more["logits_to_keep"] = kept
        tensors = {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in {**media, **given}.items()
        }
        return self.model(**tensors, **more)


def _told(logits: Tensor, starts: Tensor, answers: Rows) -> Told:
    longest = max(map(len, answers))
    device = logits.device
    places = (starts[:, None] + torch.arange(longest)).clamp(max=logits.shape[1] - 1).to(device)
    right, there = _padded(answers).to(device), _mask(answers).bool().to(device)
    rows = torch.arange(len(starts), device=device)[:, None]
    spread = logits[rows, places].float().log_softmax(dim=-1)
    told = spread.gather(2, right[..., None])[..., 0].masked_fill(~there, 0.0)
    likeliest = spread.argmax(dim=-1)
    lengths = [len(each) for each in answers]
    return Told(
        told.cpu().double().sum(dim=1),
        torch.tensor(lengths),
        [tuple(row[:n]) for row, n in zip(likeliest.tolist(), lengths, strict=True)],
        ((likeliest == right) | ~there).all(dim=1).cpu(),
    )


def _padded(rows: Rows, length: int = 0, end: int = 0) -> Tensor:
    """Return rows with the same number at their ends, int64, shape ``(B, L)``."""
    length = max(length, *map(len, rows))
    return torch.tensor([[*row, *[end] * (length - len(row))] for row in rows])


def _mask(rows: Rows) -> Tensor:
    length = max(map(len, rows))
    return torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
