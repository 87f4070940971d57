"""Options of Stable Diffusion 3 and 3.5 alone."""

from __future__ import annotations

from typing import Any, Literal

from backend.settings.methods import NETWORK, WHOLE
from backend.settings.option import Section, option
from backend.settings.types import Fraction01

_ONLY: dict[str, Any] = {"families": ("sd3",)}
_LORA: dict[str, Any] = {
    "families": ("sd3",),
    "show_if": (("network_module", ("networks.lora",)),),
    "network_arg": True,
    "level": "expert",
}


def read_six(value: Any) -> str | None:
    """Six ranks, as text with commas between (brackets allowed) or as a list -> ``2,3,4,5,6,7``.

    Raises:
        ValueError: something else.
    """
    if value in (None, ""):
        return None
    text = value.strip().strip("[]()") if isinstance(value, str) else ",".join(map(str, value))
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 6 or not all(part.isdigit() for part in parts):
        raise ValueError(f"expected six whole numbers from 0 with commas between, got '{value}'")
    return ",".join(parts)


def read_blocks(value: Any) -> str | None:
    """``all``, ``none``, or numbers and ranges such as ``0-3,7``.

    Raises:
        ValueError: something else.
    """
    if value in (None, ""):
        return None
    plain = str(value).replace(" ", "").lower()
    for item in [] if plain in ("all", "none") else plain.split(","):
        first, dash, last = item.partition("-")
        if not first.isdigit() or (dash and not (last.isdigit() and int(first) <= int(last))):
            raise ValueError(f"expected all, none, or blocks such as 0-3,7, got '{value}'")
    return plain


class Sd3Settings(Section):
    """Text encoders, noise levels and layers of SD 3 medium, 3.5 medium and 3.5 large."""

    title = "Stable Diffusion 3"

    clip_l: str | None = option(None, "CLIP-L file", "For base models without their text encoders.", path="file", **_ONLY)
    clip_g: str | None = option(None, "CLIP-G file", "For base models without their text encoders.", path="file", **_ONLY)
    t5xxl: str | None = option(None, "T5-XXL file", "The third text encoder. Without one, and none in the base model, zeros take its place, as the model allows.", path="file", **_ONLY)
    t5xxl_max_token_length: int = option(256, "Tokens of T5", "Tokens of a caption that T5 reads; the CLIP encoders read 75.", ge=2, le=4096, unit="tokens", level="expert", **_ONLY)
    t5xxl_dtype: Literal["fp16", "bf16", "float"] | None = option(None, "Precision of T5", "As the other parts when empty.", level="expert", **_ONLY)
    t5xxl_device: str | None = option(None, "Device of T5", "For example cpu, to keep its 9 GB off the card. As the other parts when empty.", level="expert", resume="safe", **_ONLY)
    use_t5xxl_cache_only: bool = option(False, "Cache T5 only", "Encode captions with T5 once and free it; the CLIP encoders run in every step and can be trained.", **_ONLY)
    apply_lg_attn_mask: bool = option(False, "Mask padding in CLIP", "Tokens after a caption's end are not attended to inside CLIP-L and CLIP-G.", level="expert",
        note="It acts whether captions are cached or encoded in each step; in sd-scripts only on cached ones.", **_ONLY)
    apply_t5_attn_mask: bool = option(False, "Mask padding in T5", "Tokens after a caption's end are not attended to inside T5.", level="expert",
        note="It acts whether captions are cached or encoded in each step; in sd-scripts only on cached ones.", **_ONLY)
    clip_l_dropout_rate: Fraction01 = option(0.0, "Leave out CLIP-L", "Share of visits at which a picture goes without it.", ge=0, le=1, level="expert",
        note="Sample pictures are never affected.", **_ONLY)
    clip_g_dropout_rate: Fraction01 = option(0.0, "Leave out CLIP-G", "Share of visits at which a picture goes without it.", ge=0, le=1, level="expert",
        note="Sample pictures are never affected.", **_ONLY)
    t5_dropout_rate: Fraction01 = option(0.0, "Leave out T5", "Share of visits at which a picture goes without it; the paper had 0.46 for each encoder.", ge=0, le=1, level="expert",
        note="Sample pictures are never affected.", **_ONLY)
    weighting_scheme: Literal["uniform", "none", "sigma_sqrt", "logit_normal", "mode", "cosmap", "x0"] = option(
        "uniform", "Noise levels", "logit_normal and mode train middle levels more often (the paper's choice is logit_normal); cosmap weighs them more. The loss is that of the velocity, each picture weighed by itself.",
        note="sd-scripts compares clean pictures, which nearly ignores low noise: that is x0 here, and uniform, none and sigma_sqrt are the velocity's plain loss. Timesteps are float32; sd-scripts rounds them in bf16.",
        **_ONLY,
    )
    logit_mean: float = option(0.0, "Mean of logit_normal", "Above 0 trains high noise more.", ge=-10, le=10, level="expert", show_if=(("weighting_scheme", ("logit_normal",)),), **_ONLY)
    logit_std: float = option(1.0, "Width of logit_normal", "Smaller keeps closer to the mean.", gt=0, le=10, level="expert", show_if=(("weighting_scheme", ("logit_normal",)),), **_ONLY)
    mode_scale: float = option(1.29, "Strength of mode", "How much more often middle levels are trained.", ge=-1, le=1.75, level="expert", show_if=(("weighting_scheme", ("mode",)),), **_ONLY)
    training_shift: float = option(1.0, "Shift", "Above 1 trains high noise more, which large pictures need; 3 is what the model is drawn with.", gt=0, le=100, level="expert", **_ONLY)
    pos_emb_random_crop_rate: Fraction01 = option(0.0, "Move positions", "Share of visits at which a picture's positions are cut from anywhere of the model's table, not its middle: for sizes it will be drawn at later.", ge=0, le=1, level="expert",
        note="Each picture has its own cut; in sd-scripts a batch has one.", **_ONLY)
    enable_scaled_pos_embed: bool = option(False, "Scale positions", "A training size other than 1024 covers the same positions as 1024 does.", level="expert", **_ONLY)
    blocks_to_swap: int | None = option(None, "Blocks in host memory", "This many blocks of the transformer wait in host memory and come to the card when they are computed: less card memory, slower. At most two fewer than there are (24; 38 in 3.5 large).", ge=0, le=36, resume="safe", show_if=(("training_method", NETWORK),), **_ONLY)
    disable_mmap_load_safetensors: bool = option(False, "Read files whole", "Weights are copied into memory instead of being mapped: for network drives and some Windows set-ups.", level="expert", resume="safe", **_ONLY)
    context_attn_dim: int | None = option(None, "Rank: text attention", "Rank of the LoRA in these layers, 0 for none. Rank when empty.", ge=0, le=1024, **_LORA)
    context_mlp_dim: int | None = option(None, "Rank: text feed-forward", "As above.", ge=0, le=1024, **_LORA)
    context_mod_dim: int | None = option(None, "Rank: text modulation", "As above.", ge=0, le=1024, **_LORA)
    x_attn_dim: int | None = option(None, "Rank: picture attention", "As above; both attentions of 3.5 medium.", ge=0, le=1024, **_LORA)
    x_mlp_dim: int | None = option(None, "Rank: picture feed-forward", "As above.", ge=0, le=1024, **_LORA)
    x_mod_dim: int | None = option(None, "Rank: picture modulation", "As above.", ge=0, le=1024, **_LORA)
    emb_dims: str | None = option(None, "Ranks of the ends", "Six ranks, 0 for none: text, timestep, picture, pooled text, last modulation, last layer.", check=read_six, **_LORA)
    train_block_indices: str | None = option(None, "Blocks that are trained", "Such as 0-3,7, or all, or none.", check=read_blocks, **_LORA)
    split_qkv: bool = option(False, "Split attention", "Queries, keys and values have ranks of their own.",
        note="The file has the strength that was trained; sd-scripts' has a third of it.", **_LORA)
    train_t5xxl: bool = option(False, "Train T5 too", "T5 learns as well: much memory, rarely worth it.", methods=(*NETWORK, *WHOLE), **_LORA)
