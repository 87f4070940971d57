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

_NOT_WITH_DEEPSPEED = {
    "scale_weight_norms": "DeepSpeed steps weights of its own, and would undo a change that is made besides",
    "full_fp16": "weights lie in float32 while they are split up",
    "full_bf16": "weights lie in float32 while they are split up",
    "torch_compile": "a compiled pass does not tell DeepSpeed of each gradient as it comes",
    "fused_optimizer_groups": "DeepSpeed steps after the whole backward pass",
    "fused_backward_pass": "DeepSpeed steps after the whole backward pass",
    "blockwise_fused_optimizers": "DeepSpeed steps after the whole backward pass",
    "lr_scheduler_type": "a schedule of another class needs an optimizer of PyTorch, which this is not",
}
"""Option -> why it cannot be had with DeepSpeed."""
_LONE = ("AdamW", "Lion", "SGDNesterov")
"""Optimizers whose step of a number depends on nothing but that number's own past."""

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
    Rule(
        "two-ways-to-split",
        "error",
        ("all", ("deepspeed", "set"), ("fsdp", "set")),
        "deepspeed and fsdp exclude each other",
        "leave one of them out",
        why="each splits up what the other does",
        key="deepspeed",
    ),
    *(
        Rule(
            f"{key}-not-with-deepspeed",
            "error",
            ("all", ("deepspeed", "set"), (key, "set")),
            f"deepspeed and {key} exclude each other",
            "leave one of them out",
            why=why,
            key="deepspeed",
        )
        for key, why in _NOT_WITH_DEEPSPEED.items()
    ),
    Rule(
        "text-stops-with-deepspeed",
        "error",
        ("all", ("deepspeed", "set"), ("stop_text_encoder_training", ">", 0)),
        "deepspeed and stop_text_encoder_training exclude each other",
        "train the text encoder to the end, or leave it out (0)",
        why="what is split up has to learn in all steps alike",
        key="stop_text_encoder_training",
    ),
    Rule(
        "optimizer-not-with-deepspeed",
        "error",
        (
            "all",
            ("deepspeed", "set"),
            ("not", ("any", *(("optimizer_type", "=", name) for name in _LONE))),
        ),
        "deepspeed cannot be used with {optimizer_type}",
        "choose AdamW, Lion or SGDNesterov, or leave deepspeed out",
        why="it lays weights out in one long row, which is the same only to an optimizer that looks at each "
        "number alone",
        key="optimizer_type",
    ),
    Rule(
        "fp16-with-deepspeed",
        "error",
        ("all", ("deepspeed", "set"), ("mixed_precision", "=", "fp16")),
        "deepspeed cannot be used with mixed_precision fp16",
        "choose bf16 or no, or fsdp in place of deepspeed",
        why="gradients in fp16 need a scale, which DeepSpeed only has for weights that are in fp16 too",
        key="mixed_precision",
    ),
    Rule(
        "zero-stage-0",
        "error",
        ("all", ("deepspeed", "set"), ("zero_stage", "=", 0)),
        "zero_stage 0 splits nothing up",
        "leave deepspeed out, or choose stage 1 or 2",
        key="zero_stage",
    ),
    Rule(
        "zero-stage-3",
        "error",
        ("all", ("deepspeed", "set"), ("zero_stage", "=", 3)),
        "zero_stage 3 cannot be used",
        "choose fsdp, which splits up weights too, or stage 1 or 2",
        why="it gathers weights where a layer computes, and those of a network lie inside other layers",
        key="zero_stage",
    ),
    Rule(
        "optimizer-on-nvme",
        "error",
        ("all", ("deepspeed", "set"), ("offload_optimizer_device", "=", "nvme")),
        "offload_optimizer_device nvme cannot be used",
        "choose cpu",
        why="DeepSpeed moves the optimizer's memory onto a disk in stage 3 only",
        key="offload_optimizer_device",
    ),
    Rule(
        "zero-options-idle",
        "note",
        ("all", ("deepspeed", "unset"), ("offload_optimizer_device", "set")),
        "offload_optimizer_device has no effect without deepspeed",
        key="offload_optimizer_device",
    ),
)
