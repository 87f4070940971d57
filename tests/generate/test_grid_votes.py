"""Blind votes: planted preferences are found, intervals hold what they promise, pairs are fair."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from PIL import Image

from backend.generate import grid_votes as voting
from backend.generate.grid import Axis, create, planned
from backend.generate.grid_votes import Vote, fit
from backend.generate.request import LoraUse, Request


def votes_of(strengths: list[float], rounds: int, random: Random) -> list[Vote]:
    """Every pair ``rounds`` times, decided by chance as Bradley and Terry say."""
    pairs = [(a, b) for a in range(len(strengths)) for b in range(a)] * rounds
    return [
        Vote(a, b, a if random.random() < 1 / (1 + math.exp(strengths[b] - strengths[a])) else b)
        for a, b in pairs
    ]


def test_a_planted_order_is_found_and_the_winner_is_sure():
    result = fit(4, votes_of([-1.5, 1.8, 0.2, -0.4], 30, Random(1)))
    assert [row.candidate for row in result.standings] == [1, 2, 3, 0]
    assert result.clear and result.low_over_second > 0.5
    assert sum(row.wins for row in result.standings) == result.votes == 180
    assert all(row.low < row.chance < row.high for row in result.standings)


def test_a_few_votes_are_not_taken_for_certainty():
    result = fit(3, [Vote(0, 1, 0), Vote(0, 2, 0), Vote(1, 2, 1)])
    assert result.standings[0].candidate == 0 and not result.clear
    assert result.standings[0].chance < 0.9, "two wins out of two are no proof"


def test_equal_candidates_stay_equal_and_ties_count_half():
    result = fit(2, [Vote(0, 1, -1)] * 6 + [Vote(0, 1, 0), Vote(0, 1, 1)])
    assert result.chance_over_second == pytest.approx(0.5)
    assert [row.wins for row in result.standings] == [4, 4] and not result.clear


def test_without_votes_nothing_is_known():
    result = fit(3, [])
    assert {row.chance for row in result.standings} == {0.5} and not result.clear
    assert fit(1, []).standings[0].votes == 0


def test_two_candidates_agree_with_the_arithmetic():
    # 30 of 40: the mode solves 30 - 40 p = b / 1.5^2 * (2 b_i for strengths +-b/2), p = 1 / (1 + exp(-b)).
    result = fit(2, [Vote(0, 1, 0)] * 30 + [Vote(0, 1, 1)] * 10)
    lead = math.log(result.chance_over_second / (1 - result.chance_over_second))
    assert 30 - 40 / (1 + math.exp(-lead)) == pytest.approx(lead / 2 / 1.5**2, abs=1e-6)
    spread = 1 / math.sqrt(40 * 0.75 * 0.25)
    low = 1 / (1 + math.exp(-(lead - 1.96 * spread)))
    assert result.low_over_second == pytest.approx(low, abs=0.03)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    strengths, held = [0.9, 0.0, -0.9], 0
    truth = 1 / (1 + math.exp(-(0.9 - (0.0 - 0.9) / 2)))
    for seed in range(200):
        row = next(r for r in fit(3, votes_of(strengths, 15, Random(seed))).standings if r.candidate == 0)
        held += row.low <= truth <= row.high
    assert 0.90 <= held / 200 <= 1.0


@pytest.fixture
def folder(tmp_path):
    """Three strengths on two seeds; one cell is not finished."""
    axes = (Axis("seed", (1, 2)), Axis("strength", (0.5, 0.8, 1.0)))
    found = create(tmp_path, planned("m", Request(loras=(LoraUse("l"),)), axes))
    for place in found.grid.places[:-1]:
        found.picture(place).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(found.picture(place))
    return found


def test_candidates_are_all_but_prompts_and_seeds(folder):
    assert voting.candidates(folder.grid) == [(0,), (1,), (2,)]
    assert [voting.candidate_label(folder.grid, c) for c in voting.candidates(folder.grid)] == [
        "× 0.5", "× 0.8", "× 1",
    ]  # fmt: skip


def test_pairs_share_prompt_and_seed_and_every_pair_gets_its_turn(folder):
    random, votes, sides = Random(3), [], Counter()
    for _ in range(60):
        pair = voting.next_pair(folder, votes, random)
        assert pair is not None and pair.first != pair.second
        assert pair.first_cell[0] == pair.second_cell[0], "the seed is the same"
        assert (pair.first_cell[1], pair.second_cell[1]) == (pair.first, pair.second)
        assert folder.picture(pair.first_cell).is_file() and folder.picture(pair.second_cell).is_file()
        sides[pair.first < pair.second] += 1
        votes.append(Vote(pair.first, pair.second, random.choice([pair.first, pair.second, -1])))
    seen = Counter(frozenset((vote.first, vote.second)) for vote in votes)
    assert max(seen.values()) - min(seen.values()) <= 1 and len(seen) == 3
    assert 15 < sides[True] < 45, "neither stands on one side always"


def test_no_pair_where_nothing_competes(tmp_path):
    found = create(tmp_path, planned("m", Request(), (Axis("seed", (1, 2)),)))
    assert voting.next_pair(found, [], Random(1)) is None


def test_votes_are_kept_and_broken_lines_left_out(folder):
    voting.add(folder, Vote(0, 1, 0))
    voting.add(folder, Vote(1, 2, -1))
    with (folder.path / "votes.jsonl").open("a") as file:
        file.write(
            '{"first": 0, "second": 9, "winner": 0}\n{broken\n{"first": 0, "second": 1, "winner": 2}\n'
        )
    assert voting.read(folder) == [Vote(0, 1, 0), Vote(1, 2, -1)]
