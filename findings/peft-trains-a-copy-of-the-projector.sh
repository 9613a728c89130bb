#!/usr/bin/env bash
# One would swear: with `modules_to_save=['multi_modal_projector']` the projector itself is trained, and a
#   reference or a hook that one has put on it stays good.
# What happens: PEFT trains a deep copy. The module that one holds gets no forward and no gradient any more; its
#   forward hooks were copied too, so they go on firing, with the copy as the module.
# Seen with: peft 0.21.2, transformers 5.24.0 (LLaVA).
# Why it matters: projectors are what fine-tuning of vision-language models trains beside LoRA. Whoever names
#   the encoder's modules first and calls get_peft_model then scales gradients that stay None, while hooks say
#   that all is well. Wrap first, then look modules up by name.
# In equimodal: a parameter without a gradient is seen in the step; no test yet with an encoder that was named
#   before PEFT wrapped the model.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HOME="$folder/hub" HF_HUB_OFFLINE=1
python3 -m venv venv
venv/bin/pip install --quiet peft==0.21.2 transformers==5.24.0 torch==2.13.0
venv/bin/python -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from peft import LoraConfig, get_peft_model
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
vision = CLIPVisionConfig(image_size=28, patch_size=14, **size)
config = LlavaConfig(vision_config=vision, text_config=LlamaConfig(vocab_size=64, **size), image_token_id=5)
torch.manual_seed(0)
model = LlavaForConditionalGeneration(config)
projector = model.model.multi_modal_projector
seen = []
projector.register_forward_hook(lambda module, inputs, output: seen.append(module))
tuned = get_peft_model(model, LoraConfig(target_modules=["q_proj"], modules_to_save=["multi_modal_projector"]))
ids = torch.tensor([[5, 5, 5, 5, 7, 8]])
tuned(input_ids=ids, pixel_values=torch.randn(1, 3, 28, 28), labels=ids).loss.backward()
own = [p.grad is not None for p in projector.parameters()]
trained = [n for n, p in tuned.named_parameters() if "multi_modal_projector" in n and p.grad is not None]
print(f"peft {version('peft')}, transformers {version('transformers')}")
print(f"gradients on the projector that was hooked: {sum(own)} of {len(own)}")
print(f"the hook fired {len(seen)} time(s), on the same module: {seen[0] is projector}")
print(f"gradients are on: {trained[0]} and {len(trained) - 1} more")
held = not any(own) and len(seen) == 1 and seen[0] is not projector and len(trained) == 4
raise SystemExit(0 if held else "the behaviour has changed")
PYTHON
