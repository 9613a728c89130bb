"""Tiny models of the architectures that people ask, with processors that are made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LEXICON = (
    "red blue green yes no dog cat what colour is it ? a b c d one two three four the same or "
    "other left right : . , user assistant up down same different"
)
SPECIAL = [
    "<pad>", "<s>", "</s>", "<unk>", "<image>", "<fake_token_around_image>", "<global-img>",
    "<row_1_col_1>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
    "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<end_of_utterance>", "\n",
]  # fmt: skip
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
GEMMA = {**TEXT, "head_dim": 16, "tie_word_embeddings": True}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
    "initializer_range": 0.3,
}
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE {% elif c['type'] == 'audio' %}AUDIO {% else %}"
    "{{ c['text'] }}{% endif %}{% endfor %}{% endfor %} assistant :"
)


def tokenizer(**more: Any) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: n for n, word in enumerate([*SPECIAL, *LEXICON.split()])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[4:],
        **more,
    )


def number(token: str) -> int:
    return SPECIAL.index(token)


def llava() -> tuple[Any, Any]:
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(**TEXT),
        image_token_index=number("<image>"),
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    pictures = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        pictures,
        tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    return LlavaForConditionalGeneration(config), processor


def qwen2_vl() -> tuple[Any, Any]:
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
    )

    class Pictures(Qwen2VLProcessor):
        """Its own without videos, whose processor needs torchvision."""

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return type(argument)

    config = Qwen2VLConfig(
        text_config={
            **TEXT,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
        },
        vision_config={
            "depth": 2, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "mlp_ratio": 2,
        },
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
        tie_word_embeddings=False,
    )  # fmt: skip
    sizes = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    pictures = Qwen2VLImageProcessor(size={"shortest_edge": 256, "longest_edge": 1024}, **sizes)
    template = TEMPLATE.replace("IMAGE", "<|vision_start|> <|image_pad|> <|vision_end|>")
    processor = Pictures(pictures, tokenizer(), None, chat_template=template)
    return Qwen2VLForConditionalGeneration(config), processor


def smolvlm() -> tuple[Any, Any]:
    return _idefics("SmolVLM")


def idefics3() -> tuple[Any, Any]:
    return _idefics("Idefics3")


def _idefics(kind: str) -> tuple[Any, Any]:
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        text_config={"model_type": "llama", **TEXT},
        vision_config=VISION,
        image_token_id=number("<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    pictures = transformers.Idefics3ImageProcessor(
        size={"longest_edge": 16}, max_image_size={"longest_edge": 16}, do_image_splitting=False
    )
    processor = transformers.Idefics3Processor(  # SmolVLM's own, of the same form, needs more
        pictures,
        tokenizer(),
        image_seq_len=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config), processor


def paligemma() -> tuple[Any, Any]:
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
    )

    config = PaliGemmaConfig(
        vision_config={
            "model_type": "siglip_vision_model", **VISION, "projection_dim": 32,
            "vision_use_head": False,
        },
        text_config={"model_type": "gemma", **GEMMA},
        image_token_index=number("<image>"),
        projection_dim=32,
    )  # fmt: skip
    pictures = SiglipImageProcessor(size={"height": 16, "width": 16})
    pictures.image_seq_length = 4
    return PaliGemmaForConditionalGeneration(config), PaliGemmaProcessor(pictures, tokenizer())


def gemma3() -> tuple[Any, Any]:
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessor,
        Gemma3Processor,
    )

    config = Gemma3Config(
        vision_config={"model_type": "siglip_vision_model", **VISION, "vision_use_head": False},
        text_config={
            **GEMMA, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"],
        },
        image_token_index=number("<image>"),
        mm_tokens_per_image=4,
    )  # fmt: skip
    words = tokenizer()
    words.image_token, words.image_token_id = "<image>", number("<image>")
    words.boi_token, words.boi_token_id = "<|vision_start|>", number("<|vision_start|>")
    words.eoi_token, words.eoi_token_id = "<|vision_end|>", number("<|vision_end|>")
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size={"height": 16, "width": 16}),
        words,
        image_seq_length=4,
        chat_template=TEMPLATE.replace("IMAGE", "<|vision_start|>"),
    )
    return Gemma3ForConditionalGeneration(config), processor


def blip_2() -> tuple[Any, Any]:
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
    )

    config = Blip2Config(
        vision_config=VISION,
        qformer_config={
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 32, "encoder_hidden_size": 16, "initializer_range": 0.3,
        },
        text_config={
            "model_type": "opt", "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "vocab_size": 128, "pad_token_id": 0, "bos_token_id": 1,
            "eos_token_id": 2, "max_position_embeddings": 128, "word_embed_proj_dim": 32,
            "init_std": 0.3,
        },
        num_query_tokens=4,
        image_token_index=number("<image>"),
    )  # fmt: skip
    pictures = BlipImageProcessor(size={"height": 16, "width": 16})
    return Blip2ForConditionalGeneration(config), Blip2Processor(pictures, tokenizer(), 4)


def qwen2_audio() -> tuple[Any, Any]:
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    config = Qwen2AudioConfig(
        audio_config={
            "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32, "num_mel_bins": 8, "max_source_positions": 50, "init_std": 0.3,
        },
        text_config={"model_type": "qwen2", **TEXT},
        audio_token_index=number("<|AUDIO|>"),
    )  # fmt: skip
    sounds = WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    template = TEMPLATE.replace("AUDIO", "<|audio_bos|> <|AUDIO|> <|audio_eos|>")
    return (
        Qwen2AudioForConditionalGeneration(config),
        Qwen2AudioProcessor(sounds, tokenizer(), chat_template=template),
    )


def clip() -> tuple[Any, Any]:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    text = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "vocab_size": 128, "max_position_embeddings": 32,
        "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    pictures = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return CLIPModel(config), CLIPProcessor(pictures, tokenizer())


def siglip() -> tuple[Any, Any]:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipProcessor

    text = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "vocab_size": 128, "max_position_embeddings": 8,
        "projection_size": 16,
    }  # fmt: skip
    config = SiglipConfig(text_config=text, vision_config=VISION)
    pictures = SiglipImageProcessor(size={"height": 16, "width": 16})
    return SiglipModel(config), SiglipProcessor(pictures, tokenizer(model_max_length=8))


def clap() -> tuple[Any, Any]:
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor

    config = ClapConfig(
        text_config={
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 128, "pad_token_id": 0,
            "projection_dim": 16, "max_position_embeddings": 64,
        },
        audio_config={
            "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 2],
            "num_hidden_layers": 2, "patch_embeds_hidden_size": 16, "num_mel_bins": 16,
            "spec_size": 64, "projection_dim": 16, "window_size": 4, "patch_size": 4,
            "patch_stride": [4, 4], "enable_fusion": False, "aff_block_r": 2,
        },
        projection_dim=16,
    )  # fmt: skip
    sounds = ClapFeatureExtractor(
        feature_size=16, sampling_rate=16000, hop_length=160, max_length_s=1,
        truncation="rand_trunc",
    )  # fmt: skip
    return ClapModel(config), ClapProcessor(sounds, tokenizer())


MAKERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    made.__name__: made
    for made in (
        paligemma,
        gemma3,
        llava,
        qwen2_vl,
        idefics3,
        smolvlm,
        blip_2,
        qwen2_audio,
        clip,
        siglip,
        clap,
    )
}


def saved(name: str, folder: Path, seed: int = 0) -> Path:
    """A model and its processor in a folder, as a hub would hold them."""
    torch.manual_seed(seed)
    model, processor = MAKERS[name]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
