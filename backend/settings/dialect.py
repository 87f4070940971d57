"""What sd-scripts' option names mean here, for those that are not options of Atelier by that name.

Three tables: names that are written otherwise, names that need nothing here, and names that
Atelier does not have. No name is dropped in silence: each gives a note or a problem, unless its
value changes nothing anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.errors import Problem
from backend.settings.declare import declarations, nearest
from backend.settings.types import read_text_list

Where = Callable[[str], str]
"""Key -> where it stands, for messages: 'run.toml, line 3'."""

RENAMED: Mapping[str, tuple[str, Any]] = {
    "caption_extention": ("caption_extension", None),
    "diffusers_xformers": ("xformers", True),
    "learning_rate_te": ("text_encoder_lr", None),
    "learning_rate_te1": ("text_encoder_lr1", None),
    "learning_rate_te2": ("text_encoder_lr2", None),
    "learning_rate_te3": ("text_encoder_lr3", None),
    "use_8bit_adam": ("optimizer_type", "AdamW8bit"),
    "use_lion_optimizer": ("optimizer_type", "Lion"),
}
"""Name -> (our key, the value it stands for; None: its own value)."""

NEEDS_NOTHING: Mapping[str, str] = {
    "cache_info": "folders are read anew each time, which is quick",
    "lowram": "model files are read without a second copy in memory",
    "lowvram": "sd-scripts has removed it",
    "no_token_padding": "it has no effect in sd-scripts either",
    "persistent_data_loader_workers": "the loading threads live as long as the run",
    "save_clip": "what is learned in text encoders is in the file",
    "save_t5xxl": "what is learned in text encoders is in the file",
    "skip_cache_check": "caches are found by content, so there is nothing to check",
    "skip_latents_validity_check": "caches are found by content, so there is nothing to check",
    "tokenizer_cache_dir": "the tokenizer comes with Atelier",
    "use_safetensors": "files are safetensors unless save_model_as says otherwise",
    "v2": "the kind of model is read from its file",
}
"""Name -> why it may be given and needs nothing."""

_ABSENT = """
    control_net_lr controlnet_model_name_or_path
    dataset_class debug_dataset
    fp16_master_weights_and_gradients
    offload_optimizer_nvme_path offload_param_device offload_param_nvme_path output_config
    zero3_init_flag
    zero3_save_16bit_model
"""
ABSENT: frozenset[str] = frozenset(_ABSENT.split())
"""Options of sd-scripts' trainers that Atelier does not have."""

NEUTRAL: Mapping[str, Any] = {
    "control_net_lr": 1e-4,
}
"""Values of absent options that change nothing. Of the others: 0, false and nothing."""

_ZERO_3 = (
    "offload_optimizer_nvme_path",
    "offload_param_device",
    "offload_param_nvme_path",
    "zero3_init_flag",
    "zero3_save_16bit_model",
)
HINTS: Mapping[str, str] = {
    "config_file": "it has a meaning on the command line only",
    "output_config": "it has a meaning on the command line only",
    "dry_run": "it has a meaning on the command line only",
    "dataset_class": "leave it out: a run counts, repeats and resumes the pictures of its plan, and a class "
    "from elsewhere has none; folders, metadata files and dataset files are read",
    "datasets": "this looks like a dataset file: give it as dataset_config",
    "debug_dataset": "the Dataset tab shows pictures as they are trained, tools/probe_data.py tells what "
    "each batch holds, and --dry_run the buckets",
    **dict.fromkeys(_ZERO_3, "leave it out: it belongs to ZeRO stage 3; fsdp splits up weights too"),
    "fp16_master_weights_and_gradients": "leave it out: trained weights stay in float32 with deepspeed; "
    "offload_optimizer_device takes the optimizer's memory off the card",
    "dropout": "write it as network_dropout, outside of network_args",
    "general": "this looks like a dataset file: give it as dataset_config",
}
"""What to do instead, for names that people write often."""

EVERYDAY: Mapping[str, str] = {
    "alpha": "network_alpha",
    "batch_size": "train_batch_size",
    "dim": "network_dim",
    "epoch": "max_train_epochs",
    "epochs": "max_train_epochs",
    "lr": "learning_rate",
    "model": "pretrained_model_name_or_path",
    "name": "output_name",
    "optimizer": "optimizer_type",
    "precision": "mixed_precision",
    "rank": "network_dim",
    "scheduler": "lr_scheduler",
    "steps": "max_train_steps",
    "warmup": "lr_warmup_steps",
}
"""Everyday word -> the option that it probably means, for suggestions only."""

ZERO_IS_UNSET: frozenset[str] = frozenset(
    (
        "sample_every_n_steps",
        "sample_every_n_epochs",
        "save_every_n_steps",
        "save_every_n_epochs",
        "save_n_epoch_ratio",
        "save_last_n_epochs",
        "save_last_n_epochs_state",
        "save_last_n_steps",
        "save_last_n_steps_state",
        "loraplus_lr_ratio",
        "loraplus_text_encoder_lr_ratio",
        "loraplus_unet_lr_ratio",
        "max_train_epochs",
        "min_snr_gamma",
        "max_validation_steps",
        "scale_weight_norms",
        "validate_every_n_epochs",
        "validate_every_n_steps",
        "v_pred_like_loss",
    )
)
"""Options that sd-scripts' users switch off with 0."""
ZERO_IS_ONE: frozenset[str] = frozenset(("vae_batch_size",))
"""Options of which 0 and 1 are the same in sd-scripts; kohya_ss writes 0 for some methods."""
BELOW_ZERO_IS_UNSET: frozenset[str] = frozenset(("sample_every_n_steps", "sample_every_n_epochs"))
"""Of these, the ones that sd-scripts switches off with any number below 1."""


@dataclass
class Translated:
    """Written values in Atelier's own keys."""

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: list[Problem] = field(default_factory=list[Problem])
    problems: list[Problem] = field(default_factory=list[Problem])
    unpacked: set[str] = field(default_factory=set[str])
    """Keys that came out of ``network_args``."""
    where: dict[str, str] = field(default_factory=dict[str, str])


def translate(values: Mapping[str, Any], where: Where) -> Translated:
    """Bring written options into Atelier's keys. Values are not checked yet."""
    result = Translated()
    for key, value in values.items():
        if key in declarations() and key != "network_args":
            value = 1 if key in ZERO_IS_ONE and _number(value) == 0 else value
            _take(result, key, None if _switched_off(result, key, value, where(key)) else value, where(key))
    for key, value in values.items():
        if key == "network_args":
            _unpack(result, value, where(key))
        elif why := needless_beside(key, values):
            result.notes.append(Problem(f"{key} needs nothing here: {why}", where=where(key), key=key))
        elif key not in declarations():
            _foreign(result, key, value, where(key))
    if not _is_off(values.get("use_safetensors")):
        _as_safetensors(result)
    return result


def needless_beside(key: str, values: Mapping[str, Any]) -> str:
    """Why a key that nobody knows may stand beside others; '' where it may not."""
    why = "kohya_ss writes it for itself; the length of the run is given"
    lengths = ("max_train_steps", "max_train_epochs")
    return why if key == "epoch" and not values.keys().isdisjoint(lengths) else ""


def _as_safetensors(result: Translated) -> None:
    """``use_safetensors`` beside a kind of file that has a sister in safetensors means that one."""
    sisters = {"ckpt": "safetensors", "diffusers": "diffusers_safetensors"}
    kind = str(result.values.get("save_model_as", ""))
    if kind in sisters:
        result.values["save_model_as"] = sisters[kind]


def _switched_off(result: Translated, key: str, value: Any, place: str) -> bool:
    """Whether an option is switched off by a number; below 0, which no trainer counts by, with a note."""
    number = _number(value)
    if number is None or key not in ZERO_IS_UNSET:
        return False
    below = number < 0 and key in BELOW_ZERO_IS_UNSET
    if below:
        result.notes.append(Problem(f"{key} {number:g} counts as not given", where=place, key=key))
    return number == 0 or below


def _foreign(result: Translated, key: str, value: Any, place: str) -> None:
    if key in RENAMED:
        _rename(result, key, value, place)
    elif key in NEEDS_NOTHING:
        if not _is_off(value):
            reason = NEEDS_NOTHING[key]
            result.notes.append(Problem(f"{key} needs nothing here: {reason}", where=place, key=key))
    elif key in ABSENT:
        if not _changes_nothing(key, value):
            result.problems.append(_absent(key, place))
    else:
        result.problems.append(unknown(key, place))


def unknown(key: str, place: str, word: str = "key") -> Problem:
    """The problem of a name that nobody knows, with the nearest ones that do exist."""
    near = EVERYDAY.get(key) or nearest(key, [*declarations(), *RENAMED])
    dashes = "--" if word == "option" else ""
    advice = HINTS.get(key) or (f"Did you mean {dashes}{near}?" if near else "")
    return Problem(f"unknown {word} {dashes}{key}", where=place, next=advice, key=key)


def _absent(key: str, place: str) -> Problem:
    near = nearest(key, declarations())
    advice = HINTS.get(key) or (f"leave it out; did you mean {near}?" if near else "leave it out")
    return Problem(
        f"Atelier does not have --{key}",
        where=place,
        why="it is an option of sd-scripts",
        next=advice,
        key=key,
    )


def _take(result: Translated, key: str, value: Any, place: str) -> None:
    if key == "network_module" and value in MODULE_NAMES:
        value = MODULE_NAMES[value]
    if key == "text_encoder_lr" and _differ(value):
        for number, rate in enumerate(value, start=1):
            _take(result, f"text_encoder_lr{number}", rate, place)
        return
    result.values[key] = value
    result.where[key] = place


def _differ(value: Any) -> bool:
    """Two or three different rates: one for each text encoder, as sd-scripts takes them."""
    return isinstance(value, (list, tuple)) and len(value) in (2, 3) and len(set(map(str, value))) > 1


def _rename(result: Translated, key: str, value: Any, place: str) -> None:
    target, meaning = RENAMED[key]
    if _is_off(value):
        return
    wanted = value if meaning is None else meaning
    other = result.values.get(target) or wanted
    if str(other).lower() != str(wanted).lower() and meaning is not None:
        result.problems.append(
            Problem(
                f"{key} and {target}={other} exclude each other",
                where=place,
                next=f"leave out {key}",
                key=target,
            )
        )
        return
    _take(result, target, wanted, place)
    result.notes.append(Problem(f"{key} is read as {target} = {wanted}", where=place, key=target))


def _unpack(result: Translated, value: Any, place: str) -> None:
    """Move the items of ``network_args`` into the options of the same names."""
    try:
        items = read_text_list(value)
    except ValueError as error:
        result.problems.append(Problem(f"network_args: {error}", where=place, key="network_args"))
        return
    allowed = [key for key, declared in declarations().items() if declared.info.network_arg]
    for item in items:
        key, equals, text = (part.strip() for part in item.partition("="))
        key = ARGUMENT_NAMES.get(key, key)
        if key == "dropout" and (
            _number(text) == 0 or result.values.get("network_module") == "lycoris.kohya"
        ):
            _drop(result, text, place)
            continue
        text = ALGO_NAMES.get(text, text) if key == "algo" else text
        empty = "" if key in NONE_IS_A_VALUE else "none"
        off = text.lower() in ("", empty) or (key in ZERO_IS_UNSET and _number(text) == 0)
        if (equals and off) or key in IDLE_ARGUMENTS:
            continue
        if not equals:
            result.problems.append(_not_a_pair("network_args", item, place))
        elif key not in allowed:
            result.problems.append(_unknown_argument(key, allowed, place))
        elif key in result.values:
            result.problems.append(Problem(f"{key} is given twice", where=place, key=key))
        else:
            _take(result, key, text, place)
            result.unpacked.add(key)


def _drop(result: Translated, text: str, place: str) -> None:
    """LyCORIS reads its dropout here as well, and this one first; 0 is what it is without."""
    if _number(text) != 0:
        _take(result, "network_dropout", text, place)


ARGUMENT_NAMES: Mapping[str, str] = {
    "constrain": "constraint",
    "use_cp": "use_tucker",
    "use_conv_cp": "use_tucker",
    "weight_decompose": "dora_wd",
}
"""Other names of arguments of LyCORIS."""
ALGO_NAMES: Mapping[str, str] = {"lora": "locon", "oft": "diag-oft"}
"""Other names of LyCORIS' kinds."""
IDLE_ARGUMENTS = frozenset({"verbose"})
"""Arguments that only make sd-scripts' log longer; ``list_modules`` tells what they would."""
NONE_IS_A_VALUE = frozenset({"train_block_indices"})
"""Arguments whose value "none" is not the same as leaving them out."""
MODULE_NAMES: Mapping[str, str] = {"networks.lora_sd3": "networks.lora"}
"""Network modules that are one here: the layers follow from the model."""


def _not_a_pair(key: str, item: str, place: str) -> Problem:
    return Problem(f"{key}: '{item}' is not of the form key=value", where=place, key=key)


def _unknown_argument(key: str, allowed: list[str], place: str) -> Problem:
    near = nearest(key, allowed)
    advice = HINTS.get(key) or (f"Did you mean {near}?" if near else f"known are {', '.join(allowed)}")
    return Problem(f"network_args: unknown key {key}", where=place, next=advice, key="network_args")


def _is_off(value: Any) -> bool:
    """False, nothing, and the texts a command line has for them."""
    return (
        value is None or value is False or value == [] or str(value).strip().lower() in ("", "false", "none")
    )


def _changes_nothing(key: str, value: Any) -> bool:
    if _is_off(value):
        return True
    neutral = NEUTRAL.get(key, 0)
    number = _number(value)
    return number == neutral if number is not None else str(value).lower() == str(neutral)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None
