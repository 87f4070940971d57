"""What is computed once and kept."""

from __future__ import annotations

from backend.settings.rules.rule import Rule
from backend.settings.rules.terms import FOLDERS, NETWORK, OWN_TEXT_RATES, TEXT_OFF

_TEXT_KEPT = (
    "all",
    NETWORK,
    ("cache_text_encoder_outputs", "set"),
    ("network_train_text_encoder_only", "unset"),
    ("not", TEXT_OFF),
)
"""Text outputs are cached though nothing says that text encoders stay as they are."""
_TEXT_RATE = ("any", ("text_encoder_lr", ">", 0), *((key, ">", 0) for key in OWN_TEXT_RATES))

RULES: tuple[Rule, ...] = (
    Rule(
        "cache-latents",
        "change",
        ("all", ("cache_latents_to_disk", "set"), ("cache_latents", "unset")),
        "cache_latents_to_disk switches cache_latents on",
        change={"cache_latents": True},
    ),
    Rule(
        "changes-but-cached",
        "error",
        (
            "all",
            FOLDERS,
            ("cache_latents", "set"),
            ("any", ("color_aug", "set"), ("random_crop", "set"), ("face_crop_aug_range", "set")),
        ),
        "color_aug, random_crop and face_crop_aug_range cannot be used with cached latents",
        "switch cache_latents off, or leave them out",
        why="a picture is encoded once, so it cannot differ from visit to visit",
        key="cache_latents",
    ),
    Rule(
        "npz-idle",
        "note",
        (
            "all",
            ("use_npz_caches", "set"),
            ("cache_latents", "unset"),
            ("cache_text_encoder_outputs", "unset"),
        ),
        "use_npz_caches has no effect without cache_latents or cache_text_encoder_outputs",
        key="use_npz_caches",
    ),
    Rule(
        "cache-text",
        "change",
        ("all", ("cache_text_encoder_outputs_to_disk", "set"), ("cache_text_encoder_outputs", "unset")),
        "cache_text_encoder_outputs_to_disk switches cache_text_encoder_outputs on",
        change={"cache_text_encoder_outputs": True},
    ),
    Rule(
        "cache-text-but-train-it",
        "error",
        ("all", ("cache_text_encoder_outputs", "set"), ("network_train_text_encoder_only", "set")),
        "cache_text_encoder_outputs and network_train_text_encoder_only exclude each other",
        "switch one of them off",
        why="a text encoder whose outputs are cached cannot be trained",
        key="cache_text_encoder_outputs",
    ),
    Rule(
        "cache-text-but-rate",  # many command lines have both, and run
        "change",
        ("all", _TEXT_KEPT, _TEXT_RATE),
        "cache_text_encoder_outputs and a learning rate of the text encoder exclude each other: only the "
        "U-Net is trained, as a cached text encoder cannot be",
        "switch cache_text_encoder_outputs off to train both, or network_train_unet_only on to have it said",
        key="cache_text_encoder_outputs",
        change={"network_train_unet_only": True},
    ),
    Rule(
        "cache-text-unet-only",
        "change",
        ("all", _TEXT_KEPT, ("not", _TEXT_RATE)),
        "cache_text_encoder_outputs: only the U-Net is trained, as a cached text encoder cannot be",
        "switch network_train_unet_only on to have it said, or cache_text_encoder_outputs off to train both",
        key="cache_text_encoder_outputs",
        change={"network_train_unet_only": True},
    ),
    Rule(
        "cached-text-is-trained",
        "error",
        ("all", ("cache_text_encoder_outputs", "set"), ("not", NETWORK), ("not", TEXT_OFF)),
        "cache_text_encoder_outputs cannot be used where a text encoder is trained",
        "switch it off, or leave the text encoder untrained",
        why="its outputs change as it is trained",
        key="cache_text_encoder_outputs",
    ),
    Rule(
        "text-cache-options-idle",
        "note",
        (
            "all",
            ("cache_text_encoder_outputs", "unset"),
            ("use_t5xxl_cache_only", "unset"),
            ("any", ("caption_variants", "set"), ("text_encoder_batch_size", "set")),
        ),
        "caption_variants and text_encoder_batch_size have no effect without cache_text_encoder_outputs",
        key="cache_text_encoder_outputs",
    ),
)
