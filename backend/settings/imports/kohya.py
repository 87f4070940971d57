"""A saved form or preset of kohya_ss: flat JSON, field name -> value.

The form does more than hand its fields over. It counts steps out of epochs, drops zeros, chooses
what is trained by which learning rate is zero, and hands some fields over only beside others. What
is read here trains as it would have trained there; where that differs from what the field says, the
report tells.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from backend.settings.declare import declarations
from backend.settings.imports import kohya_keys as keys
from backend.settings.imports.command import take_words
from backend.settings.imports.report import (
    Imported,
    Sheet,
    by_declaration,
    is_blank,
    is_default,
    is_readable,
)
from backend.settings.settings import DEFAULTS

_ALWAYS_GIVEN = frozenset({"max_data_loader_n_workers", "min_timestep", "lr_warmup_steps"})
"""Fields whose zero the form hands over."""
_LARGEST_RANK = 1024
_PROMPT_FILES = (".txt", ".json", ".toml")
_WITHOUT_WARMUP = frozenset({"constant", "adafactor", "piecewise_constant"})


def import_form(raw: Mapping[str, Any]) -> Imported:
    """Settings and report of a saved form."""
    form = _Form(raw)
    for part in (form.kind, form.what_learns, form.length, form.warmup, form.noise, form.attention):
        part()
    for part in (form.text_caches, form.metadata_file, form.prompts, form.text_stop, form.trackers):
        part()
    for part in (form.other_families, form.odd_values):
        part()
    form.rest()
    form.additional()
    return form.sheet.finish("kohya_ss", raw)


class _Form:
    """The fields, and those of them that are not reported yet."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = dict(raw)
        self.left = dict(raw)
        self.sheet = Sheet()
        method = next((name for name, fields in keys.METHODS.items() if fields & raw.keys()), None)
        if method:
            self.sheet.values["training_method"] = method
        self.is_network = "LoRA_type" in raw or "network_dim" in raw
        self.sd3 = _on(raw.get("sd3_checkbox"))
        self.type = str(raw.get("LoRA_type") or "Standard")

    def pop(self, key: str) -> Any:
        return self.left.pop(key, None)

    def has(self, *names: str) -> list[str]:
        """Those of the fields that are there and not reported yet."""
        return [name for name in names if name in self.left]

    def idle(self, why: str, *names: str) -> None:
        for key in self.has(*names):
            self.sheet.idle(key, self.pop(key), why)

    def kind(self) -> None:
        """``LoRA_type``, and the fields that it hands over."""
        if "LoRA_type" in self.left:
            value = self.pop("LoRA_type")
            found = keys.KINDS.get(self.type)
            if found is None:
                self.sheet.refuse(
                    "LoRA_type", value, "this kind of network, or of model, is not trained here"
                )
            else:
                self._take_kind(value, *found)
        if self.type in keys.WITHOUT_CONVOLUTIONS:
            self.idle(f"the type {self.type} has no convolutions of its own rank", "conv_dim", "conv_alpha")
        if self.type == "LyCORIS/DyLoRA" and not is_blank(self.left.get("unit")):
            unit = self.pop("unit")
            self.sheet.take("unit", unit, "block_size", unit, "LyCORIS calls it block_size")
        self._full_matrix()

    def _take_kind(self, value: Any, module: str, algorithm: str) -> None:
        self.sheet.values["network_module"] = module
        if algorithm:
            self.sheet.values["algo"] = algorithm
        target = "network_module, algo" if algorithm else "network_module"
        now = " ".join(filter(None, (module, algorithm)))
        self.sheet.changed("LoRA_type", value, "the network module says it", target, now)

    def _full_matrix(self) -> None:
        """A rank beyond every layer's size is how LyCORIS' users ask for LoKr without a rank."""
        if self.type not in ("LyCORIS/LoKr", "Kohya LoKr"):
            return
        for key in self.has("network_dim", "conv_dim"):
            value = self.left[key]
            if isinstance(value, (int, float)) and value > _LARGEST_RANK:
                why = "a rank beyond every layer's size means whole matrices"
                self.sheet.take(key, self.pop(key), "full_matrix", True, why)

    def what_learns(self) -> None:
        """A learning rate of zero leaves its part out."""
        if not self.is_network:
            return
        rates = ("learning_rate_te", "learning_rate_te1", "learning_rate_te2")
        self.idle("it belongs to training the whole model", *rates)
        unet, text = (self.left.get(key) for key in ("unet_lr", "text_encoder_lr"))
        if unet is not None and text is not None and is_blank(text) and not is_blank(unet):
            why = "a rate of 0 leaves the text encoder out"
            self.sheet.take(
                "text_encoder_lr", self.pop("text_encoder_lr"), "network_train_unet_only", True, why
            )
        elif unet is not None and text is not None and is_blank(unet) and not is_blank(text):
            why = "a rate of 0 leaves the U-Net out"
            self.sheet.take("unet_lr", self.pop("unet_lr"), "network_train_text_encoder_only", True, why)

    def length(self) -> None:
        """Epochs, where given, decide; then steps; else steps are counted out of ``epoch``."""
        epochs, steps = self.left.get("max_train_epochs"), self.left.get("max_train_steps")
        if not is_blank(epochs):
            why = "max_train_epochs decides"
            self.idle(why, "epoch", "max_train_steps")
        elif not is_blank(steps):
            self.idle("max_train_steps decides", "epoch", "max_train_epochs")
        elif not is_blank(self.left.get("epoch")):
            value = self.pop("epoch")
            self.sheet.take("epoch", value, "max_train_epochs", value, "the form counts the steps out of it")
            self.idle("epoch decides", "max_train_epochs", "max_train_steps")
        else:
            self.idle("nothing is given", "epoch", "max_train_epochs", "max_train_steps")

    def warmup(self) -> None:
        """``lr_warmup`` is per cent of all steps, unless ``lr_warmup_steps`` says how many."""
        schedule = str(self.raw.get("lr_scheduler") or "")
        if schedule in _WITHOUT_WARMUP and not self.raw.get("lr_scheduler_type"):
            self.idle(f"the schedule {schedule} has no warm-up", "lr_warmup", "lr_warmup_steps")
        elif not is_blank(self.left.get("lr_warmup_steps")):
            self.idle("lr_warmup_steps decides", "lr_warmup")
        elif "lr_warmup" in self.left:
            self.idle("lr_warmup decides", "lr_warmup_steps")
            value = self.pop("lr_warmup")
            if is_blank(value):
                self.sheet.idle("lr_warmup", value, "no warm-up")
            else:
                self.sheet.take("lr_warmup", value, "lr_warmup_steps", f"{value}%", "per cent of all steps")

    def noise(self) -> None:
        """``noise_offset_type`` says which of two groups of fields counts."""
        if "noise_offset_type" in self.left:
            kind = self.pop("noise_offset_type")
            self.sheet.idle("noise_offset_type", kind, "the fields it chose are taken")
            many = kind == "Multires"
            others = ("noise_offset", "adaptive_noise_scale", "noise_offset_random_strength")
            several = ("multires_noise_iterations", "multires_noise_discount")
            self.idle(f"it does not count with the type {kind}", *(others if many else several))
        if is_blank(self.left.get("noise_offset")):
            self.idle("it only counts with noise_offset", "adaptive_noise_scale")
        if is_blank(self.left.get("multires_noise_iterations")):
            self.idle("it only counts with multires_noise_iterations", "multires_noise_discount")

    def attention(self) -> None:
        """``xformers`` is a choice of three; in old files a switch."""
        if "xformers" not in self.left:
            return
        value = self.pop("xformers")
        name = (
            {True: "xformers", False: "none"}.get(value, str(value))
            if isinstance(value, bool)
            else str(value)
        )
        if name in ("xformers", "sdpa"):
            self.sheet.take(
                "xformers", value, name, True, "" if value is True else "the form's choice of attention"
            )
        else:
            self.sheet.idle("xformers", value, "PyTorch's own attention is used")

    def text_caches(self) -> None:
        """Three pairs of fields for one pair of options; the kind of model says which one counts."""
        sdxl = _on(self.raw.get("sdxl")) or _on(self.raw.get("sdxl_checkbox"))
        for family, counts in (("sdxl", sdxl), ("sd3", self.sd3)):
            names = {
                f"{family}_cache_text_encoder_outputs": "cache_text_encoder_outputs",
                f"{family}_cache_text_encoder_outputs_to_disk": "cache_text_encoder_outputs_to_disk",
                f"{family}_no_half_vae": "no_half_vae",
            }
            for key in self.has(*names):
                value = self.pop(key)
                if not counts or not _on(value):
                    self.sheet.idle(key, value, "it is off, or not for this kind of model")
                else:
                    self.sheet.take(key, value, names[key], True, "one option for all kinds of models")

    def metadata_file(self) -> None:
        """Fine-tuning names a folder and two files in it, of which one is used."""
        if "train_dir" not in self.left:
            return
        folder = self.pop("train_dir")
        latents = self.raw.get("use_latent_files", "Yes") == "Yes"
        name = self.raw.get("latent_metadata_filename" if latents else "caption_metadata_filename")
        if is_blank(folder) or is_blank(name):
            self.sheet.idle("train_dir", folder, "nothing is given")
            return
        path = str(PurePath(str(folder)) / str(name))
        self.sheet.take("train_dir", folder, "in_json", path, "the metadata file in that folder")

    def prompts(self) -> None:
        """The form's field holds prompts, which it writes into a file for its trainer."""
        value = self.left.get("sample_prompts")
        if not is_blank(value) and not str(value).strip().lower().endswith(_PROMPT_FILES):
            why = "the field holds the prompts themselves"
            self.sheet.take("sample_prompts", self.pop("sample_prompts"), "sample_prompt_text", value, why)

    def text_stop(self) -> None:
        """Per cent of all steps, after which DreamBooth leaves the text encoder as it is; 0 is never."""
        for key in self.has("stop_text_encoder_training", "stop_text_encoder_training_pct"):
            value, share = self.pop(key), _number(self.raw[key])
            steps = _number(self.raw.get("max_train_steps"))
            if self.sheet.values.get("training_method") != "dreambooth":
                self.sheet.idle(key, value, "it only counts for DreamBooth")
            elif not share:
                self.sheet.idle(key, value, "the text encoder is trained to the end")
            elif share < 0:
                why = "the text encoder is not trained"
                self.sheet.take(key, value, "stop_text_encoder_training", -1, why)
            elif steps and is_blank(self.raw.get("max_train_epochs")):
                last = math.ceil(steps * share / 100)
                self.sheet.take(key, value, "stop_text_encoder_training", last, "per cent of all steps")
            else:
                self.sheet.refuse(key, value, "it is per cent of all steps, whose number is not known yet")

    def trackers(self) -> None:
        """Old files have a switch for one tracker."""
        if "use_wandb" in self.left:
            value = self.pop("use_wandb")
            if _on(value):
                self.sheet.take("use_wandb", value, "log_with", "wandb", "its new name")
            else:
                self.sheet.idle("use_wandb", value, "it is off")

    def other_families(self) -> None:
        """Switches and fields of kinds of models that are not trained here."""
        for switch, family in keys.FAMILIES_ABSENT.items():
            wanted = _on(self.raw.get(switch))
            if switch in self.left:
                value = self.pop(switch)
                tell = self.sheet.refuse if wanted else self.sheet.idle
                tell(switch, value, f"{family} models are not trained here" if wanted else "it is off")
            fields = keys.FAMILY_FIELDS[switch]
            for key in [
                key for key in self.left if _among(key, fields) and not (self.sd3 and key in declarations())
            ]:
                value = self.pop(key)
                if wanted and not is_blank(value):
                    self.sheet.refuse(key, value, f"{family} models are not trained here")
                else:
                    self.sheet.idle(key, value, f"it only counts for {family}")
        if not self.sd3:
            self.idle("it only counts for SD 3", *(key for key in self.left if _for_sd3(key)))

    def odd_values(self) -> None:
        """Values that are meant otherwise than they look."""
        if str(self.left.get("save_model_as")).startswith("same as source"):
            why = "safetensors, whatever the source is"
            self.sheet.take("save_model_as", self.pop("save_model_as"), "save_model_as", "safetensors", why)
        if _on(self.raw.get("use_cp")) and "use_tucker" in self.left:
            self.idle("use_cp is another name of it, and is on", "use_tucker")
        elif "use_cp" in self.left and "use_tucker" in self.left:
            self.idle("use_tucker is another name of it", "use_cp")
        if _number(self.left.get("seed")) == 0:
            self.idle("0 is a seed that is drawn", "seed")
        if str(self.left.get("save_model_as", "safetensors")) not in ("safetensors", "ckpt", ""):
            value = self.pop("save_model_as")
            if self.is_network:
                why = "a network is one file; the form writes safetensors too"
                self.sheet.take("save_model_as", value, "save_model_as", "safetensors", why)
            else:
                self.left["save_model_as"] = value
        ending = self.left.get("caption_extension")
        if isinstance(ending, str) and ending not in ("", ".txt", ".caption") and ending.startswith("."):
            why = "pictures without such a file are trained with the words of their folder"
            self.sheet.take(
                "caption_extension", self.pop("caption_extension"), "caption_extension", ending, why
            )
        if "train_on_input" in self.left and self.type != "LyCORIS/iA3":
            self.idle("it only counts for iA3", "train_on_input")
        if "template" in self.left:
            self._template(str(self.pop("template")))

    def _template(self, value: str) -> None:
        """Textual inversion: captions, or one of two lists of sentences."""
        switch = {"object template": "use_object_template", "style template": "use_style_template"}.get(value)
        if switch is None:
            self.sheet.idle("template", value, "captions are used")
        elif switch in declarations():
            self.sheet.take("template", value, switch, True, "one switch for each list")
        else:
            self.sheet.refuse("template", value, "such lists of sentences are not there")

    def rest(self) -> None:
        """Everything that one table or one option answers."""
        names = {keys.RENAMED.get(key, key): key for key in self.left if key != "additional_parameters"}
        twice = [key for key in self.left if key not in names.values() and key != "additional_parameters"]
        for key in [*(names[target] for target in by_declaration(names)), *twice]:
            self._one(key, self.pop(key))

    def _one(self, key: str, value: Any) -> None:
        target = keys.RENAMED.get(key, key)
        if key in keys.FORM_ONLY and key not in declarations():
            self.sheet.idle(key, value, keys.FORM_ONLY[key])
        elif key in keys.ELSEWHERE:
            tell = self.sheet.idle if is_blank(value) or value == 0.01 else self.sheet.refuse
            tell(key, value, keys.ELSEWHERE[key])
        elif target in declarations():
            self._option(key, value, target)
        elif is_blank(value):
            self.sheet.idle(key, value, "it changes nothing")
        else:
            self.sheet.dialect(target, value)

    def _option(self, key: str, value: Any, target: str) -> None:
        """A field with an option; what is empty or, for networks, zero is not handed over by the form."""
        kept = (not self.is_network or key in _ALWAYS_GIVEN) and is_readable(target, value)
        dropped = value in ("", None) or (is_blank(value) and not kept)
        if not self._applies(target):
            self.sheet.idle(key, value, "it does not count for this type of network")
        elif value in ("", None) and target != key:
            self.sheet.idle(key, value, "nothing is given")
        elif not dropped or is_default(target, value):
            self.sheet.take(key, value, target, value, "" if target == key else "its name here")
        elif is_blank(DEFAULTS[target]):
            self.sheet.take(key, value, target, DEFAULTS[target], "" if target == key else "its name here")
        else:
            shown = str(DEFAULTS[target])
            why = f"the form leaves it out, so that its trainer uses {shown}"
            self.sheet.changed(key, value, why, target, shown)

    def _applies(self, target: str) -> bool:
        """Whether the network module and kind take the option."""
        chosen = {key: self.sheet.values.get(key, DEFAULTS[key]) for key in ("network_module", "algo")}
        needs = declarations()[target].info.show_if
        return all(chosen[key] in wanted for key, wanted in needs if key in chosen)

    def additional(self) -> None:
        """``additional_parameters``: a piece of command line, which wins over the fields."""
        text = self.pop("additional_parameters")
        if is_blank(text):
            if text is not None:
                self.sheet.idle("additional_parameters", text, "nothing is given")
            return
        try:
            words = _words(str(text))
        except ValueError:
            self.sheet.refuse("additional_parameters", text, "a quotation mark is not closed")
            return
        take_words(self.sheet, words)


def _words(text: str) -> list[str]:
    """Words as the form splits them, which leaves backslashes of paths alone, but whole where quoted."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""
    return list(lexer)


def _on(value: Any) -> bool:
    return value is True or str(value).lower() == "true"


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _among(key: str, names: tuple[str, ...]) -> bool:
    return any(key.startswith(name) if name.endswith("_") else key == name for name in names)


def _for_sd3(key: str) -> bool:
    declared = declarations().get(keys.RENAMED.get(key, key))
    return declared is not None and declared.info.families == ("sd3",)
