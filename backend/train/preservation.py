"""Differential output preservation: the class stays what it was while the subject is learnt.

A subject is taught with captions such as "a sks dog in the sun". Beside that lesson, the trained model
is asked for the same picture with the class in the subject's place, "a dog in the sun", and what it
says is held to what the base model says of it. No regularisation pictures are needed.

In a dataset file, ``custom_attributes = { diff_output_preservation = true }`` makes pictures of a subset
themselves such a hold: their target is what the base model says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from backend.data.types import DatasetPlan, Picture
from backend.errors import InputError
from backend.settings.sections import LossSettings
from backend.train.methods.base import Adjustable, Method

ATTRIBUTE = "diff_output_preservation"


class ClassCaptions(NamedTuple):
    """The captions of a batch with the class in the subject's place."""

    texts: list[str]
    shares: list[float]
    """How much each picture's hold counts; 0 where the subject is not in the caption."""


@dataclass(frozen=True)
class Preservation:
    """What is held, and how strongly."""

    class_words: str
    trigger: str | None = None
    """The words of the subject; None: each subset's own class tokens."""
    multiplier: float = 1.0

    @classmethod
    def of(cls, loss: LossSettings, plan: DatasetPlan, method: Method) -> Preservation | None:
        """What the settings ask for; None when nothing is held.

        Raises:
            InputError: no caption has the subject's words, or the method has no base model beside it.
        """
        held = loss.diff_output_preservation and loss.diff_output_preservation_multiplier > 0
        pictures = [picture for dataset in plan.datasets for picture in dataset.pictures]
        if (held or any(map(is_held, pictures))) and not isinstance(method, Adjustable):
            raise InputError(
                "diff_output_preservation needs a network to train",
                why="the base model must be there to be asked as well",
                next="switch it off, or train a network",
                key="diff_output_preservation",
            )
        if not held:
            return None
        assert loss.diff_output_preservation_class, "the rules ask for it"
        found = cls(
            loss.diff_output_preservation_class.strip(),
            (loss.diff_output_preservation_trigger or "").strip() or None,
            loss.diff_output_preservation_multiplier,
        )
        if all(found.class_caption(picture, picture.caption) is None for picture in pictures):
            raise InputError(
                f"no caption has the words of the subject ({found.trigger or 'class tokens'})",
                next="give words that stand in the captions as diff_output_preservation_trigger",
                key="diff_output_preservation_trigger",
            )
        return found

    def class_caption(self, picture: Picture, caption: str) -> str | None:
        """A caption with the class in the subject's place; None when the subject is not in it."""
        trigger = self.trigger or picture.subset.class_tokens
        if not trigger or picture.subset.is_reg:
            return None
        words = re.compile(rf"(?<!\w){re.escape(trigger)}(?!\w)", re.IGNORECASE)
        found, count = words.subn(lambda _: self.class_words, caption)
        return found if count else None

    def of_batch(self, pictures: Sequence[Picture], captions: Sequence[str]) -> ClassCaptions | None:
        """The class captions of a batch; None when the subject is in no caption."""
        found = [self.class_caption(p, text) for p, text in zip(pictures, captions, strict=True)]
        if all(text is None for text in found):
            return None
        texts = [text if new is None else new for new, text in zip(found, captions, strict=True)]
        return ClassCaptions(texts, [0.0 if new is None else self.multiplier for new in found])


def is_held(picture: Picture) -> bool:
    """Whether a picture's target is what the base model says."""
    return bool(picture.subset.custom_attributes.get(ATTRIBUTE))
