"""Rules about the words in captions: the trigger word, and tags that stand in all or in one."""

from __future__ import annotations

import difflib
import re
import statistics
from collections.abc import Iterator

from backend.data.lint.about_captions import captions_of
from backend.data.lint.rule import Hit, hit
from backend.data.lint.survey import Caption, Folder, Item, Survey

FEWEST_CAPTIONS = 5
"""With fewer captions in a folder nothing is said about how often a tag stands in them."""
_TAGS, _WORDS_A_TAG = 4, 2.5
"""Captions are lists of tags when they have at least this many parts of at most this many words."""
_LONG_ENOUGH = 5
"""Letters of a trigger word from which on one wrong letter is taken for a slip."""


def trigger_missing(survey: Survey) -> Iterator[Hit]:
    for folder, word in _with_trigger(survey):
        found = [(item, caption) for item, caption in captions_of(folder) if caption.text.strip()]
        without = [pair for pair in found if not _spellings(pair[1].text, word)]
        if found and len(without) == len(found):
            first = found[0][0]
            text = f"'{word}' stands in no caption of {folder.subset.image_dir.name}"
            yield Hit(folder.subset.image_dir, text, first, severity="note")
        else:
            yield from (hit(item, f"'{word}' is missing") for item, _ in without)


def trigger_misspelt(survey: Survey) -> Iterator[Hit]:
    for folder, word in _with_trigger(survey):
        for item, caption in captions_of(folder):
            for spelling in _spellings(caption.text, word):
                if spelling != word:
                    only_case = spelling.casefold() == word.casefold()
                    # CLIP reads both cases as one; other programs and people may not.
                    yield hit(item, f"'{spelling}' for '{word}'", spelling, "note" if only_case else None)


def tags_everywhere(survey: Survey) -> Iterator[Hit]:
    for folder in survey.folders:
        users, total = _tags(folder)
        word = (survey.trigger(folder.subset) or "").casefold()
        own = (folder.subset.class_tokens or "").casefold()
        for tag, items in users.items():
            trigger = (word and word in tag) or tag in own
            if len(items) == total and not trigger:
                yield hit(items[0], f"'{tag}' stands in all {total} captions")


def tags_once(survey: Survey) -> Iterator[Hit]:
    for folder in survey.folders:
        users, _ = _tags(folder)
        often = [tag for tag, items in users.items() if len(items) > 1]
        for number, (tag, items) in enumerate(pair for pair in users.items() if len(pair[1]) == 1):
            near = difflib.get_close_matches(tag, often, n=1, cutoff=0.85) if number < 100 else []
            yield hit(items[0], f"'{tag}' stands in no other{f'; others have {near[0]!r}' if near else ''}")


def _with_trigger(survey: Survey) -> Iterator[tuple[Folder, str]]:
    for folder in survey.folders:
        word = survey.trigger(folder.subset)
        if word:
            yield folder, word


def _spellings(text: str, word: str) -> list[str]:
    """Every spelling of the trigger word in a text, each once; slips only where nothing better stands."""
    letters = r"[\s_-]?".join(re.escape(letter) for letter in _bare(word))
    loose = re.compile(rf"(?<!\w){letters}(?!\w)", re.IGNORECASE)
    exact = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
    plain = exact.sub(" , ", text)
    found = [match[0] for match in loose.finditer(plain)]
    found += [word] if plain != text else []
    return list(dict.fromkeys(found)) or _slips(text, word)


def _slips(text: str, word: str) -> list[str]:
    """Words of a text that are one letter away from the trigger word."""
    bare = _bare(word)
    if len(bare) < _LONG_ENOUGH:
        return []
    many = len(re.split(r"[\s_-]+", word))
    parts = list(re.finditer(r"[^\s,.;:()]+", text))
    found: list[str] = []
    for size in {1, many}:
        for start in range(len(parts) - size + 1):
            piece = text[parts[start].start() : parts[start + size - 1].end()]
            if one_apart(_bare(piece), bare):
                found.append(piece)
    return list(dict.fromkeys(found))


def one_apart(one: str, other: str) -> bool:
    """One letter put in, left out or changed, or two neighbours exchanged."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    a, b = one[start:], other[start:]
    exchanged = a[:2] == b[1::-1] and a[2:] == b[2:] and len(a) > 1 and len(b) > 1
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or exchanged


def _bare(text: str) -> str:
    return re.sub(r"[\s_-]+", "", text).casefold()


def _tags(folder: Folder) -> tuple[dict[str, list[Item]], int]:
    """Tag -> the pictures that have it, and the number of captions; nothing where they are no lists."""
    users: dict[str, list[Item]] = {}
    lists = [(item, _split(item, caption)) for item, caption in captions_of(folder) if caption.text.strip()]
    if len(lists) < FEWEST_CAPTIONS or folder.subset.is_reg:
        return {}, 0
    words = [len(tag.split()) for _, tags in lists for tag in tags]
    if statistics.median(len(tags) for _, tags in lists) < _TAGS or statistics.mean(words) > _WORDS_A_TAG:
        return {}, 0
    for item, tags in lists:
        for tag in tags:
            users.setdefault(tag, []).append(item)
    return users, len(lists)


def _split(item: Item, caption: Caption) -> list[str]:
    rules = item.subset.captions
    text = caption.text.replace("\n", rules.caption_separator)
    for mark in (rules.keep_tokens_separator, rules.secondary_separator):
        text = text.replace(mark, rules.caption_separator) if mark else text
    tags = [tag.strip().casefold().replace("_", " ") for tag in text.split(rules.caption_separator)]
    return list(dict.fromkeys(tag for tag in tags if tag))
