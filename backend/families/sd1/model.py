"""Stable Diffusion 1.x as the rest of the program uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from backend.families.base import (
    AdapterModule,
    Conditioning,
    Container,
    DiffusionModel,
    Prediction,
    Sizes,
    Source,
    TokenIds,
)
from backend.families.parts.clip import HEAD_SIZE, ClipAttention, ClipMlp, ClipTextModel
from backend.families.parts.tokenizer import ClipTokenizer
from backend.families.parts.unet import Downsample, Resnet, Transformer, UNet, Upsample
from backend.families.parts.vae import Vae
from backend.families.sd1 import keys
from backend.families.sd1.layout import original_shape
from backend.families.store import Entry, write_tensors

if TYPE_CHECKING:
    from backend.families.sd1.weights import Place, Weights

TEXT = "te"
"""The text encoder's key in ``text_encoders``, ``TokenIds`` and learning-rate parts."""

_CONTAINERS: tuple[tuple[type[nn.Module], Container], ...] = (
    (Transformer, "attention"),
    (Resnet, "resnet"),
    (Downsample, "sampler"),
    (Upsample, "sampler"),
)
_NORM_CONTAINERS: tuple[tuple[type[nn.Module], Container], ...] = (
    (Transformer, "attention_norm"),
    (Resnet, "resnet_norm"),
)


class StableDiffusion1(DiffusionModel):
    """SD 1.x: one CLIP-L text encoder, a U-Net with 8 heads, a 4-channel VAE."""

    family: ClassVar[str] = "sd1"
    latent_channels: ClassVar[int] = 4
    default_resolution: ClassVar[int] = 512

    def __init__(
        self,
        denoiser: UNet,
        text_encoder: ClipTextModel,
        vae: Vae,
        prediction: Prediction,
        source: Source,
        weights: Weights,
    ) -> None:
        self.denoiser = denoiser
        self.text_encoders: dict[str, nn.Module] = {TEXT: text_encoder}
        self.vae = vae
        self.prediction = prediction
        self.source = source
        self.tokenizer = ClipTokenizer()
        self._weights = weights

    @property
    def unet(self) -> UNet:
        return cast(UNet, self.denoiser)

    @property
    def autoencoder(self) -> Vae:
        return cast(Vae, self.vae)

    @property
    def text_encoder(self) -> ClipTextModel:
        return cast(ClipTextModel, self.text_encoders[TEXT])

    def tokenize(self, captions: Sequence[str], max_token_length: int | None = None) -> TokenIds:
        return {TEXT: self.tokenizer.chunks(captions, max_token_length)}

    def token_count(self, caption: str) -> int:
        return len(self.tokenizer.ids(caption))

    def encode_text(self, tokens: TokenIds, clip_skip: int | None = None) -> Conditioning:
        """``hidden`` (B, chunks x 75 + 2, D): the states after layer ``-clip_skip`` and the final norm.

        Several chunks are encoded one by one; the first start, all inner states and the last end
        are joined.
        """
        ids = tokens[TEXT].to(_device(self.text_encoder))
        states = self.text_encoder(ids.flatten(0, 1), clip_skip or 1).unflatten(0, ids.shape[:2])
        inner = states[:, :, 1:-1].flatten(1, 2)
        return {"hidden": torch.cat([states[:, 0, :1], inner, states[:, -1, -1:]], dim=1)}

    def encode_images(self, pixels: Tensor, noise: Tensor) -> Tensor:
        weight = self.autoencoder.encoder.conv_in.weight
        mean, deviation = self.autoencoder.posterior(pixels.to(weight.device, weight.dtype))
        sample = mean + deviation * noise.to(mean.device, torch.float32)
        return sample * self.autoencoder.shape.scaling_factor

    def decode_latents(self, latents: Tensor) -> Tensor:
        weight = self.autoencoder.decoder.conv_in.weight
        unscaled = latents.to(weight.device, torch.float32) / self.autoencoder.shape.scaling_factor
        return self.autoencoder.decode(unscaled.to(weight.dtype)).float()

    def predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Sizes | None = None
    ) -> Tensor:
        """The U-Net's output in ``noisy``'s type; ``timesteps`` 0..999. ``sizes`` play no part here."""
        dtype = self.unet.conv_in.weight.dtype
        hidden = conditioning["hidden"].to(noisy.device, dtype)
        return self.denoiser(noisy.to(dtype), timesteps, hidden).to(noisy.dtype)

    def alphas_cumprod(self) -> Tensor:
        """Betas from 0.00085 to 0.012, linear in their square roots (Rombach et al. 2022)."""
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        return torch.cumprod(1.0 - betas, dim=0)

    def adapter_modules(self) -> Iterator[AdapterModule]:
        for name, module in self.text_encoder.named_modules():
            if isinstance(module, (ClipAttention, ClipMlp)):
                yield from _inside(module, f"te.{name}", TEXT, "text")
        for name, module in self.denoiser.named_modules():
            for kind, container in _CONTAINERS:
                if isinstance(module, kind):
                    yield from _inside(module, f"unet.{name}", "unet", container)

    def further_modules(self) -> Iterator[AdapterModule]:
        embedding, unet = self.unet.time_embedding, self.unet
        for name, module, container in (
            ("conv_in", unet.conv_in, "edge"),
            ("conv_out", unet.conv_out, "edge"),
            ("time_embedding_linear_1", embedding.linear_1, "time"),
            ("time_embedding_linear_2", embedding.linear_2, "time"),
        ):
            yield AdapterModule(f"unet_{name}", "unet", cast(Container, container), module)
        for path, block in unet.named_modules():
            for kind, container in _NORM_CONTAINERS:
                if isinstance(block, kind):
                    yield from _norms_inside(block, f"unet.{path}", container)

    def save(self, path: Path, dtype: torch.dtype | None, metadata: Mapping[str, str] | None = None) -> None:
        """Write the original single-file layout (safetensors).

        Tensors of the source that are no part of the model are kept, and its metadata; ``metadata``
        wins over the source's. ``dtype`` None keeps the type each tensor has in memory.
        """
        current = self._state()
        names = keys.to_original(list(current))
        entries = [
            _entry(names[name], self._file_shape(name, names[name], tensor), tensor, dtype)
            for name, tensor in current.items()
        ]
        for name, place in self._weights.extras.items():
            entries.append(_extra(name, place, dtype))
        write_tensors(path, entries, {"format": "pt", **self._metadata(), **(metadata or {})})

    def _state(self) -> dict[str, Tensor]:
        """All weights by diffusers name; what a network has put on top of the modules is not in it."""
        parts = {"unet": self.denoiser, "text_encoder": self.text_encoder, "vae": self.vae}
        return {
            f"{part}.{name}": tensor
            for part, module in parts.items()
            for name, tensor in module.state_dict().items()
        }

    def _file_shape(self, name: str, original: str, tensor: Tensor) -> Sequence[int]:
        """The shape the source has it in, or the layout's usual one."""
        place = self._weights.places.get(name)
        if place is not None and place.name == original:
            return place.shape
        return original_shape(name, tuple(tensor.shape))

    def _metadata(self) -> dict[str, str]:
        """The source's metadata, less the hash of other weights, plus what shapes cannot tell."""
        kept = {key: value for key, value in self.source.metadata.items() if key != "modelspec.hash_sha256"}
        components = self._components()
        return kept | ({"atelier.components": json.dumps(components)} if components else {})

    def _components(self) -> dict[str, dict[str, Any]]:
        """Configuration that departs from SD 1.x's rule, {} when nothing does."""
        unet, text, vae = self.unet.shape, self.text_encoder.shape, self.autoencoder.shape
        plain = (
            (unet.heads, unet.norm_groups, vae.norm_groups, vae.scaling_factor) == (8, 32, 32, 0.18215)
            and text.heads == max(1, text.width // HEAD_SIZE)
            and text.activation == "quick_gelu"
        )
        if plain:
            return {}
        return {
            "unet": {"attention_head_dim": unet.heads, "norm_num_groups": unet.norm_groups},
            "text_encoder": {"num_attention_heads": text.heads, "hidden_act": text.activation},
            "vae": {"norm_num_groups": vae.norm_groups, "scaling_factor": vae.scaling_factor},
        }


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _inside(root: nn.Module, path: str, part: str, container: Container) -> Iterator[AdapterModule]:
    """The linears and convolutions under ``root``, named as kohya does: dots become underscores."""
    for name, module in root.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            yield AdapterModule(f"{path}.{name}".replace(".", "_"), part, container, module)


def _norms_inside(root: nn.Module, path: str, container: Container) -> Iterator[AdapterModule]:
    for name, module in root.named_modules():
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            yield AdapterModule(f"{path}.{name}".replace(".", "_"), "unet", container, module)


def _entry(name: str, shape: Sequence[int], tensor: Tensor, dtype: torch.dtype | None) -> Entry:
    return Entry(name, shape, dtype or tensor.dtype, partial(tensor.reshape, tuple(shape)))


def _extra(name: str, place: Place, dtype: torch.dtype | None) -> Entry:
    tensor = place.read()
    target = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return Entry(name, tensor.shape, target, place.read)
