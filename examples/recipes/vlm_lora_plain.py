"""A vision-language model fine-tuned with LoRA by the Trainer: Qwen2-VL, tiny and random."""

from tempfile import TemporaryDirectory

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Trainer

IMAGE, VIDEO, START, PAD, FIRST_COLOUR = 90, 91, 92, 93, 10
PIXELS = 3 * 2 * 4 * 4  # of a patch: channels, time, height, width


def tiny() -> Qwen2VLForConditionalGeneration:
    """Return a Qwen2-VL of two layers; put `from_pretrained` in its place."""
    layers = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    text = {"vocab_size": 100, "intermediate_size": 48, "num_key_value_heads": 2}
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 4}
    return Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(
            text_config={**layers, **text, "rope_parameters": rope, "tie_word_embeddings": False},
            vision_config=vision,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            vision_start_token_id=START,
            tie_word_embeddings=False,
        )
    )


def sample(number: int) -> dict[str, Tensor]:
    """Return a question about an image of one of four colours; its size, and tokens, vary."""
    generator = torch.Generator().manual_seed(number)
    colour, hint = number % 4, (number // 4) % 4
    height, width = 4, 4 if number % 3 else 8
    pixels = torch.randn(height * width, PIXELS, generator=generator)
    pixels[:, colour::4] += 1.0
    image = [IMAGE] * (height * width // 4)
    question = [START, *image, 20, 21, 30 + (colour if number % 5 else hint), FIRST_COLOUR + colour]
    ids = torch.tensor(question)
    labels = torch.full_like(ids, -100)
    labels[-1] = ids[-1]
    grid = torch.tensor([[1, height, width]])
    return {"input_ids": ids, "labels": labels, "pixel_values": pixels, "image_grid_thw": grid}


def collate(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return a batch: texts are padded, images follow one another."""
    ids = [one["input_ids"] for one in samples]
    batch = {name: torch.cat([one[name] for one in samples]) for name in samples[0]}
    batch["input_ids"] = pad_sequence(ids, batch_first=True, padding_value=PAD)
    batch["attention_mask"] = batch["input_ids"].ne(PAD).long()
    labels = [one["labels"] for one in samples]
    batch["labels"] = pad_sequence(labels, batch_first=True, padding_value=-100)
    batch["mm_token_type_ids"] = batch["input_ids"].eq(IMAGE).int()
    return batch


def main() -> None:
    """Train the adapters."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = get_peft_model(tiny(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    with TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            max_steps=6,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            activation_checkpointing=True,
            activation_checkpointing_kwargs={"use_reentrant": False},
            learning_rate=1e-2,
            logging_steps=2,
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            data_collator=collate,
            train_dataset=[sample(number) for number in range(64)],
        )
        trainer.train()


if __name__ == "__main__":
    main()
