"""Conditions that several rules share, by name."""

from __future__ import annotations

from backend.settings.optimizers import names_where

NETWORK = ("training_method", "=", "network")
DREAMBOOTH = ("training_method", "=", "dreambooth")
FINETUNE = ("training_method", "=", "finetune")
WORD = ("training_method", "=", "textual_inversion")
LLLITE = ("training_method", "=", "lllite")
WHOLE_MODEL = ("any", DREAMBOOTH, FINETUNE)
LR_ZERO = ("learning_rate", "=", 0)
UNET_OFF = (
    "any",
    ("network_train_text_encoder_only", "set"),
    ("unet_lr", "=", 0),
    ("all", ("unet_lr", "unset"), LR_ZERO),
)
OWN_TEXT_RATES = ("text_encoder_lr1", "text_encoder_lr2", "text_encoder_lr3")
TEXT_RATES_ZERO = (
    "all",
    ("any", ("text_encoder_lr", "=", 0), ("all", ("text_encoder_lr", "unset"), LR_ZERO)),
    *(("not", (key, ">", 0)) for key in OWN_TEXT_RATES),
)
TEXT_OFF = (
    "any",
    ("network_train_unet_only", "set"),
    ("all", FINETUNE, ("train_text_encoder", "unset")),
    ("all", DREAMBOOTH, ("stop_text_encoder_training", "<=", 0)),
    LLLITE,
    TEXT_RATES_ZERO,
)
"""No text encoder is trained."""
BOTH_ONLY = ("all", ("network_train_unet_only", "set"), ("network_train_text_encoder_only", "set"))
ADAFACTOR = ("optimizer_type", "=", "AdaFactor")
OWN_RATE = ("all", ADAFACTOR, ("not", ("optimizer_args.relative_step", "=", False)))
"""Adafactor with relative steps, its default, sets the learning rate itself."""
SCHEDULE_FREE = ("optimizer_type", "contains", "schedulefree")
FINDS_RATE = ("any", *(("optimizer_type", "=", name) for name in names_where(finds_rate=True)))
ONE_RATE = ("any", *(("optimizer_type", "=", name) for name in names_where(one_rate=True)))
OTHER_CLASS = ("lr_scheduler_type", "set")
HAS_PROMPTS = ("any", ("sample_prompts", "set"), ("sample_prompt_text", "set"))
SAMPLES = (
    "any",
    ("sample_every_n_steps", "set"),
    ("sample_every_n_epochs", "set"),
    ("sample_at_first", "set"),
)
FOLDERS = ("dataset_config", "unset")
AS_FOLDER = ("any", ("save_model_as", "=", "diffusers"), ("save_model_as", "=", "diffusers_safetensors"))
FUSED_KEYS = ("fused_backward_pass", "fused_optimizer_groups", "blockwise_fused_optimizers")
"""Ways of changing weights while the backward pass runs."""
