"""Latents and encoded captions, found by content.

A key is a hash of everything the value depends on: the picture's bytes, how it is cut and
mirrored and by which VAE it is encoded; the caption's text and by which text encoders. So an entry
is never stale, and a moved folder costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend import keyed
from backend.data.facts import FileFacts, default_facts
from backend.data.images import DECODER
from backend.data.npz import NpzCaches
from backend.data.npz_texts import NpzTexts
from backend.data.store import Entry, FolderStore, MemoryStore, TensorStore
from backend.data.types import Picture
from backend.system import paths

MaskArray = NDArray[np.uint8]


def content_key(*parts: Any) -> str:
    """A 160-bit hash, in hexadecimal, of plain data."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def open_store(kind: str, identity: str, *, disk: bool, folder: Path | None = None) -> TensorStore:
    """A store for one kind ('latents', 'texts') of one model.

    On disk it lies in ``folder``, or in Atelier's cache folder; each identity has a place of its
    own there, so that an index holds no more than one model's entries.
    """
    if not disk:
        return MemoryStore()
    return FolderStore((folder or paths.cache_root()) / kind / content_key(identity)[:16])


class LatentCache:
    """Scaled latents (C, h, w) float32 of pictures, plain and mirrored.

    ``vae`` is what identifies the VAE's weights (a hash), ``dtype`` the type it computes in.
    ``channels`` is C and ``scale`` picture sides / latent sides.
    """

    def __init__(
        self,
        store: TensorStore,
        vae: str,
        *,
        channels: int = 4,
        scale: int = 8,
        dtype: str = "float32",
        facts: FileFacts | None = None,
        npz: NpzCaches | None = None,
    ) -> None:
        self.store, self.vae, self.dtype = store, vae, dtype
        self.channels, self.scale = channels, scale
        self.facts = facts or default_facts()
        self.npz = npz
        self._keys: dict[Any, str] = {}
        self._taken: dict[str, Path] = {}

    def key(self, picture: Picture, flip: bool) -> str:
        """The key, worked out once: a picture changed or removed later does not disturb a run.

        Raises OSError when the picture's file cannot be read.
        """
        g = picture.geometry
        how = (g.resized, g.bucket, g.crop, picture.subset.resize_interpolation, bool(flip))
        known = self._keys.get((picture.path, how))
        if known is None:
            content = self.facts.content(picture.path)
            known = content_key(DECODER, content, how, self.vae, self.dtype)
            self._keys[picture.path, how] = known
        return known

    def mask_key(self, picture: Picture) -> str:
        """The key of a picture's mask. Raises OSError as :meth:`key` does."""
        g = picture.geometry
        path = picture.mask_path or picture.path
        how = (g.resized, g.bucket, g.crop, picture.mask_path is None)
        known = self._keys.get(("mask", path, how))
        if known is None:
            known = content_key("mask", DECODER, self.facts.content(path), how)
            self._keys["mask", path, how] = known
        return known

    def take(self, picture: Picture, flip: bool) -> bool:
        """Use sd-scripts' latents of a picture for as long as this object lives, where there are any.

        They are not copied into the store, since nothing says that they are of the same VAE.
        """
        found = self.npz.find(picture, flip, self.shape(picture)) if self.npz else None
        if found is None or self.npz is None or self.npz.read(found, flip, self.shape(picture)) is None:
            return False
        self._taken[self.key(picture, flip)] = found
        return True

    @property
    def taken(self) -> int:
        """Latents that are read from sd-scripts' files."""
        return len(self._taken)

    def shape(self, picture: Picture) -> tuple[int, int, int]:
        """(C, h, w) of a picture's latents."""
        width, height = picture.geometry.bucket
        return self.channels, height // self.scale, width // self.scale

    def get(self, picture: Picture, flip: bool) -> Tensor | None:
        key = self.key(picture, flip)
        if self.npz is not None and key in self._taken:
            return self.npz.read(self._taken[key], flip, self.shape(picture))
        entry = self.store.get(key)
        return None if entry is None else entry["latents"]

    def mask(self, picture: Picture) -> MaskArray | None:
        """A picture's mask (H, W) uint8, not mirrored, empty when it is whole; None when it is lacking."""
        entry = self.store.get(self.mask_key(picture))
        if entry is None:
            return None
        packed = entry["mask"].numpy().tobytes()
        width, height = picture.geometry.bucket
        values = np.frombuffer(zlib.decompress(packed), np.uint8) if packed else np.empty(0, np.uint8)
        return values.reshape(height, width) if packed else values

    @staticmethod
    def mask_entry(mask: MaskArray | None) -> Entry:
        """What is kept of a mask, None for a whole one: masks are mostly plain, so they pack well."""
        if mask is None:
            return {"mask": torch.empty(0, dtype=torch.uint8)}
        packed = zlib.compress(np.ascontiguousarray(mask).tobytes(), 1)
        return {"mask": torch.frombuffer(bytearray(packed), dtype=torch.uint8)}

    def noise(self, picture: Picture, flip: bool) -> Tensor:
        """The draw that picks the sample of the VAE's posterior, (C, h, w)."""
        return posterior_noise(self.facts.content(picture.path), flip, self.shape(picture))


class TextCache:
    """Text conditioning of captions, each tensor without its batch dimension.

    ``encoders`` is what identifies the text encoders' weights and everything else that decides
    the result beside the options named here.
    """

    def __init__(
        self,
        store: TensorStore,
        encoders: str,
        *,
        max_token_length: int | None = None,
        clip_skip: int | None = None,
    ) -> None:
        self.store = store
        self._identity = (encoders, max_token_length, clip_skip)
        self._taken: dict[str, tuple[NpzTexts, Path]] = {}

    def key(self, text: str) -> str:
        return content_key(*self._identity, text)

    def get(self, text: str) -> Entry | None:
        taken = self._taken.get(self.key(text))
        return self.store.get(self.key(text)) if taken is None else taken[0].read(taken[1])

    def has(self, text: str) -> bool:
        """Whether a text need not be encoded."""
        key = self.key(text)
        return key in self._taken or self.store.has(key)

    def take(self, text: str, picture: Picture, npz: NpzTexts) -> bool:
        """Use what sd-scripts encoded of a picture's caption, ``text``, for as long as this object lives.

        It is not copied into the store, since nothing says that it is of this text and these encoders.
        """
        found = npz.find(picture)
        if found is None or npz.read(found) is None:
            return False
        self._taken[self.key(text)] = npz, found
        return True

    @property
    def taken(self) -> int:
        """Texts that are read from sd-scripts' files."""
        return len(self._taken)

    def entries(self, texts: Sequence[str], conditioning: Mapping[str, Tensor]) -> dict[str, Entry]:
        """The conditioning of a batch, (B, ...) a tensor, as entries for the store."""
        rows = {name: tensor.detach().cpu() for name, tensor in conditioning.items()}
        return {
            self.key(text): {name: tensor[row].clone() for name, tensor in rows.items()}
            for row, text in enumerate(texts)
        }


def posterior_noise(content: str, flip: bool, shape: Sequence[int]) -> Tensor:
    """Standard normal draw that belongs to a picture's content (the hash of its bytes), float32 of ``shape``.

    The same whether latents are cached or computed at each step, so that both train alike.
    """
    return torch.randn(tuple(shape), generator=keyed.generator(0, "vae", content, int(flip)))
