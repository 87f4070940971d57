"""Rules about caption files: there, readable, short enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from backend.data import tokens
from backend.data.lint.rule import Hit, hit
from backend.data.lint.survey import Caption, Folder, Item, Survey
from backend.data.report import count

_SHOWN = 200
"""Characters of a cut-off text that are shown."""


def missing_in_some(survey: Survey) -> Iterator[Hit]:
    """Pictures without a caption where others have one."""
    for folder in survey.folders:
        without = [item for item in folder.sound if item.caption is None]
        if len(without) < len(folder.sound):
            words = folder.subset.class_tokens
            said = f"trained as '{words}'" if words else "trained with an empty caption"
            yield from (hit(item, f"no caption; {said}") for item in without)


def missing_everywhere(survey: Survey) -> Iterator[Hit]:
    """Folders without captions and without words that stand for them."""
    for folder in survey.folders:
        nothing = all(item.caption is None for item in folder.sound)
        if folder.sound and nothing and not folder.subset.class_tokens:
            text = f"none of {count(len(folder.sound), 'picture')} has a caption, and no words stand for them"
            yield Hit(folder.subset.image_dir, text)


def empty(survey: Survey) -> Iterator[Hit]:
    for item, caption in captions(survey):
        if not caption.text.strip():
            yield hit(item, f"{caption.path.name} is empty")


def of_kind(kind: str) -> Callable[[Survey], Iterator[Hit]]:
    """Caption files with this kind of problem."""

    def find(survey: Survey) -> Iterator[Hit]:
        for item in survey.sound:
            if item.caption is not None and item.caption.kind == kind:
                yield Hit(item.caption.path, item.caption.problem, item)

    return find


def control_letters(survey: Survey) -> Iterator[Hit]:
    for item, caption in captions(survey):
        if caption.control:
            yield Hit(caption.path, "holds control characters, which are left out", item)


def only_first_line(survey: Survey) -> Iterator[Hit]:
    for item, caption in captions(survey):
        if caption.lines > 1 and not item.subset.captions.enable_wildcard:
            yield Hit(caption.path, f"has {caption.lines} lines; the first is used", item)


def too_long(survey: Survey) -> Iterator[Hit]:
    """Captions of which the text encoder sees the beginning only."""
    limit = tokens.room(survey.token_limit)
    texts = [(item, text) for item, caption in captions(survey) for text in _as_encoded(item, caption)]
    lengths = tokens.counts([text for _, text in texts])
    told: set[int] = set()
    for (item, text), length in zip(texts, lengths, strict=True):
        if length > limit and id(item) not in told:
            told.add(id(item))
            _, lost = tokens.cut(text, limit)
            shown = f"{lost[:_SHOWN]} ..." if len(lost) > _SHOWN else lost
            yield hit(
                item, f"{length} of {limit} tokens{_would_fit(length, limit)}; cut off: '{shown.strip()}'"
            )


def captions(survey: Survey) -> Iterator[tuple[Item, Caption]]:
    """Pictures with a caption file that can be read."""
    return (pair for folder in survey.folders for pair in captions_of(folder))


def captions_of(folder: Folder) -> Iterator[tuple[Item, Caption]]:
    for item in folder.sound:
        if item.caption is not None and not item.caption.problem:
            yield item, item.caption


def _as_encoded(item: Item, caption: Caption) -> Iterator[str]:
    """The lines that may be encoded, with prefix and suffix; those too short to be cut left out."""
    rules = item.subset.captions
    for line in caption.used:
        text = " ".join(part for part in (rules.caption_prefix, line, rules.caption_suffix) if part)
        if len(text.encode()) > tokens.CHUNK:  # a token is a byte at least
            yield text


def _would_fit(length: int, limit: int) -> str:
    fitting = next((size for size in (75, 150, 225) if limit < size and length <= size), None)
    return f" (all would fit with max_token_length {fitting})" if fitting else ""
