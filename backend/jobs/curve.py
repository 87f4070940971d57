"""A curve of any length kept in a few hundred points, with nothing of its extremes lost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Bucket:
    """Neighbouring steps seen as one point."""

    first: int
    last: int
    low: float
    high: float
    total: float
    count: int
    smooth: float
    extras: tuple[float | None, ...] = ()
    """Other figures at its last step."""

    @property
    def mean(self) -> float:
        return self.total / self.count

    def merge(self, other: Bucket) -> Bucket:
        """This bucket and the one right after it."""
        return Bucket(
            self.first,
            other.last,
            min(self.low, other.low),
            max(self.high, other.high),
            self.total + other.total,
            self.count + other.count,
            other.smooth,
            other.extras,
        )


@dataclass
class Curve:
    """A loss curve that is fed step by step and stays small.

    When there are more than ``limit`` buckets, neighbours are merged in pairs, so a point always
    stands for the same number of values (the last one for fewer). Smoothing is an exponential mean
    over about a twentieth of the run, corrected for its start.

    Args:
        limit: most points kept.
        longest: most values that the smoothing looks back on.
    """

    limit: int = 500
    longest: int = 200
    buckets: list[Bucket] = field(default_factory=list)
    stride: int = 1
    _mean: float = 0.0
    _weight: float = 0.0

    def add(self, step: int, value: float, total: int = 0, extras: tuple[float | None, ...] = ()) -> None:
        """Add the value of a step.

        A step that is not after the last one means that the run went back to a restore point: what
        was kept from there on is forgotten. Values that are not finite leave no point.
        """
        if self.buckets and step <= self.buckets[-1].last:
            self._forget(step)
        if not math.isfinite(value):
            return
        smooth = self._smoothed(value, total)
        point = Bucket(step, step, value, value, value, 1, smooth, extras)
        last = self.buckets[-1] if self.buckets else None
        if last and last.count < self.stride:
            self.buckets[-1] = last.merge(point)
            return
        self.buckets.append(point)
        if len(self.buckets) > self.limit:
            self._halve()

    def _smoothed(self, value: float, total: int) -> float:
        horizon = min(max(total / 20, 5), self.longest)
        share = 1 / horizon
        self._mean += share * (value - self._mean)
        self._weight += share * (1 - self._weight)
        return self._mean / self._weight

    def _forget(self, step: int) -> None:
        self.buckets = [bucket for bucket in self.buckets if bucket.last < step]
        self._mean, self._weight = (self.buckets[-1].smooth, 1.0) if self.buckets else (0.0, 0.0)

    def _halve(self) -> None:
        pairs = zip(self.buckets[0::2], [*self.buckets[1::2], None], strict=False)
        self.buckets = [first.merge(second) if second else first for first, second in pairs]
        self.stride *= 2

    def reduced(self, limit: int) -> list[Bucket]:
        """The curve in at most ``limit`` points."""
        size = math.ceil(len(self.buckets) / limit) if self.buckets else 1
        groups = (self.buckets[start : start + size] for start in range(0, len(self.buckets), size))
        return [_merged(group) for group in groups]


def _merged(group: list[Bucket]) -> Bucket:
    whole = group[0]
    for bucket in group[1:]:
        whole = whole.merge(bucket)
    return whole
