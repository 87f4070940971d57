"""What the latent diffusion families (SD 1.x, 2.x, SDXL) have in common: VAE, schedule, the modules
that networks attach to, and the file."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from backend.families.base import (
    AdapterModule,
    Conditioning,
    Container,
    DiffusionModel,
    Prediction,
    Source,
    TokenIds,
    TokenWeights,
    WordTable,
)
from backend.families.parts.clip import ClipAttention, ClipMlp, ClipTextModel
from backend.families.parts.layout import Layout, file_shape
from backend.families.parts.loading import Loaded, Rule, Shapes
from backend.families.parts.schedule import scaled_linear, zero_terminal
from backend.families.parts.tokenizer import ClipTokenizer, weigh_states
from backend.families.parts.unet import Downsample, Resnet, Transformer, UNet, Upsample
from backend.families.parts.vae import Vae
from backend.families.parts.vae_file import read_vae
from backend.families.parts.weights import COMPONENTS, Place
from backend.families.parts.words import Words
from backend.families.store import Entry, write_tensors

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
_EDGES: tuple[tuple[str, Container], ...] = (
    ("conv_in", "edge"),
    ("conv_out", "edge"),
    ("time_embedding.linear_1", "time"),
    ("time_embedding.linear_2", "time"),
    ("add_embedding.linear_1", "time"),
    ("add_embedding.linear_2", "time"),
)


class LatentDiffusion(DiffusionModel):
    """A U-Net on VAE latents, told what to draw by CLIP text encoders."""

    latent_channels: ClassVar[int] = 4
    layout: ClassVar[Layout]
    rule: ClassVar[Rule]
    text_parts: ClassVar[Mapping[str, str]]
    """Key in ``text_encoders`` -> part of the file."""
    word_names: ClassVar[Mapping[str, str]]
    """Text encoder -> what embedding files call its table."""
    padding: ClassVar[Mapping[str, int | None]] = {}
    """Text encoder -> the id after a caption's end, where it is not the end's own."""

    def __init__(
        self, loaded: Loaded, prediction: Prediction, source: Source, zero_terminal_snr: bool = False
    ) -> None:
        self.denoiser = loaded.unet
        self.text_encoders = {key: loaded.texts[part] for key, part in self.text_parts.items()}
        self.vae = loaded.vae
        self.prediction = prediction
        self.source = source
        self.zero_terminal_snr = zero_terminal_snr
        self._weights = loaded.weights
        self.tokenizers = {key: ClipTokenizer(self.padding.get(key)) for key in self.text_parts}

    @property
    def unet(self) -> UNet:
        return cast(UNet, self.denoiser)

    @property
    def autoencoder(self) -> Vae:
        return cast(Vae, self.vae)

    def text(self, key: str) -> ClipTextModel:
        """A text encoder by its key."""
        return cast(ClipTextModel, self.text_encoders[key])

    def shapes(self) -> Shapes:
        """Dimensions of all parts."""
        texts = {part: self.text(key).shape for key, part in self.text_parts.items()}
        return Shapes(self.unet.shape, texts, self.autoencoder.shape)

    def tokenize(self, captions: Sequence[str], max_token_length: int | None = None) -> TokenIds:
        return {key: each.chunks(captions, max_token_length) for key, each in self.tokenizers.items()}

    def token_count(self, caption: str) -> int:
        return len(next(iter(self.tokenizers.values())).ids(caption))

    def tokenize_weighted(
        self, captions: Sequence[str], max_token_length: int | None = None
    ) -> tuple[TokenIds, TokenWeights]:
        found = {k: each.weighted_chunks(captions, max_token_length) for k, each in self.tokenizers.items()}
        return {k: ids for k, (ids, _) in found.items()}, {k: weights for k, (_, weights) in found.items()}

    def word_tables(self) -> list[WordTable]:
        return [
            WordTable(key, name, self.text(key).text_model.embeddings.token_embedding)
            for key, name in self.word_names.items()
        ]

    def use_words(self, words: Words) -> None:
        super().use_words(words)
        for tokenizer in self.tokenizers.values():
            tokenizer.words = words

    def weigh_text(self, conditioning: Conditioning, weights: TokenWeights) -> Conditioning:
        """Several encoders split a caption alike and stand side by side, so one's weights do for all."""
        first = weights[next(iter(self.tokenizers))]
        return {**conditioning, "hidden": weigh_states(conditioning["hidden"], first)}

    def encode_images(self, pixels: Tensor, noise: Tensor) -> Tensor:
        weight = self.autoencoder.encoder.conv_in.weight
        mean, deviation = self.autoencoder.posterior(pixels.to(weight.device, weight.dtype))
        sample = mean + deviation * noise.to(mean.device, torch.float32)
        return sample * self.autoencoder.shape.scaling_factor

    def decode_latents(self, latents: Tensor) -> Tensor:
        weight = self.autoencoder.decoder.conv_in.weight
        unscaled = latents.to(weight.device, torch.float32) / self.autoencoder.shape.scaling_factor
        return self.autoencoder.decode(unscaled.to(weight.dtype)).float()

    def load_vae(self, path: Path) -> Vae:
        return read_vae(path, self.autoencoder, quant=True)

    def alphas_cumprod(self) -> Tensor:
        return zero_terminal(scaled_linear()) if self.zero_terminal_snr else scaled_linear()

    def adapter_modules(self) -> Iterator[AdapterModule]:
        for key, encoder in self.text_encoders.items():
            for path, block in encoder.named_modules():
                if isinstance(block, (ClipAttention, ClipMlp)):
                    for name, module in _inside(block, path, (nn.Linear,)):
                        yield AdapterModule(_joined(f"{key}.{name}"), key, "text", module)
        yield from self._unet_modules(_CONTAINERS, (nn.Linear, nn.Conv2d))

    def further_modules(self) -> Iterator[AdapterModule]:
        modules = dict(self.unet.named_modules())
        for path, container in _EDGES:
            if path in modules:
                yield self._unet_adapter(path, container, modules[path])
        yield from self._unet_modules(_NORM_CONTAINERS, (nn.LayerNorm, nn.GroupNorm))

    def _unet_modules(
        self, containers: Sequence[tuple[type[nn.Module], Container]], kinds: tuple[type[nn.Module], ...]
    ) -> Iterator[AdapterModule]:
        for path, block in self.unet.named_modules():
            for kind, container in containers:
                if isinstance(block, kind):
                    for name, module in _inside(block, path, kinds):
                        yield self._unet_adapter(name, container, module)

    def _unet_adapter(self, path: str, container: Container, module: nn.Module) -> AdapterModule:
        return AdapterModule(_joined(f"unet.{self.network_path(path)}"), "unet", container, module)

    def network_path(self, path: str) -> str:
        """How networks name a module of the U-Net: by diffusers' path unless the family says otherwise."""
        return path

    def save(self, path: Path, dtype: torch.dtype | None, metadata: Mapping[str, str] | None = None) -> None:
        """Write the original single-file layout (safetensors).

        Tensors of the source that are no part of the model are kept, and its metadata; ``metadata``
        wins over the source's. ``dtype`` None keeps the type each tensor has in memory.
        """
        write_tensors(path, self.entries(dtype), {**self.file_metadata(), **(metadata or {})})

    def entries(self, dtype: torch.dtype | None, kept: Collection[str] = ()) -> list[Entry]:
        entries = [*self._entries(dtype, kept)]
        for name, place in self._weights.extras.items():
            entries.append(_extra(name, place, dtype))
        present = {entry.name for entry in entries}
        for name, tensor in self.required_extras().items():
            if name not in present:
                entries.append(_entry(name, tuple(tensor.shape), tensor, dtype))
        return entries

    def required_extras(self) -> dict[str, Tensor]:
        """Tensors that the layout has beside the model's own and other programs need, for sources
        that lack them."""
        return {}

    def _entries(self, dtype: torch.dtype | None, kept: Collection[str]) -> Iterator[Entry]:
        state = self.state(kept)
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        for name, pieces in self.layout.original(list(state)).items():
            tensors = [state[piece] for piece in pieces]
            turned = name.endswith(".text_projection")
            shape = self._source_shape(name, pieces) or file_shape(name, pieces, shapes)
            make = partial(_assembled, tensors, turned, shape)
            yield Entry(name, shape, dtype or tensors[0].dtype, make)

    def state(self, kept: Collection[str] = ()) -> dict[str, Tensor]:
        """All weights by diffusers name; what a network has put on top of the modules is not in it.

        Those of ``kept`` parts (``unet``, ``vae``, keys of text encoders) are the source's own.
        """
        texts = {part: self.text_encoders[key] for key, part in self.text_parts.items()}
        source = {self.text_parts.get(key, key) for key in kept}
        return {
            f"{part}.{name}": self._own(f"{part}.{name}", tensor) if part in source else tensor
            for part, module in {"unet": self.denoiser, **texts, "vae": self.vae}.items()
            for name, tensor in module.state_dict().items()
        }

    def _own(self, name: str, tensor: Tensor) -> Tensor:
        """A weight as the source has it; ``tensor`` where it has none."""
        place = self._weights.places.get(name)
        return tensor if place is None else place.read().reshape(tensor.shape)

    def _source_shape(self, original: str, pieces: Sequence[str]) -> tuple[int, ...] | None:
        """The shape the source has the tensor in, when it has it by the same name."""
        place = self._weights.places.get(pieces[0])
        if place is None or place.name != original:
            return None
        return place.source.header.tensors[original].shape

    def file_metadata(self) -> dict[str, str]:
        kept = {key: value for key, value in self.source.metadata.items() if key != "modelspec.hash_sha256"}
        components = self.components()
        return {"format": "pt", **kept, **({COMPONENTS: json.dumps(components)} if components else {})}

    def components(self) -> dict[str, dict[str, Any]]:
        """Configuration that departs from the family's rule, {} when nothing does."""
        shapes = self.shapes()
        return {} if shapes == shapes.by_rule(self.rule) else shapes.components()


def joined_chunks(states: Tensor) -> Tensor:
    """Chunks (..., chunks, 77, D) of a caption as one text (..., chunks x 75 + 2, D): the first start, all
    inner states, the last end."""
    inner = states[..., 1:-1, :].flatten(-3, -2)
    return torch.cat([states[..., 0, :1, :], inner, states[..., -1, -1:, :]], dim=-2)


def device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _joined(path: str) -> str:
    """kohya's names: dots become underscores."""
    return path.replace(".", "_")


def _inside(
    root: nn.Module, path: str, kinds: tuple[type[nn.Module], ...]
) -> Iterator[tuple[str, nn.Module]]:
    for name, module in root.named_modules():
        if isinstance(module, kinds):
            yield f"{path}.{name}", module


def _assembled(tensors: Sequence[Tensor], turned: bool, shape: Sequence[int]) -> Tensor:
    whole = tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
    return (whole.t() if turned else whole).reshape(tuple(shape))


def _entry(name: str, shape: Sequence[int], tensor: Tensor, dtype: torch.dtype | None) -> Entry:
    return Entry(name, shape, dtype or tensor.dtype, lambda: tensor)


def _extra(name: str, place: Place, dtype: torch.dtype | None) -> Entry:
    tensor = place.read()
    target = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return Entry(name, tensor.shape, target, place.read)
