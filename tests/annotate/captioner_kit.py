"""Tiny captioners with random weights, one of each kind, in folders as the hub has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WORDS = ["a", "cat", "dog", "on", "the", "grass", "red", "blue", "sun", "with", "describe", "this", "picture"]
SIDE = 16


def _bert(folder: Path) -> Any:
    from transformers import BertTokenizer

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    path = folder / "vocab.txt"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(vocabulary))
    return BertTokenizer(str(path))


def _fast(special: list[str], **names: str) -> Any:
    """A tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {
        word: place for place, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *special, *WORDS])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        extra_special_tokens=names or None, additional_special_tokens=special,
    )  # fmt: skip


def _vision(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": SIDE, "patch_size": 8, **more,
    }  # fmt: skip


def _text(vocabulary: int, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 64, **more,
    }  # fmt: skip


def _save(model: Any, folder: Path, specials: int) -> None:
    """Save a model that says words, never one of the first ``specials`` tokens unless by chance."""
    part = getattr(model, "text_decoder", None) or model
    rows = (part.get_output_embeddings() or model.language_model.get_output_embeddings()).weight.data
    rows[:specials] = 0
    rows[specials:] *= 20
    model.save_pretrained(folder)


def blip(folder: Path) -> None:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil, BlipProcessor

    tokenizer = _bert(folder)
    text = _text(
        len(tokenizer), encoder_hidden_size=16, bos_token_id=2, sep_token_id=3, pad_token_id=0, eos_token_id=3
    )
    config = BlipConfig(
        text_config=text, vision_config=_vision(), image_text_hidden_size=16, projection_dim=16
    )
    _save(BlipForConditionalGeneration(config), folder, 5)
    BlipProcessor(BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}), tokenizer).save_pretrained(
        folder
    )


def blip2(folder: Path) -> None:
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessorPil

    tokenizer = _fast(["<image>"])
    queries = 3
    text = _text(
        len(tokenizer),
        model_type="opt",
        ffn_dim=32,
        word_embed_proj_dim=16,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    qformer = _text(10, encoder_hidden_size=16, cross_attention_frequency=1)
    config = Blip2Config(
        vision_config=_vision(), qformer_config=qformer, text_config=text, num_query_tokens=queries,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    _save(Blip2ForConditionalGeneration(config), folder, 5)
    processor = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    Blip2Processor(processor, tokenizer, num_query_tokens=queries).save_pretrained(folder)


def git(folder: Path) -> None:
    from transformers import CLIPImageProcessorPil, GitConfig, GitForCausalLM, GitProcessor

    tokenizer = _bert(folder)
    text = _text(len(tokenizer), bos_token_id=2, eos_token_id=3, pad_token_id=0)
    _save(GitForCausalLM(GitConfig(vision_config=_vision(), **text)), folder, 5)
    size = {"height": SIDE, "width": SIDE}
    GitProcessor(CLIPImageProcessorPil(size=size, crop_size=size), tokenizer).save_pretrained(folder)


def florence(folder: Path) -> None:
    from transformers import (
        CLIPImageProcessorPil,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    tokenizer = _fast(["<image>"], image_token="<image>")
    vision = {
        "embed_dim": [8, 16], "depths": [1, 1], "num_heads": [2, 2], "num_groups": [2, 2], "patch_size": [3, 3],
        "patch_stride": [2, 2], "patch_padding": [1, 1], "patch_prenorm": [False, True], "window_size": 2,
        "projection_dim": 16, "max_position_embeddings": 10,
    }  # fmt: skip
    text = {
        "model_type": "bart", "vocab_size": len(tokenizer), "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
        "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "decoder_start_token_id": 2, "forced_eos_token_id": 2,
    }  # fmt: skip
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=tokenizer.image_token_id)
    _save(Florence2ForConditionalGeneration(config), folder, 5)
    size = {"height": SIDE, "width": SIDE}
    pictures = CLIPImageProcessorPil(size=size, crop_size=size)
    pictures.image_seq_length = (SIDE // 4) ** 2 + 1
    Florence2Processor(pictures, tokenizer).save_pretrained(folder)


def chat(folder: Path) -> None:
    from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = _fast(["<image>"], image_token="<image>")
    text = _text(len(tokenizer), model_type="llama", bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config = LlavaConfig(
        vision_config=_vision(model_type="clip_vision_model"), text_config=text,
        image_token_index=tokenizer.image_token_id, vision_feature_layer=-1,
    )  # fmt: skip
    _save(LlavaForConditionalGeneration(config), folder, 5)
    size = {"height": SIDE, "width": SIDE}
    template = (
        "{% for turn in messages %}{% for part in turn['content'] %}"
        "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    )
    LlavaProcessor(
        CLIPImageProcessorPil(size=size, crop_size=size), tokenizer, patch_size=8,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=template,
    ).save_pretrained(folder)  # fmt: skip


KINDS: dict[str, Callable[[Path], None]] = {
    "blip": blip, "blip-2": blip2, "git": git, "florence2": florence, "llava": chat,
}  # fmt: skip


def make(kind: str, folder: Path) -> Path:
    """A folder with a captioner of that kind; the same weights each time."""
    torch.manual_seed(5)
    KINDS[kind](folder)
    return folder
