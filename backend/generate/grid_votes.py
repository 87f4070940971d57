"""Which of a grid's candidates people prefer, from votes that did not know what they saw.

A vote compares two cells of one prompt and seed. Strengths follow the model of Bradley and Terry
(1952): i is preferred to j with probability ``1 / (1 + exp(b_j - b_i))``. They are the mode of the
posterior under a weak normal prior, which keeps them finite when one candidate won every time;
intervals are those of the normal approximation there, from the inverse of the second derivatives
(Laplace). A tie counts half for each.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import NormalDist
from typing import Any

from backend.generate.grid import Grid, GridFolder, Place

VOTES = "votes.jsonl"
CONFIDENCE = 0.95
_PRIOR_SD = 1.5
"""Of a strength: at two of them apart, the better one is preferred 95 times in 100."""
_CONTEXT = ("prompt", "seed")


@dataclass(frozen=True)
class Vote:
    """One comparison: ``first`` and ``second`` are candidates; ``winner`` is one of them, or -1 for a tie."""

    first: int
    second: int
    winner: int


@dataclass(frozen=True)
class Standing:
    """How a candidate did."""

    candidate: int
    wins: float
    """Ties count half."""
    votes: int
    chance: float
    """That it is preferred to a candidate of average strength."""
    low: float
    high: float
    """Ends of the 95% interval of ``chance``."""


@dataclass(frozen=True)
class Result:
    """All candidates, the best first."""

    standings: tuple[Standing, ...]
    votes: int
    chance_over_second: float
    """That the first is preferred to the second."""
    low_over_second: float
    high_over_second: float
    clear: bool
    """The first is better than every other one, with 95% confidence in all of these together."""


def candidate_axes(grid: Grid) -> list[int]:
    """The axes whose values compete: all but prompts and seeds, which are what they compete on."""
    return [i for i, axis in enumerate(grid.axes) if axis.key not in _CONTEXT]


def candidates(grid: Grid) -> list[Place]:
    """What competes: the combinations of values on those axes, as indices on them."""
    return list(itertools.product(*(range(len(grid.axes[i].values)) for i in candidate_axes(grid))))


def candidate_label(grid: Grid, candidate: Place) -> str:
    """A candidate in words."""
    axes = candidate_axes(grid)
    return ", ".join(grid.axes[axis].labels()[i] for axis, i in zip(axes, candidate, strict=True))


def fit(count: int, votes: Sequence[Vote]) -> Result:
    """The standings of ``count`` candidates."""
    import numpy as np

    wins = np.zeros((count, count))
    for vote in votes:
        first, second = vote.first, vote.second
        if vote.winner == -1:
            wins[first, second] += 0.5
            wins[second, first] += 0.5
        else:
            wins[vote.winner, second if vote.winner == first else first] += 1
    strengths, covariance = _posterior(wins)
    order = sorted(range(count), key=lambda i: (-strengths[i], i))
    standings = tuple(_standing(i, wins, strengths, covariance) for i in order)
    return Result(standings, len(votes), *_lead(order, strengths, covariance))


def _posterior(wins: Any) -> tuple[Any, Any]:
    """Mode and covariance of the strengths: Newton's method on a concave function."""
    import numpy as np

    games, precision = wins + wins.T, np.eye(len(wins)) / _PRIOR_SD**2
    strengths, curvature = np.zeros(len(wins)), precision
    for _ in range(50):
        chance = 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))
        slope = (wins - games * chance).sum(1) - strengths / _PRIOR_SD**2
        weight = games * chance * (1 - chance)
        curvature = np.diag(weight.sum(1)) - weight + precision
        step = np.linalg.solve(curvature, slope)
        strengths = strengths + np.clip(step, -2, 2)
        if float(np.abs(step).max()) < 1e-9:
            break
    return strengths, np.linalg.inv(curvature)


def _standing(i: int, wins: Any, strengths: Any, covariance: Any) -> Standing:
    import numpy as np

    count = len(strengths)
    against = np.full(count, -1 / max(count - 1, 1))
    against[i] = 1 if count > 1 else 0
    chance, low, high = _chance(against, strengths, covariance, _z(1))
    return Standing(i, float(wins[i].sum()), round(float((wins + wins.T)[i].sum())), chance, low, high)


def _lead(order: list[int], strengths: Any, covariance: Any) -> tuple[float, float, float, bool]:
    """Chance of the first against the second with its interval, and whether it leads for sure."""
    import numpy as np

    def contrast(other: int) -> Any:
        made = np.zeros(len(order))
        made[order[0]], made[other] = 1, -1
        return made

    if len(order) < 2:
        return 0.5, 0.0, 1.0, False
    others = order[1:]
    # Bonferroni: the first was picked because it leads, so it is held to all comparisons at once.
    lows = [_chance(contrast(other), strengths, covariance, _z(len(others)))[1] for other in others]
    return *_chance(contrast(others[0]), strengths, covariance, _z(1)), min(lows) > 0.5


def _chance(contrast: Any, strengths: Any, covariance: Any, z: float) -> tuple[float, float, float]:
    lead = float(contrast @ strengths)
    reach = z * math.sqrt(max(float(contrast @ covariance @ contrast), 0.0))
    low, middle, high = (1 / (1 + math.exp(-value)) for value in (lead - reach, lead, lead + reach))
    return middle, low, high


def _z(comparisons: int) -> float:
    return NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2 / comparisons)


# -- asking --------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Two cells to be compared, in the order in which they are shown."""

    first: int
    second: int
    first_cell: Place
    second_cell: Place


def next_pair(folder: GridFolder, votes: Sequence[Vote], random: Random) -> Pair | None:
    """The pair whose comparison tells most: seen least so far, and then the closest in strength.

    None when there are not two finished cells of one prompt and seed.
    """
    grid = folder.grid
    competing = candidates(grid)
    cells = _cells(folder, competing)
    seen = Counter(frozenset((vote.first, vote.second)) for vote in votes)
    strength = {row.candidate: row.chance for row in fit(len(competing), votes).standings}
    pairs = [
        (seen[frozenset((a, b))], abs(strength[a] - strength[b]), random.random(), a, b)
        for a in range(len(competing))
        for b in range(a)
        if cells[a].keys() & cells[b].keys()
    ]
    if not pairs:
        return None
    *_, a, b = min(pairs)
    first, second = (a, b) if random.random() < 0.5 else (b, a)
    context = random.choice(sorted(cells[a].keys() & cells[b].keys()))
    return Pair(first, second, cells[first][context], cells[second][context])


def _cells(folder: GridFolder, competing: list[Place]) -> list[dict[Place, Place]]:
    """For each candidate its finished cells by prompt and seed."""
    axes = candidate_axes(folder.grid)
    found: dict[Place, dict[Place, Place]] = {candidate: {} for candidate in competing}
    for place in folder.finished():
        candidate = tuple(place[i] for i in axes)
        context = tuple(index for i, index in enumerate(place) if i not in axes)
        found[candidate][context] = place
    return [found[candidate] for candidate in competing]


def read(folder: GridFolder) -> list[Vote]:
    """The votes so far; lines that cannot be read are left out."""
    try:
        lines = (folder.path / VOTES).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    count = len(candidates(folder.grid))
    return [vote for line in lines if (vote := _vote(line, count)) is not None]


def add(folder: GridFolder, vote: Vote) -> None:
    """Keep one more vote. Raises OSError."""
    line = json.dumps({"first": vote.first, "second": vote.second, "winner": vote.winner})
    with (folder.path / VOTES).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _vote(line: str, count: int) -> Vote | None:
    try:
        data = json.loads(line)
        vote = Vote(int(data["first"]), int(data["second"]), int(data["winner"]))
    except (ValueError, KeyError, TypeError):
        return None
    known = {vote.first, vote.second} <= set(range(count)) and vote.first != vote.second
    return vote if known and vote.winner in (-1, vote.first, vote.second) else None
