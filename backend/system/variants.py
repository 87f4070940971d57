"""What distinguishes models of one family: what they predict, how their schedule ends, what they read."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from backend.system.headers import Header

Prediction = Literal["epsilon", "v", "flow"]

REASONS = {
    "refiner": "it only finishes pictures that the base model began, with one text encoder and other sizes",
    "inpainting": "it also reads a mask and the masked picture, which training pictures do not have",
    "instruct-pix2pix": "it also reads the picture that is to be changed",
    "depth": "it also reads a depth map",
    "upscaler": "it also reads the small picture",
}
"""Why a kind of model is not trained here."""


def by_channels(channels: int) -> str:
    """What a U-Net reads beside the 4 latent channels: a kind of model, '' for the plain one."""
    names = {4: "", 9: "inpainting", 8: "instruct-pix2pix", 5: "depth", 7: "upscaler"}
    return names.get(channels, f"with {channels} input channels")


def prediction(header: Header, family: str) -> Prediction | None:
    """By the file's marks; SD 2.x without one may be either (768 px models predict v)."""
    said = header.metadata.get("modelspec.prediction_type", "").lower()
    architecture = header.metadata.get("modelspec.architecture", "").lower()
    base_version = header.metadata.get("ss_base_model_version", "").lower()
    if said.startswith("v") or architecture.endswith("-v") or base_version.endswith("_v"):
        return "v"
    if "v_pred" in header.tensors:
        return "v"
    return _by_yaml(header.path) if family == "sd2" and not said else "epsilon"


def _by_yaml(path: Path) -> Prediction | None:
    """By the ``.yaml`` that other programs want beside an SD 2.x file; None when there is none."""
    try:
        text = path.with_suffix(".yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return "v" if re.search(r"^\s*parameterization:\s*[\"']?v\b", text, re.MULTILINE) else "epsilon"


def terminal_snr(names: Collection[str]) -> dict[str, str]:
    """``ztsnr`` marks models whose training schedule ends without any signal."""
    return {"zero_terminal_snr": "yes"} if "ztsnr" in names else {}


def of_scheduler(config: dict[str, Any], family: str) -> tuple[Prediction | None, dict[str, str]]:
    """Prediction and schedule by a diffusers folder's scheduler configuration."""
    if family in ("sd3", "flux"):
        return "flow", {}
    details = {"zero_terminal_snr": "yes"} if config.get("rescale_betas_zero_snr") else {}
    kind = str(config.get("prediction_type", ""))
    if re.fullmatch(r"v_?prediction", kind):
        return "v", details
    return (None if family == "sd2" and not kind else "epsilon"), details
