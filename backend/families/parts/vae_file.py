"""A VAE of its own file, for a model that is loaded already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from backend.errors import InputError
from backend.families.parts.loading import fill
from backend.families.parts.vae import Vae, VaeShape, vae_shape
from backend.families.parts.weights import Weights, replace_vae


def read_vae(path: Path, own: Vae, *, quant: bool | None = None) -> Vae:
    """The VAE in ``path`` (a VAE's file or folder in either layout, or a whole model) in the place and type
    of ``own``, the VAE that it is used instead of.

    What shapes cannot tell is as in ``own`` unless the file says otherwise. ``quant``: whether latents go
    through 1x1 convolutions; None: the file tells.

    Raises:
        InputError: no VAE, one for latents of another number of channels, incomplete or not finite.
    """
    parameter = next(own.parameters())
    weights = Weights(path, {}, {})
    replace_vae(weights, path, parameter.dtype)
    shape = _shape(weights, own.shape)
    if quant is not None:
        shape = replace(shape, quant=quant)
    if shape.latent_channels != own.shape.latent_channels:
        raise InputError(
            f"this VAE has latents of {shape.latent_channels} channels, "
            f"the model's have {own.shape.latent_channels}",
            where=str(path),
            next="choose a VAE that was made for this kind of model",
            key="vae",
        )
    vae = fill(lambda: Vae(shape), weights, "vae", parameter.dtype)
    assert isinstance(vae, Vae)
    return vae.to(parameter.device)


def _shape(weights: Weights, own: VaeShape) -> VaeShape:
    config = weights.config.get("vae", {})
    shift = config.get("shift_factor")
    try:
        shape = vae_shape(
            {name: place.shape for name, place in weights.part("vae").items()},
            norm_groups=int(config.get("norm_num_groups") or own.norm_groups),
            scaling_factor=float(config.get("scaling_factor") or own.scaling_factor),
            shift_factor=own.shift_factor if shift is None else float(shift),
        )
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"the VAE is incomplete: {error.args[0] if error.args else error} is missing or odd",
            where=str(weights.path),
            next="Download it again",
            key="vae",
        ) from error
    odd = [width for width in shape.widths if width % shape.norm_groups]
    if odd:
        raise InputError(
            f"the VAE's {shape.norm_groups} norm groups do not divide its width {odd[0]}",
            where=str(weights.path),
            why="it was made for another kind of model, or its file does not say how it is built",
            key="vae",
        )
    return shape
