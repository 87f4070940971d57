"""Learning rates, what the optimizer makes of them, and how they run."""

from __future__ import annotations

from backend.settings.rules.rule import Rule
from backend.settings.rules.terms import (
    ADAFACTOR,
    BOTH_ONLY,
    FINDS_RATE,
    LR_ZERO,
    NETWORK,
    ONE_RATE,
    OTHER_CLASS,
    OWN_RATE,
    OWN_TEXT_RATES,
    SCHEDULE_FREE,
    TEXT_OFF,
    TEXT_RATES_ZERO,
    UNET_OFF,
    WHOLE_MODEL,
    WORD,
)
from backend.settings.schedules import WITHOUT_WARMUP

_TWO_RATES = (
    "any",
    ("all", ("unet_lr", "set"), ("unet_lr", "!=", ("key", "text_encoder_lr"))),
    ("all", ("unet_lr", "set"), ("text_encoder_lr", "unset"), ("unet_lr", "!=", ("key", "learning_rate"))),
    (
        "all",
        ("text_encoder_lr", "set"),
        ("unet_lr", "unset"),
        ("text_encoder_lr", "!=", ("key", "learning_rate")),
    ),
    *(("all", (key, ">", 0), (key, "!=", ("key", "unet_lr"))) for key in OWN_TEXT_RATES),
    *(
        ("all", (key, ">", 0), ("unet_lr", "unset"), (key, "!=", ("key", "learning_rate")))
        for key in OWN_TEXT_RATES
    ),
)
_RATES_BY_WEIGHT = (
    "any",
    *(
        (key, "set")
        for key in (
            "loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio",
            "down_lr_weight", "mid_lr_weight", "up_lr_weight",
        )
    ),
)  # fmt: skip
_RATE_COUNTS = (("not", OWN_RATE), ("not", FINDS_RATE))
"""The steps are as long as the learning rate says."""
_NO_SCHEDULE = ("any", OWN_RATE, SCHEDULE_FREE)
_FIXED_ARGUMENT = ("optimizer_args.relative_step", "=", False)

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
        ("all", TEXT_RATES_ZERO, ("network_train_unet_only", "unset"), ("not", UNET_OFF)),
        "the text encoder has a learning rate of 0: this part will not be trained",
        key="text_encoder_lr",
    ),
    *(
        Rule(
            f"{key}-too-high",
            "error",
            ("all", (key, ">", 1), ("not", OWN_RATE), ("not", FINDS_RATE)),
            f"{key}: {{{key}}} is out of range; allowed: 0 to 1 with {{optimizer_type}}",
            "1e-4 is usual for a LoRA",
            key=key,
        )
        for key in ("learning_rate", "unet_lr", "text_encoder_lr", *OWN_TEXT_RATES)
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
        "ema-start-idle",
        "note",
        ("all", ("ema_start", ">", 0), ("ema_decay", "unset")),
        "ema_start has no effect without ema_decay",
        key="ema_start",
    ),
    Rule(
        "warmup-init",
        "error",
        (
            "all",
            ADAFACTOR,
            ("optimizer_args.warmup_init", "=", True),
            _FIXED_ARGUMENT,
        ),
        "optimizer_args: warmup_init=True needs relative_step=True",
        "change one of them",
        key="optimizer_args",
    ),
    Rule(
        "adafactor-scales",
        "note",
        ("all", ADAFACTOR, _FIXED_ARGUMENT, ("not", ("optimizer_args.scale_parameter", "=", False))),
        "AdaFactor multiplies the rate by the size of each weight, and those that start at 0 learn slowly",
        "add scale_parameter=False to optimizer_args to have the rate as it is",
        key="optimizer_args",
    ),
    Rule(
        "two-rates",
        "error",
        ("all", ONE_RATE, _TWO_RATES, ("not", UNET_OFF), ("not", TEXT_OFF)),
        "{optimizer_type} takes one learning rate for all parts; those of U-Net and text encoder differ",
        "leave unet_lr and text_encoder_lr empty, or give both the value of learning_rate; "
        "0 leaves a part untrained",
        why="it finds one step size for everything that is trained",
        key="unet_lr",
    ),
    Rule(
        "rates-by-weight",
        "error",
        ("all", ONE_RATE, _RATES_BY_WEIGHT),
        "{optimizer_type} takes one learning rate for all weights: no LoRA+ ratios, no rates by block",
        "leave out loraplus_lr_ratio, down_lr_weight and their like, or choose AdamW",
        why="it finds one step size for everything that is trained",
        key="optimizer_type",
    ),
    Rule(
        "no-first-rate",
        "error",
        (
            "all",
            ("optimizer_type", "=", "DAdaptSGD"),
            ("lr_warmup_steps", ">", 0),
            ("lr_scheduler_type", "unset"),
            *(("lr_scheduler", "!=", name) for name in WITHOUT_WARMUP),
        ),
        "DAdaptSGD cannot warm up",
        "leave lr_warmup_steps at 0, or choose another optimizer of its kind such as Prodigy",
        why="it divides by the first learning rate, which is 0 in a warm-up",
        key="lr_warmup_steps",
    ),
    Rule(
        "rate-far-below-one",
        "note",
        (
            "all",
            FINDS_RATE,
            ("learning_rate", "<=", 0.1),
            ("not", ("unet_lr", ">", 0.1)),
            ("not", ("text_encoder_lr", ">", 0.1)),
            ("not", ("all", LR_ZERO, ("unet_lr", "unset"), ("text_encoder_lr", "unset"))),
        ),
        "{optimizer_type} finds its step size by itself; learning_rate {learning_rate} only makes it smaller",
        "a learning rate of 1 is usual with it",
        key="learning_rate",
    ),
    Rule(
        "rate-of-a-lora",
        "note",
        ("all", WHOLE_MODEL, *_RATE_COUNTS, ("learning_rate", ">", 5e-5)),
        "learning_rate {learning_rate} is far above what a whole model bears: it forgets what it can do",
        "1e-6 to 1e-5 is usual; 1e-4 is for a LoRA",
        key="learning_rate",
    ),
    Rule(
        "rate-too-low-for-a-network",
        "note",
        (
            "all",
            NETWORK,
            *_RATE_COUNTS,
            ("learning_rate", ">", 0),
            ("learning_rate", "<", 1e-5),
            ("unet_lr", "unset"),
            ("text_encoder_lr", "unset"),
            ("pretrained_model_name_or_path", "set"),  # an empty form stays calm
        ),
        "learning_rate {learning_rate} hardly moves a LoRA",
        "1e-4 is usual; 2e-6, which is taken where nothing is said, is for whole models",
        key="learning_rate",
    ),
    Rule(
        "rate-too-low-for-a-word",
        "note",
        ("all", WORD, *_RATE_COUNTS, ("learning_rate", ">", 0), ("learning_rate", "<", 1e-4)),
        "learning_rate {learning_rate} hardly moves a word",
        "5e-3 is usual for a word, or 5e-4 for slow and careful ones",
        key="learning_rate",
    ),
    Rule(
        "adafactor-schedule",
        "error",
        ("all", ("lr_scheduler", "=", "adafactor"), ("lr_scheduler_type", "unset"), ("not", OWN_RATE)),
        "the schedule 'adafactor' needs AdaFactor with relative_step=True; the optimizer is {optimizer_type}",
        "choose another schedule, or optimizer_type AdaFactor without relative_step=False",
        key="lr_scheduler",
    ),
    Rule(
        "schedule-free-schedule",
        "note",
        ("all", SCHEDULE_FREE, ("any", ("lr_scheduler", "!=", "constant"), OTHER_CLASS)),
        "the schedule is not used: {optimizer_type} averages weights in place of one",
        "leave lr_scheduler at constant",
        key="lr_scheduler",
    ),
    Rule(
        "schedule-free-mean",
        "error",
        ("all", SCHEDULE_FREE, ("ema_decay", "set")),
        "{optimizer_type} averages the weights already: ema_decay cannot be combined with it",
        "leave ema_decay empty, or choose another optimizer",
        key="ema_decay",
    ),
    Rule(
        "class-wins",
        "note",
        ("all", OTHER_CLASS, ("lr_scheduler", "!=", "constant"), ("not", _NO_SCHEDULE)),
        "lr_scheduler {lr_scheduler} is not used, as lr_scheduler_type names {lr_scheduler_type}",
        key="lr_scheduler",
    ),
    Rule(
        "schedule-free-warmup",
        "note",
        ("all", SCHEDULE_FREE, ("lr_warmup_steps", ">", 0)),
        "lr_warmup_steps has no effect with {optimizer_type}",
        "give warmup_steps in optimizer_args, if it takes them",
        key="lr_warmup_steps",
    ),
    Rule(
        "class-warmup",
        "note",
        ("all", OTHER_CLASS, ("lr_warmup_steps", ">", 0), ("not", _NO_SCHEDULE)),
        "lr_warmup_steps has no effect: {lr_scheduler_type} does not know it",
        "use a schedule of lr_scheduler to have a warm-up",
        key="lr_warmup_steps",
    ),
    *(
        Rule(
            f"no-warmup-{name}",
            "note",
            (
                "all",
                ("lr_scheduler", "=", name),
                ("lr_warmup_steps", ">", 0),
                ("lr_scheduler_type", "unset"),
                ("not", _NO_SCHEDULE),
            ),
            f"lr_warmup_steps has no effect: the schedule '{name}' has no warm-up",
            "choose constant_with_warmup to have one",
            key="lr_warmup_steps",
        )
        for name in WITHOUT_WARMUP
    ),
    Rule(
        "pieces-needed",
        "error",
        (
            "all",
            ("lr_scheduler", "=", "piecewise_constant"),
            ("lr_scheduler_args.step_rules", "unset"),
            ("lr_scheduler_type", "unset"),
            ("not", _NO_SCHEDULE),
        ),
        "piecewise_constant needs step_rules",
        "write into lr_scheduler_args for example step_rules=1:100,0.1:200,0.01: the whole rate for "
        "100 steps, a tenth until step 200, a hundredth from there on",
        key="lr_scheduler_args",
    ),
    Rule(
        "lowest-rate-needed",
        "error",
        (
            "all",
            ("lr_scheduler", "=", "cosine_with_min_lr"),
            ("lr_scheduler_min_lr_ratio", "unset"),
            ("lr_scheduler_args.min_lr", "unset"),
            ("lr_scheduler_args.min_lr_rate", "unset"),
            ("lr_scheduler_type", "unset"),
            ("not", _NO_SCHEDULE),
        ),
        "cosine_with_min_lr needs the lowest rate",
        "give lr_scheduler_min_lr_ratio, 0.1 for example",
        key="lr_scheduler_min_lr_ratio",
    ),
    Rule(
        "lowest-rate-twice",
        "error",
        (
            "all",
            ("lr_scheduler", "=", "cosine_with_min_lr"),
            ("lr_scheduler_min_lr_ratio", "set"),
            ("any", ("lr_scheduler_args.min_lr", "set"), ("lr_scheduler_args.min_lr_rate", "set")),
        ),
        "the lowest rate is given twice: lr_scheduler_min_lr_ratio and min_lr of lr_scheduler_args",
        "leave one of them out",
        key="lr_scheduler_min_lr_ratio",
    ),
    Rule(
        "no-decay",
        "note",
        (
            "all",
            ("lr_scheduler", "=", "warmup_stable_decay"),
            ("lr_decay_steps", "=", 0),
            ("lr_scheduler_type", "unset"),
            ("not", _NO_SCHEDULE),
        ),
        "warmup_stable_decay never decays, as lr_decay_steps is 0",
        "give lr_decay_steps, 20% for example",
        key="lr_decay_steps",
    ),
)
