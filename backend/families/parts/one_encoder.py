"""What SD 1.x and 2.x share: one text encoder whose states alone condition the U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from backend.families.base import Conditioning, Sizes, TokenIds
from backend.families.parts.clip import ClipTextModel
from backend.families.parts.latent import LatentDiffusion, device_of, joined_chunks

TEXT = "te"
"""The text encoder's key in ``text_encoders``, ``TokenIds`` and learning-rate parts."""


class OneEncoderDiffusion(LatentDiffusion):
    """A U-Net conditioned on the hidden states of one text encoder."""

    text_parts: ClassVar[Mapping[str, str]] = {TEXT: "text_encoder"}
    word_names: ClassVar[Mapping[str, str]] = {TEXT: "emb_params"}

    @property
    def text_encoder(self) -> ClipTextModel:
        return self.text(TEXT)

    def encode_text(self, tokens: TokenIds, clip_skip: int | None = None) -> Conditioning:
        """``hidden`` (B, chunks x 75 + 2, D): the states after layer ``-clip_skip`` of those in use
        and the final norm. Several chunks are encoded one by one and joined.

        (B, layers, chunks x 75 + 2, D) where words are known that each layer reads otherwise."""
        ids = tokens[TEXT].to(device_of(self.text_encoder))
        if self.words.rows is not None:
            ids = self.words.by_layer(ids)
        states = self.text_encoder(ids.flatten(0, -2), clip_skip or 1).unflatten(0, ids.shape[:-1])
        return {"hidden": joined_chunks(states)}

    def context_layers(self) -> tuple[str, ...]:
        return self.unet.context_layers()

    def predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Sizes | None = None
    ) -> Tensor:
        """The U-Net's output in ``noisy``'s type; ``timesteps`` 0..999. ``sizes`` play no part here."""
        dtype = self.unet.conv_in.weight.dtype
        hidden = conditioning["hidden"].to(noisy.device, dtype)
        return self.denoiser(noisy.to(dtype), timesteps, hidden).to(noisy.dtype)
