"""Encodes pictures and captions once, before the first step, when the settings ask for it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from backend.data.cache import LatentCache, TextCache, open_store
from backend.data.fill import (
    Filled,
    Progress,
    Share,
    caption_texts,
    default_variants,
    fill_latents,
    fill_texts,
    take_texts,
)
from backend.data.npz import NpzCaches
from backend.data.npz_texts import NpzTexts
from backend.data.split import seed_of
from backend.data.types import DatasetPlan
from backend.families.base import DiffusionModel
from backend.families.parts.vae import Vae
from backend.jobs.control import ControlReader
from backend.jobs.events import Sink
from backend.settings import Settings
from backend.train.encoding import encode_pictures
from backend.train.preservation import Preservation
from backend.train.team import ALONE, Team, exchange, together
from backend.train.texts import encode as encode_tokens
from backend.train.texts import tokenize


class StopRequested(Exception):
    """The user pressed Stop before the first step."""


@dataclass(frozen=True)
class Caches:
    """What was encoded before; None where it is encoded in each step."""

    latents: LatentCache | None = None
    texts: TextCache | None = None
    caption_variants: int = 1
    encoders: frozenset[str] = frozenset()
    """Text encoders whose outputs are in ``texts``."""


@dataclass(frozen=True)
class Watch:
    """Tells the page how far caching is, and notices a Stop."""

    events: Sink
    control: ControlReader

    def progress(self, phase: str, unit: str) -> Progress:
        def tell(done: int, total: int) -> None:
            self.events.emit("progress", phase=phase, done=done, total=total, unit=unit)
            if self.control.stop_waits():
                raise StopRequested

        return tell

    def count_damaged(self, filled: Filled, what: str) -> None:
        if filled.damaged:
            self.events.emit("note", text=f"{filled.damaged} damaged cache entries of {what} were made again")


def fill_caches(
    model: DiffusionModel, plan: DatasetPlan, settings: Settings, seed: int, total_steps: int, watch: Watch,
    team: Team = ALONE, preservation: Preservation | None = None,
) -> Caches:  # fmt: skip
    """Fill what the settings ask for, for the pictures held out for validation as well.

    With ``preservation``, captions of the class are encoded beside those of the subject.
    The processes of a team do a part each.

    Raises:
        StopRequested: the user pressed Stop meanwhile; what was encoded is kept on disk.
    """
    section = settings.caching
    latents = texts = None
    variants = 1
    if section.cache_latents or section.cache_latents_to_disk:
        latents = _latents(model, _with_validation(plan), settings, watch, team)
    encoders = encoders_to_cache(settings, model)
    if encoders:
        variants = section.caption_variants or default_variants(plan)
        wanted = caption_texts(plan, seed, variants, total_steps)
        if plan.validation is not None:
            wanted += caption_texts(plan.validation, seed_of(plan.validation), 1, 1)
        if preservation is not None:
            wanted += class_texts(preservation, plan, seed, variants, total_steps)
        texts = _texts(model, wanted, encoders, settings, watch, team, _with_validation(plan))
    return Caches(latents, texts, variants, encoders)


def encoders_to_cache(settings: Settings, model: DiffusionModel) -> frozenset[str]:
    """Text encoders whose outputs are kept: all, none, or the optional one alone."""
    section = settings.caching
    if section.cache_text_encoder_outputs or section.cache_text_encoder_outputs_to_disk:
        return frozenset(model.text_encoders)
    return (
        model.optional_text & model.text_encoders.keys() if settings.sd3.use_t5xxl_cache_only else frozenset()
    )


def class_texts(
    preservation: Preservation, plan: DatasetPlan, seed: int, variants: int, total_steps: int
) -> list[str]:
    """Every class caption that a step can ask a text cache for."""
    found: dict[str, None] = {}
    for dataset in plan.datasets:
        for picture in dataset.pictures:
            alone = DatasetPlan((replace(dataset, pictures=(picture,)),))
            for text in caption_texts(alone, seed, variants, total_steps):
                new = preservation.class_caption(picture, text)
                found |= {} if new is None else {new: None}
    return list(found)


def _with_validation(plan: DatasetPlan) -> DatasetPlan:
    held = plan.validation.datasets if plan.validation else ()
    return DatasetPlan((*plan.datasets, *held))


def _latents(
    model: DiffusionModel, plan: DatasetPlan, settings: Settings, watch: Watch, team: Team
) -> LatentCache:
    watch.events.emit("phase", name="caching latents", title="Encoding pictures")
    identity = weights_identity(model.vae)
    dtype = str(next(model.vae.parameters()).dtype).removeprefix("torch.")
    store = open_store("latents", identity, disk=settings.caching.cache_latents_to_disk)
    cache = LatentCache(
        store,
        identity,
        channels=model.latent_channels,
        scale=model.scale_factor,
        dtype=dtype,
        npz=_npz(model) if settings.caching.use_npz_caches else None,
    )
    device = next(model.denoiser.parameters()).device

    def encode(pixels: Tensor, noise: Tensor) -> Tensor:
        return encode_pictures(model, pixels.to(device), noise.to(device), watch.events)

    tell = watch.progress("caching latents", "pictures")
    threads = max(1, settings.dataset.max_data_loader_n_workers)
    size = settings.caching.vae_batch_size

    def fill(share: Share) -> None:
        filled = fill_latents(plan, cache, encode, size, tell, threads, share)
        watch.count_damaged(filled, "pictures")
        if cache.npz is not None:
            text = f"{filled.taken} latents are read from sd-scripts' .npz files"
            watch.events.emit("note", text=text)

    together(team, StopRequested, fill, store)
    exchange(team, store)
    return cache


def _npz(model: DiffusionModel) -> NpzCaches:
    """sd-scripts' files for this model's family, whose values are samples before scaling."""
    if not isinstance(model.vae, Vae):
        return NpzCaches("", 1.0)
    return NpzCaches(model.family, model.vae.shape.scaling_factor, model.vae.shape.shift_factor)


def _texts(
    model: DiffusionModel, texts: list[str], encoders: frozenset[str], settings: Settings, watch: Watch,
    team: Team, plan: DatasetPlan,
) -> TextCache:  # fmt: skip
    watch.events.emit("phase", name="caching text", title="Encoding captions")
    found = model.text_encoders.items()
    identity = "+".join(weights_identity(encoder) for name, encoder in found if name in encoders)
    emphasis = settings.model.weighted_captions
    identity += model.text_rules() + ("+emphasis" if emphasis else "")
    store = open_store("texts", identity, disk=settings.caching.cache_text_encoder_outputs_to_disk)
    length, skip = settings.model.max_token_length, settings.model.clip_skip
    cache = TextCache(store, identity, max_token_length=length, clip_skip=skip)
    layout = model.caption_files(encoders) if settings.caching.use_npz_caches else None
    if layout is not None and emphasis:
        watch.events.emit("note", text="captions in .npz files are not read: they have no emphasis")
    elif layout is not None:
        taken = take_texts(plan, cache, NpzTexts(layout), seed=0)
        watch.events.emit("note", text=f"{taken} encoded captions are read from sd-scripts' .npz files")
    device = next(model.denoiser.parameters()).device

    def encode(batch: Sequence[str]) -> Mapping[str, Tensor]:
        found, weights = tokenize(model, batch, settings.model, device)
        tokens = {name: row for name, row in found.items() if name in encoders}
        with torch.no_grad():
            return encode_tokens(model, tokens, weights, skip)

    size = settings.caching.text_encoder_batch_size or settings.dataset.train_batch_size
    tell = watch.progress("caching text", "captions")
    together(
        team,
        StopRequested,
        lambda share: watch.count_damaged(fill_texts(texts, cache, encode, size, tell, share), "captions"),
        store,
    )
    exchange(team, store)
    return cache


def weights_identity(module: nn.Module) -> str:
    """A hash of a module's tensors, names and types: what a cache entry depends on."""
    digest = hashlib.blake2b(digest_size=20)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
