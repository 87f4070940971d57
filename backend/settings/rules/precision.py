"""Precision, memory and speed."""

from __future__ import annotations

from backend.settings.rules.rule import Rule
from backend.settings.rules.terms import ADAFACTOR, FINDS_RATE, FUSED_KEYS, SCHEDULE_FREE

_FULL = {"full_fp16": "fp16", "full_bf16": "bf16"}


def _fused(key: str) -> tuple[Rule, ...]:
    """What weights that change while the backward pass runs cannot be combined with."""
    on = (key, ">", 0) if key == "fused_optimizer_groups" else (key, "set")
    return (
        Rule(
            f"{key}-accumulation",
            "error",
            ("all", on, ("gradient_accumulation_steps", ">", 1)),
            f"{key} cannot accumulate {{gradient_accumulation_steps}} batches",
            f"set gradient_accumulation_steps to 1, or leave {key} out",
            why="weights are changed as soon as they have a gradient",
            key=key,
        ),
        Rule(
            f"{key}-scaled",
            "error",
            ("all", on, ("mixed_precision", "=", "fp16")),
            f"{key} cannot be used with mixed_precision fp16",
            f"use bf16, or leave {key} out",
            why="fp16 has to look at all gradients before it changes any weight",
            key=key,
        ),
        Rule(
            f"{key}-several",
            "error",
            ("all", on, ("num_processes", ">", 1)),
            f"{key} works with one process only",
            "leave it out, or train with one process",
            why="processes exchange gradients after the backward pass",
            key=key,
        ),
    )


RULES: tuple[Rule, ...] = (
    *(
        Rule(
            f"{key}-needs-precision",
            "error",
            ("all", (key, "set"), ("mixed_precision", "!=", precision)),
            f"{key} needs mixed_precision {precision}; it is {{mixed_precision}}",
            f"set mixed_precision to {precision}, or leave {key} out",
            key=key,
        )
        for key, precision in _FULL.items()
    ),
    Rule(
        "fp8-needs-precision",
        "error",
        (
            "all",
            ("any", ("fp8_base", "set"), ("fp8_base_unet", "set")),
            ("mixed_precision", "=", "no"),
        ),
        "fp8_base needs mixed_precision fp16 or bf16 to compute in",
        "set mixed_precision, or leave fp8_base out",
        key="fp8_base",
    ),
    Rule(
        "two-attentions",
        "note",
        ("all", ("any", ("xformers", "set"), ("mem_eff_attn", "set")), ("sdpa", "set")),
        "sdpa is not used: another attention is asked for as well",
        key="sdpa",
    ),
    Rule(
        "sparing-twice",
        "note",
        ("all", ("xformers", "set"), ("mem_eff_attn", "set")),
        "mem_eff_attn is not used, as xformers, which saves memory too, is asked for as well",
        key="mem_eff_attn",
    ),
    Rule(
        "fused-optimizer",
        "error",
        ("all", ("fused_backward_pass", "set"), ("not", ADAFACTOR)),
        "fused_backward_pass works with AdaFactor only; the optimizer is {optimizer_type}",
        "choose AdaFactor, or leave fused_backward_pass out",
        key="fused_backward_pass",
    ),
    *(rule for key in FUSED_KEYS for rule in _fused(key)),
    Rule(
        "fused-parts",
        "error",
        (
            "all",
            ("any", ("fused_optimizer_groups", ">", 0), ("blockwise_fused_optimizers", "set")),
            ("any", FINDS_RATE, SCHEDULE_FREE),
        ),
        "{optimizer_type} cannot change weights in groups",
        "leave fused_optimizer_groups and blockwise_fused_optimizers out, or choose AdamW or AdaFactor",
        why="it finds its steps by looking at all weights together",
        key="fused_optimizer_groups",
    ),
    Rule(
        "fused-twice",
        "error",
        (
            "any",
            ("all", ("fused_backward_pass", "set"), ("fused_optimizer_groups", ">", 0)),
            ("all", ("fused_backward_pass", "set"), ("blockwise_fused_optimizers", "set")),
            ("all", ("blockwise_fused_optimizers", "set"), ("fused_optimizer_groups", ">", 0)),
        ),
        "fused_backward_pass, fused_optimizer_groups and blockwise_fused_optimizers exclude each other",
        "keep one of them",
        key="fused_optimizer_groups",
    ),
    Rule(
        "no-compiler",
        "error",
        ("all", ("torch_compile", "set"), ("dynamo_backend", "=", "no")),
        "torch_compile needs a compiler; dynamo_backend is no",
        "set dynamo_backend to inductor, or leave torch_compile out",
        key="dynamo_backend",
    ),
    Rule(
        "compiler-idle",
        "note",
        (
            "all",
            ("torch_compile", "unset"),
            ("dynamo_backend", "!=", "inductor"),
            ("dynamo_backend", "!=", "no"),
        ),
        "dynamo_backend has no effect without torch_compile",
        key="dynamo_backend",
    ),
)
