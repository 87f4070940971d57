"""Learning rates and what the optimizer makes of them."""

from __future__ import annotations

from backend.settings.rules.rule import Rule
from backend.settings.rules.terms import ADAFACTOR, BOTH_ONLY, OWN_RATE, TEXT_OFF, UNET_OFF

RULES: tuple[Rule, ...] = (
    Rule(
        "nothing-trained",
        "error",
        ("all", UNET_OFF, TEXT_OFF, ("not", BOTH_ONLY)),
        "nothing would be trained",
        "give the U-Net or the text encoder a learning rate, 1e-4 for example",
        why="every part has a learning rate of 0 or is switched off",
        key="learning_rate",
    ),
    Rule(
        "unet-not-trained",
        "note",
        ("all", UNET_OFF, ("network_train_text_encoder_only", "unset"), ("not", TEXT_OFF)),
        "the U-Net has a learning rate of 0: this part will not be trained",
        key="unet_lr",
    ),
    Rule(
        "text-not-trained",
        "note",
        ("all", TEXT_OFF, ("network_train_unet_only", "unset"), ("not", UNET_OFF)),
        "the text encoder has a learning rate of 0: this part will not be trained",
        key="text_encoder_lr",
    ),
    *(
        Rule(
            f"{key}-too-high",
            "error",
            ("all", (key, ">", 1), ("not", OWN_RATE)),
            f"{key}: {{{key}}} is out of range; allowed: 0 to 1 with {{optimizer_type}}",
            "1e-4 is usual for a LoRA",
            key=key,
        )
        for key in ("learning_rate", "unet_lr", "text_encoder_lr")
    ),
    Rule(
        "own-rate",
        "note",
        OWN_RATE,
        "AdaFactor sets the rate itself: learning rates only say what is trained, the schedule is not used",
        "add relative_step=False to optimizer_args to use your own",
        key="optimizer_type",
    ),
    Rule(
        "warmup-init",
        "error",
        (
            "all",
            ADAFACTOR,
            ("optimizer_args.warmup_init", "=", True),
            ("optimizer_args.relative_step", "=", False),
        ),
        "optimizer_args: warmup_init=True needs relative_step=True",
        "change one of them",
        key="optimizer_args",
    ),
    Rule(
        "no-warmup",
        "note",
        ("all", ("lr_scheduler", "=", "constant"), ("lr_warmup_steps", ">", 0), ("not", OWN_RATE)),
        "lr_warmup_steps has no effect: the schedule 'constant' has no warm-up",
        "choose constant_with_warmup to have one",
        key="lr_warmup_steps",
    ),
)
