"""How programs name the layers of a network: kohya, diffusers (PEFT) and ComfyUI.

A layer's path in dots is the same everywhere up to the U-Net's layout: kohya and diffusers use
diffusers' blocks for SD 1.x and 2.x (``down_blocks.0.attentions.0``), kohya and ComfyUI the original
ones for SDXL (``input_blocks.4.1``), ComfyUI the original ones for all. SD 3's layers have the original
names in kohya's and ComfyUI's files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal

from backend.families.parts import names as parts_names

Dialect = Literal["kohya", "diffusers", "comfyui"]
DIALECTS: tuple[Dialect, ...] = ("kohya", "diffusers", "comfyui")
_WORDS = (
    "transformer_blocks", "time_emb_proj", "conv_shortcut", "down_blocks", "layer_norm1", "layer_norm2",
    "text_model", "up_blocks", "mid_block", "self_attn", "proj_out", "out_proj", "proj_in", "q_proj",
    "k_proj", "v_proj", "to_out", "to_q", "to_k", "to_v", "conv_in", "conv_out", "conv_norm_out",
    "time_embedding", "add_embedding", "linear_1", "linear_2", "final_layer_norm", "input_blocks",
    "middle_block", "output_blocks", "in_layers", "out_layers", "emb_layers", "skip_connection",
    "time_embed", "label_emb", "joint_blocks", "context_block", "x_block", "adaLN_modulation",
    "context_embedder", "t_embedder", "x_embedder", "y_embedder", "final_layer", "wi_0", "wi_1", "ln_q",
    "ln_k",
)  # fmt: skip
"""Parts of dotted paths that hold an underscore of their own."""
_ORDERED = sorted(_WORDS, key=len, reverse=True)
_SPLIT = re.compile(rf"(?:^|_)({'|'.join(_ORDERED)}|[^_]+)(?=_|$)")
_TEXT: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "sd1": {"te": ("text_encoder", "clip_l")},
    "sd2": {"te": ("text_encoder", "clip_h")},
    "sdxl": {"te1": ("text_encoder", "clip_l"), "te2": ("text_encoder_2", "clip_g")},
    "sd3": {
        "te1": ("text_encoder", "clip_l"),
        "te2": ("text_encoder_2", "clip_g"),
        "te3": ("text_encoder_3", "t5xxl"),
    },
}
"""Family -> kohya's text encoder -> (diffusers', ComfyUI's)."""
_ORIGINAL_IN_KOHYA = frozenset({"sdxl", "sd3"})
"""Families whose denoiser has its original names in kohya's files."""
_ATTENDS = {"sdxl": (0, 1)}
"""Levels of the way up that have transformers; of all other U-Nets 1 to 3."""


def in_dots(name: str) -> str:
    """A name in underscores as a path: ``input_blocks_4_1_proj_in`` -> ``input_blocks.4.1.proj_in``."""
    return ".".join(_SPLIT.findall(name))


def renamed(names: Collection[str], family: str, to: Dialect) -> dict[str, str]:
    """Kohya's module name without ``lora_`` -> module path in another dialect.

    Raises:
        KeyError: a family whose layers are stored in other pieces in that dialect.
    """
    texts = {name for name in names if not name.startswith("unet_")}
    found = {name: _text_path(name, family, to) for name in texts}
    paths = {name: in_dots(name[5:]) for name in names if name.startswith("unet_")}
    layout = _unet_paths(paths.values(), family, to)
    root = "unet." if to == "diffusers" else "diffusion_model."
    return found | {name: root + layout[path] for name, path in paths.items()}


def _text_path(name: str, family: str, to: Dialect) -> str:
    key, _, rest = name.partition("_")
    diffusers, comfy = _TEXT[family][key]
    root = diffusers if to == "diffusers" else f"text_encoders.{comfy}.transformer"
    return f"{root}.{in_dots(rest)}"


def _unet_paths(paths: Iterable[str], family: str, to: Dialect) -> dict[str, str]:
    """Path in kohya's layout -> path in the other's."""
    paths = list(paths)
    original = family in _ORIGINAL_IN_KOHYA
    if original == (to == "comfyui"):
        return {path: path for path in paths}
    if family == "sd3":
        raise KeyError(family)
    if original:
        return _through(parts_names.unet_to_diffusers, paths, ())
    return _through(parts_names.unet_to_original, paths, _levels(family))


def _levels(family: str) -> list[str]:
    """What the layout is told by beside the names: how many resnets a level has, and which levels attend."""
    levels = [f"up_blocks.{n}.attentions.0.norm.weight" for n in _ATTENDS.get(family, (1, 2, 3))]
    return [*levels, "down_blocks.0.resnets.1.norm1.weight"]


def _through(
    turn: Callable[[Collection[str]], dict[str, str]], paths: Iterable[str], also: Iterable[str]
) -> dict[str, str]:
    wanted = {f"{path}.weight": path for path in paths}
    table = turn([*wanted, *also])
    return {path: table[name].removesuffix(".weight") for name, path in wanted.items() if name in table}


def to_kohya(modules: Collection[str], family: str, dialect: Dialect) -> dict[str, str]:
    """Module path in another dialect -> kohya's name without ``lora_``. What is not known is left out."""
    texts = {
        (pair[0] if dialect == "diffusers" else f"text_encoders.{pair[1]}.transformer"): key
        for key, pair in _TEXT[family].items()
    }
    root = "unet." if dialect == "diffusers" else "diffusion_model."
    found: dict[str, str] = {}
    for path in modules:
        for start, key in texts.items():
            if path.startswith(f"{start}."):
                found[path] = f"{key}_{_with_text_model(path[len(start) + 1 :], key).replace('.', '_')}"
    inner = {path: path[len(root) :] for path in modules if path.startswith(root)}
    layout = _kohya_unet_paths(inner.values(), family, dialect)
    for path, rest in inner.items():
        if rest in layout:
            found[path] = f"unet_{layout[rest].replace('.', '_')}"
    return found


def _with_text_model(path: str, key: str) -> str:
    """Some programs leave ``text_model`` out of CLIP's names."""
    bare = path.startswith("encoder.layers.") and key != "te3"
    return f"text_model.{path}" if bare else path


def _kohya_unet_paths(paths: Iterable[str], family: str, dialect: Dialect) -> dict[str, str]:
    paths = list(paths)
    original = family in _ORIGINAL_IN_KOHYA
    if original == (dialect == "comfyui"):
        return {path: path for path in paths}
    if original:
        return _through(parts_names.unet_to_original, paths, _levels(family))
    return _through(parts_names.unet_to_diffusers, paths, ())


def dialect_of(names: Collection[str]) -> Dialect:
    """Whose names a file's tensors have."""
    if any(name.startswith(("diffusion_model.", "text_encoders.")) for name in names):
        return "comfyui"
    if any(name.startswith(("unet.", "text_encoder.", "text_encoder_2.")) for name in names):
        return "diffusers"
    return "kohya"


def family_of(names: Collection[str], context: int | None) -> str:
    """The family of a file in diffusers' or ComfyUI's names.

    Args:
        context: numbers a token that cross attention reads; None when the file has none.
    """
    if any("joint_blocks." in name for name in names):
        return "sd3"
    deep = re.compile(r"transformer_blocks\.[1-9]")
    second = ("text_encoder_2.", "text_encoders.clip_g.")
    if context == 2048 or any(name.startswith(second) or deep.search(name) for name in names):
        return "sdxl"
    wide = re.compile(r"encoder\.layers\.(?:1[2-9]|2\d)\.|^text_encoders\.clip_h\.")
    return "sd2" if context == 1024 or any(wide.search(name) for name in names) else "sd1"
