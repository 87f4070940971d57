"""What kind of model a file or folder holds, read from names and shapes alone, in milliseconds.

Kind and family are told by the structure of the names, not by widths, so that narrow models of the
same build are recognised like the full ones. Widths decide only where names are the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from backend.errors import InputError
from backend.system import adapters, variants
from backend.system.headers import Header, read_header
from backend.system.variants import Prediction

Kind = Literal["base", "lora", "vae", "embedding", "controlnet", "lllite", "text_encoder", "unknown"]
FamilyName = Literal["sd1", "sd2", "sdxl", "sd3", "flux", "unknown"]


@dataclass(frozen=True)
class FamilyFacts:
    """How a line of models is called and whether it can be trained here."""

    short: str
    """Said of one file: ``SD 1.5``."""
    line: str
    """Said of the whole line: ``SD 1.x``."""
    supported: bool = False


FAMILY_FACTS: Mapping[FamilyName, FamilyFacts] = {
    "sd1": FamilyFacts("SD 1.5", "SD 1.x", supported=True),
    "sd2": FamilyFacts("SD 2.x", "SD 2.x", supported=True),
    "sdxl": FamilyFacts("SDXL", "SDXL", supported=True),
    "sd3": FamilyFacts("SD 3", "SD 3.x", supported=True),
    "flux": FamilyFacts("Flux", "Flux"),
    "unknown": FamilyFacts("an unknown family", "unknown"),
}

_KIND_TITLES: Mapping[Kind, str] = {
    "lora": "LoRA",
    "vae": "VAE",
    "embedding": "textual inversion embedding",
    "controlnet": "ControlNet",
    "lllite": "ControlNet-LLLite",
    "text_encoder": "text encoder",
}


@dataclass(frozen=True)
class ModelFile:
    """What a file turned out to be."""

    path: Path
    kind: Kind
    family: FamilyName = "unknown"
    variant: str = ""
    """``inpainting``, ``refiner``, ``instruct-pix2pix``, ``depth``, ``U-Net only``; '' for the plain one."""
    prediction: Prediction | None = None
    """None where the file does not say."""
    title: str = ""
    """For people: ``LoRA for SD 1.5``, ``SDXL inpainting``."""
    dtype: str = ""
    """Type of most elements: F16, F32, BF16."""
    size: int = 0
    """Bytes on disk."""
    details: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())
    """Further facts by name: ``rank``, ``alpha``, ``network``, ``modules``, ``lacks``, ``layout``."""
    supported: bool = False
    """Whether it can be used here for what its kind is for."""
    why_not: str = ""
    """One sentence, when it is not supported."""


@dataclass(frozen=True)
class _Finding:
    kind: Kind
    family: FamilyName = "unknown"
    variant: str = ""
    prediction: Prediction | None = None
    details: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())


def identify(path: Path | str) -> ModelFile:
    """Look at a model file or diffusers folder.

    Raises:
        InputError: it is missing, damaged, no model file at all, or a pickle with code.
    """
    path = Path(path)
    if path.is_dir():
        return _identify_folder(path)
    header = read_header(path)
    return _model_file(path, _find(header), header.dtype, header.size)


def require_base(path: Path | str, families: Collection[str]) -> ModelFile:
    """The file's facts when it is a plain base model of one of ``families``.

    Raises:
        InputError: it is something else; the message names what it is and what is supported.
    """
    found = identify(path)
    lines = ", ".join(FAMILY_FACTS[cast(FamilyName, name)].line for name in families)
    if found.kind != "base":
        article = "an" if found.title[:1].lower() in "aeiou" else "a"
        raise InputError(
            f"this is {article} {found.title}, not a base model",
            where=str(found.path),
            next=f"choose a base model ({lines})",
        )
    if found.family not in families or found.variant:
        raise InputError(
            f"this is {found.title}; supported: {lines}",
            where=str(found.path),
            why=found.why_not,
            next=f"choose a plain base model of {lines}",
        )
    return found


def _model_file(path: Path, finding: _Finding, dtype: str, size: int) -> ModelFile:
    why_not = _why_not(finding)
    return ModelFile(
        path=path,
        kind=finding.kind,
        family=finding.family,
        variant=finding.variant,
        prediction=finding.prediction,
        title=_title(finding),
        dtype=dtype,
        size=size,
        details=finding.details,
        supported=not why_not,
        why_not=why_not,
    )


def _title(finding: _Finding) -> str:
    facts = FAMILY_FACTS[finding.family]
    if finding.kind == "unknown":
        return "model of an unknown kind"
    if finding.kind == "base":
        name = "base model of an unknown family" if finding.family == "unknown" else facts.short
        name = _SD3_TITLES.get(finding.details.get("model", ""), name)
        v = "v-prediction" if finding.prediction == "v" else ""
        schedule = "with zero terminal SNR" if finding.details.get("zero_terminal_snr") else ""
        return " ".join(part for part in (name, finding.variant, v, schedule) if part)
    name = finding.details.get("network", "") if finding.kind == "lora" else ""
    name = name or _KIND_TITLES[finding.kind]
    return name if finding.family == "unknown" else f"{name} for {facts.short}"


def _why_not(finding: _Finding) -> str:
    facts = FAMILY_FACTS[finding.family]
    if finding.kind == "unknown":
        return "its tensor names are none that are known here"
    if finding.variant:
        plain = f"a model of the kind '{finding.variant}' cannot be trained here, only the plain one"
        reason = variants.REASONS.get(finding.variant)
        return f"{plain}: {reason}" if reason else plain
    if finding.family == "unknown":
        # The weights of a VAE or text encoder fit several families and do not say which.
        return "" if finding.kind in ("vae", "text_encoder") else "its family cannot be told from the file"
    return "" if facts.supported else f"{facts.line} is not supported by this version"


def _find(header: Header) -> _Finding:
    """Try the kinds from the most particular names to the most general."""
    names = header.tensors
    if any(name.startswith("lllite_") for name in names):
        return _Finding("lllite", "sdxl")
    adapter = adapters.describe(header)
    if adapter is not None:
        return _Finding("lora", cast(FamilyName, adapter.family), details=adapter.details)
    if any("input_hint_block." in name or "controlnet_cond_embedding." in name for name in names):
        return _Finding("controlnet", _unet_family(header, _unet_prefix(names, "control_model.")))
    for finder in (_find_base, _find_embedding, _find_vae, _find_text_encoder):
        finding = finder(header)
        if finding is not None:
            return finding
    return _Finding("unknown")


def _unet_prefix(names: Collection[str], prefix: str) -> str:
    return prefix if any(name.startswith(prefix) for name in names) else ""


def _shape(header: Header, name: str) -> tuple[int, ...]:
    tensor = header.tensors.get(name)
    return tensor.shape if tensor else ()


def _find_base(header: Header) -> _Finding | None:
    names = header.tensors
    prefix = _unet_prefix(names, "model.diffusion_model.")
    if any(name.startswith(f"{prefix}joint_blocks.") for name in names):
        details = {**_lacks(names, "sd3"), "model": _sd3_model(names), "layout": "original"}
        return _Finding("base", "sd3", prediction="flow", details=details)
    if any(name.startswith(f"{prefix}double_blocks.") for name in names):
        return _Finding("base", "flux", prediction="flow")
    if f"{prefix}input_blocks.0.0.weight" in names:
        family = _unet_family(header, prefix)
        details = {**_lacks(names, family), **variants.terminal_snr(names), "layout": "original"}
        variant = _variant(header, prefix) if prefix else "U-Net only"
        return _Finding("base", family, variant, variants.prediction(header, family), details)
    if "down_blocks.0.resnets.0.conv1.weight" in names and "time_embedding.linear_1.weight" in names:
        return _Finding("base", _diffusers_unet_family(header), "U-Net only", None, {"layout": "diffusers"})
    return _Finding("base") if prefix else None


_SD3_TITLES = {"medium": "SD 3 medium", "5-medium": "SD 3.5 medium", "5-large": "SD 3.5 large"}


def _sd3_model(names: Collection[str]) -> str:
    """Which SD 3, as metadata call it: 3.5 norms queries, 3.5 medium attends twice in its first blocks."""
    if any(".attn2." in name for name in names):
        return "5-medium"
    return "5-large" if any(name.endswith((".ln_q.weight", ".norm_q.weight")) for name in names) else "medium"


def _sd3_config_model(transformer: Mapping[str, Any]) -> str:
    if transformer.get("dual_attention_layers"):
        return "5-medium"
    return "5-large" if transformer.get("qk_norm") else "medium"


def _unet_family(header: Header, prefix: str) -> FamilyName:
    """Family by text encoder and, where there is none, by the structure of the U-Net."""
    names = header.tensors
    if any(name.startswith("conditioner.embedders.") for name in names):
        return "sdxl"
    if any(name.startswith("cond_stage_model.model.") for name in names):
        return "sd2"
    if any(
        name.startswith(("cond_stage_model.transformer.", "cond_stage_model.text_model.")) for name in names
    ):
        return "sd1"
    if f"{prefix}label_emb.0.0.weight" in names:
        return "sdxl"
    # Without a text encoder: SD 2.x projects into its transformers by a linear layer, SD 1.x by a
    # 1x1 convolution; converters write 2.x as convolutions too, then the context width tells.
    projection = _shape(header, f"{prefix}input_blocks.1.1.proj_in.weight")
    context = _shape(header, f"{prefix}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")
    return "sd2" if len(projection) == 2 or context[1:] == (1024,) else "sd1"


def _diffusers_unet_family(header: Header) -> FamilyName:
    if "add_embedding.linear_1.weight" in header.tensors:
        return "sdxl"
    first = "down_blocks.0.attentions.0"
    linear = len(_shape(header, f"{first}.proj_in.weight")) == 2
    wide = _shape(header, f"{first}.transformer_blocks.0.attn2.to_k.weight")[1:] == (1024,)
    return "sd2" if linear or wide else "sd1"


def _variant(header: Header, prefix: str) -> str:
    names = header.tensors
    if any(name.startswith("conditioner.embedders.0.model.") for name in names):
        return "refiner"
    shape = _shape(header, f"{prefix}input_blocks.0.0.weight")
    return variants.by_channels(shape[1] if len(shape) > 1 else 4)


_PARTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "text encoder": {
        "sd1": ("cond_stage_model.",),
        "sd2": ("cond_stage_model.",),
        "sdxl": ("conditioner.",),
        "sd3": ("text_encoders.",),
    },
    "VAE": dict.fromkeys(("sd1", "sd2", "sdxl", "sd3"), ("first_stage_model.",)),
}


def _lacks(names: Collection[str], family: FamilyName) -> dict[str, str]:
    """``{"lacks": "VAE, text encoder"}`` for the parts that no tensor belongs to."""
    absent = [
        part
        for part, prefixes in _PARTS.items()
        if family in prefixes and not any(name.startswith(prefixes[family]) for name in names)
    ]
    return {"lacks": ", ".join(absent)} if absent else {}


_LAYER_OF_XTI = re.compile(r"^(?:IN\d\d|MID|OUT\d\d)$")
"""Tensors of a textual inversion that has vectors for each layer."""


def _find_embedding(header: Header) -> _Finding | None:
    shapes = {name: tensor.shape for name, tensor in header.tensors.items()}
    if set(shapes) == {"clip_l", "clip_g"}:
        return _Finding("embedding", "sdxl", details={"vectors": str(shapes["clip_l"][0])})
    if shapes and all(map(_LAYER_OF_XTI.match, shapes)):
        shapes = {"emb_params": next(iter(shapes.values()))}
    named = [
        shape for name, shape in shapes.items() if name == "emb_params" or name.startswith("string_to_param.")
    ]
    if not named and 0 < len(shapes) <= 2 and all(len(shape) in (1, 2) for shape in shapes.values()):
        named = [shape for shape in shapes.values() if shape[-1] in (768, 1024, 1280)]
    if not named or not named[0]:
        return None
    families: dict[int, FamilyName] = {768: "sd1", 1024: "sd2"}
    vectors = named[0][0] if len(named[0]) == 2 else 1
    return _Finding("embedding", families.get(named[0][-1], "unknown"), details={"vectors": str(vectors)})


def _find_vae(header: Header) -> _Finding | None:
    names = header.tensors
    for prefix in ("first_stage_model.", ""):
        if f"{prefix}decoder.conv_in.weight" in names and f"{prefix}encoder.conv_in.weight" in names:
            latent = _shape(header, f"{prefix}decoder.conv_in.weight")[1]
            layout = "diffusers" if any("down_blocks." in name for name in names) else "original"
            return _Finding("vae", details={"latent_channels": str(latent), "layout": layout})
    return None


def _find_text_encoder(header: Header) -> _Finding | None:
    for name in header.tensors:
        if name.endswith("encoder.block.0.layer.0.SelfAttention.q.weight"):
            return _Finding("text_encoder", "sd3", details={"encoder": "T5"})
        if name.endswith(("layers.0.self_attn.q_proj.weight", "resblocks.0.attn.in_proj_weight")):
            return _Finding("text_encoder", details={"encoder": "CLIP"})
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path.name} cannot be read as JSON",
            where=str(path),
            why=str(error),
            next="Download it again",
        ) from None
    return cast("dict[str, Any]", table) if isinstance(table, dict) else {}


_PIPELINES: tuple[tuple[str, FamilyName], ...] = (
    ("StableDiffusionXL", "sdxl"),
    ("StableDiffusion3", "sd3"),
    ("Flux", "flux"),
)


def _identify_folder(path: Path) -> ModelFile:
    """A diffusers folder, by its configurations."""
    unet = _read_json(path / "unet" / "config.json")
    pipeline = str(_read_json(path / "model_index.json").get("_class_name", ""))
    transformer = path / "transformer" / "config.json"
    if not unet and not transformer.is_file() and not pipeline:
        if (path / "config.json").is_file():
            return _identify_component(path)
        raise InputError(
            f"{path} is a folder, but no diffusers model",
            where=str(path),
            why="there is no model_index.json and no unet/config.json in it",
            next="choose a .safetensors or .ckpt file, or the folder that holds unet, vae and text_encoder",
        )
    named: list[FamilyName] = [family for start, family in _PIPELINES if pipeline.startswith(start)]
    family = named[0] if named else _config_family(unet)
    parts = {"unet": "U-Net", "vae": "VAE", "text_encoder": "text encoder"}
    lacks = [title for name, title in parts.items() if unet and not (path / name).is_dir()]
    details = {"layout": "diffusers", **({"lacks": ", ".join(lacks)} if lacks else {})}
    if family == "sd3":
        details["model"] = _sd3_config_model(_read_json(transformer))
    scheduler = _read_json(path / "scheduler" / "scheduler_config.json")
    prediction, schedule = variants.of_scheduler(scheduler, family)
    details |= schedule
    finding = _Finding("base", family, _config_variant(unet, pipeline), prediction, details)
    weights = [file for file in path.glob("*/*") if file.suffix in (".safetensors", ".bin")]
    first = next(
        (f for f in weights if f.parent.name in ("unet", "transformer") and f.suffix == ".safetensors"), None
    )
    dtype = read_header(first).dtype if first else ""
    return _model_file(path, finding, dtype, sum(file.stat().st_size for file in weights))


def _identify_component(path: Path) -> ModelFile:
    """A folder of one component: ``vae`` or ``unet`` alone."""
    config = _read_json(path / "config.json")
    weights = next(iter(sorted(path.glob("*.safetensors"))), None)
    header = read_header(weights) if weights else None
    name = str(config.get("_class_name", ""))
    if name.startswith("AutoencoderKL"):
        latent = str(config.get("latent_channels", ""))
        finding = _Finding("vae", details={"layout": "diffusers", "latent_channels": latent})
    elif name.startswith("ControlNet"):
        finding = _Finding("controlnet", _config_family(config))
    else:
        finding = _find(header) if header else _Finding("unknown")
    return _model_file(path, finding, header.dtype if header else "", header.size if header else 0)


def _config_family(unet: Mapping[str, Any]) -> FamilyName:
    if unet.get("addition_embed_type") == "text_time":
        return "sdxl"
    # SD 2.x has a fixed head size, hence a list of head counts, and linear projections.
    heads = unet.get("attention_head_dim")
    many = isinstance(heads, list) and len(set(cast("list[int]", heads))) > 1
    if many or unet.get("use_linear_projection") or unet.get("cross_attention_dim") == 1024:
        return "sd2"
    return "sd1" if unet else "unknown"


def _config_variant(unet: Mapping[str, Any], pipeline: str) -> str:
    if "XL" in pipeline and unet.get("projection_class_embeddings_input_dim") == 2560:
        return "refiner"
    channels = unet.get("in_channels", 4)
    return variants.by_channels(channels if isinstance(channels, int) else 4)
