"""What is asked for when a picture is drawn, as plain data without torch."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

MIN_SIDE = 64
MAX_SIDE = 4096
MAX_STEPS = 1000
DEFAULT_STEPS = 30
DEFAULT_SCALE = 7.5
DEFAULT_SAMPLER = "ddim"
DEFAULT_STRENGTH = 0.8
"""How much of a given picture is drawn anew (sd-scripts' default)."""

EmphasisMode = Literal["original", "abs", "none"]
EMPHASIS_MODES: tuple[str, ...] = get_args(EmphasisMode)
HiresMode = Literal["latent", "image"]
HIRES_MODES: tuple[str, ...] = get_args(HiresMode)


@dataclass(frozen=True)
class LoraUse:
    """A network file, of whatever kind, and how strongly it acts. It is used as long as it is named:
    the base model's weights never change."""

    path: str
    """The file; or its name without ending, looked for in the request's ``lora_folder``."""
    strength: float = 1.0
    """On the denoiser (the U-Net)."""
    text_strength: float | None = None
    """On the text encoders; None: as ``strength``."""


@dataclass(frozen=True)
class Guide:
    """A ControlNet-LLLite file and the picture that it follows."""

    path: str
    image: str
    """The guide picture's file; it is brought to the picture's size."""
    strength: float = 1.0
    ratio: float = 1.0
    """Share of the steps, from the first on, that follow it."""


@dataclass(frozen=True)
class Hires:
    """A second pass over the enlarged picture ("hires fix")."""

    scale: float = 2.0
    """Sides of the result / sides of the first pass."""
    mode: HiresMode = "latent"
    """What is enlarged: ``latent`` (bilinear, fast, changes more) or the decoded ``image`` (Lanczos)."""
    steps: int | None = None
    """Of the second pass's schedule, of which ``strength`` is walked; None: as many as the first."""
    strength: float = 0.6
    """0..1, how much of the enlarged picture is drawn anew."""
    width: int | None = None
    """Pixels of the result, in place of ``scale``; None: by ``scale``."""
    height: int | None = None
    save_first: bool = False
    """Give the picture of the first pass as well."""


@dataclass(frozen=True)
class StatedSizes:
    """What SDXL is told of a picture's size and cut; None: the size that is drawn. Pixels."""

    width: int | None = None
    height: int | None = None
    width_negative: int | None = None
    """... for the negative prompt; None: as for the prompt."""
    height_negative: int | None = None
    top: int = 0
    left: int = 0


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
    """Tokens of a prompt that are read; None: 75; 0: all there are."""
    emb_normalize_mode: EmphasisMode = "original"
    """What a prompt with emphasis is brought back to: its mean, the mean of absolute values, or nothing."""
    negative_scale: float | None = None
    """A second guidance, away from the negative prompt; ``scale`` then pulls away from no prompt at all."""
    loras: tuple[LoraUse, ...] = ()
    """Networks, the first nearest to the model; those named in the prompt come after them."""
    lora_folder: str = ""
    """Where names of ``<lora:name:0.8>`` are looked for."""
    embeddings: str = ""
    """A folder of textual inversions; their file names are words of the prompts."""
    vae: str = ""
    """A file whose VAE takes the place of the model's own."""
    image: str = ""
    """A picture's file to start from, brought to the picture's size (img2img)."""
    strength: float = DEFAULT_STRENGTH
    """0..1, how much of ``image`` is drawn anew."""
    mask: str = ""
    """A file that is white where ``image`` is drawn anew and black where it stays (inpainting)."""
    hires: Hires | None = None
    zero_terminal_snr: bool = False
    """Draw with a schedule that ends in pure noise, for a model that was trained so and whose file does not
    say it."""
    vae_tile: int | None = None
    """Pixels of a side of the overlapping pieces in which the VAE works on large pictures; None: whole."""
    variation_seed: int | None = None
    """The noise is mixed with that of this seed. None or below 0: drawn at random."""
    variation_strength: float = 0.0
    """0: the noise of ``seed`` alone; 1: that of ``variation_seed`` alone. Above 0 all pictures have the
    same ``seed`` and the variation's counts up."""
    guides: tuple[Guide, ...] = ()
    stated: StatedSizes | None = None
    """SDXL only."""
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

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Request:
        """The request of :meth:`as_dict`'s data; what is left out has its default.

        Raises:
            TypeError: a key that a request, or one of its tables, does not have.
        """
        values = dict(data)
        for key, kind in _TABLES.items():
            if values.get(key) is not None:
                values[key] = kind(**values[key])
        for key, kind in _LISTS.items():
            if key in values:
                values[key] = tuple(kind(**item) for item in values[key] or ())
        return cls(**values)


_TABLES: Mapping[str, Any] = {"hires": Hires, "stated": StatedSizes}
_LISTS: Mapping[str, Any] = {"loras": LoraUse, "guides": Guide}

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
    return request.noted(
        "" if asked == (width, height) else f"size {asked[0]}x{asked[1]} became {width}x{height}",
        "" if steps == request.steps else f"steps {request.steps} became {steps}",
        width=width,
        height=height,
        steps=steps,
        seed=_seed(request.seed),
        variation_seed=_seed(request.variation_seed) if request.variation_strength > 0 else None,
    )


def singles(request: Request) -> list[Request]:
    """One request for each of the request's pictures, with seeds that count up."""
    assert request.seed is not None, "seeds are decided before pictures are told apart"
    key = "seed" if request.variation_seed is None else "variation_seed"
    first = getattr(request, key)
    seeds = [(first + index) % 2**63 for index in range(max(request.count, 1))]
    return [replace(request, count=1, **{key: seed}) for seed in seeds]


def _seed(seed: int | None) -> int:
    return (seed if seed is not None and seed >= 0 else pick_seed()) % 2**63


def _side(side: int | None, default: int, multiple: int) -> int:
    chosen = min(max(side or default, MIN_SIDE), MAX_SIDE)
    return chosen // multiple * multiple
