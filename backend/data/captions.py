"""From the text of a caption file to the text of one visit.

The steps and their order are sd-scripts': prefix and suffix, dropout, wildcards, then tags (kept
ones, warm-up, shuffle, dropout), then the secondary separator. Three things differ: the keep
separator is understood even when nothing is shuffled, tags are joined with the caption's own
separator, and a prefix or suffix goes on whichever line is chosen.
"""

from __future__ import annotations

import math
import random
import re
from typing import NamedTuple

from backend.data.types import CaptionRules

_WILDCARD = re.compile(r"\{([^{}]+)\}")
_OPEN, _CLOSE = "\x02", "\x03"
"""Stand for literal braces while wildcards are replaced; control characters never reach here."""


class _Tags(NamedTuple):
    first: list[str]
    """Kept in front, in order."""
    free: list[str]
    """May be shuffled and dropped."""
    last: list[str]
    """Kept at the end, in order."""


def process(
    caption: str, rules: CaptionRules, *, rng: random.Random, step: int, total_steps: int, epoch: int
) -> str:
    """The text a caption gives at one visit.

    ``rng`` belongs to the visit. ``step`` counts optimizer steps from 0 and ``epoch`` from 1; they
    matter for the tag warm-up and for ``caption_dropout_every_n_epochs``, which drops the captions
    of the epochs n, 2n, ...
    """
    if _dropped(rules, rng, epoch):
        return ""
    if rules.templates:
        return rng.choice(rules.templates)
    text = _choose(caption, rules, rng)
    tags = _split(text, rules)
    if tags is not None:
        free = tags.free[: _warm(len(tags.free), rules, step, total_steps)]
        if rules.shuffle_caption:
            rng.shuffle(free)
        if rules.caption_tag_dropout_rate:
            free = [tag for tag in free if rng.random() >= rules.caption_tag_dropout_rate]
        text = _joiner(text, rules.caption_separator).join(tags.first + free + tags.last)
    if rules.secondary_separator:
        text = text.replace(rules.secondary_separator, rules.caption_separator)
    return text


def warmup_steps(caption: str, rules: CaptionRules, *, rng: random.Random, total_steps: int) -> list[int]:
    """The steps at which the tag warm-up lets another tag in, the first being 0.

    ``rng`` must be fresh from the key of the visit that :func:`process` will see.
    """
    warm = _warm_total(rules, total_steps)
    if not warm or _dropped(rules, rng, epoch=0):
        return [0]
    tags = _split(_choose(caption, rules, rng), rules)
    more = len(tags.free) - rules.token_warmup_min if tags else 0
    return sorted({0, warm, *(math.ceil(k * warm / more) for k in range(1, more))})


def _dropped(rules: CaptionRules, rng: random.Random, epoch: int) -> bool:
    every = rules.caption_dropout_every_n_epochs
    by_chance = rules.caption_dropout_rate > 0 and rng.random() < rules.caption_dropout_rate
    return by_chance or (every > 0 and epoch > 0 and epoch % every == 0)


def _choose(caption: str, rules: CaptionRules, rng: random.Random) -> str:
    """One line, with prefix and suffix, wildcards replaced."""
    lines = [line for line in caption.splitlines() if line.strip()] or [""]
    line = rng.choice(lines) if rules.enable_wildcard and len(lines) > 1 else lines[0]
    # A text without line breaks is left exactly as it is.
    text = line.strip() if len(lines) > 1 else line
    text = " ".join(part for part in (rules.caption_prefix, text, rules.caption_suffix) if part)
    if not rules.enable_wildcard:
        return text
    text = text.replace("{{", _OPEN).replace("}}", _CLOSE)
    text = _WILDCARD.sub(lambda match: rng.choice(match[1].split("|")), text)
    return text.replace(_OPEN, "{").replace(_CLOSE, "}")


def _split(text: str, rules: CaptionRules) -> _Tags | None:
    """The tags of a text, or None when no rule needs them apart."""
    mark = rules.keep_tokens_separator
    if mark and mark in text:
        first, free, *last = text.split(mark, 2)
        parts = [_filled(part, rules.caption_separator) for part in (first, free, "".join(last))]
        return _Tags(*parts)
    if not (rules.shuffle_caption or rules.token_warmup_step > 0 or rules.caption_tag_dropout_rate > 0):
        return None
    tags = [tag.strip() for tag in text.strip().split(rules.caption_separator)]
    return _Tags(tags[: rules.keep_tokens], tags[rules.keep_tokens :], [])


def _filled(text: str, separator: str) -> list[str]:
    return [tag.strip() for tag in text.split(separator) if tag.strip()]


def _joiner(text: str, separator: str) -> str:
    """The separator with a space after it where the caption has one; a comma always has."""
    spaced = separator == "," or f"{separator} " in text
    return f"{separator} " if spaced and not separator.endswith(" ") else separator


def _warm_total(rules: CaptionRules, total_steps: int) -> int:
    """Steps of the warm-up; a value below 1 is a share of all steps."""
    steps = rules.token_warmup_step
    return math.floor(steps * total_steps) if steps < 1 else int(steps)


def _warm(count: int, rules: CaptionRules, step: int, total_steps: int) -> int:
    """How many of ``count`` free tags are used at ``step``."""
    warm = _warm_total(rules, total_steps)
    if step >= warm or count <= rules.token_warmup_min:
        return count
    return step * (count - rules.token_warmup_min) // warm + rules.token_warmup_min
