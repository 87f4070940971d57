"""Pictures, buckets and captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.settings.conditions import Values, sides
from backend.settings.rules.rule import Rule
from backend.settings.rules.terms import FOLDERS


def _longest_side(values: Values) -> Mapping[str, Any]:
    """The training size's longer side, rounded up to a whole bucket step."""
    step = values["bucket_reso_steps"]
    return {"max_bucket_reso": -(-max(sides(values["resolution"])) // step) * step}


def _shortest_side(values: Values) -> Mapping[str, Any]:
    """Half of the training size's shorter side in whole bucket steps, as 256 is half of 512."""
    step = values["bucket_reso_steps"]
    return {"min_bucket_reso": max(step, min(sides(values["resolution"])) // 2 // step * step)}


RULES: tuple[Rule, ...] = (
    Rule(
        "class-pictures-where",
        "error",
        (
            "all",
            ("num_class_images", "set"),
            ("any", ("reg_data_dir", "unset"), ("class_prompt", "unset"), ("dataset_config", "set")),
        ),
        "num_class_images needs class_prompt, what the pictures show, and reg_data_dir, where they go",
        "give both, and no dataset file beside them",
        key="num_class_images",
    ),
    Rule(
        "class-prompt-idle",
        "note",
        ("all", ("class_prompt", "set"), ("num_class_images", "unset")),
        "no class pictures are drawn, as num_class_images is not given",
        key="num_class_images",
    ),
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
        "validation-idle",
        "note",
        (
            "all",
            FOLDERS,
            ("validation_split", "=", 0),
            (
                "any",
                ("validate_every_n_steps", "set"),
                ("validate_every_n_epochs", "set"),
                ("max_validation_steps", "set"),
            ),
        ),
        "nothing is measured, as no pictures are held out (validation_split)",
        "give validation_split, 0.1 for example",
        key="validation_split",
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
