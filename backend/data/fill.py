"""Computes what the caches lack before training starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backend import keyed
from backend.data import captions
from backend.data.cache import LatentCache, TextCache
from backend.data.loader import ahead, bucket_groups, caption_at, has_mask, load_mask, load_pixels, naming
from backend.data.npz_texts import NpzTexts
from backend.data.store import Entry
from backend.data.types import DatasetPlan, Picture
from backend.errors import RunFault

Progress = Callable[[int, int], None]
"""Told how many are done, and how many there are."""

_PACK = 64
"""Entries written to disk at once; no more than these are lost to a crash."""

Share = tuple[int, int]
"""(number of this process from 0, number of processes) that fill a cache together."""
WHOLE: Share = (0, 1)


def is_ours(key: str, share: Share) -> bool:
    """Whether an entry is this process's to make; each has one maker, however much is there already."""
    rank, count = share
    return int(key[:12], 16) % count == rank


@dataclass(frozen=True)
class Filled:
    """What filling a cache came to."""

    total: int
    computed: int
    damaged: int
    """Entries that were there but damaged, and were computed again."""
    taken: int = 0
    """Latents that are read from sd-scripts' files."""


def fill_latents(
    plan: DatasetPlan,
    cache: LatentCache,
    encode: Callable[[Tensor, Tensor], Tensor],
    batch_size: int = 1,
    progress: Progress | None = None,
    threads: int = 2,
    share: Share = WHOLE,
) -> Filled:
    """Encode every picture (and its mirror image, with flip_aug) that the cache lacks.

    With ``share``, only this process's part of them is looked at, and counted. ``encode`` gets
    pixels (B, 3, H, W) float32 in -1..1 and noise (B, C, h, w), and gives scaled latents (B, C, h, w).
    Raises RunFault naming pictures that cannot be read or whose latents are not finite.
    """
    tell = progress or _silent
    damaged_before = cache.store.damaged
    groups, total = _lacking(plan, cache, share)
    done = total - sum(map(len, groups))
    computed = 0
    tell(done, total)
    pending: dict[str, Entry] = {}
    try:
        batches = [group[i : i + batch_size] for group in groups for i in range(0, len(group), batch_size)]
        for batch, pixels in zip(batches, ahead(batches, _pixels, threads), strict=True):
            noise = torch.stack([cache.noise(picture, flip) for picture, flip, _ in batch])
            latents = encode(pixels, noise).detach().float().cpu()
            _check_finite(latents, batch)
            pending.update({key: {"latents": row} for (_, _, key), row in zip(batch, latents, strict=True)})
            computed += len(batch)
            if len(pending) >= _PACK:
                cache.store.put(pending)
                pending = {}
            tell(done + computed, total)
    finally:
        cache.store.put(pending)
        cache.facts.save()
    _fill_masks(plan, cache, threads, share)
    cache.store.compact()
    return Filled(total, computed, cache.store.damaged - damaged_before, cache.taken)


def _fill_masks(plan: DatasetPlan, cache: LatentCache, threads: int, share: Share) -> None:
    """Keep the masks that are lacking, so that no picture is decoded while training."""
    lacking: dict[str, Picture] = {}
    for _, pictures in bucket_groups(plan):
        for picture in filter(has_mask, pictures):
            with naming(picture.mask_path or picture.path):
                key = cache.mask_key(picture)
            if is_ours(key, share) and key not in lacking and not cache.store.has(key):
                lacking[key] = picture
    pending: dict[str, Entry] = {}
    try:
        for key, mask in zip(lacking, ahead(lacking.values(), load_mask, threads), strict=True):
            pending[key] = cache.mask_entry(mask)
            if len(pending) >= _PACK:
                cache.store.put(pending)
                pending = {}
    finally:
        cache.store.put(pending)
        cache.facts.save()


_Item = tuple[Picture, bool, str]


def _lacking(plan: DatasetPlan, cache: LatentCache, share: Share) -> tuple[list[list[_Item]], int]:
    """What is not in the cache, by bucket, and the number of all latents wanted; of our share only."""
    groups: list[list[_Item]] = []
    seen: set[str] = set()
    total = 0
    for _, pictures in bucket_groups(plan):
        group: list[_Item] = []
        for picture in pictures:
            for flip in (False, True) if picture.subset.flip_aug else (False,):
                with naming(picture.path):
                    key = cache.key(picture, flip)
                ours = is_ours(key, share)
                if key in seen or not (ours or cache.npz):  # each process takes .npz files for itself
                    continue
                lacks = not cache.store.has(key) and not cache.take(picture, flip)
                if lacks and ours:
                    group.append((picture, flip, key))
                seen.add(key)
                total += ours
        if group:
            groups.append(group)
    return groups, total


def _pixels(batch: Sequence[_Item]) -> Tensor:
    return torch.stack([load_pixels(picture, flip).values for picture, flip, _ in batch])


def _check_finite(latents: Tensor, batch: Sequence[_Item]) -> None:
    bad = [item[0].path.name for item, row in zip(batch, latents, strict=True) if not row.isfinite().all()]
    if bad:
        raise RunFault(
            f"The VAE gives values that are not finite for {', '.join(bad)}.",
            why="Some VAEs overflow in half precision.",
            next="Switch on 'VAE in full precision' (no_half_vae).",
            key="no_half_vae",
        )


def default_variants(plan: DatasetPlan) -> int:
    """Versions of each caption to encode when the setting is empty: 8, or 1 when nothing is random."""
    rules = (subset.captions for dataset in plan.datasets for subset in dataset.subsets)
    return 8 if any(rule.random() for rule in rules) else 1


def caption_texts(plan: DatasetPlan, seed: int, variants: int, total_steps: int) -> list[str]:
    """Every text the loader can ask a text cache for, each once."""
    texts: dict[str, None] = {}
    for dataset in plan.datasets:
        for picture in dataset.pictures:
            rules = picture.subset.captions
            if rules.caption_dropout_every_n_epochs:
                texts[""] = None
            for visit in range(variants if rules.random() else 1):
                for step in _text_steps(picture, seed, visit, total_steps):
                    texts[caption_at(picture, seed, visit, step, total_steps, epoch=0)] = None
    return list(texts)


def _text_steps(picture: Picture, seed: int, visit: int, total_steps: int) -> list[int]:
    """The steps at which a caption's text changes, beside its visits."""
    if picture.subset.captions.token_warmup_step <= 0:
        return [0]
    rng = keyed.python(seed, "caption", picture.id, visit)
    return captions.warmup_steps(picture.caption, picture.subset.captions, rng=rng, total_steps=total_steps)


def take_texts(plan: DatasetPlan, cache: TextCache, npz: NpzTexts, seed: int) -> int:
    """Take sd-scripts' encoded captions of pictures whose caption is never another. Returns how many."""
    for dataset in plan.datasets:
        for picture in dataset.pictures:
            if not picture.subset.captions.random():
                text = caption_at(picture, seed, 0, 0, 1, epoch=0)
                if not cache.has(text):
                    cache.take(text, picture, npz)
    return cache.taken


def fill_texts(
    texts: Iterable[str],
    cache: TextCache,
    encode: Callable[[Sequence[str]], Mapping[str, Tensor]],
    batch_size: int = 1,
    progress: Progress | None = None,
    share: Share = WHOLE,
) -> Filled:
    """Encode every text the cache lacks. ``encode`` gives conditioning, batch first.

    With ``share``, only this process's part of them is looked at, and counted.
    """
    tell = progress or _silent
    damaged_before = cache.store.damaged
    wanted = [text for text in dict.fromkeys(texts) if is_ours(cache.key(text), share)]
    lacking = [text for text in wanted if not cache.has(text)]
    done = len(wanted) - len(lacking)
    tell(done, len(wanted))
    pending: dict[str, Entry] = {}
    try:
        for i in range(0, len(lacking), batch_size):
            batch = lacking[i : i + batch_size]
            pending.update(cache.entries(batch, encode(batch)))
            if len(pending) >= _PACK:
                cache.store.put(pending)
                pending = {}
            tell(done + i + len(batch), len(wanted))
    finally:
        cache.store.put(pending)
    cache.store.compact()
    return Filled(len(wanted), len(lacking), cache.store.damaged - damaged_before)


def _silent(done: int, total: int) -> None:
    return
