"""Names of LoRA weights in the dialects of other programs, for models of the diffusers layout.

- kohya: ``lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight``, ``.lora_up.weight``,
  ``.alpha``. What Atelier keeps in memory and writes.
- diffusers / PEFT: ``unet.down_blocks.0.attentions.0.proj_in.lora_A.weight``, ``.lora_B.weight``,
  without alpha: the strength is inside the weights. Older files say ``.lora.down.weight``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from backend.networks import joint_dialect, xl_dialect
from backend.networks.sparse import without_remainders

# Words of dotted paths that hold an underscore of their own; longer ones first.
_WORDS = (
    "transformer_blocks", "time_emb_proj", "conv_shortcut", "down_blocks", "layer_norm1", "layer_norm2",
    "text_model", "up_blocks", "mid_block", "self_attn", "proj_out", "out_proj", "proj_in", "q_proj",
    "k_proj", "v_proj", "to_out", "to_q", "to_k", "to_v",
)  # fmt: skip
_SPLIT = re.compile(rf"(?:^|_)({'|'.join(_WORDS)}|[^_]+)(?=_|$)")
_PREFIXES = {
    "lora_unet_": "unet.",
    "lora_te_": "text_encoder.",
    "lora_te1_": "text_encoder.",
    "lora_te2_": "text_encoder_2.",
}
_DOTTED = re.compile(
    r"^(?P<part>unet|text_encoder|text_encoder_2)\.(?P<path>.+?)\."
    r"(?:lora_(?P<letter>[AB])(?:\.\w+)?\.weight"
    r"|lora(?:_linear_layer)?\.(?P<word>down|up)\.weight|(?P<alpha>alpha))$"
)


def dotted(name: str) -> str:
    """A kohya module name as the dotted path of diffusers.

    ``lora_unet_mid_block_attentions_0_proj_in`` -> ``unet.mid_block.attentions.0.proj_in``.
    """
    for prefix, root in _PREFIXES.items():
        if name.startswith(prefix):
            return root + ".".join(_SPLIT.findall(name[len(prefix) :]))
    raise AssertionError(f"not a kohya name: {name}")


def is_dotted(names: Iterable[str]) -> bool:
    """True for the names of the diffusers / PEFT dialect."""
    return any(_DOTTED.match(name) for name in names)


def to_diffusers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """kohya -> diffusers / PEFT. ``alpha / r`` is multiplied into B, as that dialect has no alpha."""
    joint = joint_dialect.is_joint(weights)
    found = joint_dialect.to_diffusers(weights) if joint else dict[str, Tensor]()
    for key, down in weights.items():
        name, _, part = key.partition(".")
        if part != "lora_down.weight" or (joint and name.startswith("lora_unet_")):
            continue
        up, path = weights[f"{name}.lora_up.weight"], dotted(name)
        alpha = weights.get(f"{name}.alpha")
        scale = 1.0 if alpha is None else float(alpha) / down.shape[0]
        found[f"{path}.lora_A.weight"] = down
        found[f"{path}.lora_B.weight"] = (up.float() * scale).to(up.dtype)
    return found


def to_kohya(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """diffusers / PEFT -> kohya, with alpha = rank where the file has none. Other names pass."""
    two_encoders = any(name.startswith("text_encoder_2.") for name in weights)
    roots = {"unet": "lora_unet_", "text_encoder": "lora_te1_" if two_encoders else "lora_te_"}
    roots["text_encoder_2"] = "lora_te2_"
    found: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        match = _DOTTED.match(key)
        if match is None:
            found[key] = tensor
            continue
        name = roots[match["part"]] + match["path"].replace(".", "_")
        if match["alpha"]:
            found[f"{name}.alpha"] = tensor
        elif match["letter"] == "A" or match["word"] == "down":
            found[f"{name}.lora_down.weight"] = tensor
            found.setdefault(f"{name}.alpha", torch.tensor(float(tensor.shape[0])))
        else:
            found[f"{name}.lora_up.weight"] = tensor
    return found


def normalised(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of any dialect in kohya's names.

    Newer programs leave ``text_model`` out of a text encoder's names; it is put back. SDXL's U-Net is
    named by the original layout's blocks.
    """
    weights = joint_dialect.to_kohya(weights) if joint_dialect.is_peft(weights) else weights
    found = to_kohya(weights) if is_dotted(weights) else dict(weights)
    if xl_dialect.is_by_diffusers_blocks(found):
        found = xl_dialect.to_original_blocks(found)
    named = {
        re.sub(r"^(lora_te[12]?_)encoder_layers_", r"\1text_model_encoder_layers_", k): t
        for k, t in found.items()
    }
    return dict(without_remainders(named))
