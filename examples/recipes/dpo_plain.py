"""A vision-language model taught preferences with LoRA by TRL's DPOTrainer: Qwen2-VL, tiny."""

from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer
from vlm_lora_plain import FIRST_COLOUR, IMAGE, PAD, sample, tiny


def tokenizer() -> PreTrainedTokenizerFast:
    """Return one that knows the tokens of `sample`; put your processor in its place."""
    words = Tokenizer(models.WordLevel({f"t{number}": number for number in range(100)}, "t0"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"t\d+"), "isolated")
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words, pad_token=f"t{PAD}", eos_token="t94"
    )


def pair(number: int) -> dict[str, Any]:
    """Return a question about an image, and the colour that it has before one that it has not."""
    *question, right = sample(number)["input_ids"].tolist()
    wrong = FIRST_COLOUR + (number + 1) % 4
    prompt = "".join(f"t{token}" for token in question)
    return {"prompt": prompt, "chosen": f"t{right}", "rejected": f"t{wrong}", "number": number}


def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Return a batch: all that are chosen, then all that are rejected."""
    rows, answers = rows * 2, ["chosen_ids"] * len(rows) + ["rejected_ids"] * len(rows)
    both = [(row["prompt_ids"], row[name]) for row, name in zip(rows, answers, strict=True)]
    ids = [torch.tensor(question + answer) for question, answer in both]
    marks = [torch.tensor([0] * len(q) + [1] * len(answer)) for q, answer in both]
    batch = {"input_ids": pad_sequence(ids, batch_first=True, padding_value=PAD)}
    batch["completion_mask"] = pad_sequence(marks, batch_first=True)
    batch["attention_mask"] = batch["input_ids"].ne(PAD).long()
    batch["mm_token_type_ids"] = batch["input_ids"].eq(IMAGE).int()
    for name in ("pixel_values", "image_grid_thw"):
        batch[name] = torch.cat([sample(row["number"])[name] for row in rows])
    return batch


def main() -> None:
    """Train the adapters."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        arguments = DPOConfig(
            folder,
            max_steps=6,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            learning_rate=1e-2,
            beta=1.0,
            logging_steps=2,
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            max_length=None,
        )
        trainer = DPOTrainer(
            model=tiny(),
            args=arguments,
            data_collator=collate,
            train_dataset=Dataset.from_list([pair(number) for number in range(64)]),
            processing_class=tokenizer(),
            peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
        )
        trainer.train()


if __name__ == "__main__":
    main()
