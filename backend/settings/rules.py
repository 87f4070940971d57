"""Rules between options, as data: what may not stand together, what has no effect, what follows.

Trainer and form judge by the same table. A rule of kind ``error`` stops a run before it starts, a
``note`` is shown, and a ``change`` is shown and made. Rules are judged in order, each on what the
changes before it left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from backend.settings.conditions import Condition, Values, keys_of, sides

RuleKind = Literal["error", "note", "change"]

LR_ZERO = ("learning_rate", "=", 0)
UNET_OFF = (
    "any",
    ("network_train_text_encoder_only", "set"),
    ("unet_lr", "=", 0),
    ("all", ("unet_lr", "unset"), LR_ZERO),
)
TEXT_OFF = (
    "any",
    ("network_train_unet_only", "set"),
    ("text_encoder_lr", "=", 0),
    ("all", ("text_encoder_lr", "unset"), LR_ZERO),
)
BOTH_ONLY = ("all", ("network_train_unet_only", "set"), ("network_train_text_encoder_only", "set"))
ADAFACTOR = ("optimizer_type", "=", "AdaFactor")
OWN_RATE = ("all", ADAFACTOR, ("not", ("optimizer_args.relative_step", "=", False)))
"""Adafactor with relative steps, its default, sets the learning rate itself."""
HAS_PROMPTS = ("any", ("sample_prompts", "set"), ("sample_prompt_text", "set"))
SAMPLES = (
    "any",
    ("sample_every_n_steps", "set"),
    ("sample_every_n_epochs", "set"),
    ("sample_at_first", "set"),
)
FOLDERS = ("dataset_config", "unset")


@dataclass(frozen=True)
class Rule:
    """One rule. ``{key}`` in a text stands for that option's value."""

    id: str
    kind: RuleKind
    when: Condition
    what: str
    """What is said when ``when`` holds."""
    next: str = ""
    why: str = ""
    key: str = ""
    """The option that the form jumps to; the first that ``when`` looks at if empty."""
    change: Mapping[str, Any] | Callable[[Values], Mapping[str, Any]] | None = None
    """New values, for a change."""
    complete: bool = False
    """It asks for something that is only needed to start a run."""

    @property
    def field(self) -> str:
        """The option that the form jumps to."""
        condition = self.when
        while not self.key and isinstance(condition[1], tuple):
            condition = condition[1]
        return self.key or condition[0]

    @property
    def keys(self) -> tuple[str, ...]:
        """All options that the rule is about, sorted."""
        return tuple(sorted(keys_of(self.when)))


def _longest_side(values: Values) -> Mapping[str, Any]:
    """The training size's longer side, rounded up to a whole bucket step."""
    step = values["bucket_reso_steps"]
    return {"max_bucket_reso": -(-max(sides(values["resolution"])) // step) * step}


def _shortest_side(values: Values) -> Mapping[str, Any]:
    """Half of the training size's shorter side in whole bucket steps, as 256 is half of 512."""
    step = values["bucket_reso_steps"]
    return {"min_bucket_reso": max(step, min(sides(values["resolution"])) // 2 // step * step)}


_FILES = (
    Rule(
        "base-model",
        "error",
        ("pretrained_model_name_or_path", "unset"),
        "no base model is chosen",
        "give the file of the model to teach",
        complete=True,
    ),
    Rule(
        "pictures",
        "error",
        ("all", FOLDERS, ("train_data_dir", "unset"), ("in_json", "unset")),
        "no pictures are chosen",
        "give a picture folder (train_data_dir) or a dataset file (dataset_config)",
        key="train_data_dir",
        complete=True,
    ),
    Rule(
        "dataset-file-wins",
        "note",
        (
            "all",
            ("dataset_config", "set"),
            ("any", ("train_data_dir", "set"), ("reg_data_dir", "set"), ("in_json", "set")),
        ),
        "train_data_dir, reg_data_dir and in_json are not used, as there is a dataset file",
        "put the folders into the dataset file, or leave it out",
        key="train_data_dir",
    ),
    Rule(
        "name-is-a-path",
        "error",
        ("output_name", "has any of", "/\\"),
        "output_name: '{output_name}' must be a name without folders",
        "give the folder as output_dir",
    ),
    Rule(
        "name-is-unusable",
        "error",
        (
            "any",
            ("output_name", "has any of", '<>:"|?*'),
            ("output_name", "=", "."),
            ("output_name", "=", ".."),
        ),
        "output_name: '{output_name}' cannot be a file name",
        "use letters, digits, blanks, - and _",
    ),
)

_DATASET = (
    Rule(
        "bucket-step",
        "error",
        ("all", ("enable_bucket", "set"), ("bucket_reso_steps", "not multiple of", 8)),
        "bucket_reso_steps: {bucket_reso_steps} is not a multiple of 8",
        "use 64, or 32 for finer buckets",
        why="latents are an eighth of the picture",
        key="bucket_reso_steps",
    ),
    Rule(
        "bucket-order",
        "error",
        ("all", ("enable_bucket", "set"), ("min_bucket_reso", ">", ("key", "max_bucket_reso"))),
        "min_bucket_reso {min_bucket_reso} is larger than max_bucket_reso {max_bucket_reso}",
        "exchange them",
        key="min_bucket_reso",
    ),
    Rule(
        "bucket-smallest-default",
        "change",
        (
            "all",
            FOLDERS,
            ("enable_bucket", "set"),
            ("bucket_no_upscale", "unset"),
            ("min_bucket_reso", "=", 256),
            ("min_bucket_reso", ">", ("shorter side", "resolution")),
        ),
        "min_bucket_reso, left at 256, is lowered to suit the training size {resolution}",
        key="min_bucket_reso",
        change=_shortest_side,
    ),
    Rule(
        "bucket-smallest",
        "error",
        (
            "all",
            FOLDERS,
            ("enable_bucket", "set"),
            ("bucket_no_upscale", "unset"),
            ("min_bucket_reso", ">", ("shorter side", "resolution")),
        ),
        "min_bucket_reso {min_bucket_reso} is larger than the training size {resolution}",
        "lower min_bucket_reso or raise resolution",
        key="min_bucket_reso",
    ),
    Rule(
        "bucket-longest-default",
        "change",
        (
            "all",
            FOLDERS,
            ("enable_bucket", "set"),
            ("bucket_no_upscale", "unset"),
            ("max_bucket_reso", "=", 1024),
            ("max_bucket_reso", "<", ("longer side", "resolution")),
        ),
        "max_bucket_reso, left at 1024, is raised to hold the training size {resolution}",
        key="max_bucket_reso",
        change=_longest_side,
    ),
    Rule(
        "bucket-longest",
        "error",
        (
            "all",
            FOLDERS,
            ("enable_bucket", "set"),
            ("bucket_no_upscale", "unset"),
            ("max_bucket_reso", "<", ("longer side", "resolution")),
        ),
        "max_bucket_reso {max_bucket_reso} is smaller than the training size {resolution}",
        "raise max_bucket_reso or lower resolution",
        key="max_bucket_reso",
    ),
    Rule(
        "regularisation-beside-metadata",
        "error",
        ("all", FOLDERS, ("in_json", "set"), ("reg_data_dir", "set")),
        "in_json and reg_data_dir exclude each other",
        "use a dataset file (dataset_config) to have both, in two datasets",
        why="a metadata file has no regularisation pictures",
        key="reg_data_dir",
    ),
    Rule(
        "face-cut-in-buckets",
        "error",
        ("all", FOLDERS, ("face_crop_aug_range", "set"), ("enable_bucket", "set")),
        "face_crop_aug_range cannot be used with aspect buckets",
        "switch enable_bucket off, or leave face_crop_aug_range out",
        why="a cut around a face has the training size itself",
        key="face_crop_aug_range",
    ),
    Rule(
        "validation-all",
        "error",
        ("all", FOLDERS, ("validation_split", "=", 1)),
        "validation_split 1 leaves no picture to train on",
        "0.1 holds out every tenth",
        key="validation_split",
    ),
    Rule(
        "validation-seed-idle",
        "note",
        ("all", FOLDERS, ("validation_seed", "set"), ("validation_split", "=", 0)),
        "validation_seed has no effect without validation_split",
        key="validation_seed",
    ),
    Rule(
        "keep-tokens-idle",
        "note",
        (
            "all",
            ("keep_tokens", ">", 0),
            ("shuffle_caption", "unset"),
            ("caption_tag_dropout_rate", "=", 0),
            ("token_warmup_step", "=", 0),
        ),
        "keep_tokens has no effect, as tags are neither shuffled nor dropped",
        "switch shuffle_caption on, or set it to 0",
    ),
    Rule(
        "captions-all-dropped",
        "error",
        ("any", ("caption_dropout_rate", "=", 1), ("caption_dropout_every_n_epochs", "=", 1)),
        "no caption would ever be used",
        "caption_dropout_rate below 1, such as 0.1; caption_dropout_every_n_epochs 0 or above 1",
        key="caption_dropout_rate",
    ),
    Rule(
        "masks",
        "error",
        ("all", ("masked_loss", "set"), FOLDERS, ("alpha_mask", "unset")),
        "masked_loss has no masks to use",
        "give a dataset file (dataset_config) with conditioning_data_dir in its subsets, or use alpha_mask",
        key="masked_loss",
        complete=True,
    ),
)

_CACHING = (
    Rule(
        "cache-latents",
        "change",
        ("all", ("cache_latents_to_disk", "set"), ("cache_latents", "unset")),
        "cache_latents_to_disk switches cache_latents on",
        change={"cache_latents": True},
    ),
    Rule(
        "changes-but-cached",
        "error",
        (
            "all",
            FOLDERS,
            ("cache_latents", "set"),
            ("any", ("color_aug", "set"), ("random_crop", "set"), ("face_crop_aug_range", "set")),
        ),
        "color_aug, random_crop and face_crop_aug_range cannot be used with cached latents",
        "switch cache_latents off, or leave them out",
        why="a picture is encoded once, so it cannot differ from visit to visit",
        key="cache_latents",
    ),
    Rule(
        "npz-idle",
        "note",
        ("all", ("use_npz_caches", "set"), ("cache_latents", "unset")),
        "use_npz_caches has no effect without cache_latents",
        key="use_npz_caches",
    ),
    Rule(
        "cache-text",
        "change",
        ("all", ("cache_text_encoder_outputs_to_disk", "set"), ("cache_text_encoder_outputs", "unset")),
        "cache_text_encoder_outputs_to_disk switches cache_text_encoder_outputs on",
        change={"cache_text_encoder_outputs": True},
    ),
    Rule(
        "cache-text-but-train-it",
        "error",
        ("all", ("cache_text_encoder_outputs", "set"), ("network_train_text_encoder_only", "set")),
        "cache_text_encoder_outputs and network_train_text_encoder_only exclude each other",
        "switch one of them off",
        why="a text encoder whose outputs are cached cannot be trained",
        key="cache_text_encoder_outputs",
    ),
    Rule(
        "cache-text-unet-only",
        "change",
        (
            "all",
            ("cache_text_encoder_outputs", "set"),
            ("network_train_text_encoder_only", "unset"),
            ("not", TEXT_OFF),
        ),
        "cache_text_encoder_outputs: only the U-Net is trained, as a cached text encoder cannot be",
        "switch network_train_unet_only on to have it said, or cache_text_encoder_outputs off to train both",
        key="cache_text_encoder_outputs",
        change={"network_train_unet_only": True},
    ),
    Rule(
        "text-cache-options-idle",
        "note",
        (
            "all",
            ("cache_text_encoder_outputs", "unset"),
            ("any", ("caption_variants", "set"), ("text_encoder_batch_size", "set")),
        ),
        "caption_variants and text_encoder_batch_size have no effect without cache_text_encoder_outputs",
        key="cache_text_encoder_outputs",
    ),
)

_NETWORK = (
    Rule(
        "parts-exclude",
        "error",
        BOTH_ONLY,
        "network_train_unet_only and network_train_text_encoder_only exclude each other",
        "switch one of them off; with both off, both parts are trained",
    ),
    Rule(
        "weights-for-rank",
        "error",
        ("all", ("dim_from_weights", "set"), ("network_weights", "unset")),
        "dim_from_weights needs a LoRA file to take the ranks from",
        "give it as network_weights, or switch dim_from_weights off",
        key="network_weights",
    ),
    Rule(
        "rank-not-used",
        "note",
        ("all", ("dim_from_weights", "set"), ("any", ("network_dim", "set"), ("conv_dim", "set"))),
        "network_dim and conv_dim are not used: dim_from_weights takes the ranks from the file",
        key="dim_from_weights",
    ),
    Rule(
        "alpha-zero",
        "note",
        ("any", ("network_alpha", "=", 0), ("conv_alpha", "=", 0)),
        "an alpha of 0 counts as the rank, which is full strength",
        key="network_alpha",
    ),
    Rule(
        "conv-alpha-idle",
        "note",
        (
            "all",
            ("conv_alpha", "set"),
            ("conv_dim", "unset"),
            ("conv_block_dims", "unset"),
            ("dim_from_weights", "unset"),
            ("network_module", "!=", "lycoris.kohya"),
        ),
        "conv_alpha has no effect without conv_dim",
        "give conv_dim to train the convolutions as well",
    ),
    Rule(
        "strengths-without-files",
        "error",
        ("all", ("base_weights_multiplier", "set"), ("base_weights", "unset")),
        "base_weights_multiplier needs base_weights",
        "give the LoRA files as base_weights, or leave it out",
        key="base_weights_multiplier",
    ),
    Rule(
        "dylora-dropout",
        "error",
        (
            "all",
            ("network_dropout", "set"),
            ("network_dropout", ">", 0),
            ("network_module", "=", "networks.dylora"),
        ),
        "networks.dylora has no use for network_dropout",
        "leave network_dropout out",
        why="it leaves ranks out by itself",
        key="network_dropout",
    ),
    Rule(
        "oft-dropout",
        "error",
        ("all", ("network_dropout", ">", 0), ("network_module", "=", "networks.oft")),
        "networks.oft has no use for network_dropout",
        "leave network_dropout out",
        why="rotations have no inner values",
        key="network_dropout",
    ),
    Rule(
        "oft-text-only",
        "error",
        ("all", ("network_train_text_encoder_only", "set"), ("network_module", "=", "networks.oft")),
        "networks.oft trains the U-Net only",
        "switch network_train_text_encoder_only off, or choose another network",
        key="network_train_text_encoder_only",
    ),
    Rule(
        "dylora-convolutions",
        "error",
        (
            "all",
            ("network_module", "=", "networks.dylora"),
            ("conv_dim", "set"),
            ("network_dim", "set"),
            ("conv_dim", "!=", ("key", "network_dim")),
        ),
        "networks.dylora needs conv_dim to be equal to network_dim",
        "give both the same rank, or leave conv_dim out",
        key="conv_dim",
    ),
    Rule(
        "dylora-unit",
        "error",
        (
            "all",
            ("network_module", "=", "networks.dylora"),
            ("unit", "set"),
            ("network_dim", "set"),
            ("network_dim", "not multiple of", ("key", "unit")),
        ),
        "networks.dylora needs a rank that is a multiple of unit",
        "for example network_dim 16 with unit 4",
        key="unit",
    ),
    Rule(
        "dora-dropout",
        "error",
        ("all", ("dora_wd", "set"), ("network_dropout", ">", 0)),
        "dora_wd cannot be combined with network_dropout",
        "use module_dropout",
        why="DoRA changes the weight as a whole, so there are no inner values to leave out",
        key="network_dropout",
    ),
)

_RATES = (
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

_LENGTH = (
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
        "error",
        ("all", ("max_train_epochs", "unset"), ("lr_warmup_steps", ">", ("key", "max_train_steps"))),
        "lr_warmup_steps {lr_warmup_steps} is more than max_train_steps {max_train_steps}",
        "lower the warm-up",
        key="lr_warmup_steps",
    ),
)

_LOSS = (
    Rule(
        "adaptive-needs-offset",
        "error",
        ("all", ("adaptive_noise_scale", "set"), ("noise_offset", "unset")),
        "adaptive_noise_scale needs noise_offset",
        "give a noise_offset as well",
        key="adaptive_noise_scale",
    ),
    Rule(
        "offset-strength-idle",
        "note",
        ("all", ("noise_offset_random_strength", "set"), ("noise_offset", "unset")),
        "noise_offset_random_strength has no effect without noise_offset",
        key="noise_offset_random_strength",
    ),
    Rule(
        "perturbation-strength-idle",
        "note",
        ("all", ("ip_noise_gamma_random_strength", "set"), ("ip_noise_gamma", "unset")),
        "ip_noise_gamma_random_strength has no effect without ip_noise_gamma",
        key="ip_noise_gamma_random_strength",
    ),
    Rule(
        "scale-v-needs-v",
        "error",
        ("all", ("scale_v_pred_loss_like_noise_pred", "set"), ("v_parameterization", "unset")),
        "scale_v_pred_loss_like_noise_pred is for v-prediction only",
        "switch v_parameterization on, or this off",
        key="scale_v_pred_loss_like_noise_pred",
    ),
    Rule(
        "v-like-excludes-v",
        "error",
        ("all", ("v_pred_like_loss", "set"), ("v_parameterization", "set")),
        "v_pred_like_loss and v_parameterization exclude each other",
        "leave one of them out",
        why="the one adds a v-like loss to noise prediction, the other is v-prediction",
        key="v_pred_like_loss",
    ),
    Rule(
        "zero-terminal-weights",
        "error",
        (
            "all",
            ("zero_terminal_snr", "set"),
            ("v_parameterization", "unset"),
            ("any", ("debiased_estimation_loss", "set"), ("v_pred_like_loss", "set")),
        ),
        "zero_terminal_snr with noise prediction makes the loss weight infinite at the last timestep",
        "leave out debiased_estimation_loss and v_pred_like_loss, or train v-prediction",
        key="zero_terminal_snr",
    ),
    Rule(
        "zero-terminal-wants-v",
        "note",
        ("all", ("zero_terminal_snr", "set"), ("v_parameterization", "unset")),
        "zero_terminal_snr is meant for v-prediction: there is no noise to predict from pure noise",
        key="zero_terminal_snr",
    ),
    Rule(
        "timesteps-order",
        "error",
        ("min_timestep", ">", ("key", "max_timestep")),
        "min_timestep {min_timestep} is above max_timestep {max_timestep}",
        "exchange them",
        key="min_timestep",
    ),
)

_REST = (
    Rule(
        "two-attentions",
        "note",
        ("all", ("xformers", "set"), ("sdpa", "set")),
        "sdpa is not used: xformers is asked for as well",
        key="sdpa",
    ),
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

RULES: tuple[Rule, ...] = (*_FILES, *_DATASET, *_CACHING, *_NETWORK, *_RATES, *_LENGTH, *_LOSS, *_REST)
