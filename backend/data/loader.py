"""Batches of a plan, in a seeded order, loaded ahead by threads.

What a batch holds depends on (plan, seed, epoch, position) alone: not on the number of threads,
not on where a run was taken up again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from backend import keyed
from backend.data import captions, images
from backend.data.cache import LatentCache, TextCache, posterior_noise
from backend.data.facts import FileFacts, default_facts
from backend.data.types import Dataset, DatasetPlan, Picture
from backend.errors import AtelierError, Problem, RunFault

Job = TypeVar("Job")
Made = TypeVar("Made")


@dataclass(frozen=True)
class BatchSizes:
    """Size conditioning, each (B, 2) int64: (height, width) or (top, left), pixels.

    ``crop`` is the cut that really happened, in the resized (and mirrored) picture.
    """

    original: Tensor
    crop: Tensor
    target: Tensor


@dataclass(frozen=True)
class Batch:
    """The pictures of one batch: B of one bucket (width W, height H) of one dataset."""

    keys: tuple[tuple[str, int], ...]
    """(picture id, visit): what the randomness of each picture belongs to."""
    pictures: tuple[Picture, ...]
    captions: tuple[str, ...]
    flips: tuple[bool, ...]
    pixels: Tensor | None
    """(B, 3, H, W) float32 in -1..1; None with cached latents."""
    latents: Tensor | None
    """(B, C, h, w) float32, scaled; None without a latent cache."""
    text: dict[str, Tensor] | None
    """Conditioning, batch first; None without a text cache."""
    loss_weights: Tensor
    """(B,) float32."""
    masks: Tensor | None
    """(B, 1, H, W) float32 in 0..1; None when no picture has one."""
    sizes: BatchSizes
    index: int
    """Position in its epoch, from 0."""


class Visit(NamedTuple):
    """One picture at one of its turns; visits count over all epochs."""

    picture: Picture
    number: int

    @property
    def key(self) -> tuple[str, int]:
        return self.picture.id, self.number


class _Job(NamedTuple):
    position: int
    step: int
    epoch: int
    visits: Sequence[Visit]


class Loader:
    """Gives the batches of each epoch.

    ``total_steps`` matters to a tag warm-up given as a share. With ``texts``, captions are those of
    visit modulo ``caption_variants``. ``accumulation`` batches make one optimizer step.
    """

    def __init__(
        self,
        plan: DatasetPlan,
        *,
        seed: int,
        total_steps: int,
        threads: int = 0,
        latents: LatentCache | None = None,
        texts: TextCache | None = None,
        caption_variants: int = 1,
        accumulation: int = 1,
        facts: FileFacts | None = None,
    ) -> None:
        self.plan, self.seed, self.total_steps, self.threads = plan, seed, total_steps, threads
        self.latents, self.texts = latents, texts
        self.caption_variants, self.accumulation = max(1, caption_variants), max(1, accumulation)
        self.facts = facts or (latents.facts if latents else default_facts())

    def epoch(self, epoch: int, start_batch: int = 0, step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (from 1), from ``start_batch`` on without loading those before.

        ``step`` is the number of optimizer steps done when the first of them is used.

        Raises :class:`~backend.errors.RunFault` naming the picture when one cannot be loaded.
        """
        order = self.order(epoch)
        jobs = (
            _Job(i, step + (i - start_batch) // self.accumulation, epoch, order[i])
            for i in range(start_batch, len(order))
        )
        return ahead(jobs, self._batch, self.threads)

    def order(self, epoch: int) -> list[list[Visit]]:
        """Which pictures make which batch: a permutation inside each bucket, then of all batches."""
        batches: list[list[Visit]] = []
        for number, dataset in enumerate(self.plan.datasets):
            for bucket, pictures in dataset.buckets().items():
                visits = [
                    Visit(p, (epoch - 1) * p.repeats + repeat)
                    for p in pictures
                    for repeat in range(p.repeats)
                ]
                keyed.python(self.seed, "order", epoch, number, *bucket).shuffle(visits)
                batches += [
                    visits[i : i + dataset.batch_size] for i in range(0, len(visits), dataset.batch_size)
                ]
        keyed.python(self.seed, "batches", epoch).shuffle(batches)
        return batches

    def posterior_noise(self, batch: Batch, channels: int, scale: int = 8) -> Tensor:
        """(B, C, h, w): the draws with which live encoding gives what the latent cache holds."""
        width, height = batch.pictures[0].geometry.bucket
        shape = (channels, height // scale, width // scale)
        pairs = zip(batch.pictures, batch.flips, strict=True)
        return torch.stack([posterior_noise(picture, flip, shape, self.facts) for picture, flip in pairs])

    def _batch(self, job: _Job) -> Batch:
        flips = tuple(self._flip(visit) for visit in job.visits)
        texts = tuple(self._caption(visit, job) for visit in job.visits)
        loaded = [
            _load(visit.picture, flip, self.latents) for visit, flip in zip(job.visits, flips, strict=True)
        ]
        pictures = tuple(visit.picture for visit in job.visits)
        cached = self.latents is not None
        values = torch.stack([item.values for item in loaded])
        return Batch(
            keys=tuple(visit.key for visit in job.visits),
            pictures=pictures,
            captions=texts,
            flips=flips,
            pixels=None if cached else values,
            latents=values if cached else None,
            text=None if self.texts is None else _conditioning(self.texts, texts, pictures),
            loss_weights=torch.tensor([p.loss_weight for p in pictures], dtype=torch.float32),
            masks=_masks([item.mask for item in loaded], pictures[0].geometry.bucket),
            sizes=_sizes(pictures, flips),
            index=job.position,
        )

    def _flip(self, visit: Visit) -> bool:
        return visit.picture.subset.flip_aug and (keyed.key(self.seed, "flip", *visit.key) & 1) == 1

    def _caption(self, visit: Visit, job: _Job) -> str:
        number = visit.number % self.caption_variants if self.texts else visit.number
        return caption_at(visit.picture, self.seed, number, job.step, self.total_steps, job.epoch)


def caption_at(picture: Picture, seed: int, visit: int, step: int, total_steps: int, epoch: int) -> str:
    """The text of a picture's caption at a visit."""
    rules = picture.subset.captions
    return captions.process(
        picture.caption,
        rules,
        rng=keyed.python(seed, "caption", picture.id, visit),
        step=step,
        total_steps=total_steps,
        epoch=epoch,
    )


def ahead(jobs: Iterable[Job], make: Callable[[Job], Made], threads: int) -> Iterator[Made]:
    """``make`` of each job in order, computed ahead by ``threads`` (0: in the caller's own).

    An exception in a thread is raised where its result is due. Leaving early waits for no more
    than what is being made at that moment.
    """
    if threads < 1:
        yield from map(make, jobs)
        return
    source = iter(jobs)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    try:
        waiting: list[Future[Made]] = [pool.submit(make, job) for job in islice(source, threads + 2)]
        while waiting:
            made = waiting.pop(0).result()
            waiting += [pool.submit(make, job) for job in islice(source, 1)]
            yield made
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Loaded(NamedTuple):
    """One picture as tensors."""

    values: Tensor
    """Pixels (3, H, W) in -1..1, or latents (C, h, w)."""
    mask: Tensor | None
    """(1, H, W) in 0..1."""


def load_pixels(picture: Picture, flip: bool) -> Loaded:
    """A picture decoded, cut to its bucket and mirrored. Raises RunFault naming the file."""
    return _load(picture, flip, None)


def _load(picture: Picture, flip: bool, latents: LatentCache | None) -> Loaded:
    with _naming(picture.path):
        values = None if latents is None else latents.get(picture, flip)
        if latents is not None and values is None:
            raise RunFault(_lost(picture))
        mask = None
        masked = picture.subset.alpha_mask and picture.mask_path is None
        if values is None or masked:
            pixels, alpha = images.decode_with_alpha(picture.path.read_bytes())
            if masked and alpha is not None:
                mask = images.fit_mask(alpha, picture.geometry)
            if values is None:
                fitted = images.fit(pixels, picture.geometry, picture.subset.resize_interpolation)
                values = _as_pixels(images.mirror(fitted) if flip else fitted)
    if picture.mask_path is not None:
        with _naming(picture.mask_path):
            mask = images.fit_mask(images.decode_mask(picture.mask_path.read_bytes()), picture.geometry)
    if mask is not None and flip:
        mask = images.mirror(mask)
    return Loaded(values, None if mask is None else torch.tensor(mask)[None].float() / 255)


@contextmanager
def _naming(path: Path) -> Generator[None, None, None]:
    """Whatever goes wrong inside becomes a RunFault that names the file."""
    try:
        yield
    except AtelierError:
        raise
    except images.DecodeError as error:
        raise RunFault(_unreadable(path, str(error))) from None
    except FileNotFoundError:
        raise RunFault(_unreadable(path, "is no longer there")) from None
    except OSError as error:
        raise RunFault(_unreadable(path, f"cannot be read ({error.strerror})")) from None
    except Exception as error:
        raise RunFault(_unreadable(path, f"could not be loaded ({error!r})")) from error


def _unreadable(path: Path, what: str) -> Problem:
    return Problem(
        f"{path.name} {what}.",
        where=str(path.parent),
        next="Put it right, then resume, or start again without it.",
    )


def _lost(picture: Picture) -> Problem:
    return Problem(
        f"The cached latents of {picture.path.name} are missing or damaged.",
        why="The cache was changed while it was in use, or the picture was.",
        next="Resume: what is missing is computed again at the start.",
    )


def _as_pixels(pixels: images.Array) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in -1..1."""
    channels_first = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return torch.from_numpy(channels_first).float().div_(127.5).sub_(1.0)


def _conditioning(cache: TextCache, texts: Sequence[str], pictures: Sequence[Picture]) -> dict[str, Tensor]:
    entries = [cache.get(text) for text in texts]
    for entry, picture in zip(entries, pictures, strict=True):
        if entry is None:
            raise RunFault(
                f"The encoded caption of {picture.path.name} is missing or damaged.",
                next="Resume: what is missing is computed again at the start.",
            )
    rows = [entry for entry in entries if entry is not None]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _masks(masks: Sequence[Tensor | None], bucket: tuple[int, int]) -> Tensor | None:
    """(B, 1, H, W); ones for pictures without a mask; None when none has one."""
    if all(mask is None for mask in masks):
        return None
    whole = torch.ones(1, bucket[1], bucket[0])
    return torch.stack([whole if mask is None else mask for mask in masks])


def _sizes(pictures: Sequence[Picture], flips: Sequence[bool]) -> BatchSizes:
    crops: list[tuple[int, int]] = []
    for picture, flip in zip(pictures, flips, strict=True):
        g = picture.geometry
        left, top = g.crop
        crops.append((top, g.resized[0] - g.bucket[0] - left if flip else left))
    geometries = [picture.geometry for picture in pictures]
    return BatchSizes(
        original=torch.tensor([g.original[::-1] for g in geometries]),
        crop=torch.tensor(crops),
        target=torch.tensor([g.bucket[::-1] for g in geometries]),
    )


def bucket_groups(plan: DatasetPlan) -> Iterator[tuple[Dataset, list[Picture]]]:
    """The pictures of each bucket of each dataset."""
    for dataset in plan.datasets:
        for pictures in dataset.buckets().values():
            yield dataset, pictures
