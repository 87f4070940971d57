"""What a LoRA file (or a relative) is: layout, family, rank, from names and shapes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from backend.system.headers import Header

KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("LoHa", (".hada_w1_a",)),
    ("LoKr", (".lokr_w1", ".lokr_w1_a")),
    ("OFT", (".oft_blocks", ".oft_diag")),
    ("IA3", (".on_input",)),
    ("GLoRA", (".a1.weight",)),
    # DoRA adds a scale beside the factors of LoRA (and of LoHa and LoKr, which are named above).
    ("DoRA", (".dora_scale", ".lora_magnitude_vector")),
    ("LoCon with Tucker decomposition", (".lora_mid.weight",)),
    (
        "LoRA",
        (
            ".lora_down.weight",
            ".lora_up.weight",
            ".lora.down.weight",
            ".lora.up.weight",
            ".lora_linear_layer.down.weight",
            ".lora_A.weight",
            ".lora_B.weight",
            ".lora_A.default.weight",
        ),
    ),
    ("full difference", (".diff",)),
    ("norm weights (LyCORIS)", (".w_norm",)),
)
"""(kind in words, endings of names that only it has). The first match wins: a file may hold several
kinds, as norm weights beside a LoRA."""
_DOWN = (
    ".lora_down.weight",
    ".lora.down.weight",
    ".lora_A.weight",
    ".lora_A.default.weight",
    ".hada_w1_b",
    ".lokr_w1_b",
)


@dataclass(frozen=True)
class Adapter:
    """A LoRA file's facts."""

    family: str
    details: Mapping[str, str]
    """``network``, ``modules``, ``rank`` (the most frequent; ``ranks`` when there are several)."""


def describe(header: Header) -> Adapter | None:
    """The facts of a LoRA file, None when it is something else."""
    network = network_kind(header.tensors)
    if network is None:
        return None
    modules = {_stem(name) for name in header.tensors}
    details = {"network": _named(network, header.metadata), "modules": str(len(modules))}
    ranks = Counter(_rank(name, header) for name in header.tensors if name.endswith(_DOWN))
    if ranks:
        details["rank"] = str(ranks.most_common(1)[0][0])
        if len(ranks) > 1:
            details["ranks"] = ", ".join(map(str, sorted(ranks)))
    alpha = header.metadata.get("ss_network_alpha")
    if alpha:
        details["alpha"] = alpha
    return Adapter(_family(header), details)


def network_kind(names: Collection[str]) -> str | None:
    """The kind of network that has these names of weights, None when there is none."""
    for kind, endings in KINDS:
        if any(name.endswith(endings) for name in names):
            return kind
    return None


def _named(network: str, metadata: Mapping[str, str]) -> str:
    module = metadata.get("ss_network_module", "")
    return "DyLoRA" if module.endswith("dylora") else network


def _stem(name: str) -> str:
    """Name of the module that a weight belongs to."""
    if name.startswith(("lora_", "oft_")):
        return name.partition(".")[0]
    return re.split(r"\.(?:lora|alpha|dora_scale|diff)", name)[0]


def _rank(name: str, header: Header) -> int:
    shape = header.tensors[name].shape
    return shape[0] if shape else 0


def _family(header: Header) -> str:
    """Family by metadata, then by structure, then by the width of the text context."""
    names = header.tensors
    told = _family_by_metadata(header.metadata)
    return told or _family_by_names(names) or _family_by_context(header)


def _family_by_metadata(metadata: Mapping[str, str]) -> str:
    text = (metadata.get("modelspec.architecture", "") or metadata.get("ss_base_model_version", "")).lower()
    marks = {
        "stable-diffusion-v1": "sd1",
        "stable-diffusion-v2": "sd2",
        "stable-diffusion-xl": "sdxl",
        "stable-diffusion-3": "sd3",
        "flux": "flux",
        "sdxl": "sdxl",
        "sd_v1": "sd1",
        "sd_v2": "sd2",
    }
    return next((family for mark, family in marks.items() if text.startswith(mark)), "")


_STRUCTURE: tuple[tuple[str, str], ...] = (
    (r"joint_blocks|attn[._]add_q_proj.*|transformer\.transformer_blocks\.\d+\.ff_context", "sd3"),
    (r"double_blocks|single_blocks|single_transformer_blocks", "flux"),
    # SDXL: original block names, a second text encoder, or more than one block in a transformer.
    (r"^lora_unet_(?:input|output|middle)_block|^oft_unet_(?:input|output|middle)_block", "sdxl"),
    (
        r"^lora_te[12]_|^text_encoder_2\.|down_blocks[._]\d[._]attentions[._]\d[._]transformer_blocks[._]1",
        "sdxl",
    ),
    # SD 2.x: its text encoder has 23 layers, SD 1.x has 12.
    (
        r"^(?:lora_te_text_model_|text_encoder\.(?:text_model\.)?)encoder[._]layers[._](?:1[2-9]|2\d)[._]",
        "sd2",
    ),
)


def _family_by_names(names: Collection[str]) -> str:
    for pattern, family in _STRUCTURE:
        if any(re.search(pattern, name) for name in names):
            return family
    return ""


def _family_by_context(header: Header) -> str:
    """SD 1.x and 2.x name their U-Nets alike: 768 numbers a token against 1024."""
    is_unet = False
    for name, tensor in header.tensors.items():
        is_unet = is_unet or "down_blocks" in name or "up_blocks" in name
        if re.search(r"attn2[._]to_k", name) and name.endswith(_DOWN[:4]) and len(tensor.shape) == 2:
            return "sd2" if tensor.shape[1] == 1024 else "sd1"
    is_text = any(name.startswith(("lora_te_", "text_encoder.")) for name in header.tensors)
    return "sd1" if is_unet or is_text else "unknown"
