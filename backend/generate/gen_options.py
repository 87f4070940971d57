"""The options of ``gen_img.py`` and ``sdxl_gen_img.py``: names and defaults as in sd-scripts.

Every option is of one of three kinds: it does what it says; it is taken although it changes no picture here,
and that is said; or it asks for something that cannot be done, and is refused with the reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.errors import InputError, Problem
from backend.generate.request import EMPHASIS_MODES

FLAG = "flag"


@dataclass(frozen=True)
class GenOption:
    """One option. ``kind``: what its text is read as; with ``many`` a list of that."""

    name: str
    kind: Any
    help: str
    default: Any = None
    many: bool = False
    choices: tuple[str, ...] | None = None


def _o(name: str, kind: Any, help_: str, default: Any = None, **more: Any) -> GenOption:
    return GenOption(name, kind, help_, default, **more)


USED: tuple[GenOption, ...] = (
    _o("ckpt", str, "the base model: a .safetensors or .ckpt file, or a diffusers folder"),
    _o("vae", str, "a file whose VAE takes the place of the model's own"),
    _o("prompt", str, "what to draw; options may stand in it, as in a file of prompts"),
    _o("from_file", str, "a file with a prompt in each line"),
    _o("interactive", FLAG, "ask for prompts in the terminal"),
    _o("shuffle_prompts", FLAG, "the prompts of a file in an order of chance (that of --seed)"),
    _o("outdir", str, "where pictures go", "outputs"),
    _o("sequential_file_name", FLAG, "name pictures im_000001.png and so on"),
    _o("use_original_file_name", FLAG, "name pictures as those of --image_path"),
    _o("n_iter", int, "how often to go through all prompts", 1),
    _o("images_per_prompt", int, "pictures of each prompt", 1),
    _o("batch_size", int, "pictures drawn in one pass; more are faster and need more memory", 1),
    _o("W", int, "width in pixels; unset: that of --image_path, or what the model was made for"),
    _o("H", int, "height in pixels"),
    _o("steps", int, "sampling steps", 50),
    _o("sampler", str, "ddim, euler, euler_a, heun, dpmsolver++, unipc, lcm, ... (docs name all)", "ddim"),
    _o("scale", float, "strength of guidance by the prompt", 7.5),
    _o("negative_scale", float, "guidance away from the negative prompt on its own; unset: with --scale"),
    _o("seed", int, "of the picture; with several pictures, of the row of their seeds; unset: at random"),
    _o("iter_same_seed", FLAG, "all pictures of one round have the same seed"),
    _o("image_path", str, "a picture, or a folder of them, to start from"),
    _o("mask_path", str, "a mask, or a folder of them: white is drawn anew"),
    _o("strength", float, "how much of --image_path is drawn anew, 0 to 1; unset: 0.8"),
    _o("clip_skip", int, "which layer from the end of the text encoder is read"),
    _o("max_embeddings_multiples", int, "how many pieces of 75 tokens of a prompt are read; unset: 1"),
    _o("emb_normalize_mode", str, "what emphasis is brought back to", "original", choices=EMPHASIS_MODES),
    _o("v2", FLAG, "the model is SD 2.x (the file says so, too)"),
    _o("v1", FLAG, "the model is SD 1.x (the file says so, too)"),
    _o("sdxl", FLAG, "the model is SDXL (the file says so, too)"),
    _o("v_parameterization", FLAG, "the model predicts v, whatever the file says"),
    _o("zero_terminal_snr", FLAG, "the model's schedule ends in pure noise, whatever the file says"),
    _o("fp16", FLAG, "compute in float16 (on a graphics card)"),
    _o("bf16", FLAG, "compute in bfloat16"),
    _o("no_half_vae", FLAG, "the VAE in float32"),
    _o("vae_slices", int, "any number: the VAE works on tiles of 512 pixels, for large pictures"),
    _o("xformers", FLAG, "attention by xformers"),
    _o("diffusers_xformers", FLAG, "as --xformers"),
    _o("opt_channels_last", FLAG, "lay the U-Net's weights out channels last"),
    _o("network_weights", str, "network files of any kind (LoRA, LoHa, LoKr, ...)", many=True),
    _o("network_module", str, "as many as --network_weights; the files say what they are", many=True),
    _o("network_mul", float, "how strongly each network acts; unset: 1", many=True),
    _o("network_merge", FLAG, "put all networks into the model's weights before drawing"),
    _o("network_merge_n_models", int, "put the first so many networks into the model's weights"),
    _o("network_show_meta", FLAG, "print the metadata of the network files"),
    _o("textual_inversion_embeddings", str, "embeddings; file names are words of prompts", many=True),
    _o("control_net_lllite_models", str, "ControlNet-LLLite files (SDXL)", many=True),
    _o("control_net_multipliers", float, "how strongly each steers; unset: 1", many=True),
    _o("control_net_ratios", float, "share of the steps that each steers; unset: 1", many=True),
    _o("guide_image_path", str, "pictures that are followed: one for each file, or one for all", many=True),
    _o("highres_fix_scale", float, "sides of a first pass / sides of the picture, for example 0.5"),
    _o("highres_fix_steps", int, "steps of the first pass", 28),
    _o("highres_fix_strength", float, "--strength of the first pass; unset: the same"),
    _o("highres_fix_save_1st", FLAG, "save the picture of the first pass as well"),
    _o("highres_fix_latents_upscaling", FLAG, "enlarge latents, not the picture, between the passes"),
    _o("original_width", int, "SDXL: the width that the model is told the picture had"),
    _o("original_height", int, "SDXL: the height that it is told"),
    _o("original_width_negative", int, "SDXL: ... for the negative prompt"),
    _o("original_height_negative", int, "SDXL: ... for the negative prompt"),
    _o("crop_top", int, "SDXL: what it is told was cut off above"),
    _o("crop_left", int, "SDXL: what it is told was cut off on the left"),
)  # fmt: skip

NEEDLESS: Mapping[str, tuple[GenOption, str]] = {
    option.name: (option, why)
    for option, why in (
        (_o("no_preview", FLAG, ""), "pictures are saved, no window is opened"),
        (_o("sdpa", FLAG, ""), "attention is PyTorch's own anyway"),
        (_o("network_args", str, "", many=True), "network files say how they are built"),
        (_o("network_pre_calc", FLAG, ""), "networks act live, with the same result"),
        (_o("vae_batch_size", float, ""), "pictures are decoded one by one"),
        (_o("tokenizer_cache_dir", str, ""), "the tokenizers come with Atelier"),
        (_o("console_log_level", str, ""), "problems are always shown"),
        (_o("console_log_simple", FLAG, ""), "lines are simple anyway"),
    )
}
"""Options that are taken and change no picture, and why."""

_DEEP_SHRINK = (
    _o("ds_depth_1", int, ""),
    _o("ds_timesteps_1", int, "", 650),
    _o("ds_depth_2", int, ""),
    _o("ds_timesteps_2", int, "", 650),
    _o("ds_ratio", float, "", 0.5),
)
_GRADUAL_LATENT = (
    _o("gradual_latent_timesteps", int, ""),
    _o("gradual_latent_ratio", float, "", 0.5),
    _o("gradual_latent_ratio_step", float, "", 0.125),
    _o("gradual_latent_every_n_steps", int, "", 3),
    _o("gradual_latent_s_noise", float, "", 1.0),
    _o("gradual_latent_unsharp_params", str, ""),
)

REFUSED: Mapping[str, tuple[GenOption, str]] = {
    option.name: (option, why)
    for option, why in (
        (_o("console_log_file", str, ""), "write to a file with > file"),
        (_o("from_module", str, ""), "it runs a program; write prompts into a file for --from_file"),
        (_o("prompter_module_args", str, ""), "it belongs to --from_module"),
        (_o("pyramid_noise_prob", float, ""), "noise is that of the seed alone"),
        (_o("pyramid_noise_discount_range", float, "", many=True), "noise is that of the seed alone"),
        (_o("noise_offset_prob", float, ""), "noise is that of the seed alone"),
        (_o("noise_offset_range", float, "", many=True), "noise is that of the seed alone"),
        (_o("force_scheduler_zero_steps_offset", FLAG, ""), "schedules follow the model's own"),
        (_o("control_net_models", str, "", many=True), "of ControlNets only LLLite can be used here"),
        (_o("control_net_preps", str, "", many=True), "guide pictures are used as they are"),
        (_o("clip_vision_strength", float, ""), "there is no CLIP vision model here"),
        (_o("network_regional_mask_max_color_codes", int, ""), "networks act on the whole picture"),
        (_o("highres_fix_upscaler", str, ""), "it runs the program in a file"),
        (_o("highres_fix_upscaler_args", str, ""), "it belongs to --highres_fix_upscaler"),
        (_o("highres_fix_disable_control_net", FLAG, ""), "guides steer both passes"),
        *((option, "Deep Shrink is not done here; use --highres_fix_scale") for option in _DEEP_SHRINK),
        *((option, "Gradual Latent is not done here; use --highres_fix_scale") for option in _GRADUAL_LATENT),
    )
}  # fmt: skip
"""Options that ask for what cannot be done, and why."""

NOT_FOR_SDXL = frozenset({
    "sdxl", "v1", "v2", "v_parameterization", "zero_terminal_snr", "pyramid_noise_prob",
    "pyramid_noise_discount_range", "noise_offset_prob", "noise_offset_range", "from_module",
    "prompter_module_args", "shuffle_prompts", "emb_normalize_mode", "force_scheduler_zero_steps_offset",
    "control_net_models", "control_net_preps",
})  # fmt: skip
"""What ``sdxl_gen_img.py`` does not have."""


def parser(description: str | None, sdxl: bool = False) -> argparse.ArgumentParser:
    """The parser of ``gen_img.py``, or of ``sdxl_gen_img.py``."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option in USED:
        if not (sdxl and option.name in NOT_FOR_SDXL):
            _add(found, option, option.help)
    groups = (
        ("taken, though they change no picture here", NEEDLESS),
        ("known, but refused when they are used", REFUSED),
    )
    for title, options in groups:
        group = found.add_argument_group(title)
        for option, why in options.values():
            if not (sdxl and option.name in NOT_FOR_SDXL):
                _add(group, option, why)
    return found


def _add(group: Any, option: GenOption, help_: str) -> None:
    name = f"--{option.name}"
    if option.kind == FLAG:
        group.add_argument(name, action="store_true", help=help_)
        return
    shown = help_ if option.default is None or option.many else f"{help_} [%(default)s]"
    many = {"nargs": "*"} if option.many else {}
    group.add_argument(
        name,
        type=option.kind,
        default=option.default,
        choices=option.choices,
        help=shown,
        metavar="V",
        **many,
    )


def check(options: argparse.Namespace) -> list[str]:
    """Sentences about options that change nothing.

    Raises:
        InputError: options that are refused, each with its reason.
    """
    refused = [
        Problem(f"--{name} cannot be used", why=why, next="Leave it out.", key=name)
        for name, (option, why) in REFUSED.items()
        if _given(options, option)
    ]
    if refused:
        raise InputError(refused)
    return [
        f"--{name} changes nothing: {why}"
        for name, (option, why) in NEEDLESS.items()
        if _given(options, option)
    ]


def _given(options: argparse.Namespace, option: GenOption) -> bool:
    value = getattr(options, option.name, None)
    return value is not None and value is not False and value != option.default
