"""What a captioner does, and how the models of transformers do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from backend.annotate.captioners.drawing import Drawing
from backend.annotate.settings import CaptioningSettings
from backend.errors import InputError


@dataclass(frozen=True)
class Writing:
    """How captions are written."""

    prompt: str = ""
    beams: int = 1
    """Candidates of beam search; 1 takes the likeliest token each time."""
    chance: bool = False
    """Tokens are drawn by chance."""
    top_p: float = 0.9
    temperature: float = 1.0
    repetition_penalty: float = 1.0
    shortest: int = 5
    """In new tokens."""
    longest: int = 75
    seed: int = 42

    @classmethod
    def of(cls, settings: CaptioningSettings) -> Writing:
        """As the settings say. Raises InputError when they contradict each other."""
        if settings.min_length > settings.max_length:
            raise InputError(
                f"min_length {settings.min_length} is above max_length {settings.max_length}",
                key="min_length",
            )
        return cls(
            settings.prompt.strip(),
            settings.num_beams if settings.beam_search else 1,
            not settings.beam_search,
            settings.top_p,
            settings.temperature,
            settings.repetition_penalty,
            settings.min_length,
            settings.max_length,
            settings.seed,
        )


class Captioner(Protocol):
    """Writes captions. Made by :func:`~backend.annotate.captioners.open_captioner`."""

    @property
    def device(self) -> str:
        """'cpu' or 'cuda'."""
        ...

    def captions(self, pictures: Sequence[Image.Image], names: Sequence[str], writing: Writing) -> list[str]:
        """One caption a picture. ``names`` tell pictures apart: chance gives one name one caption."""
        ...

    def close(self) -> None:
        """Give the model's memory back."""
        ...


class TransformersCaptioner:
    """A model of transformers with ``generate`` and its processor.

    Kinds differ in what their processor is given: see ``inputs``.
    """

    usual_prompt = ""
    """What is asked when the person gives no prompt."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model: Any = model
        self.processor: Any = processor
        self.model.eval()

    @property
    def device(self) -> str:
        return str(self.model.device.type)

    def inputs(self, pictures: Sequence[Image.Image], prompt: str) -> Any:
        """What ``generate`` is given, as the processor makes it; the prompt begins the caption."""
        text = {"text": [prompt] * len(pictures)} if prompt else {}
        return self.processor(images=list(pictures), return_tensors="pt", **text)

    def check(self, prompt: str) -> None:
        """Raises InputError for a prompt that this kind does not take."""

    def captions(self, pictures: Sequence[Image.Image], names: Sequence[str], writing: Writing) -> list[str]:
        import torch

        prompt = writing.prompt or self.usual_prompt
        self.check(prompt)
        with torch.inference_mode():
            given = self._placed(self.inputs(pictures, prompt))
            ids = self.model.generate(**given, **self._how(writing, names, given))
        return [self._text(row, given, place) for place, row in enumerate(ids)]

    def close(self) -> None:
        import torch

        on_card = self.device == "cuda"
        self.model = self.processor = None
        if on_card:
            torch.cuda.empty_cache()

    def _placed(self, inputs: Any) -> dict[str, Any]:
        """Tensors where the model is, fractions in its precision."""
        model = self.model
        return {
            name: value.to(model.device, model.dtype) if value.is_floating_point() else value.to(model.device)
            for name, value in inputs.items()
            if hasattr(value, "is_floating_point")
        }

    def _how(self, writing: Writing, names: Sequence[str], given: dict[str, Any]) -> dict[str, Any]:
        """The arguments of ``generate``."""
        longest = self._room(writing.longest, given)
        how: dict[str, Any] = {
            "max_new_tokens": longest,
            "min_new_tokens": min(writing.shortest, longest),
            "num_beams": writing.beams,
            "do_sample": False,
            "repetition_penalty": writing.repetition_penalty,
        }
        if writing.chance:
            how["logits_processor"] = [Drawing(writing.seed, names, writing.top_p, writing.temperature)]
        return how

    def _room(self, longest: int, given: dict[str, Any]) -> int:
        """No more tokens than the model has places for."""
        config = self.model.config
        text = getattr(config, "text_config", None) or config
        places = getattr(text, "max_position_embeddings", 0) or 0
        taken = given["input_ids"].shape[1] if "input_ids" in given else 2
        return max(1, min(longest, places - taken)) if places else longest

    def _text(self, row: Any, given: dict[str, Any], place: int) -> str:
        """The new part of what was generated, as text."""
        return " ".join(str(self.processor.decode(row, skip_special_tokens=True)).split())
