"""Sample pictures, files and logs."""

from __future__ import annotations

from backend.settings.rules.rule import Rule
from backend.settings.rules.terms import HAS_PROMPTS, SAMPLES

RULES: tuple[Rule, ...] = (
    Rule(
        "two-prompt-sources",
        "error",
        ("all", ("sample_prompts", "set"), ("sample_prompt_text", "set")),
        "sample_prompts and sample_prompt_text exclude each other",
        "keep one of them",
        key="sample_prompts",
    ),
    Rule(
        "samples-without-prompts",
        "note",
        ("all", SAMPLES, ("not", HAS_PROMPTS)),
        "no sample pictures are drawn, as there are no prompts",
        "write some into sample_prompt_text",
        key="sample_prompt_text",
    ),
    Rule(
        "prompts-without-samples",
        "note",
        ("all", HAS_PROMPTS, ("not", SAMPLES)),
        "the sample prompts are never drawn",
        "give sample_every_n_steps or sample_every_n_epochs, or switch sample_at_first on",
        key="sample_every_n_steps",
    ),
    Rule(
        "no-metadata-in-pickles",
        "note",
        ("all", ("save_model_as", "!=", "safetensors"), ("no_metadata", "unset")),
        "a .{save_model_as} file cannot carry the settings",
        "use safetensors to keep them in the file",
        key="save_model_as",
    ),
    Rule(
        "log-prefix-idle",
        "note",
        ("all", ("log_prefix", "set"), ("logging_dir", "unset"), ("log_with", "unset")),
        "log_prefix has no effect without logging_dir",
        key="log_prefix",
    ),
)
