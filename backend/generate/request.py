"""What is asked for when a picture is drawn, as plain data without torch."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

MIN_SIDE = 64
MAX_SIDE = 4096
MAX_STEPS = 1000
DEFAULT_STEPS = 30
DEFAULT_SCALE = 7.5
DEFAULT_SAMPLER = "ddim"


@dataclass(frozen=True)
class Request:
    """One prompt with everything that decides how its pictures look."""

    prompt: str = ""
    negative: str = ""
    width: int | None = None
    """Pixels; None: the family's own size."""
    height: int | None = None
    seed: int | None = None
    """Seed of the first picture, the next ones count up. None or below 0: drawn at random."""
    steps: int = DEFAULT_STEPS
    scale: float = DEFAULT_SCALE
    """Strength of classifier-free guidance; 1 and below leave it out."""
    sampler: str = DEFAULT_SAMPLER
    count: int = 1
    """Pictures of this prompt."""
    batch: int = 1
    """Pictures drawn in one pass; changes speed and memory, never the pictures."""
    clip_skip: int | None = None
    max_token_length: int | None = None
    """Tokens of a prompt that are read; None: 75."""
    notes: tuple[str, ...] = ()
    """What was changed on the way from what a person wrote to this request."""

    def noted(self, *notes: str, **changes: Any) -> Request:
        """A copy with ``changes`` and one more note for each text that is not empty."""
        return replace(self, notes=(*self.notes, *(note for note in notes if note)), **changes)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the notes."""
        data = asdict(self)
        del data["notes"]
        return data


FIELDS = frozenset(field.name for field in fields(Request)) - {"notes"}


def pick_seed() -> int:
    """A new random seed of 32 bits; the streams of ``random`` and torch are left alone."""
    return random.SystemRandom().randrange(2**32)


def fitted(request: Request, default_side: int, multiple: int = 8) -> Request:
    """The request with sides that the model can draw, steps in range and a seed.

    Sides are rounded down to ``multiple`` and kept within 64 to 4096 px. What changes is noted.
    """
    width, height = (_side(side, default_side, multiple) for side in (request.width, request.height))
    steps = min(max(request.steps, 1), MAX_STEPS)
    asked = (request.width or width, request.height or height)
    seed = request.seed if request.seed is not None and request.seed >= 0 else pick_seed()
    return request.noted(
        "" if asked == (width, height) else f"size {asked[0]}x{asked[1]} became {width}x{height}",
        "" if steps == request.steps else f"steps {request.steps} became {steps}",
        width=width,
        height=height,
        steps=steps,
        seed=seed % 2**63,
    )


def singles(request: Request) -> list[Request]:
    """One request for each of the request's pictures, with seeds that count up."""
    assert request.seed is not None, "seeds are decided before pictures are told apart"
    first = request.seed
    return [replace(request, seed=(first + index) % 2**63, count=1) for index in range(max(request.count, 1))]


def _side(side: int | None, default: int, multiple: int) -> int:
    chosen = min(max(side or default, MIN_SIDE), MAX_SIDE)
    return chosen // multiple * multiple
