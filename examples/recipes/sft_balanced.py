"""A vision-language model fine-tuned with LoRA by TRL's SFTTrainer: Qwen2-VL, tiny and random."""

from functools import partial
from tempfile import TemporaryDirectory

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer
from vlm_lora_plain import IMAGE, PAD, collate, sample, tiny

import equimodal as eq
from equimodal.integrations.transformers import BalancedTrainer

INNER = "base_model.model.model"  # of the model that PEFT has wrapped


class BalancedSFTTrainer(BalancedTrainer, SFTTrainer):
    """TRL's trainer, balanced."""


def tokenizer() -> PreTrainedTokenizerFast:
    """Return one that knows the tokens of `sample`; put your processor in its place."""
    words = models.WordLevel({f"t{number}": number for number in range(100)}, unk_token="t0")
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer(words), pad_token=f"t{PAD}", eos_token="t94"
    )


def main() -> None:
    """Train the adapters."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        arguments = SFTConfig(
            folder,
            max_steps=6,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            learning_rate=1e-2,
            logging_steps=2,
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        trainer = BalancedSFTTrainer(
            model=tiny(),
            args=arguments,
            data_collator=lambda rows: collate([sample(row["number"]) for row in rows]),
            train_dataset=Dataset.from_dict({"number": list(range(64))}),
            processing_class=tokenizer(),
            peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
            balance=partial(
                eq.Balancer,
                eq.OGM(0.8, space="update"),
                encoders={
                    "image": f"{INNER}.visual.merger",
                    "text": f"{INNER}.language_model.embed_tokens",
                },
                criterion=eq.TokenLoss(),
                scores=eq.Ablation(),
                tokens=eq.Tokens(
                    f"{INNER}.language_model", lambda input_ids, **_: {"image": input_ids == IMAGE}
                ),
            ),
        )
        trainer.train()


if __name__ == "__main__":
    main()
