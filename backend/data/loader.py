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
from backend.data import augment, captions, images
from backend.data.cache import LatentCache, TextCache, posterior_noise
from backend.data.facts import FileFacts, default_facts
from backend.data.types import Dataset, DatasetPlan, Geometry, Picture
from backend.errors import AtelierError, Problem, RunFault

Job = TypeVar("Job")
Made = TypeVar("Made")


class PictureFault(RunFault):
    """A picture's file cannot be read now; once it is put back, trying again works."""


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
    """(B,) float32; with what makes the mean over processes one over pictures when they share a batch."""
    masks: Tensor | None
    """(B, 1, H, W) float32 in 0..1; None when no picture has one."""
    sizes: BatchSizes
    index: int
    """Position in its epoch, from 0."""
    network_multiplier: float = 1.0
    """Of its dataset: how strongly the network acts."""
    conditioning: Tensor | None = None
    """(B, 3, H, W) float32 in -1..1: the pictures that guide; None without control subsets."""


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
    weight: float
    """What the losses are multiplied by."""


@dataclass(frozen=True)
class Encoded:
    """What was encoded before; None where it is encoded in each step."""

    latents: LatentCache | None = None
    texts: TextCache | None = None
    caption_variants: int = 1
    """With ``texts``, captions are those of visit modulo this."""


class Loader:
    """Gives the batches of each epoch.

    ``total_steps`` matters to a tag warm-up given as a share. ``accumulation`` batches make one
    optimizer step.

    ``shard`` is (number of this process from 0, number of processes). Processes share batches that
    many times as large, so their steps are those of one process with that batch size: all work on
    pictures of one size, and a short batch is weighed so that each of its pictures counts as much.
    """

    def __init__(
        self,
        plan: DatasetPlan,
        *,
        seed: int,
        total_steps: int,
        threads: int = 0,
        encoded: Encoded | None = None,
        accumulation: int = 1,
        facts: FileFacts | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        assert 0 <= shard[0] < shard[1], "a process number outside the number of processes"
        self.shard = shard
        self.plan, self.seed, self.total_steps, self.threads = plan, seed, total_steps, threads
        encoded = encoded or Encoded()
        self.latents, self.texts = encoded.latents, encoded.texts
        self.caption_variants, self.accumulation = max(1, encoded.caption_variants), max(1, accumulation)
        self.facts = facts or (self.latents.facts if self.latents else default_facts())
        self._contents: dict[Path, str] = {}
        self._multipliers = {p.id: d.network_multiplier for d in plan.datasets for p in d.pictures}

    def epoch(self, epoch: int, start_batch: int = 0, step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (from 1), from ``start_batch`` on without loading those before.

        ``step`` is the number of optimizer steps done when the first of them is used.

        Raises :class:`~backend.errors.RunFault` naming the picture when one cannot be loaded, a
        :class:`PictureFault` where it is for its file.
        """
        order = self.own_order(epoch)
        jobs = (
            _Job(i, step + (i - start_batch) // self.accumulation, epoch, *order[i])
            for i in range(start_batch, len(order))
        )
        return ahead(jobs, self._batch, self.threads)

    def own_order(self, epoch: int) -> list[tuple[list[Visit], float]]:
        """This process's part of each batch, and what its losses are multiplied by.

        The mean over processes of the means over their parts is to be the mean over the batch. A
        process for which nothing is left takes the first picture, which counts nothing there.
        """
        rank, world = self.shard
        parts: list[tuple[list[Visit], float]] = []
        for batch in self.order(epoch):
            each, more = divmod(len(batch), world)
            start = rank * each + min(rank, more)
            part = batch[start : start + each + (rank < more)]
            parts.append((part or batch[:1], len(part) * world / len(batch)))
        return parts

    def order(self, epoch: int) -> list[list[Visit]]:
        """Which pictures make which batch: a permutation inside each bucket, then of all batches."""
        batches: list[list[Visit]] = []
        for number, dataset in enumerate(self.plan.datasets):
            size = dataset.batch_size * self.shard[1]
            for bucket, pictures in dataset.buckets().items():
                visits = [
                    Visit(p, (epoch - 1) * p.repeats + repeat)
                    for p in pictures
                    for repeat in range(p.repeats)
                ]
                keyed.python(self.seed, "order", epoch, number, *bucket).shuffle(visits)
                batches += [visits[i : i + size] for i in range(0, len(visits), size)]
        keyed.python(self.seed, "batches", epoch).shuffle(batches)
        return batches

    def encoded(self, texts: Sequence[str], pictures: Sequence[Picture]) -> dict[str, Tensor]:
        """Cached conditioning of texts that belong to pictures, batch first. Raises RunFault."""
        assert self.texts is not None, "texts are encoded in the step"
        return _conditioning(self.texts, texts, pictures)

    def posterior_noise(self, batch: Batch, channels: int, scale: int = 8) -> Tensor:
        """(B, C, h, w): the draws with which live encoding gives what the latent cache holds."""
        width, height = batch.pictures[0].geometry.bucket
        shape = (channels, height // scale, width // scale)
        pairs = zip(batch.pictures, batch.flips, strict=True)
        return torch.stack([posterior_noise(self._content(picture), flip, shape) for picture, flip in pairs])

    def _content(self, picture: Picture) -> str:
        """The hash of a picture's bytes, asked for once: what becomes of the file later does not matter."""
        if picture.path not in self._contents:
            with naming(picture.path):
                self._contents[picture.path] = self.facts.content(picture.path)
        return self._contents[picture.path]

    def _batch(self, job: _Job) -> Batch:
        flips = tuple(self._flip(visit) for visit in job.visits)
        texts = tuple(self._caption(visit, job) for visit in job.visits)
        looks = [self._look(visit, flip) for visit, flip in zip(job.visits, flips, strict=True)]
        loaded = [_load(look, self.latents) for look in looks]
        pictures = tuple(visit.picture for visit in job.visits)
        cached = self.latents is not None
        if not cached:
            for picture in pictures:
                self._content(picture)
        values = torch.stack([item.values for item in loaded])
        return Batch(
            keys=tuple(visit.key for visit in job.visits),
            pictures=pictures,
            captions=texts,
            flips=flips,
            pixels=None if cached else values,
            latents=values if cached else None,
            text=None if self.texts is None else _conditioning(self.texts, texts, pictures),
            loss_weights=torch.tensor([p.loss_weight * job.weight for p in pictures], dtype=torch.float32),
            masks=_masks([item.mask for item in loaded], pictures[0].geometry.bucket),
            sizes=_sizes(looks),
            index=job.position,
            network_multiplier=self._multipliers[pictures[0].id],
            conditioning=_guides([item.guide for item in loaded]),
        )

    def _look(self, visit: Visit, flip: bool) -> Look:
        picture, number = visit
        return Look(picture, flip, augment.geometry_at(picture, self.seed, number), self.seed, number)

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


class Look(NamedTuple):
    """How a picture looks at a visit."""

    picture: Picture
    flip: bool
    geometry: Geometry
    seed: int = 0
    visit: int = 0


class Loaded(NamedTuple):
    """One picture as tensors."""

    values: Tensor
    """Pixels (3, H, W) in -1..1, or latents (C, h, w)."""
    mask: Tensor | None
    """(1, H, W) in 0..1."""
    guide: Tensor | None = None
    """Pixels of the picture that guides, (3, H, W) in -1..1."""


def load_pixels(picture: Picture, flip: bool) -> Loaded:
    """A picture decoded, cut to its bucket and mirrored. Raises RunFault naming the file."""
    return _load(Look(picture, flip, picture.geometry), None)


def load_mask(picture: Picture) -> images.Array | None:
    """A picture's mask (H, W) at its bucket, not mirrored; None when all of the picture counts.

    Raises RunFault naming the file.
    """
    if picture.mask_path is not None:
        with naming(picture.mask_path):
            return images.fit_mask(images.decode_mask(picture.mask_path.read_bytes()), picture.geometry)
    with naming(picture.path):
        alpha = images.decode_with_alpha(picture.path.read_bytes())[1]
        return None if alpha is None else images.fit_mask(alpha, picture.geometry)


def has_mask(picture: Picture) -> bool:
    """Whether a picture's loss may be weighed by a mask."""
    return picture.mask_path is not None or picture.subset.alpha_mask


def _load(look: Look, latents: LatentCache | None) -> Loaded:
    values, mask = _decoded(look) if latents is None else _cached(look, latents)
    if mask is not None:
        mask = images.mirror(mask) if look.flip else mask
    weights = None if mask is None else torch.tensor(mask)[None].float() / 255
    return Loaded(values, weights, _guide(look))


def _cached(look: Look, latents: LatentCache) -> tuple[Tensor, images.Array | None]:
    picture = look.picture
    with naming(picture.path):
        values = latents.get(picture, look.flip)
        mask = latents.mask(picture) if has_mask(picture) else None
        if values is None or (mask is None and has_mask(picture)):
            raise RunFault(_lost(picture))
    return values, mask if mask is not None and mask.size else None


def _decoded(look: Look) -> tuple[Tensor, images.Array | None]:
    picture, geometry = look.picture, look.geometry
    with naming(picture.path):
        pixels, alpha = images.decode_with_alpha(picture.path.read_bytes())
        _require_size(pixels, picture)
        fitted = images.fit(pixels, geometry, picture.subset.resize_interpolation)
        fitted = augment.colours_at(fitted, picture, look.seed, look.visit)
        values = _as_pixels(images.mirror(fitted) if look.flip else fitted)
        alpha = alpha if picture.subset.alpha_mask and picture.mask_path is None else None
        mask = None if alpha is None else images.fit_mask(alpha, geometry)
    if picture.mask_path is not None:
        with naming(picture.mask_path):
            mask = images.fit_mask(images.decode_mask(picture.mask_path.read_bytes()), geometry)
    return values, mask


def _guide(look: Look) -> Tensor | None:
    """The guiding picture, cut and mirrored as its picture is."""
    path = look.picture.conditioning_path
    if path is None:
        return None
    with naming(path):
        fitted = images.fit(
            images.decode(path.read_bytes()), look.geometry, look.picture.subset.resize_interpolation
        )
    return _as_pixels(images.mirror(fitted) if look.flip else fitted)


def _guides(guides: Sequence[Tensor | None]) -> Tensor | None:
    found = [guide for guide in guides if guide is not None]
    assert len(found) in (0, len(guides)), "a batch with guiding pictures for some only"
    return torch.stack(found) if found else None


@contextmanager
def naming(path: Path) -> Generator[None, None, None]:
    """Whatever goes wrong inside becomes a RunFault that names the file, a PictureFault if it is for that."""
    try:
        yield
    except AtelierError:
        raise
    except images.DecodeError as error:
        raise PictureFault(_unreadable(path, str(error))) from None
    except FileNotFoundError:
        raise PictureFault(_unreadable(path, "is no longer there")) from None
    except OSError as error:
        raise PictureFault(_unreadable(path, f"cannot be read ({error.strerror})")) from None
    except Exception as error:
        raise RunFault(_unreadable(path, f"could not be loaded ({error!r})")) from error


def _require_size(pixels: images.Array, picture: Picture) -> None:
    """Refuse a picture that was exchanged for one of another size, which would be drawn out of shape."""
    (height, width), (wide, high) = pixels.shape[:2], picture.geometry.original
    if (width, height) != (wide, high):
        what = f"is {width}x{height} px now; it was {wide}x{high} when the run began"
        raise PictureFault(_unreadable(picture.path, what))


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


def _sizes(looks: Sequence[Look]) -> BatchSizes:
    crops: list[tuple[int, int]] = []
    for look in looks:
        g = look.geometry
        left, top = g.crop
        crops.append((top, g.resized[0] - g.bucket[0] - left if look.flip else left))
    geometries = [look.geometry for look in looks]
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
