"""Models of published sizes without weights: what their layers are called and how large they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from backend.families.base import DiffusionModel, Source
from backend.families.parts.clip import ClipShape, ClipTextModel
from backend.families.parts.loading import Loaded
from backend.families.parts.skeleton import skeleton
from backend.families.parts.unet import UNet, UNetShape
from backend.families.parts.vae import Vae, VaeShape
from backend.families.parts.weights import Weights

_NOWHERE = Path("outline")


def outline(architecture: str) -> DiffusionModel:
    """A model with all its layers on the meta device.

    Raises:
        KeyError: ``architecture`` is none of :data:`ARCHITECTURES`.
    """
    return ARCHITECTURES[architecture]()


def _loaded(unet: UNetShape, texts: Mapping[str, ClipShape], vae: VaeShape) -> Loaded:
    return Loaded(
        skeleton(lambda: UNet(unet)),
        {part: _text(shape) for part, shape in texts.items()},
        skeleton(lambda: Vae(vae)),
        Weights(_NOWHERE, {}, {}),
    )


def _text(shape: ClipShape) -> ClipTextModel:
    return skeleton(lambda: ClipTextModel(shape))


def _sd15() -> DiffusionModel:
    from backend.families.sd1 import StableDiffusion1

    loaded = _loaded(UNetShape(), {"text_encoder": ClipShape()}, VaeShape())
    text = loaded.texts["text_encoder"]
    return StableDiffusion1(loaded.unet, text, loaded.vae, "epsilon", Source(_NOWHERE), loaded.weights)


def _sd21() -> DiffusionModel:
    from backend.families.sd2 import StableDiffusion2, layout

    loaded = _loaded(layout.FULL_UNET, {"text_encoder": layout.FULL_TEXT}, layout.FULL_VAE)
    return StableDiffusion2(loaded, "v", Source(_NOWHERE))


def _sdxl() -> DiffusionModel:
    from backend.families.sdxl import StableDiffusionXL, layout

    texts = {"text_encoder": layout.FULL_TEXT, "text_encoder_2": layout.FULL_TEXT_2}
    return StableDiffusionXL(_loaded(layout.FULL_UNET, texts, layout.FULL_VAE), "epsilon", Source(_NOWHERE))


def _sd3(model: str) -> Callable[[], DiffusionModel]:
    def make() -> DiffusionModel:
        from backend.families.sd3.outline import outline

        return outline(model, _NOWHERE)

    return make


ARCHITECTURES: Mapping[str, Callable[[], DiffusionModel]] = {
    "sd15": _sd15,
    "sd21": _sd21,
    "sdxl": _sdxl,
    "sd3-medium": _sd3("medium"),
    "sd35-medium": _sd3("5-medium"),
    "sd35-large": _sd3("5-large"),
}
"""Name on the command line -> the model."""
