"""Steps, epochs and warm-up."""

from __future__ import annotations

from backend.settings.rules.rule import Rule
from backend.settings.schedules import WITHOUT_WARMUP

RULES: tuple[Rule, ...] = (
    Rule(
        "default-steps",
        "note",
        ("all", ("max_train_steps", "=", 1600), ("max_train_epochs", "unset")),
        "the run takes 1600 steps, which is the default",
        "give max_train_steps or max_train_epochs for another length",
        key="max_train_steps",
        complete=True,
    ),
    Rule(
        "epochs-win",
        "note",
        ("all", ("max_train_epochs", "set"), ("max_train_steps", "!=", 1600)),
        "max_train_steps {max_train_steps} is not used, as max_train_epochs decides the length",
        key="max_train_steps",
    ),
    Rule(
        "warmup-too-long",
        "note",
        (
            "all",
            ("max_train_epochs", "unset"),
            ("lr_warmup_steps", ">", ("key", "max_train_steps")),
            *(("lr_scheduler", "!=", name) for name in WITHOUT_WARMUP),
        ),
        "lr_warmup_steps {lr_warmup_steps} is more than max_train_steps {max_train_steps}",
        "lower the warm-up",
        why="the learning rate rises to the end and never reaches its full height",
        key="lr_warmup_steps",
    ),
)
