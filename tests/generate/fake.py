"""A diffusion model of a few hundred weights with the behaviour the engine relies on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from backend.data.emphasis import parse
from backend.families.base import (
    AdapterModule,
    Conditioning,
    DiffusionModel,
    Sizes,
    Source,
    TokenIds,
    TokenWeights,
)
from backend.families.store import Entry

LIMIT = 75


class Denoiser(nn.Module):
    """Predicts noise from latents, time and text; dropout shows whether it is in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.text = nn.Linear(8, 4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, noisy: Tensor, timesteps: Tensor, hidden: Tensor) -> Tensor:
        level = (timesteps.to(noisy.dtype) / 1000)[:, None, None, None]
        shift = self.text(hidden.mean(1))[:, :, None, None]
        return self.dropout(torch.tanh(0.7 * noisy + 0.2 * self.conv(noisy) * level + shift))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 3, 8, stride=8)

    def forward(self, latents: Tensor) -> Tensor:
        return torch.tanh(self.up(latents))


class FakeModel(DiffusionModel):
    family = "fake"
    latent_channels = 4
    default_resolution = 64

    def __init__(self, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.denoiser = Denoiser()
            self.text_encoders = {"te": nn.Embedding(256, 8)}
            self.vae = Decoder()
        self.prediction = "epsilon"
        self.source = Source(Path("fake.safetensors"))
        for module in [*self.parts().values(), self.vae]:
            module.eval().requires_grad_(False)

    def tokenize(self, captions: Sequence[str], max_token_length: int | None = None) -> TokenIds:
        limit = max_token_length or LIMIT
        rows = [list(text.encode())[:limit] for text in captions]
        return {"te": torch.tensor([[row + [0] * (limit - len(row))] for row in rows])}

    def token_count(self, caption: str) -> int:
        return len(caption.encode())

    def encode_text(self, tokens: TokenIds, clip_skip: int | None = None) -> Conditioning:
        return {"hidden": self.text_encoders["te"](tokens["te"][:, 0]) * (clip_skip or 1)}

    def tokenize_weighted(
        self, captions: Sequence[str], max_token_length: int | None = None
    ) -> tuple[TokenIds, TokenWeights]:
        parts = [[(part.text.encode(), part.weight) for part in parse(text)] for text in captions]
        ids = self.tokenize([b"".join(text for text, _ in row).decode() for row in parts], max_token_length)
        weights = torch.ones(ids["te"].shape)
        for row, found in enumerate(parts):
            each = [weight for text, weight in found for _ in text][: weights.shape[-1]]
            weights[row, 0, : len(each)] = torch.tensor(each)
        return ids, {"te": weights}

    def weigh_text(self, conditioning: Conditioning, weights: TokenWeights) -> Conditioning:
        return {"hidden": conditioning["hidden"] * weights["te"][:, 0, :, None]}

    def encode_images(self, pixels: Tensor, noise: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(pixels, 8).repeat(1, 2, 1, 1)[:, :4] + 0 * noise

    def decode_latents(self, latents: Tensor) -> Tensor:
        dtype = next(self.vae.parameters()).dtype
        return self.vae(latents.to(dtype)).float()

    def predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Sizes | None = None
    ) -> Tensor:
        return self.denoiser(noisy, timesteps, conditioning["hidden"].to(noisy.dtype))

    def alphas_cumprod(self) -> Tensor:
        return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)

    def adapter_modules(self) -> Iterator[AdapterModule]:
        yield AdapterModule("unet_text", "unet", "attention", self.denoiser.text)

    def save(self, path: Path, dtype: torch.dtype | None, metadata: Mapping[str, str] | None = None) -> None:
        raise AssertionError("not used here")

    def entries(self, dtype: torch.dtype | None, kept: Collection[str] = ()) -> list[Entry]:
        raise AssertionError("not used here")

    def file_metadata(self) -> dict[str, str]:
        raise AssertionError("not used here")
