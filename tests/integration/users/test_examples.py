"""The examples of modern models run as they stand, and on a model from a folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel

from support.examples import ROOT


def run(script: str, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "examples" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def values(printed: str, what: str) -> list[float]:
    return [float(number) for number in re.findall(rf"{what} (\d\.\d+|nan)", printed)]


def bert(folder: Path) -> str:
    torch.manual_seed(1)
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
    BertModel(BertConfig(hidden_size=24, intermediate_size=40, **layers)).save_pretrained(folder)
    return str(folder)


def test_clip_lora_balances_the_adapters_alone() -> None:
    printed = run("clip_lora.py")
    assert printed.count("1,024 trainable, 1,024 modulated") == 2
    assert "changed: 16 of 16 adapter tensors, 0 others" in printed
    assert "adapters saved, loaded and merged: same similarities" in printed
    evidence = values(printed, "evidence/image")
    assert len(set(evidence)) == len(evidence) >= 3
    losses = values(printed, "loss/joint")
    assert losses[-1] < losses[0]


def test_clip_lora_of_a_pretrained_model(tmp_path: Path) -> None:
    layers = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1}
    layers |= {"num_attention_heads": 2}
    text = {"vocab_size": 60, "bos_token_id": 57, "eos_token_id": 59, "pad_token_id": 58}
    CLIPModel(
        CLIPConfig(
            text_config={**layers, **text},
            vision_config={**layers, "image_size": 16, "patch_size": 8},
            projection_dim=12,
        )
    ).save_pretrained(tmp_path)
    printed = run("clip_lora.py", "--pretrained", str(tmp_path), "--steps", "3")
    assert "feature (16, 12)" in printed
    assert "changed: 8 of 8 adapter tensors, 0 others" in printed


def test_frozen_encoder_is_said_left_out_and_scored(tmp_path: Path) -> None:
    printed = run("frozen_encoder.py")
    assert "said: encoders['text'] has no trainable parameter that OGM acts on" in printed
    assert "37,856 parameters, 0 trainable, 0 modulated" in printed
    evidence = values(printed, "evidence/text")
    assert all(0 < value < 1 for value in evidence)
    assert len(set(evidence)) == len(evidence) >= 3
    assert min(values(printed, "coefficient/image")) < 1
    printed = run("frozen_encoder.py", "--pretrained", bert(tmp_path), "--steps", "2")
    assert "feature (32, 24)" in printed


def test_missing_modality_has_no_evidence_where_nobody_has_it(tmp_path: Path) -> None:
    for arguments in ((), ("--pretrained", bert(tmp_path), "--steps", "6")):
        printed = run("missing_modality.py", *arguments)
        lines = printed.splitlines()
        empty = [line for line in lines if ",  0 captions" in line]
        assert len(empty) == 2
        assert all("evidence/text nan" in line for line in empty)
        assert all("coefficient/text 1.000  coefficient/image 1.000" in line for line in empty)
        others = "\n".join(line for line in lines if line not in empty)
        assert all(0 < value < 1 for value in values(others, "evidence/text"))
        assert min(values(others, "coefficient/text") + values(others, "coefficient/image")) < 1
