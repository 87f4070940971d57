"""Stable Diffusion 3."""

from __future__ import annotations

from backend.settings.rules.rule import Rule
from backend.settings.rules.terms import WHOLE_MODEL

_SWAP = ("blocks_to_swap", ">", 0)

RULES: tuple[Rule, ...] = (
    Rule(
        "swap-needs-checkpointing",
        "change",
        ("all", _SWAP, ("gradient_checkpointing", "unset")),
        "blocks_to_swap switches gradient_checkpointing on",
        why="a block is computed again right before its gradients, when its weights are on the card",
        key="blocks_to_swap",
        change={"gradient_checkpointing": True},
    ),
    Rule(
        "swap-excludes",
        "error",
        (
            "all",
            _SWAP,
            (
                "any",
                ("fp8_base", "set"),
                ("fp8_base_unet", "set"),
                ("torch_compile", "set"),
                ("cpu_offload_checkpointing", "set"),
            ),
        ),
        "blocks_to_swap excludes fp8_base, fp8_base_unet, torch_compile and cpu_offload_checkpointing",
        "leave one of them out",
        key="blocks_to_swap",
    ),
    Rule(
        "swap-of-what-learns",
        "error",
        ("all", _SWAP, WHOLE_MODEL),
        "blocks_to_swap cannot be used where the whole model is trained",
        "leave it out; full_bf16 with AdaFactor and fused_backward_pass, cpu_offload_checkpointing and "
        "num_last_block_to_freeze save memory here",
        why="blocks that wait in host memory are only read from there, so what they learnt would be lost",
        key="blocks_to_swap",
    ),
    Rule(
        "t5-cache-idle",
        "note",
        ("all", ("use_t5xxl_cache_only", "set"), ("cache_text_encoder_outputs", "set")),
        "use_t5xxl_cache_only has no effect: cache_text_encoder_outputs caches all text encoders",
        "leave cache_text_encoder_outputs out to have the CLIP encoders run in every step",
        key="use_t5xxl_cache_only",
    ),
    Rule(
        "t5-cached-but-trained",
        "error",
        (
            "all",
            ("train_t5xxl", "set"),
            ("any", ("use_t5xxl_cache_only", "set"), ("cache_text_encoder_outputs", "set")),
        ),
        "T5 cannot be trained (train_t5xxl) when its outputs are cached",
        "leave one of them out",
        key="train_t5xxl",
    ),
)
