"""What a family of models must offer.

A family (SD 1.x, SDXL, ...) is one small package with one subclass of :class:`DiffusionModel` and
one loader. Everything outside ``families/`` works through this class alone.

Shapes: B pictures, C latent channels, H and W picture sides in pixels, h and w latent sides
(H / 8, W / 8), L context length, D context width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from backend.errors import InputError
from backend.families.parts.attention import AttentionKind, set_attention
from backend.families.parts.checkpointing import Checkpointed
from backend.families.parts.words import Words
from backend.families.store import Entry

Prediction = Literal["epsilon", "v", "flow"]
Container = Literal["text", "attention", "resnet", "sampler", "edge", "time", "attention_norm", "resnet_norm"]
Conditioning = Mapping[str, Tensor]
"""Text conditioning by name, batch first, float; what it holds is the family's affair.
SD 1.x: ``hidden`` (B, L, D)."""
TokenIds = Mapping[str, Tensor]
"""Text-encoder name -> ids (B, chunks, 77), int64."""
TokenWeights = Mapping[str, Tensor]
"""Text-encoder name -> how much each of its tokens counts, float32, shaped as its ids."""


class AdapterModule(NamedTuple):
    """A linear or convolution that a network may be attached to."""

    name: str
    """Name in kohya's dialect without the network's own prefix: ``unet_down_blocks_0_...`` or
    ``te_text_model_encoder_layers_0_...``."""
    part: str
    """Learning-rate part: ``unet``, or the text encoder's key in ``text_encoders``."""
    container: Container
    """What holds it: a text encoder, a transformer block, a resnet, a down- or upsampler; or it is
    the denoiser's first or last convolution, its time embedding, or a norm layer."""
    module: nn.Module


class WordTable(NamedTuple):
    """A text encoder's table of embeddings, to which words may be added."""

    part: str
    """The text encoder's key."""
    name: str
    """What embedding files call it: ``emb_params``, ``clip_l``, ``clip_g``."""
    module: nn.Embedding


@dataclass(frozen=True)
class Sizes:
    """Size conditioning of a batch, each (B, 2) int64: (height, width) or (top, left), pixels."""

    original: Tensor
    crop: Tensor
    target: Tensor


@dataclass(frozen=True)
class Source:
    """Where a model came from."""

    path: Path
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The file's own metadata."""
    sha256: str | None = None


@dataclass(frozen=True)
class CaptionFiles:
    """The .npz files in which sd-scripts keeps encoded captions."""

    ending: str
    """Of the file's name, after the picture's."""
    columns: Mapping[str, tuple[str, int, int]]
    """Name in the conditioning -> the array that holds it, from which column to which."""
    shapes: Mapping[str, tuple[int, ...]]
    """Array -> the shape that it must have."""
    flags: Mapping[str, bool]
    """Arrays of one truth value that must be as given."""


class DiffusionModel(ABC):
    """A loaded model: denoiser, text encoders, VAE, tokenizer and the family's rules.

    Modules start in ``eval`` mode with ``requires_grad`` off.
    """

    family: ClassVar[str]
    latent_channels: ClassVar[int]
    scale_factor: ClassVar[int] = 8
    """Picture sides / latent sides."""
    side_multiple: ClassVar[int] = 8
    """Sides of pictures are multiples of this many pixels."""
    text_without_mean: ClassVar[frozenset[str]] = frozenset()
    """Conditioning whose mean is chance, so that emphasis cannot be brought back to it."""
    optional_text: ClassVar[frozenset[str]] = frozenset()
    """Text encoders that stay as they are unless a person asks for them to be trained."""
    default_resolution: int
    """Pixels of a side that the model was made for."""

    denoiser: nn.Module
    text_encoders: dict[str, nn.Module]
    vae: nn.Module
    prediction: Prediction
    source: Source
    notes: tuple[str, ...] = ()
    """What was found out while loading and a person should know."""
    words: Words = Words()
    """What its tokenizers know beside their vocabulary."""

    @abstractmethod
    def tokenize(self, captions: Sequence[str], max_token_length: int | None = None) -> TokenIds:
        """Ids of captions; longer ones are cut at ``max_token_length`` (None: 75)."""

    @abstractmethod
    def token_count(self, caption: str) -> int:
        """Tokens of a caption without start, end and padding, before any cut."""

    @abstractmethod
    def encode_text(self, tokens: TokenIds, clip_skip: int | None = None) -> Conditioning:
        """Conditioning of tokens. Differentiable when the encoders' weights are."""

    @abstractmethod
    def tokenize_weighted(
        self, captions: Sequence[str], max_token_length: int | None = None
    ) -> tuple[TokenIds, TokenWeights]:
        """As :meth:`tokenize` for captions with emphasis such as ``(word:1.2)``, and how much each token
        counts. Start, end and padding count 1."""

    @abstractmethod
    def weigh_text(self, conditioning: Conditioning, weights: TokenWeights) -> Conditioning:
        """Conditioning from :meth:`encode_text` with hidden states times the weights of their tokens
        (``weigh_states``); pooled outputs stay. Goes with :meth:`tokenize_weighted`."""

    def word_tables(self) -> list[WordTable]:
        """The tables that words can be added to, one for each text encoder that takes some."""
        return []

    def use_words(self, words: Words) -> None:
        """Read ``words`` in captions from now on, and no others that were taught."""
        assert not words.ids or self.word_tables(), "words for a family that takes none"
        self.words = words

    def context_layers(self) -> tuple[str, ...]:
        """Names of the layers of cross-attention that can each read a text of their own, in the order
        in which they run; () where all read the same."""
        return ()

    def text_rules(self) -> str:
        """What decides :meth:`encode_text` beside weights, captions and its arguments, for caches."""
        return ""

    def caption_files(self, encoders: Collection[str]) -> CaptionFiles | None:
        """How sd-scripts keeps what these text encoders make of a caption; None where it is not read."""
        return None

    def training_draws(self, seed: int, keys: Sequence[tuple[str, int]]) -> Conditioning:
        """Further conditioning of pictures at a visit, (B, ...) each, drawn by (picture id, visit)."""
        return {}

    @abstractmethod
    def encode_images(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) float32 of ``pixels`` (B, 3, H, W) in -1..1.

        ``noise`` (B, C, h, w) is standard normal and picks the sample of the VAE's posterior.
        """

    @abstractmethod
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in -1..1, float32, of scaled ``latents``."""

    def load_vae(self, path: Path) -> nn.Module:
        """The VAE of a file, which may take the place of :attr:`vae` while pictures are drawn.

        Raises:
            InputError: it cannot be read, or is for another kind of model.
        """
        raise InputError("this family of models takes no VAE of its own file", where=str(path), key="vae")

    @abstractmethod
    def predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Sizes | None = None
    ) -> Tensor:
        """The denoiser's output, shaped as ``noisy``; ``timesteps`` (B,) as the family counts them."""

    @abstractmethod
    def alphas_cumprod(self) -> Tensor:
        """The training schedule's cumulative alphas, (1000,) float32. Diffusion families only."""

    @abstractmethod
    def adapter_modules(self) -> Iterator[AdapterModule]:
        """Every module a network may attach to, in the order of the model's own modules."""

    def further_modules(self) -> Iterator[AdapterModule]:
        """What only some kinds of networks (LyCORIS) train as well: the denoiser's first and last
        convolution, its time embedding, and the norm layers inside blocks."""
        return iter(())

    @abstractmethod
    def save(self, path: Path, dtype: torch.dtype | None, metadata: Mapping[str, str] | None = None) -> None:
        """Write the model in the family's original single-file layout (safetensors)."""

    @abstractmethod
    def entries(self, dtype: torch.dtype | None, kept: Collection[str] = ()) -> list[Entry]:
        """The tensors of the single file, as :meth:`save` writes them.

        ``kept``: parts (``unet``, ``vae``, keys of text encoders) whose numbers are the source's own,
        whatever precision they have here; with ``dtype`` None their type is the source's as well.
        """

    @abstractmethod
    def file_metadata(self) -> dict[str, str]:
        """The source's metadata, less the hash of other weights, plus what shapes cannot tell."""

    def compute_as_sd_scripts(self) -> None:
        """Do what sd-scripts does where it is known to read this family's files differently from all
        other programs: for comparing numbers with it, never for training."""
        return  # most families are read alike by all

    def parts(self) -> dict[str, nn.Module]:
        """Part name -> module: ``unet`` and each text encoder."""
        return {"unet": self.denoiser, **self.text_encoders}

    def enable_gradient_checkpointing(self, enable: bool = True, parked: bool = False) -> None:
        """Recompute blocks of denoiser and text encoders in the backward pass: less memory, more time.

        ``parked``: what is kept for that waits in the processor's memory.
        """
        for part in self.parts().values():
            for module in part.modules():
                if isinstance(module, Checkpointed):
                    module.checkpointing, module.parked = enable, parked

    def set_attention(self, kind: AttentionKind) -> bool:
        """Who computes the denoiser's attention; False when this denoiser knows PyTorch's own only.

        Raises:
            EnvironmentFault: xformers is asked for but cannot work here.
        """
        return set_attention(self.denoiser, kind)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> DiffusionModel:
        """Move denoiser and text encoders (the VAE is moved by who uses it)."""
        for module in self.parts().values():
            module.to(device=device, dtype=dtype)
        return self
