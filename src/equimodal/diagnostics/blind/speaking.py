"""Hugging Face models that answer in words: prompts with pictures and sounds, answers as tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.blind.conditions import AS_IS, Condition
from equimodal.diagnostics.blind.conflict import RESERVED
from equimodal.diagnostics.blind.continuing import Continuing, Rows, Told
from equimodal.diagnostics.blind.prompts import Prompter, Prompts
from equimodal.diagnostics.blind.scores import Scores, UnableError
from equimodal.errors import SetupError
from equimodal.system.modes import evaluation
from equimodal.system.randomness import restored_states

Samples = list[dict[str, Any]]
Asked = Scores | UnableError


class Speaker:
    """A causal model of Hugging Face that takes text with pictures or sounds.

    A sample holds its prompt, pictures (PIL), sounds (waveforms at the rate of the model) and
    ``answer``; with ``choices``, a list of texts, the answer is one of them.

    Metrics: without choices ``likelihood``, the geometric mean of the probabilities of the answer's
    tokens, and ``exact``, whether the likeliest tokens begin with the answer; with choices
    ``likelihood``, the probability of the answer among them, and ``accuracy``.

    Args:
        model: such as `LlavaForConditionalGeneration`.
        processor: its own.
        name: for pages.

    Raises:
        SetupError: the model does not continue a prompt by itself.
    """

    def __init__(self, model: Any, processor: Any, name: str = "") -> None:
        if getattr(model.config, "is_encoder_decoder", False):
            raise SetupError(
                f"{type(model).__name__} has a decoder of its own for answers, which is not read: "
                "give blind a function that scores samples"
            )
        self.model = model
        self.name = name or type(model).__name__
        self.prompter = Prompter(processor, model.config)
        self.continuing = Continuing(model, self.prompter.tokens)
        self._examined = False
        self._random = False

    @property
    def notes(self) -> list[str]:
        """What to know when reading the results."""
        notes = []
        if self._random:
            notes.append(
                "the model answers differently from run to run, also in evaluation mode: a part of "
                "what moves is chance"
            )
        if self.continuing.off:
            notes.append(
                "prompts were read anew for each answer, because the keys and values of this model "
                "cannot be kept between them"
            )
        return notes

    @property
    def rate(self) -> int | None:
        """Samples a second of sound that the model takes."""
        return self.prompter.rate

    def modalities(self, first: Mapping[str, Any]) -> list[str]:
        """Return which entries of a sample are modalities."""
        return [name for name in first if name not in RESERVED and first[name] is not None]

    def __call__(self, samples: Samples, condition: Condition) -> Scores:
        """Score samples under one condition."""
        (scores,) = self.together([condition], [samples])
        if isinstance(scores, UnableError):
            raise scores
        return scores

    def together(self, conditions: Sequence[Condition], made: Sequence[Samples]) -> list[Asked]:
        """Score samples under several conditions: those with the same media share what they can."""
        with torch.no_grad(), evaluation(self.model), restored_states(self.model.device):
            words = {name for each in made for name, of in each[0].items() if isinstance(of, str)}
            groups: dict[Any, list[int]] = defaultdict(list)
            for place, condition in enumerate(conditions):
                media = tuple(each for each in condition.fills if each[0] not in words)
                groups[media].append(place)
            found: dict[int, Asked] = {}
            for places in groups.values():
                asked = self._group([conditions[p] for p in places], [made[p] for p in places])
                found |= zip(places, asked, strict=True)
        return [found[place] for place in range(len(conditions))]

    def _group(self, conditions: Sequence[Condition], made: Sequence[Samples]) -> list[Asked]:
        found: dict[int, Asked] = {}
        prompts: dict[int, Prompts] = {}
        for place, (condition, samples) in enumerate(zip(conditions, made, strict=True)):
            try:
                prompts[place] = self.prompter(samples)
            except UnableError as error:
                found[place] = error
            except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
                found[place] = _unable(condition, error)
        if prompts:
            _share(prompts)
            answers, choices = self._answers(made[0])
            self._examine(next(iter(prompts.values())), answers[0])
            found |= self._read(conditions, prompts, answers, choices)
        return [found[place] for place in range(len(conditions))]

    def _read(
        self,
        conditions: Sequence[Condition],
        prompts: Mapping[int, Prompts],
        answers: Sequence[Rows],
        choices: Tensor | None,
    ) -> dict[int, Asked]:
        try:
            told = self.continuing.several(list(prompts.values()), answers)
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, RuntimeError) as error:
            if len(prompts) == 1:
                (place,) = prompts
                return {place: _unable(conditions[place], error)}
            apart: dict[int, Asked] = {}
            for place, one in prompts.items():
                apart |= self._read(conditions, {place: one}, answers, choices)
            return apart
        return {
            place: _of_choices(each, choices) if choices is not None else _of_answer(each[0])
            for place, each in zip(prompts, told, strict=True)
        }

    def _answers(self, samples: Samples) -> tuple[list[Rows], Tensor | None]:
        """Return tokens of the answer, or of each choice, and which choices there are.

        The right one comes first; of samples with fewer choices than others it stands for the rest.
        """
        for sample in samples:
            if sample.get("answer") is None:
                raise SetupError(f"sample {sample.get('id', sample)!r}: expected an answer")
        right = [sample["answer"] for sample in samples]
        with_choices = ["choices" in sample for sample in samples]
        if not any(with_choices):
            return [[self.prompter.answer(each) for each in right]], None
        if not all(with_choices):
            raise SetupError("choices: expected of every sample, or of none, found of some")
        rows = [_ordered(sample) for sample in samples]
        most = max(map(len, rows))
        there = torch.tensor([[n < len(row) for n in range(most)] for row in rows])
        spelt = [[row[n] if n < len(row) else row[0] for row in rows] for n in range(most)]
        return [[self.prompter.answer(each) for each in column] for column in spelt], there

    def _examine(self, prompts: Prompts, answers: Rows) -> None:
        """Look, once, whether the model is causal and gives the same twice."""
        if self._examined:
            return
        ahead, self._random = self.continuing.ahead(prompts, answers)
        self._examined = True
        if ahead:
            raise SetupError(
                f"{type(self.model).__name__} sees the answer while it reads the prompt: what it "
                "holds likely cannot be read in one pass. Give blind a function that scores samples"
            )


def _share(prompts: dict[int, Prompts]) -> None:
    """Hold media once that are the same for several prompts."""
    first, *others = prompts
    media = prompts[first].media
    for place in others:
        theirs = prompts[place].media
        if media.keys() == theirs.keys() and all(torch.equal(media[n], theirs[n]) for n in media):
            prompts[place] = replace(prompts[place], media=media)


def _of_answer(told: Told) -> Scores:
    values = {"likelihood": (told.total / told.length).exp(), "exact": told.exact.double()}
    return Scores(values, told.chosen)


def _of_choices(told: Sequence[Told], there: Tensor) -> Scores:
    totals = torch.stack([each.total for each in told], dim=1).masked_fill(~there, -torch.inf)
    best = totals.argmax(dim=1)
    tied = totals == totals.max(dim=1, keepdim=True).values
    right = tied[:, 0].double() / tied.sum(dim=1)  # of equals, one is as good as the other
    return Scores({"likelihood": totals.softmax(dim=1)[:, 0], "accuracy": right}, best.tolist())


def _ordered(sample: Mapping[str, Any]) -> list[str]:
    choices = [str(each) for each in sample["choices"]]
    right = str(sample["answer"])
    if right not in choices or len(set(choices)) < len(choices) or len(choices) < 2:
        raise SetupError(
            f"sample {sample.get('id', '')}: choices: expected two or more that differ, {right!r} "
            f"among them, found {choices}"
        )
    return [right, *(each for each in choices if each != right)]


def _unable(condition: Condition, error: Exception) -> UnableError:
    """Return why a condition cannot be asked.

    Raises:
        SetupError: the prompt is whole: then it is no matter of what is removed.
    """
    lines = str(error).strip().splitlines() or [""]
    reason = f"{type(error).__name__}: {lines[0][:200]}"
    if condition == AS_IS or "removed" not in dict(condition.fills).values():
        raise SetupError(
            f"the model does not take what its processor made of a prompt: {reason}. Give blind a "
            "function that scores samples"
        ) from error
    return UnableError(f"the model does not run so: {reason}")
