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
        "sample-epochs-win",
        "note",
        ("all", ("sample_every_n_epochs", "set"), ("sample_every_n_steps", "set")),
        "sample_every_n_steps is not used, as sample_every_n_epochs is given",
        "leave one of them out",
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
        "epoch-ratio-wins",
        "note",
        ("all", ("save_n_epoch_ratio", "set"), ("save_every_n_epochs", "set")),
        "save_every_n_epochs is not used, as save_n_epoch_ratio says how often a file is kept",
        key="save_every_n_epochs",
    ),
    Rule(
        "last-epochs-idle",
        "note",
        (
            "all",
            ("any", ("save_last_n_epochs", "set"), ("save_last_n_epochs_state", "set")),
            ("save_every_n_epochs", "unset"),
            ("save_n_epoch_ratio", "unset"),
        ),
        "save_last_n_epochs and save_last_n_epochs_state have no effect, as no files of epochs are kept",
        "give save_every_n_epochs",
        key="save_last_n_epochs",
    ),
    Rule(
        "last-steps-idle",
        "note",
        (
            "all",
            (
                "any",
                ("save_last_n_steps", "set"),
                ("save_last_n_steps_state", "set"),
                ("save_last_n_step_files", "set"),
            ),
            ("save_every_n_steps", "unset"),
        ),
        "save_last_n_steps and its relatives have no effect, as no files of steps are kept",
        "give save_every_n_steps",
        key="save_last_n_steps",
    ),
    Rule(
        "last-states-idle",
        "note",
        (
            "all",
            ("any", ("save_last_n_epochs_state", "set"), ("save_last_n_steps_state", "set")),
            ("save_state", "unset"),
        ),
        "save_last_n_epochs_state and save_last_n_steps_state have no effect without save_state",
        key="save_state",
    ),
    Rule(
        "last-steps-or-files",
        "error",
        ("all", ("save_last_n_steps", "set"), ("save_last_n_step_files", "set")),
        "save_last_n_steps and save_last_n_step_files exclude each other",
        "keep one of them",
        why="the one counts steps, the other files",
        key="save_last_n_step_files",
    ),
    Rule(
        "initial-step-wins",
        "note",
        ("all", ("initial_step", "set"), ("initial_epoch", "set")),
        "initial_epoch is not used, as there is an initial_step",
        key="initial_epoch",
    ),
    Rule(
        "skip-idle",
        "note",
        (
            "all",
            ("skip_until_initial_step", "set"),
            ("initial_step", "unset"),
            ("initial_epoch", "unset"),
            ("resume", "unset"),
        ),
        "skip_until_initial_step has no effect without initial_step, initial_epoch or resume",
        key="skip_until_initial_step",
    ),
    Rule(
        "log-prefix-idle",
        "note",
        ("all", ("log_prefix", "set"), ("logging_dir", "unset"), ("log_with", "unset")),
        "log_prefix has no effect without logging_dir",
        key="log_prefix",
    ),
)
