"""Several processes: each its part of every batch, and no picture counted twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from backend.data.cache import LatentCache, content_key, open_store
from backend.data.fill import fill_latents, is_ours
from backend.data.loader import Batch, Loader
from tests.data.data_kit import plan_of


def share_of(pictures: Path, rank: int, world: int, **options: object) -> list[Batch]:
    plan = plan_of(pictures, **options)
    return list(Loader(plan, seed=1, total_steps=9, shard=(rank, world)).epoch(2))


@pytest.mark.parametrize("world", [1, 2, 3, 11])
def test_processes_share_the_batches_of_one_process_with_a_larger_batch(
    pictures: Callable[..., Path], world: int
) -> None:
    folder = pictures(count=7)
    whole = share_of(folder, 0, 1, flip_aug=True, train_batch_size=2 * world)
    shares = [share_of(folder, rank, world, flip_aug=True, train_batch_size=2) for rank in range(world)]
    assert {len(share) for share in shares} == {len(whole)}
    for batch, *parts in zip(whole, *shares, strict=True):
        counted = [
            (key, float(weight) * len(batch.keys) / (world * len(part.keys)))
            for part in parts
            for key, weight in zip(part.keys, part.loss_weights, strict=True)
            if weight > 0
        ]
        assert [key for key, _ in counted] == list(batch.keys)
        # The mean over processes of the means over their parts counts each picture once.
        assert [share for _, share in counted] == pytest.approx([1.0] * len(batch.keys))


def test_the_plan_counts_the_batches_that_processes_share(pictures: Callable[..., Path]) -> None:
    folder = pictures(count=7)
    plan = plan_of(folder, train_batch_size=2)
    for world in (1, 2, 3):
        assert plan.batches_per_epoch(world) == len(share_of(folder, 0, world, train_batch_size=2))


def test_a_process_goes_on_where_it_was(pictures: Callable[..., Path]) -> None:
    plan = plan_of(pictures(count=7), shuffle_caption=True)

    def share(start: int) -> list[tuple[object, ...]]:
        loader = Loader(plan, seed=1, total_steps=9, shard=(1, 2))
        return [(b.index, b.keys, b.captions) for b in loader.epoch(1, start_batch=start)]

    assert share(2) == share(0)[2:]
    assert [index for index, *_ in share(0)] == list(range(plan.batches_per_epoch(2)))


def test_every_entry_of_a_cache_has_one_maker() -> None:
    keys = [content_key("picture", number) for number in range(200)]
    for count in (1, 2, 3):
        makers = [[rank for rank in range(count) if is_ours(key, (rank, count))] for key in keys]
        assert all(len(found) == 1 for found in makers)
        assert {found[0] for found in makers} == set(range(count))


def encode(pixels: Tensor, noise: Tensor) -> Tensor:
    return pixels.mean() + noise


def test_processes_fill_a_cache_together(pictures: Callable[..., Path]) -> None:
    plan = plan_of(pictures(count=7), flip_aug=True)
    store = open_store("latents", "v", disk=False)
    filled = [
        fill_latents(plan, LatentCache(store, "v"), encode, share=(rank, 3)).computed for rank in range(3)
    ]
    assert sum(filled) == 14 and max(filled) < 14
    assert fill_latents(plan, LatentCache(store, "v"), encode).computed == 0
