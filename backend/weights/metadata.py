"""What merged, extracted and resized files say about themselves.

``ss_*`` as sd-scripts writes them, ``modelspec.*`` (Stability's model metadata standard 1.0.1), the
``sshs_*`` hashes of a network, and ``atelier.recipe``: what was done with which files (JSON).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from backend import __version__
from backend.weights import hashes
from backend.weights.safefile import Shaped, file_order, header_bytes, raw_bytes

RECIPE = "atelier.recipe"


@dataclass(frozen=True)
class _Family:
    version: str
    architecture: str
    resolution: int
    code: bool = False
    """Its LoRAs name Stability's code as their implementation."""


_CODE = "https://github.com/Stability-AI/generative-models"
_FAMILIES: Mapping[str, _Family] = {
    "sd1": _Family("sd_v1", "stable-diffusion-v1", 512),
    "sd2": _Family("sd_v2", "stable-diffusion-v2-512", 512),
    "sd2_v": _Family("sd_v2_v", "stable-diffusion-v2-768-v", 768),
    "sdxl": _Family("sdxl_base_v1-0", "stable-diffusion-xl-v1-base", 1024, code=True),
    "sd3": _Family("medium", "stable-diffusion-3-medium", 1024),
}


def modelspec(
    family: str, title: str, merged_from: Iterable[str] = (), *, lora: bool, v: bool = False
) -> dict[str, str]:
    """``modelspec.*`` of a result; {} when the family is unknown."""
    facts = _FAMILIES.get(f"{family}_v" if v else family) or _FAMILIES.get(family)
    if facts is None:
        return {}
    sources = ", ".join(merged_from)
    found = {
        "sai_model_spec": "1.0.1",
        "architecture": facts.architecture + ("/lora" if lora else ""),
        "implementation": _CODE if facts.code or not lora else "diffusers",
        "implementation_version": f"atelier/{__version__}",
        "title": title,
        "resolution": f"{facts.resolution}x{facts.resolution}",
        "date": datetime.now().isoformat(timespec="seconds"),
        "prediction_type": "v" if v else "epsilon",
        **({"merged_from": sources} if sources else {}),
    }
    return {f"modelspec.{key}": value for key, value in found.items()}


def identity(family: str, given: Mapping[str, str], v: bool = False) -> dict[str, str]:
    """``ss_v2`` and ``ss_base_model_version``: of an input when it has them, else by the family."""
    known = {key: given[key] for key in ("ss_v2", "ss_base_model_version") if key in given}
    facts = _FAMILIES.get(f"{family}_v" if v else family) or _FAMILIES.get(family)
    if facts is None:
        return known
    return {"ss_v2": str(family == "sd2"), "ss_base_model_version": facts.version} | known


def network_size(
    ranks: Iterable[int], alphas: Iterable[float], conv: tuple[int, float] | None = None
) -> dict[str, str]:
    """``ss_network_*`` of a LoRA. Sizes that differ from module to module are ``Dynamic``."""
    dims, values = set(ranks), set(alphas)
    found = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(dims.pop()) if len(dims) == 1 else "Dynamic",
        "ss_network_alpha": str(values.pop()) if len(values) == 1 else "Dynamic",
    }
    if conv is not None:
        found["ss_network_args"] = json.dumps({"conv_dim": str(conv[0]), "conv_alpha": str(conv[1])})
    return found


def recipe(
    job: str, inputs: Iterable[tuple[Path, dict[str, Any]]], options: Mapping[str, Any]
) -> dict[str, str]:
    """``atelier.recipe``: inputs by name and short hash with what belongs to each, and the options."""
    used = [{"name": path.name, "hash": _short(path), **facts} for path, facts in inputs]
    return {RECIPE: json.dumps({"job": job, "inputs": used, "options": options}, ensure_ascii=False)}


def _short(path: Path) -> str:
    """SHA-256 of a small file; of a large one the old short hash, which needs no full read."""
    if path.is_dir():
        return "folder"
    large = path.stat().st_size > 1 << 30
    return hashes.legacy_hash(path) if large else hashes.sha256(path)


class ContentHashes:
    """``sshs_model_hash`` and ``sshs_legacy_hash`` of a file whose values come piece by piece.

    Both are taken of the file as it would be with the ``ss_*`` keys alone: the first is the SHA-256
    of all that follows the header, the second the short hash of 64 KiB at 1 MiB.
    """

    def __init__(self, tensors: Mapping[str, Shaped], metadata: Mapping[str, str]) -> None:
        known = {key: value for key, value in metadata.items() if key.startswith("ss_")}
        self._digest, self._window = hashlib.sha256(), hashes.LegacyWindow()
        self._window.update(header_bytes(tensors, known)[0])

    def update(self, piece: memoryview) -> None:
        """Take the next piece, in the file's order."""
        self._digest.update(piece)
        self._window.update(piece)

    def values(self) -> dict[str, str]:
        """Of what came so far; their length is always the same."""
        return {"sshs_model_hash": self._digest.hexdigest(), "sshs_legacy_hash": self._window.value()}


def content_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The :class:`ContentHashes` of tensors that are all there."""
    found = ContentHashes(tensors, metadata)
    for name in file_order(tensors):
        found.update(raw_bytes(tensors[name]))
    return found.values()
