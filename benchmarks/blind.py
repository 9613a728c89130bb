"""What `equimodal blind` costs: against bare forwards of the prompts that it asks, in one run.

    python benchmarks/blind.py [--samples N] [--batch N]

The bare forwards are one for each batch, condition and choice, of prompts that are made already.
Both take turns, so that a noisy machine is noisy for both alike; the ratio is the median. The model
is a LLaVA of 8 layers made here, with 64 tokens of picture. Memory is the peak of what torch
allocates in one call, over that of one bare forward with its logits.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from equimodal.diagnostics.blind import FILLS, Speaker, blind
from equimodal.diagnostics.blind.conditions import plan
from equimodal.diagnostics.blind.continuing import Rows
from equimodal.diagnostics.blind.filling import filled, means_of, partners
from equimodal.diagnostics.blind.prompts import Prompts

WORDS = "red blue dog no left what colour is it ? a b c d one two three the same or other"
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endfor %} ?"
)
CHOICES = ["red", "blue dog", "no", "left"]


def tokenizer() -> Any:
    """Return a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS.split()])}
    made: Any = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    more = {"pad_token": "<pad>", "unk_token": "<unk>", "additional_special_tokens": ["<image>"]}
    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_object=made, **more)


def model() -> Speaker:
    """Return a LLaVA that computes enough for its processor not to be what is measured."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        image_size=112, patch_size=14,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=4, vocab_size=4096,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=SPECIAL.index("<image>")
    )
    edge = {"height": 112, "width": 112}
    processor = LlavaProcessor(  # type: ignore[no-untyped-call]
        CLIPImageProcessor(size={"shortest_edge": 112}, crop_size=edge),
        tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    made: Any = LlavaForConditionalGeneration(config)
    return Speaker(made.eval(), processor)


def samples(many: int, choices: bool) -> list[dict[str, Any]]:
    """Return questions of 12 to 24 words about noise."""
    drawn = np.random.default_rng(0)
    found = []
    for _ in range(many):
        pixels = drawn.integers(0, 255, (112, 112, 3), dtype=np.uint8)
        words = drawn.choice(WORDS.split(), int(drawn.integers(12, 24)))
        sample = {"image": Image.fromarray(pixels), "text": " ".join(words), "answer": "blue dog"}
        found.append({**sample, "choices": CHOICES} if choices else sample)
    return found


def bare(speaker: Speaker, given: list[dict[str, Any]], batch: int) -> list[tuple[Prompts, Rows]]:
    """Return what is forwarded: prompts and answers of every batch, condition and choice."""
    asked = plan(["image", "text"], FILLS, frozenset(["text"]))
    others, means = partners(len(given), 0), means_of(given, ["image"], 0)
    found = []
    for start in range(0, len(given), batch):
        places = range(start, min(start + batch, len(given)))
        for condition in asked.conditions:
            made = [filled(given[p], given[others[p]], means, condition) for p in places]
            prompts = speaker.prompter(made)
            answers: Rows = [speaker.prompter.answer(s["answer"]) for s in made]
            found += [(prompts, answers)] * len(made[0].get("choices", "1"))
    return found


def seconds(run: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak(run: Callable[[], Any]) -> float:
    """Return the peak of what torch allocates in a call, in MiB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events: Any = profiler.profiler.kineto_results.events()
    sizes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    live = most = 0
    for _, size in sizes:
        live += size
        most = max(most, live)
    return most / 2**20


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    speaker = model()
    for what, choices in (("one answer", False), (f"{len(CHOICES)} choices", True)):
        asked = samples(given.samples, choices)
        forwards = bare(speaker, asked, given.batch)

        def plain(forwards: list[tuple[Prompts, Rows]] = forwards) -> None:
            with torch.no_grad():
                for prompts, answers in forwards:
                    speaker.continuing.plain(prompts, answers)

        def ours(asked: list[dict[str, Any]] = asked) -> None:
            blind(speaker, asked, batch_size=given.batch)

        pairs = [(seconds(plain), seconds(ours)) for _ in range(given.repeats)]
        ratio = statistics.median(after / before for before, after in pairs)
        memory = peak(partial(ours, asked[: given.batch])), peak(partial(plain, forwards[:1]))
        print(
            f"{what}: {len(forwards)} forwards, {statistics.median(p for p, _ in pairs):.1f} s; "
            f"blind {ratio:.2f}x; peak {memory[0]:.0f} MiB, of one forward {memory[1]:.0f} MiB"
        )


if __name__ == "__main__":
    main()
