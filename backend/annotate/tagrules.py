"""From a tagger's scores to the text of a caption file. Pure functions, without any model.

The steps and their order are those of sd-scripts' tagger: threshold, underscores, expanding characters,
replacement, unwanted tags, then the tags that come first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from backend.annotate.settings import TaggingSettings, thresholds
from backend.data.edit import operations
from backend.errors import InputError

Scores = Sequence[tuple[str, str, float]]
"""(tag as the tagger's table spells it, category, probability) in the table's order."""

CATEGORIES = ("general", "character", "copyright", "artist", "meta", "model")
"""Categories whose tags are kept by threshold, in the order in which they are written."""
RATING, QUALITY = "rating", "quality"
"""Of these only the likeliest is written, when asked for."""


@dataclass(frozen=True)
class TagRules:
    """The settings of tagging that concern the text, made ready."""

    limits: Mapping[str, float]
    separator: str = ", "
    blanks: bool = False
    expand: bool = False
    characters_first: bool = False
    undesired: frozenset[str] = frozenset()
    first: tuple[str, ...] = ()
    replacements: Mapping[str, str] = field(default_factory=dict[str, str])
    rating: tuple[bool, bool] = (False, False)
    """Whether the rating is written (in front, at the end)."""
    quality: tuple[bool, bool] = (False, False)


def rules_of(settings: TaggingSettings) -> TagRules:
    """Raises InputError for replacements that cannot be read."""
    split = settings.caption_separator.strip() or settings.caption_separator or ","
    return TagRules(
        thresholds(settings),
        settings.caption_separator,
        settings.remove_underscore,
        settings.character_tag_expand,
        settings.character_tags_first,
        frozenset(_plain(tag) for tag in listed(settings.undesired_tags, split)),
        tuple(listed(settings.always_first_tags or "", split)),
        replacements(settings.tag_replacement or ""),
        (settings.use_rating_tags, settings.use_rating_tags_as_last_tag),
        (settings.use_quality_tags, settings.use_quality_tags_as_last_tag),
    )


def listed(text: str, separator: str = ",") -> list[str]:
    """The tags of a list, each once. Commas separate them, too, when the separator does not occur."""
    if separator not in text:
        separator = ","
    return list(dict.fromkeys(filter(None, (part.strip() for part in text.split(separator)))))


def replacements(text: str) -> dict[str, str]:
    r"""old -> new of ``old,new;old,new``, where ``\,`` and ``\;`` belong to a tag. Raises InputError."""
    found: dict[str, str] = {}
    for pair in filter(str.strip, re.split(r"(?<!\\);", text)):
        parts = [re.sub(r"\\([,;])", r"\1", part).strip() for part in re.split(r"(?<!\\),", pair)]
        if len(parts) != 2 or not parts[0]:
            raise InputError(
                f"tag_replacement: {pair.strip()!r} is not of the form old,new",
                next=r"write old,new;old,new with \, for a comma inside a tag",
                key="tag_replacement",
            )
        found[parts[0]] = parts[1]
    return found


def tags_of(scores: Scores, rules: TagRules) -> list[str]:
    """The tags that are written for one picture, in order, each once."""
    by_category: dict[str, list[str]] = {name: [] for name in CATEGORIES}
    for tag, category, probability in scores:
        if category in by_category and probability >= rules.limits[category]:
            by_category[category] += spelled(tag, category, rules)
    order = ("character", *CATEGORIES) if rules.characters_first else CATEGORIES
    found = _wanted((tag for category in order for tag in by_category[category]), rules)
    first = [tag for wanted in rules.first for tag in found if _plain(tag) == _plain(wanted)]
    found = list(dict.fromkeys([*first, *found]))
    for category, places in ((QUALITY, rules.quality), (RATING, rules.rating)):
        best = _wanted(_likeliest(scores, category, rules), rules) if any(places) else []
        found = [*(best if places[0] else []), *found, *(best if places[1] else [])]
    return found


def text_of(scores: Scores, rules: TagRules) -> str:
    """The text of a caption file."""
    return rules.separator.join(tags_of(scores, rules))


def spelled(tag: str, category: str, rules: TagRules) -> list[str]:
    """A tag as it is written; a character with its series may become two or more."""
    parts = _expanded(tag) if rules.expand and category == "character" else [tag]
    parts = [blank(part) for part in parts] if rules.blanks else parts
    return [rules.replacements.get(part, part) for part in parts]


def blank(tag: str) -> str:
    """Blanks for underscores; faces such as ``>_<`` stay as they are."""
    return operations.run("underscores", tag, {}, "\n") if tag else tag


def appended(text: str, new: Sequence[str], separator: str) -> str:
    """``text`` with those of ``new`` at its end that it does not have."""
    split = separator.strip() or separator
    have = {_plain(tag) for line in text.splitlines() for tag in line.split(split)}
    more = [tag for tag in new if _plain(tag) not in have]
    if not more:
        return text
    before = text.rstrip().removesuffix(split).rstrip()
    return separator.join([*([before] if before else []), *more])


def _expanded(tag: str) -> list[str]:
    """``name_(costume)_(series)`` as ``name_(costume)`` and ``series``."""
    match = re.fullmatch(r"(.+?)_?\(([^()]*)\)", tag)
    return [part for part in match.groups() if part] if match else [tag]


def _likeliest(scores: Scores, category: str, rules: TagRules) -> list[str]:
    best = max((one for one in scores if one[1] == category), key=lambda one: one[2], default=None)
    return spelled(best[0], category, rules) if best else []


def _wanted(tags: Iterable[str], rules: TagRules) -> list[str]:
    return [tag for tag in dict.fromkeys(tags) if tag and _plain(tag) not in rules.undesired]


def _plain(tag: str) -> str:
    """What two spellings of one tag have in common."""
    return tag.strip().replace("_", " ").casefold()
