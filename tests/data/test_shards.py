"""Several processes: each its own batches, as many as the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.data.loader import Loader
from backend.settings.length import run_length
from tests.data.data_kit import plan_of, settings


@pytest.mark.parametrize("world", [1, 2, 3, 4, 11])
def test_processes_share_an_epoch(pictures: Callable[..., Path], world: int) -> None:
    plan = plan_of(pictures(count=7), flip_aug=True)
    whole = [batch.keys for batch in Loader(plan, seed=1, total_steps=9).epoch(2)]
    shares = [
        [b.keys for b in Loader(plan, seed=1, total_steps=9, shard=(rank, world)).epoch(2)]
        for rank in range(world)
    ]
    length = run_length(settings(), plan.batches_per_epoch(), world)
    assert {len(share) for share in shares} == {length.batches_per_epoch}
    seen = Counter(keys for share in shares for keys in share)
    assert set(seen) == set(whole)
    assert sum(seen.values()) - len(whole) == length.batches_per_epoch * world - 7
    # One step of all processes is what one process does in as many.
    steps = [keys for group in zip(*shares, strict=True) for keys in group]
    assert steps[: len(whole)] == whole


def test_a_process_goes_on_where_it_was(pictures: Callable[..., Path]) -> None:
    plan = plan_of(pictures(count=7), shuffle_caption=True)

    def share(start: int) -> list[tuple[object, ...]]:
        loader = Loader(plan, seed=1, total_steps=9, shard=(1, 2))
        return [(b.index, b.keys, b.captions) for b in loader.epoch(1, start_batch=start)]

    assert share(2) == share(0)[2:]
    assert [index for index, *_ in share(0)] == [0, 1, 2, 3]
