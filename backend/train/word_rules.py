"""What captions mean for a word that is to be taught: it learns from those that it stands in."""

from __future__ import annotations

from backend.data.report import count, listing
from backend.data.types import DatasetPlan, Picture
from backend.errors import InputError, Problem
from backend.settings import Settings


def require_word(settings: Settings, plan: DatasetPlan) -> list[Problem]:
    """Notes of captions without the word that is taught.

    Raises:
        InputError: no caption has it, so that nothing would be learnt.
    """
    word = settings.word.token_string
    if settings.model.training_method != "textual_inversion" or not word:
        return []
    taught = [p for d in plan.datasets for p in d.pictures if not p.subset.is_reg]
    without = [picture for picture in taught if word.lower() not in _text(picture)]
    if not without:
        return []
    if len(without) == len(taught):
        raise InputError(
            f"the word {word} stands in no caption",
            why="a word learns from the captions that it stands in, so nothing would be learnt",
            next="write it into the captions, name the folder '10_" + word + "', give it as caption_prefix, "
            "or switch on use_object_template or use_style_template",
            key="token_string",
        )
    names = listing([picture.path.name for picture in without])
    said = count(len(without), "caption is", "captions are")
    return [
        Problem(
            f"{said} without the word {word}, which learns nothing from them: {names}", key="token_string"
        )
    ]


def _text(picture: Picture) -> str:
    """All that a picture's captions can say."""
    rules = picture.subset.captions
    parts = rules.templates or (rules.caption_prefix, picture.caption, rules.caption_suffix)
    return " ".join(part for part in parts if part).lower()
