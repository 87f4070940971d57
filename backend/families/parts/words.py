"""Words beyond a text encoder's vocabulary, as textual inversion teaches them (Gal et al. 2022).

A word stands for one or several ids above the vocabulary, whose vectors are kept beside the table of
embeddings. It is found in captions as it is written, whatever the case of its letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from backend.data.tokens import VOCABULARY


@dataclass(frozen=True)
class Words:
    """What a model's tokenizers know beside their vocabulary."""

    ids: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    """Word -> the ids it is read as."""
    end: int = VOCABULARY
    """The first id that is free; all ids of words lie between the vocabulary and this."""
    rows: Tensor | None = None
    """(layers, end - VOCABULARY) int64: the id that stands in place of each new one in the text for
    each layer of cross-attention; None where all layers read the same text."""

    def joined(self, first: int, rows: Tensor) -> Tensor:
        """``rows`` for words that come after these: ``rows`` (layers, N) of them counts from 0, their
        ids from ``first``."""
        layers = len(rows)
        before = torch.arange(VOCABULARY, first).repeat(layers, 1)
        if self.rows is not None:
            before[:, : self.rows.shape[1]] = self.rows
        return torch.cat([before, first + rows], dim=1)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.ids, key=len, reverse=True)
        return re.compile("|".join(map(_bounded, longest_first)), re.IGNORECASE)

    @cached_property
    def _by_lower(self) -> dict[str, tuple[int, ...]]:
        return {word.lower(): ids for word, ids in self.ids.items()}

    def split(self, text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """(text before a word, the word's ids) in order; the last has no ids."""
        start = 0
        for match in self._pattern.finditer(text) if self.ids else ():
            yield text[start : match.start()], self._by_lower[match[0].lower()]
            start = match.end()
        yield text[start:], ()

    def found_in(self, text: str) -> set[str]:
        """The words that a text has, as they are known here."""
        named = {word.lower(): word for word in self.ids}
        found = self._pattern.finditer(text) if self.ids else ()
        return {named[match[0].lower()] for match in found}

    def by_layer(self, ids: Tensor) -> Tensor:
        """Ids (B, chunks, 77) -> (B, layers, chunks, 77): the text that each layer reads."""
        assert self.rows is not None, "one text for all layers"
        rows = self.rows.to(ids.device)
        own = rows[:, (ids - VOCABULARY).clamp(min=0)].movedim(0, 1)
        plain = ids[:, None].expand_as(own)
        return torch.where(plain >= VOCABULARY, own, plain)


def _bounded(word: str) -> str:
    """A pattern for a word that is no part of a longer one."""
    before = r"(?<!\w)" if re.match(r"\w", word) else ""
    after = r"(?!\w)" if re.search(r"\w$", word) else ""
    return f"{before}{re.escape(word)}{after}"
