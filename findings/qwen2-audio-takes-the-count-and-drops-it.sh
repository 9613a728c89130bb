#!/usr/bin/env bash
# One would swear: a model that the Trainer of transformers finds able to divide by num_items_in_batch does so.
# What happens: Qwen2-Audio takes the count among its keyword arguments and ignores it: three labels in a batch
#   of twelve give the same loss as three of three. A Llama divides by twelve. The Trainer judges by the
#   signature alone, so it leaves the division to the model, and gradient and logged loss are multiplied by the
#   number of accumulated batches.
# Seen with: transformers 5.24.0 (Qwen2AudioForConditionalGeneration), accelerate 1.15.0.
# Why it matters: accumulation over four batches is then four times the learning rate for SGD, clipping bites
#   four times as early, and losses of two models cannot be compared. Nothing is said.
# In equimodal: the mixin for this Trainer weighs its own loss by the count
#   (equimodal.integrations.transformers); no test with Qwen2-Audio.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0 accelerate==1.15.0 torch==2.13.0
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from transformers import (
    LlamaConfig, LlamaForCausalLM, Qwen2AudioConfig, Qwen2AudioEncoderConfig, Qwen2AudioForConditionalGeneration,
    Qwen2Config, Trainer, TrainingArguments,
)

size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
ears = Qwen2AudioEncoderConfig(
    d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32, num_mel_bins=8,
    max_source_positions=16,
)
words = Qwen2Config(vocab_size=64, num_key_value_heads=2, **size)
config = Qwen2AudioConfig(audio_config=ears.to_dict(), text_config=words.to_dict(), audio_token_index=5)
models = {
    "Llama": LlamaForCausalLM(LlamaConfig(vocab_size=64, **size)),
    "Qwen2-Audio": Qwen2AudioForConditionalGeneration(config),
}
ids = torch.tensor([[1, 2, 3, 4]])
print(f"transformers {version('transformers')}, three labels in this batch")
ratios, trusted = {}, {}
for name, model in models.items():
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    with torch.no_grad():
        ratios[name] = (model(**inputs, num_items_in_batch=12).loss / model(**inputs).loss).item()
    arguments = TrainingArguments(output_dir="out", use_cpu=True, report_to=[])
    trusted[name] = Trainer(model=model, args=arguments).model_accepts_loss_kwargs
    print(f"{name}: loss with a count of twelve / loss without: {ratios[name]:.2f}; trusted with it: {trusted[name]}")
held = abs(ratios["Llama"] - 0.25) < 1e-3 and abs(ratios["Qwen2-Audio"] - 1) < 1e-6 and all(trusted.values())
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
