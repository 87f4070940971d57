"""Taggers and captioners as :mod:`backend.annotate.runs` asks them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from backend.annotate import cleaning, cleanrules, tagrules
from backend.annotate.captioners import Captioner, Writing
from backend.annotate.tagger import Pixels, Tagger
from backend.data import images

LARGEST = 2048
"""Captioners get pictures of at most so many pixels a side: they look at far fewer."""


class TagDescriber:
    """Tags as a text."""

    def __init__(self, tagger: Tagger, rules: tagrules.TagRules) -> None:
        self._tagger, self._rules = tagger, rules
        self.glue = rules.separator
        self.counts: Counter[str] = Counter()
        """How often each tag was given."""

    def prepare(self, pixels: images.Array) -> Pixels:
        return self._tagger.prepare(pixels)

    def describe(self, batch: Sequence[Pixels], paths: Sequence[Path]) -> list[str]:
        rows = self._tagger.probabilities(batch)
        found = [tagrules.tags_of(self._tagger.scores(row), self._rules) for row in rows]
        for tags in found:
            self.counts.update(tags)
        return [self._rules.separator.join(tags) for tags in found]


class CaptionDescriber:
    """Captions, cleaned of talk of writing when that is wanted."""

    glue = " "

    def __init__(self, captioner: Captioner, writing: Writing, remove_words: bool) -> None:
        self._captioner, self._writing = captioner, writing
        self._rules = (
            [rule for rule in cleanrules.RULES if rule.id in cleanrules.WRITING] if remove_words else []
        )

    def prepare(self, pixels: images.Array) -> Image.Image:
        height, width = pixels.shape[:2]
        scale = LARGEST / max(height, width)
        if scale < 1:
            pixels = images.resize(pixels, (max(1, round(width * scale)), max(1, round(height * scale))))
        return Image.fromarray(pixels)

    def describe(self, batch: Sequence[Image.Image], paths: Sequence[Path]) -> list[str]:
        found = self._captioner.captions(batch, [path.name for path in paths], self._writing)
        return [cleaning.clean_caption(text, self._rules) for text in found]
