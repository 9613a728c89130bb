"""Models of transformers, tiny and made here, asked whether they use what they are given."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from equimodal.cli import main
from equimodal.diagnostics.blind import AS_IS, Condition, Matcher, Speaker, blind, scorer
from equimodal.diagnostics.blind.continuing import Continuing
from equimodal.diagnostics.blind.reading import Read
from equimodal.errors import SetupError
from support import speakers

PROMPTS = ("what colour is it ?", "is it a dog ? yes or no", "is it the same ?")
SPEAKERS = (
    "llava", "qwen2_vl", "idefics3", "smolvlm", "blip_2", "qwen2_audio", "paligemma", "gemma3",
)  # fmt: skip
UNCACHED = ("blip_2", "paligemma")  # keeps them elsewhere; reads its prompt in both directions
MATCHERS = ("clip", "siglip", "clap")
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"
)  # of transformers


@pytest.fixture(scope="module")
def models() -> Callable[[str], Any]:
    """Each model once."""
    made: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in made:
            torch.manual_seed(0)
            made[name] = scorer(*speakers.MAKERS[name]())
        return made[name]

    return of


def samples(name: str, many: int = 6, choices: bool = True) -> list[dict[str, Any]]:
    drawn = np.random.default_rng(0)
    found = []
    for n in range(many):
        sample: dict[str, Any] = {}
        if name in ("qwen2_audio", "clap"):
            length = int(drawn.integers(6000, 15000))
            sample["audio"] = drawn.standard_normal(length).astype("float32")
        else:
            pixels = drawn.integers(0, 255, (20, 24, 3), dtype=np.uint8)
            sample["image"] = Image.fromarray(pixels)
        if name in SPEAKERS:
            sample["text"] = PROMPTS[n % 3]
        sample["answer"] = ("red", "blue dog", "no")[n % 2]
        if choices:
            sample["choices"] = ["red", "blue dog", "no"][: 3 - n % 2]
        found.append(sample)
    return found


def by_hand(speaker: Speaker, sample: dict[str, Any], answer: str) -> float:
    """The log-probability of an answer, one sample and one token at a time."""
    processor, model = speaker.prompter.processor, speaker.model
    kinds = [("image", "images"), ("audio", "audio")]
    given = {word: [sample[kind]] for kind, word in kinds if kind in sample}
    text = sample.get("text", "")
    if speaker.prompter.templated:
        content: list[dict[str, str]] = [{"type": kind} for kind, _ in kinds if kind in sample]
        content += [{"type": "text", "text": text}] if text else []
        turn = {"role": "user", "content": content}
        text = processor.apply_chat_template([turn], add_generation_prompt=True)
    elif "PaliGemma" in type(model).__name__:
        text = f"<image> {text}".strip()
    encoded = processor(text=[text], return_tensors="pt", **given)
    encoded.pop("labels", None)
    total = 0.0
    for token in processor.tokenizer(answer, add_special_tokens=False)["input_ids"]:
        with torch.no_grad():
            logits = model(**encoded).logits[0, -1].double()
        total += float(logits.log_softmax(-1)[token])
        types = int("PaliGemma" in type(model).__name__)
        more = {"input_ids": token, "attention_mask": 1, "mm_token_type_ids": 0}
        for name, value in {**more, "token_type_ids": types}.items():
            if name in encoded:
                encoded[name] = torch.cat([encoded[name], torch.tensor([[value]])], dim=1)
    return total


@pytest.mark.parametrize("name", SPEAKERS)
def test_scores_are_those_of_one_token_at_a_time(name: str, models: Any) -> None:
    speaker = models(name)
    speaker.model.eval()
    given = samples(name)
    for choices in (True, False):
        asked = samples(name, choices=choices)
        found = blind(speaker, asked, fills=["other", "removed"], batch_size=4, resamples=10)
        for condition, fills in (
            (AS_IS, {}),
            (Condition((("text", "removed"),)), {"text": None}),
        ):
            level = found.of(condition)
            for row, sample in enumerate(given):
                seen = {k: v for k, v in {**sample, **fills}.items() if v is not None}
                if choices:
                    told = torch.tensor([by_hand(speaker, seen, c) for c in sample["choices"]])
                    place = sample["choices"].index(sample["answer"])
                    expected = float(told.softmax(0)[place])
                else:
                    total = by_hand(speaker, seen, sample["answer"])
                    expected = float(np.exp(total / len(sample["answer"].split())))
                assert float(level[row]) == pytest.approx(expected, rel=2e-4)
    assert bool(speaker.continuing.cache) is (name not in UNCACHED)
    assert (speaker.continuing.off == 0.0) is (name != "paligemma")


@pytest.mark.parametrize("name", MATCHERS)
def test_what_compares_is_asked_by_its_own_logits(name: str, models: Any) -> None:
    matcher = models(name)
    assert isinstance(matcher, Matcher)
    given = samples(name)
    found = blind(matcher, given, fills=["other", "removed"], resamples=10)
    kind = "audio" if name == "clap" else "image"
    assert found.modalities == (kind,)
    assert "nothing to compare" in found.unable[f"{kind} removed"]
    for row, sample in enumerate(given):
        more = {"sampling_rate": 16000} if kind == "audio" else {}
        padding = "max_length" if name == "siglip" else True
        one = {"images" if kind == "image" else "audio": [sample[kind]]}
        encoded = matcher.processor(
            text=sample["choices"], padding=padding, return_tensors="pt", **one, **more
        )
        with torch.no_grad():
            output = matcher.model.eval()(**encoded)
        logits = getattr(output, f"logits_per_{kind}")[0].double()
        expected = float(logits.softmax(0)[sample["choices"].index(sample["answer"])])
        assert float(found.of(AS_IS)[row]) == pytest.approx(expected, rel=1e-4)


def taught(rule: Callable[[int, int], int]) -> tuple[Speaker, list[dict[str, Any]]]:
    """A LLaVA that has learnt a rule of a bright picture and a letter, and samples of it."""
    torch.manual_seed(0)
    drawn = np.random.default_rng(1)

    def sample() -> dict[str, Any]:
        bright, letter = int(drawn.integers(2)), int(drawn.integers(2))
        pixels = drawn.integers(0, 60, (16, 16, 3)) + 190 * bright
        return {
            "image": Image.fromarray(pixels.astype("uint8")),
            "text": f"is it {'ab'[letter]} ?",
            "answer": ("no", "yes")[rule(bright, letter)],
        }

    model, processor = speakers.llava()
    speaker = Speaker(model, processor)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(200):
        batch = [sample() for _ in range(32)]
        prompts = speaker.prompter(batch)
        right = torch.tensor([speaker.prompter.answer(each["answer"])[0] for each in batch])
        logits = model(input_ids=torch.tensor(prompts.ids), **prompts.media).logits[:, -1]
        loss = torch.nn.functional.cross_entropy(logits, right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if float(loss.detach()) < 0.02:
            break
    return speaker, [sample() for _ in range(60)]


def test_a_model_that_needs_both_and_one_that_is_blind_are_told_apart() -> None:
    speaker, given = taught(lambda bright, letter: bright ^ letter)
    found = blind(speaker, given, fills=["other", "blank"], resamples=200)
    assert {name: found.verdict(name).word for name in ("image", "text")} == {
        "image": "used",
        "text": "used",
    }
    assert found.lost(Condition((("image", "other"),))).low > 0.1
    assert found.level(AS_IS, "exact").value == 1.0
    with torch.no_grad():  # its picture is the same, whatever it shows
        for layer in speaker.model.model.multi_modal_projector.parameters():
            layer.zero_()
    blinded = blind(speaker, given, fills=["other", "blank", "mean"], resamples=200)
    assert blinded.verdict("image").word == "ignored"
    assert blinded.moved(Condition((("image", "other"),))).high < 1e-6
    assert blinded.unchanged(Condition((("image", "other"),))).low > 0.9  # type: ignore[union-attr]
    says = [{**each, "says": {"image": "yes", "text": "no"}} for each in given[:6]]
    assert sum(blind(speaker, says).conflicts.times.values()) == 6


def test_the_command_writes_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = speakers.saved("llava", tmp_path / "llava")
    lines = []
    for n, sample in enumerate(samples("llava", 6)):
        sample["image"].save(tmp_path / f"{n}.png")
        line = {"image": f"{n}.png", "query": sample["text"], "answer": n % 2, "source": "made"}
        lines.append(json.dumps({**line, "choices": ["red", "blue dog"]}))
    (tmp_path / "asked.jsonl").write_text("\n".join(lines) + "\n")
    arguments = ["blind", str(folder), "--data", str(tmp_path / "asked.jsonl"), "--columns"]
    arguments += ["[text=query]", "--fills", "[other,blank]", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "llava: 6 samples of asked.jsonl" in said.out
    assert "passed over: source" in said.err
    found = json.loads((tmp_path / "out" / "blind.json").read_text())
    assert found["modalities"] == ["image", "text"]
    assert found["metrics"] == ["likelihood", "accuracy"]
    assert set(found["verdicts"]) == {"image", "text"}
    html = (tmp_path / "out" / "blind.html").read_text()
    assert "What is lost" in html
    assert "image other" in html
    speaker = scorer(*speakers.llava())  # other weights: what was read are those of the folder
    read = Read(tmp_path / "asked.jsonl", {"text": "query"})
    again = blind(speaker, read, fills=["other"], resamples=10)
    level = found["conditions"]["as is"]["metrics"]["likelihood"]["level"]["value"]
    assert level != pytest.approx(again.level().value)
    assert main([*arguments[:2], "--data", str(tmp_path / "none.jsonl")]) == 2
    assert "expected a file of JSON lines" in capsys.readouterr().err
    assert main(["blind", str(tmp_path / "out"), "--data", str(tmp_path / "asked.jsonl")]) == 2
    assert "found no config.json in it" in capsys.readouterr().err
    for option, said in (
        (["--dtype", "bf16"], "dtype: expected auto or one of torch"),
        (["--device", "gpu"], "device: 'gpu': "),
    ):
        assert main([*arguments, *option]) == 2
        assert said in capsys.readouterr().err


def test_the_command_asks_a_function_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_policy.py").write_text(
        "import torch\n"
        "def make():\n"
        "    def score(samples, condition):\n"
        "        return torch.tensor([float(s.get('text') == s['answer']) for s in samples])\n"
        "    return score\n"
    )
    lines = [json.dumps({"text": "ab"[n % 2], "answer": "ab"[n % 2]}) for n in range(40)]
    (tmp_path / "asked.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["blind", "my_policy:make", "--data", "asked.jsonl", "--columns", "[text]"]) == 2
    assert "--columns: expected [entry=name, ...], found 'text'" in capsys.readouterr().err
    assert main(["blind", "my_policy:make", "--data", "asked.jsonl", "--samples", "30"]) == 0
    said = capsys.readouterr().out
    assert "score: 30 samples of asked.jsonl" in said
    assert "USED: text" in said


def test_nothing_stays_on_the_model(models: Any) -> None:
    speaker = models("qwen2_vl")
    speaker.model.train()
    speaker.model.lm_head.eval()
    modes = [part.training for part in speaker.model.modules()]
    drift = copy.deepcopy(speaker.model.model.rope_deltas)
    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    blind(speaker, samples("qwen2_vl"), fills=["other", "removed"], resamples=10)
    assert torch.equal(torch.rand(1), drawn)
    assert [part.training for part in speaker.model.modules()] == modes
    assert all(parameter.grad is None for parameter in speaker.model.parameters())
    after = speaker.model.model.rope_deltas
    assert (drift is None) == (after is None)
    assert not any(part._forward_hooks for part in speaker.model.modules())


def test_choices_and_words_read_the_picture_once(models: Any) -> None:
    """What is read beyond the first batch: each state of the picture once, and short tails."""
    speaker = models("llava")
    blind(speaker, samples("llava", 4), batch_size=4, resamples=10)
    calls: list[tuple[int, bool]] = []
    forward = speaker.model.forward
    handle = speaker.model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(
            (kwargs["input_ids"].shape[1], "pixel_values" in kwargs)
        ),
        with_kwargs=True,
    )
    try:
        blind(speaker, samples("llava", 4), batch_size=4, resamples=10)
    finally:
        handle.remove()
    assert speaker.model.forward == forward
    assert sum(pictures for _, pictures in calls) == 4  # as it is, blank, mean, other
    longest = max(length for length, _ in calls)
    tails = [length for length, pictures in calls if not pictures]
    assert len(tails) == 3 * (3 + 2 + 2 + 2 + 2) + 1  # choices by prompts; once without a picture
    assert sum(tails) < 0.75 * longest * len(tails)


def test_a_cache_that_gives_something_else_is_not_used(models: Any) -> None:
    speaker = copy.copy(models("llava"))
    wrong = Continuing(speaker.model, speaker.prompter.tokens)
    tail = wrong._tail
    wrong._tail = lambda *given: tail(*given[:3], given[3] + 1, *given[4:])  # type: ignore[method-assign]
    speaker.continuing = wrong
    found = blind(speaker, samples("llava", 4), fills=["other"], resamples=10)
    right = blind(models("llava"), samples("llava", 4), fills=["other"], resamples=10)
    torch.testing.assert_close(found.of(AS_IS), right.of(AS_IS), rtol=1e-4, atol=1e-6)
    assert any("read anew for each answer" in note for note in found.notes)


def test_what_models_take_without_a_word_is_refused(models: Any) -> None:
    speaker = models("llava")
    (one, two) = samples("llava", 2)
    with pytest.raises(SetupError, match="has 2 times <image> for 1 of its images"):
        blind(speaker, [{**one, "text": "<image> is it <image> ?"}, two])
    without = [{"text": "is it <image> ?", "answer": "no"}, {"text": "is it ?", "answer": "no"}]
    found = blind(speaker, without, fills=["other"])  # placeholders without pictures are taken out
    assert found.samples == 2
    for change, said in (
        ({"answer": None}, "expected an answer"),
        ({"answer": ["a", "b"], "choices": None}, "answer"),
        ({"answer": "green"}, "choices: expected two or more that differ, 'green'"),
    ):
        changed = {**one, **change}
        if changed.get("choices", 1) is None:
            del changed["choices"]
            other = {k: v for k, v in two.items() if k != "choices"}
        else:
            other = two
        with pytest.raises(SetupError, match=said):
            blind(speaker, [changed, other])
    for name, value, said in (
        ("prompt", "is it ?", "prompt: expected words in text, answer, choices and says alone"),
        ("turn", 3, "turn: a modality: expected text, a PIL image, .* found int"),
    ):
        with pytest.raises(SetupError, match=said):
            blind(speaker, [{**one, name: value}, {**two, name: value}], ["image"])
    sounds = samples("qwen2_audio", 2)
    sounds[1]["audio"] = sounds[1]["audio"][:80]  # 5 ms
    with pytest.raises(SetupError, match="1 of audio and 0 tokens for it: is it too short"):
        blind(models("qwen2_audio"), sounds)


class Looking(torch.nn.Module):
    """Puts the mean of all tokens into each: it sees the answer."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner, self.config = model, model.config
        self.device, self.dtype = model.device, model.dtype

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **given: Any) -> Any:
        output = self.inner(input_ids=input_ids, attention_mask=attention_mask, **given)
        output.logits = output.logits + output.logits.mean(dim=1, keepdim=True)
        return output


class Random(Looking):
    """Draws in evaluation, as ViLT does the order of its patches."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **given: Any) -> Any:
        output = self.inner(input_ids=input_ids, attention_mask=attention_mask, **given)
        output.logits = output.logits + torch.randn(output.logits.shape[-1])
        return output


def test_a_model_that_sees_the_answer_is_refused_and_one_that_draws_is_noted(models: Any) -> None:
    inner = models("llava")
    speaker = Speaker(Looking(inner.model), inner.prompter.processor)
    with pytest.raises(SetupError, match="Looking sees the answer while it reads the prompt"):
        blind(speaker, samples("llava", 4))
    drawing = Speaker(Random(inner.model), inner.prompter.processor)
    found = blind(drawing, samples("llava", 4), fills=["other"], resamples=10)
    assert any("differently from run to run" in note for note in found.notes)


def test_several_pictures_of_one_prompt_each_have_their_share(models: Any) -> None:
    given = [
        {"front": s["image"], "wrist": s["image"].rotate(90), "text": s["text"], "answer": "no"}
        for s in samples("idefics3", 4)
    ]
    found = blind(models("idefics3"), given, fills=["other", "removed"], resamples=10)
    values = found.shapley()
    assert values is not None
    assert values.names == ("front", "wrist", "text")
    assert set(values.values) == {"other", "removed"}
    assert not found.unable
