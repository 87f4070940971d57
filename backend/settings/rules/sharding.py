"""What is trained in parts, one in each process."""

from __future__ import annotations

from backend.settings.rules.rule import Rule
from backend.settings.rules.terms import FINDS_RATE, SCHEDULE_FREE

_WHOLE_ONLY = {
    "ema_decay": "the mean is kept of whole weights",
    "scale_weight_norms": "the length of a change is that of the whole of it",
    "full_fp16": "weights lie in float32 while they are split up",
    "full_bf16": "weights lie in float32 while they are split up",
    "torch_compile": "the compiler looks for weights where they are only during a pass",
    "fused_optimizer_groups": "weights are whole, and may be changed, only after the whole backward pass",
    "fused_backward_pass": "weights are whole, and may be changed, only after the whole backward pass",
    "blockwise_fused_optimizers": "weights are whole, and may be changed, only after the whole backward pass",
}
"""Option -> why it cannot be had with weights in parts."""

RULES: tuple[Rule, ...] = (
    *(
        Rule(
            f"{key}-needs-whole-weights",
            "error",
            ("all", ("fsdp", "set"), (key, "set")),
            f"fsdp and {key} exclude each other",
            "leave one of them out",
            why=why,
            key="fsdp",
        )
        for key, why in _WHOLE_ONLY.items()
    ),
    Rule(
        "text-stops-in-parts",
        "error",
        ("all", ("fsdp", "set"), ("stop_text_encoder_training", ">", 0)),
        "fsdp and stop_text_encoder_training exclude each other",
        "train the text encoder to the end, or leave it out (0)",
        why="what is split up has to learn in all steps alike",
        key="stop_text_encoder_training",
    ),
    Rule(
        "optimizer-needs-whole-weights",
        "error",
        (
            "all",
            ("fsdp", "set"),
            (
                "any",
                FINDS_RATE,
                SCHEDULE_FREE,
                ("optimizer_type", "contains", "8bit"),
                ("optimizer_type", "contains", "paged"),
            ),
        ),
        "fsdp cannot be used with {optimizer_type}",
        "choose AdamW, Lion, AdaFactor or SGD, or leave fsdp out",
        why="it looks at whole weights, of which each process has a part",
        key="optimizer_type",
    ),
)
