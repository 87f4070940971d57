"""What the Models page asks for each job: the fields of ``backend.weights.jobs``, in the page's order.

A table of data. A field is (name, kind, default, choices); its label stands under ``models.f.<name>``
among the texts, its help, where there is one, under ``models.h.<name>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

FieldKind = Literal["file", "output", "parts", "whole", "number", "choice", "flag", "words"]


@dataclass(frozen=True)
class Field:
    """One field of a job."""

    name: str
    kind: FieldKind
    default: Any = None
    choices: tuple[str, ...] = ()
    more: bool = False
    """Folded away at first."""
    required: bool = False


@dataclass(frozen=True)
class Form:
    """One job of the page."""

    kind: str
    """Of ``backend.weights.jobs``."""
    tool: str
    """The command line that does the same."""
    fields: tuple[Field, ...]
    positional: tuple[str, ...] = ()
    renamed: Mapping[str, str] | None = None
    """Field -> option, where they differ."""


_PRECISION = ("float", "fp16", "bf16")
_SAVE = Field("save_to", "output", required=True)
_SAVED = Field("save_precision", "choice", "fp16", _PRECISION)
_OVERWRITE = Field("overwrite", "flag", False, more=True)
_PARTS = Field("models", "parts", required=True)

FORMS: tuple[Form, ...] = (
    Form("inspect", "check_lora_weights.py", (Field("model", "file", required=True),), ("model",)),
    Form(
        "compare",
        "check_lora_weights.py",
        (Field("model", "file", required=True), Field("other", "file", required=True)),
        ("model",),
        {"other": "compare"},
    ),
    Form(
        "merge_into",
        "merge_lora.py",
        (Field("sd_model", "file", required=True), _PARTS, _SAVE, _SAVED, _OVERWRITE),
    ),
    Form(
        "merge_networks",
        "merge_lora.py",
        (
            _PARTS,
            Field("new_rank", "whole"),
            _SAVE,
            _SAVED,
            Field("new_conv_rank", "whole", more=True),
            Field("shuffle", "flag", False, more=True),
            _OVERWRITE,
        ),
    ),
    Form(
        "extract",
        "extract_lora_from_models.py",
        (
            Field("model_org", "file", required=True),
            Field("model_tuned", "file", required=True),
            Field("dim", "whole", 16),
            Field("conv_dim", "whole"),
            _SAVE,
            _SAVED,
            Field("min_diff", "number", 0.01, more=True),
            Field("clamp_quantile", "number", 0.99, more=True),
            Field("exact", "flag", False, more=True),
            _OVERWRITE,
        ),
    ),
    Form(
        "resize",
        "resize_lora.py",
        (
            Field("model", "file", required=True),
            Field("new_rank", "whole", 16),
            Field("dynamic_method", "choice", "", ("", "sv_ratio", "sv_fro", "sv_cumulative")),
            Field("dynamic_param", "number"),
            _SAVE,
            _SAVED,
            Field("new_conv_rank", "whole", more=True),
            _OVERWRITE,
        ),
    ),
    Form(
        "merge_models",
        "merge_models.py",
        (
            _PARTS,
            Field("mode", "choice", "weighted_sum", ("weighted_sum", "add_difference")),
            Field("output", "output", required=True),
            Field("saving_precision", "choice", "fp16", _PRECISION),
            Field("mbw", "words", "", more=True),
            Field("unet_only", "flag", False, more=True),
            _OVERWRITE,
        ),
    ),
    Form(
        "convert",
        "convert_diffusers20_original_sd.py",
        (
            Field("model_to_load", "file", required=True),
            Field("model_to_save", "output", required=True),
            Field("precision", "choice", "fp16", _PRECISION),
            Field("vae", "file", more=True),
            Field("prune_ema", "flag", False, more=True),
            _OVERWRITE,
        ),
        ("model_to_load", "model_to_save"),
        {"precision": "save_precision_as"},
    ),
    Form(
        "convert_lora",
        "convert_lora.py",
        (
            Field("model", "file", required=True),
            Field("to", "choice", "diffusers", ("kohya", "diffusers", "comfyui")),
            _SAVE,
            _OVERWRITE,
        ),
    ),
    Form(
        "split",
        "extract_lora_from_dylora.py",
        (Field("model", "file", required=True), Field("unit", "whole", 4, required=True), _SAVE, _OVERWRITE),
    ),
    Form(
        "edit_metadata",
        "show_metadata.py",
        (
            Field("model", "file", required=True),
            _SAVE,
            Field("strip", "flag", False),
            Field("set", "words", ""),
            Field("remove", "words", ""),
            _OVERWRITE,
        ),
    ),
)
BY_KIND: Mapping[str, Form] = {form.kind: form for form in FORMS}
