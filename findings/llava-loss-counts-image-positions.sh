#!/usr/bin/env bash
# One would swear: the loss that LLaVA returns is the mean over text; places that hold image features are no
#   targets.
# What happens: with labels=input_ids, the usual recipe for language models, the model learns to predict the
#   image's placeholder token at every image position. The loss equals a plain mean over all positions; the
#   model masks nothing.
# Seen with: transformers 5.24.0 (LlavaForConditionalGeneration; Qwen2-VL, PaliGemma and Idefics3 leave it to
#   the labels as well).
# Why it matters: an image takes hundreds of positions, so most of the loss, and of the gradient, is about a
#   constant. It falls fast and hides that text or image is not learned; image-heavy batches weigh less in text.
#   Set labels of placeholders to -100.
# In equimodal: token losses count the labels that are not ignored (tests/integration/test_token_losses.py);
#   nothing says yet that a user's labels contain placeholders.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0 torch==2.13.0
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
vision = CLIPVisionConfig(image_size=28, patch_size=14, **size)
config = LlavaConfig(vision_config=vision, text_config=LlamaConfig(vocab_size=64, **size), image_token_id=5)
torch.manual_seed(0)
model = LlavaForConditionalGeneration(config).eval()
ids = torch.tensor([[5, 5, 5, 5, 7, 8]])
inputs = {"input_ids": ids, "pixel_values": torch.randn(1, 3, 28, 28)}
with torch.no_grad():
    plain = model(**inputs, labels=ids)
    masked = model(**inputs, labels=ids.masked_fill(ids == 5, -100)).loss.item()
scores = plain.logits.log_softmax(-1)[0, :-1]
each = -scores.gather(1, ids[0, 1:, None])[:, 0]
print(f"transformers {version('transformers')}, four image positions and two words")
print(f"loss with labels=input_ids: {plain.loss.item():.6f}; mean over all places by hand: {each.mean().item():.6f}")
print(f"loss with placeholders masked: {masked:.6f}; mean over words by hand: {each[-2:].mean().item():.6f}")
held = abs(plain.loss.item() - each.mean().item()) < 1e-5 and abs(masked - each[-2:].mean().item()) < 1e-5
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
