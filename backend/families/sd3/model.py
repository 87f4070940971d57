"""Stable Diffusion 3 and 3.5 as the rest of the program uses them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend import keyed
from backend.families.base import (
    AdapterModule,
    CaptionFiles,
    Conditioning,
    Container,
    DiffusionModel,
    Sizes,
    Source,
    TokenIds,
    TokenWeights,
    WordTable,
)
from backend.families.options import LoadOptions
from backend.families.parts import names as parts_names
from backend.families.parts.clip import END_ID, HEAD_SIZE, ClipAttention, ClipMlp, ClipTextModel
from backend.families.parts.latent import device_of, joined_chunks
from backend.families.parts.layout import original_shape
from backend.families.parts.tokenizer import ClipTokenizer, weigh_states
from backend.families.parts.vae import Vae
from backend.families.parts.vae_file import read_vae
from backend.families.parts.words import Words
from backend.families.sd3 import t5
from backend.families.sd3.mmdit import HEAD_SIZE as BLOCK_HEAD_SIZE
from backend.families.sd3.mmdit import MMDiT
from backend.families.sd3.t5 import T5Attention, T5DenseGatedActDense, T5Encoder
from backend.families.sd3.weights import COMPONENTS, PREFIXES, Eye
from backend.families.store import Entry, write_tensors

if TYPE_CHECKING:
    from backend.families.sd3.weights import Place, Weights

CLIP_L, CLIP_G, T5 = "te1", "te2", "te3"
"""Text encoders: keys in ``text_encoders`` and ``TokenIds``, and learning-rate parts."""
T5_MISSING = 77
"""Tokens of zeros that stand for T5's where there is no T5."""
_PARTS = {CLIP_L: "clip_l", CLIP_G: "clip_g", T5: "t5xxl"}
_CLIPS = ((CLIP_L, "l"), (CLIP_G, "g"))
"""Key, and how its conditioning is named."""
_EDGES: tuple[tuple[str, Container], ...] = (
    ("context_embedder", "edge"),
    ("t_embedder.mlp.0", "time"),
    ("t_embedder.mlp.2", "time"),
    ("x_embedder.proj", "edge"),
    ("y_embedder.mlp.0", "time"),
    ("y_embedder.mlp.2", "time"),
    ("final_layer.adaLN_modulation.1", "edge"),
    ("final_layer.linear", "edge"),
)


class TextParts(NamedTuple):
    """The text encoders. T5 may be left out."""

    clip_l: ClipTextModel
    clip_g: ClipTextModel
    t5: T5Encoder | None


class StableDiffusion3(DiffusionModel):
    """SD 3 medium, 3.5 medium, 3.5 large: three text encoders, an MMDiT, a 16-channel VAE.

    Its conditioning is kept by encoder, so that one can be left out later: ``clip_l`` (B, 77, 768),
    ``clip_g`` (B, 77, 1280), ``t5`` (B, T, 4096), ``pooled_l`` and ``pooled_g``; and, in training,
    ``keep_clip_l``, ``keep_clip_g``, ``keep_t5`` (B,) and ``crops`` (B, 2). A text of several pieces
    has 75 states more of CLIP for each, and T more of T5; pooled is the first piece.
    """

    family: ClassVar[str] = "sd3"
    latent_channels: ClassVar[int] = 16
    side_multiple: ClassVar[int] = 16
    optional_text: ClassVar[frozenset[str]] = frozenset({T5})
    text_without_mean: ClassVar[frozenset[str]] = frozenset({"t5"})
    """Its last norm looks at sizes alone."""

    def __init__(
        self,
        denoiser: MMDiT,
        texts: TextParts,
        vae: Vae,
        source: Source,
        weights: Weights,
        options: LoadOptions | None = None,
    ) -> None:
        self.denoiser = denoiser
        found = {CLIP_L: texts.clip_l, CLIP_G: texts.clip_g, T5: texts.t5}
        self.text_encoders: dict[str, nn.Module] = {k: e for k, e in found.items() if e is not None}
        self.vae = vae
        self.prediction = "flow"
        self.default_resolution = 1024
        self.source = source
        self.options = options or LoadOptions()
        self.tokenizers = {CLIP_L: ClipTokenizer(), CLIP_G: ClipTokenizer(padding=0)}
        self._weights = weights

    @property
    def transformer(self) -> MMDiT:
        return cast(MMDiT, self.denoiser)

    @property
    def autoencoder(self) -> Vae:
        return cast(Vae, self.vae)

    def clip(self, key: str) -> ClipTextModel:
        return cast(ClipTextModel, self.text_encoders[key])

    def tokenize(self, captions: Sequence[str], max_token_length: int | None = None) -> TokenIds:
        """``te1`` and ``te2`` (B, chunks, 77), ``te3`` (B, 1, T); T is an option of its own, whatever
        ``max_token_length`` is."""
        found = {key: each.chunks(captions, max_token_length) for key, each in self.tokenizers.items()}
        if T5 in self.text_encoders:
            found[T5] = t5.token_ids(captions, self.options.t5xxl_max_token_length)[:, None]
        return found

    def tokenize_weighted(
        self, captions: Sequence[str], max_token_length: int | None = None
    ) -> tuple[TokenIds, TokenWeights]:
        found = {k: each.weighted_chunks(captions, max_token_length) for k, each in self.tokenizers.items()}
        if T5 in self.text_encoders:
            ids, weights = t5.weighted_token_ids(captions, self.options.t5xxl_max_token_length)
            found[T5] = ids[:, None], weights[:, None]
        return {k: ids for k, (ids, _) in found.items()}, {k: weights for k, (_, weights) in found.items()}

    def weigh_text(self, conditioning: Conditioning, weights: TokenWeights) -> Conditioning:
        found = dict(conditioning)
        for key, name in _CLIPS:
            if f"clip_{name}" in found:
                found[f"clip_{name}"] = weigh_states(found[f"clip_{name}"], weights[key])
        if "t5" in found:
            states = found["t5"]
            found["t5"] = states * weights[T5].flatten(1)[..., None].to(states.device, states.dtype)
        return found

    def word_tables(self) -> list[WordTable]:
        """Of both CLIPs, as SDXL has them; T5 reads a taught word as the letters it is written with."""
        return [
            WordTable(key, _PARTS[key], self.clip(key).text_model.embeddings.token_embedding)
            for key in (CLIP_L, CLIP_G)
        ]

    def use_words(self, words: Words) -> None:
        super().use_words(words)
        for tokenizer in self.tokenizers.values():
            tokenizer.words = words

    def token_count(self, caption: str) -> int:
        return len(self.tokenizers[CLIP_L].ids(caption))

    def text_rules(self) -> str:
        """What decides conditioning beside weights and captions, for caches."""
        rules = self.options
        return (
            f"t5 {rules.t5xxl_max_token_length} masks {rules.apply_lg_attn_mask} {rules.apply_t5_attn_mask}"
        )

    def caption_files(self, encoders: Collection[str]) -> CaptionFiles | None:
        rules, columns, shapes = self.options, dict[str, tuple[str, int, int]](), dict[str, tuple[int, ...]]()
        left, right = (
            self.clip(key).text_model.embeddings.token_embedding.embedding_dim for key in (CLIP_L, CLIP_G)
        )
        for (key, name), start, width in zip(_CLIPS, (0, left), (left, right), strict=True):
            if key in encoders:
                columns[f"clip_{name}"] = ("lg_out", start, start + width)
                columns[f"pooled_{name}"] = ("lg_pooled", start, start + width)
                shapes |= {"lg_out": (77, left + right), "lg_pooled": (left + right,)}
        if T5 in encoders:
            width = cast(T5Encoder, self.text_encoders[T5]).shared.embedding_dim
            columns["t5"] = ("t5_out", 0, width)
            shapes["t5_out"] = (rules.t5xxl_max_token_length, width)
        masks = ("apply_lg_attn_mask", "apply_t5_attn_mask")
        return CaptionFiles("_sd3_te", columns, shapes, {name: getattr(rules, name) for name in masks})

    def encode_text(self, tokens: TokenIds, clip_skip: int | None = None) -> Conditioning:
        """Of those encoders whose tokens are given. CLIP: the last state but one, without the final
        norm, as the paper has it (so ``clip_skip`` plays no part). Each piece is a text of its own."""
        found: dict[str, Tensor] = {}
        for key, name in _CLIPS:
            if key in tokens:
                found[f"clip_{name}"], found[f"pooled_{name}"] = self._clip_states(key, tokens[key])
        if T5 in tokens:
            encoder = cast(T5Encoder, self.text_encoders[T5])
            pieces = tokens[T5].to(device_of(encoder))
            ids = pieces.flatten(0, 1)
            states: Tensor = encoder(ids, ids != 0 if self.options.apply_t5_attn_mask else None)
            found["t5"] = states.unflatten(0, pieces.shape[:2]).flatten(1, 2)
        return found

    def _clip_states(self, key: str, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden (B, chunks x 75 + 2, D) and pooled (B, P) of ``tokens`` (B, chunks, 77)."""
        encoder = self.clip(key)
        ids = tokens.to(device_of(encoder)).flatten(0, 1)
        states = encoder.encode(ids, counts=_until_end(ids) if self.options.apply_lg_attn_mask else None)
        hidden, pooled = (each.unflatten(0, tokens.shape[:2]) for each in (states.hidden, states.pooled))
        return joined_chunks(hidden), pooled[:, 0]

    def training_draws(self, seed: int, keys: Sequence[tuple[str, int]]) -> Conditioning:
        """Which encoders each picture goes without at a visit, and where its positions begin."""
        rules, found = self.options, dict[str, Tensor]()
        rates = (rules.clip_l_dropout_rate, rules.clip_g_dropout_rate, rules.t5_dropout_rate)
        for name, rate in zip(("clip_l", "clip_g", "t5"), rates, strict=True):
            if rate:
                shares = _shares(seed, f"drop {name}", keys, 1)[:, 0]
                found[f"keep_{name}"] = (shares >= rate).float()
        if rules.pos_emb_random_crop_rate:
            chosen = _shares(seed, "crop positions", keys, 1) < rules.pos_emb_random_crop_rate
            found["crops"] = torch.where(chosen, _shares(seed, "positions", keys, 2), -1.0)
        return found

    def encode_images(self, pixels: Tensor, noise: Tensor) -> Tensor:
        weight, shape = self.autoencoder.encoder.conv_in.weight, self.autoencoder.shape
        mean, deviation = self.autoencoder.posterior(pixels.to(weight.device, weight.dtype))
        sample = mean + deviation * noise.to(mean.device, torch.float32)
        return (sample - shape.shift_factor) * shape.scaling_factor

    def decode_latents(self, latents: Tensor) -> Tensor:
        weight, shape = self.autoencoder.decoder.conv_in.weight, self.autoencoder.shape
        sample = latents.to(weight.device, torch.float32) / shape.scaling_factor + shape.shift_factor
        return self.autoencoder.decode(sample.to(weight.dtype)).float()

    def load_vae(self, path: Path) -> Vae:
        return read_vae(path, self.autoencoder)

    def predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Sizes | None = None
    ) -> Tensor:
        """The velocity, noise minus latents, in ``noisy``'s type; ``timesteps`` 0..1000, float."""
        dtype = self.transformer.x_embedder.proj.weight.dtype
        context, pooled = self._joined(conditioning, noisy.device, dtype)
        crops = conditioning.get("crops")
        output = self.transformer(noisy.to(dtype), timesteps, context, pooled, crops)
        return output.to(noisy.dtype)

    def _joined(self, text: Conditioning, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """``context`` (B, 77 + T, 4096) and ``pooled`` (B, 2048), for a text of one piece.

        Tokens of both CLIPs side by side, filled up with zeros to T5's width, then T5's tokens.
        """

        def part(name: str, encoder: str) -> Tensor:
            values = text[name].to(device, dtype)
            keep = text.get(f"keep_{encoder}")
            return (
                values
                if keep is None
                else values * keep.to(device, dtype).view(-1, *[1] * (values.dim() - 1))
            )

        width = self.transformer.shape.context_width
        both = torch.cat([part("clip_l", "clip_l"), part("clip_g", "clip_g")], dim=-1)
        both = F.pad(both, (0, width - both.shape[-1]))
        tail = part("t5", "t5") if "t5" in text else both.new_zeros(len(both), T5_MISSING, width)
        pooled = torch.cat([part("pooled_l", "clip_l"), part("pooled_g", "clip_g")], dim=-1)
        return torch.cat([both, tail], dim=1), pooled

    def alphas_cumprod(self) -> Tensor:
        raise AssertionError("a flow has no alphas")

    def adapter_modules(self) -> Iterator[AdapterModule]:
        """Attention and feed-forward of the text encoders, and all linear layers of the joint blocks."""
        for key, encoder in self.text_encoders.items():
            for name, module in encoder.named_modules():
                if isinstance(module, (ClipAttention, ClipMlp, T5Attention, T5DenseGatedActDense)):
                    yield from _inside(module, f"{key}.{name}", key, "text")
        for name, module in self.denoiser.named_modules():
            if isinstance(module, nn.Linear) and name.startswith("joint_blocks."):
                yield AdapterModule(_flat(f"unet.{name}"), "unet", "attention", module)

    def further_modules(self) -> Iterator[AdapterModule]:
        for name, container in _EDGES:
            yield AdapterModule(_flat(f"unet.{name}"), "unet", container, self.denoiser.get_submodule(name))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> DiffusionModel:
        """Move all but the VAE; T5 goes where the options say, swapped blocks stay in host memory."""
        for key, encoder in self.text_encoders.items():
            own = key == T5 and self.options.t5xxl_device
            encoder.to(device=own or device, dtype=None if key == T5 and self.options.t5xxl_dtype else dtype)
        swap = self.transformer.swap
        stay = set[nn.Module]() if swap is None else set(swap.blocks[swap.first :])
        _move(self.denoiser, torch.device(device), dtype, stay)
        return self

    def save(self, path: Path, dtype: torch.dtype | None, metadata: Mapping[str, str] | None = None) -> None:
        """Write the original single-file layout (safetensors), with all text encoders there are.

        Tensors of the source that are no part of the model are kept, and its metadata; ``metadata``
        wins over the source's. ``dtype`` None keeps the type each tensor has in memory.
        """
        write_tensors(path, self.entries(dtype), {**self.file_metadata(), **(metadata or {})})

    def entries(self, dtype: torch.dtype | None, kept: Collection[str] = ()) -> list[Entry]:
        entries = list(self._entries(dtype, kept))
        return entries + [_extra(name, place, dtype) for name, place in self._weights.extras.items()]

    def _entries(self, dtype: torch.dtype | None, kept: Collection[str]) -> Iterator[Entry]:
        for part, state in self.state(kept).items():
            renamed = parts_names.vae_to_original(list(state)) if part == "vae" else {n: n for n in state}
            places = self._weights.part(part)
            for name, tensor in state.items():
                place = places.get(name)
                if isinstance(place, Eye) and torch.equal(tensor.cpu(), place.read(tensor.dtype)):
                    continue  # the source leaves it out, and nothing has changed it
                shape = original_shape(f"{part}.{name}", tuple(tensor.shape))
                make = partial(tensor.reshape, shape)
                yield Entry(PREFIXES[part] + renamed[name], shape, dtype or tensor.dtype, make)

    def state(self, kept: Collection[str] = ()) -> dict[str, dict[str, Tensor]]:
        """All weights by part (``transformer``, ``clip_l``, ``clip_g``, ``t5xxl``, ``vae``) and name.

        Those of ``kept`` parts (``unet``, ``vae``, keys of text encoders) are the source's own.
        """
        names = {"unet": "transformer", "vae": "vae", **_PARTS}
        texts = {_PARTS[key]: encoder for key, encoder in self.text_encoders.items()}
        source = {names[key] for key in kept}
        return {
            part: self._own(part, module.state_dict()) if part in source else module.state_dict()
            for part, module in {"transformer": self.denoiser, **texts, "vae": self.vae}.items()
        }

    def _own(self, part: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A part's weights as the source has them; where it has none, those of ``state``."""
        places = self._weights.part(part)
        return {
            name: tensor if isinstance(place, Eye | None) else place.read().reshape(tensor.shape)
            for name, tensor in state.items()
            for place in (places.get(name),)
        }

    def file_metadata(self) -> dict[str, str]:
        kept = {key: value for key, value in self.source.metadata.items() if key != "modelspec.hash_sha256"}
        components = self._components()
        return {"format": "pt", **kept, **({COMPONENTS: json.dumps(components)} if components else {})}

    def _components(self) -> dict[str, dict[str, Any]]:
        """Configuration that departs from SD 3's rule, {} when nothing does."""
        shape, vae = self.transformer.shape, self.autoencoder.shape
        clips = {_PARTS[key]: self.clip(key).shape for key in (CLIP_L, CLIP_G)}
        plain = (
            shape.heads == max(1, shape.width // BLOCK_HEAD_SIZE)
            and all(clip.heads == max(1, clip.width // HEAD_SIZE) for clip in clips.values())
            and (clips["clip_l"].activation, clips["clip_g"].activation) == ("quick_gelu", "gelu")
            and (vae.norm_groups, vae.scaling_factor, vae.shift_factor) == (32, 1.5305, 0.0609)
        )
        if plain:
            return {}
        texts = {
            part: {"num_attention_heads": clip.heads, "hidden_act": clip.activation}
            for part, clip in clips.items()
        }
        sizes = {
            "norm_num_groups": vae.norm_groups,
            "scaling_factor": vae.scaling_factor,
            "shift_factor": vae.shift_factor,
        }
        return {"transformer": {"num_attention_heads": shape.heads}, **texts, "vae": sizes}


def _until_end(ids: Tensor) -> Tensor:
    """(B, L) bool: tokens up to the first end; what follows is padding."""
    ends = (ids == END_ID).int().argmax(dim=-1, keepdim=True)
    return torch.arange(ids.shape[-1], device=ids.device) <= ends


def _shares(seed: int, purpose: str, keys: Sequence[tuple[str, int]], count: int) -> Tensor:
    """Uniform numbers (B, count) that belong to a picture at a visit."""
    return torch.stack([torch.rand(count, generator=keyed.generator(seed, purpose, *key)) for key in keys])


def _move(module: nn.Module, device: torch.device, dtype: torch.dtype | None, stay: set[nn.Module]) -> None:
    """``module.to`` for all but the submodules that stay where they are."""
    if stay.isdisjoint(module.modules()):
        module.to(device=device, dtype=dtype)
        return
    for child in module.children():
        if child not in stay:
            _move(child, device, dtype, stay)
    for parameter in module.parameters(recurse=False):
        parameter.data = parameter.data.to(device, dtype)
    for name, buffer in module.named_buffers(recurse=False):
        module.register_buffer(name, buffer.to(device, dtype))


def _flat(path: str) -> str:
    return path.replace(".", "_")


def _inside(root: nn.Module, path: str, part: str, container: Container) -> Iterator[AdapterModule]:
    """The linear layers under ``root``, named as kohya does: dots become underscores."""
    for name, module in root.named_modules():
        if isinstance(module, nn.Linear):
            yield AdapterModule(_flat(f"{path}.{name}"), part, container, module)


def _extra(name: str, place: Place, dtype: torch.dtype | None) -> Entry:
    tensor = place.read()
    target = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return Entry(name, tensor.shape, target, place.read)
