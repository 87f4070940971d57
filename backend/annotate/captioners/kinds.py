"""The kinds of captioners, each told by ``model_type`` in the folder's ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from PIL import Image

from backend.annotate.captioners.base import Captioner, TransformersCaptioner
from backend.errors import EnvironmentFault, InputError


class Blip(TransformersCaptioner):
    """BLIP (Li et al. 2022, arXiv:2201.12086). A prompt is how the caption begins."""

    def inputs(self, pictures: Sequence[Image.Image], prompt: str) -> Any:
        # Given no text, the processor of some versions adds empty ids, which generate then goes on from.
        found = super().inputs(pictures, prompt)
        return found if prompt else {"pixel_values": found["pixel_values"]}


class Blip2(TransformersCaptioner):
    """BLIP-2 (Li et al. 2023, arXiv:2301.12597). A prompt is a question, not part of the caption."""

    def inputs(self, pictures: Sequence[Image.Image], prompt: str) -> Any:
        return self.processor(images=list(pictures), text=[prompt] * len(pictures), return_tensors="pt")

    def _text(self, row: Any, given: dict[str, Any], place: int) -> str:
        return super()._text(_after(row, given["input_ids"][place]), given, place)


class Git(TransformersCaptioner):
    """GIT (Wang et al. 2022, arXiv:2205.14100). A prompt is how the caption begins."""

    def inputs(self, pictures: Sequence[Image.Image], prompt: str) -> Any:
        import torch

        tokenizer = self.processor.tokenizer
        pixels = self.processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        begin = [tokenizer.cls_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
        ids = torch.tensor([begin] * len(pictures))
        return {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Florence(TransformersCaptioner):
    """Florence-2 (Xiao et al. 2023, arXiv:2311.06242): the prompt is one of its tasks."""

    usual_prompt = "<MORE_DETAILED_CAPTION>"
    tasks = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")

    def check(self, prompt: str) -> None:
        if prompt not in self.tasks:
            raise InputError(
                f"Florence-2 does not know the task {prompt!r}",
                next=f"use one of {', '.join(self.tasks)}",
                key="prompt",
            )

    def inputs(self, pictures: Sequence[Image.Image], prompt: str) -> Any:
        return self.processor(images=list(pictures), text=[prompt] * len(pictures), return_tensors="pt")


class Chat(TransformersCaptioner):
    """Any model that answers about pictures: it is asked with the model's own chat template."""

    usual_prompt = "Describe this picture in one sentence."

    def inputs(self, pictures: Sequence[Image.Image], prompt: str) -> Any:
        asked = self._asked(prompt)
        # All answers begin at the same place when shorter questions are filled up in front.
        self.processor.tokenizer.padding_side = "left"
        return self.processor(
            images=[[picture] for picture in pictures],
            text=[asked] * len(pictures),
            padding=True,
            return_tensors="pt",
        )

    def _asked(self, prompt: str) -> str:
        if not getattr(self.processor, "chat_template", None):
            token = getattr(self.processor, "image_token", "")
            return f"{token}{prompt}"
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
        return str(self.processor.apply_chat_template([turn], add_generation_prompt=True))

    def _text(self, row: Any, given: dict[str, Any], place: int) -> str:
        return super()._text(_after(row, given["input_ids"][place]), given, place)


def _after(row: Any, asked: Any) -> Any:
    """The tokens behind what was asked; models that only answer give no more than that."""
    repeats = len(row) >= len(asked) and bool((row[: len(asked)] == asked).all())
    return row[len(asked) :] if repeats else row


_KINDS: Mapping[str, tuple[str, type[TransformersCaptioner]]] = {
    "blip": ("BlipForConditionalGeneration", Blip),
    "blip-2": ("Blip2ForConditionalGeneration", Blip2),
    "git": ("GitForCausalLM", Git),
    "florence2": ("Florence2ForConditionalGeneration", Florence),
}
_ANY = ("AutoModelForImageTextToText", Chat)


def open_captioner(folder: Path, device: str | None = None) -> Captioner:
    """The captioner in ``folder``, on ``device`` or on the card when there is one, in half precision there.

    Nothing is downloaded, and no code out of the folder is run.

    Raises:
        InputError: the folder holds no captioner, or a damaged one.
        EnvironmentFault: the card's memory does not suffice.
    """
    import torch
    import transformers

    kind = model_type(folder)
    name, wrapper = _KINDS.get(kind, _ANY)
    transformers.utils.logging.disable_progress_bar()
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    precision = torch.float32 if place == "cpu" else torch.float16
    try:
        loader: Any = getattr(transformers, name)
        model = loader.from_pretrained(folder, local_files_only=True, dtype=precision).to(place)
        processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
    except torch.OutOfMemoryError as error:
        raise EnvironmentFault(
            f"the captioner in {folder.name} does not fit into the card's memory",
            next="close what uses the card, or choose a smaller captioner",
            detail=str(error),
        ) from None
    except Exception as error:  # the library raises many kinds
        raise InputError(
            f"the captioner in {folder.name} cannot be opened",
            where=str(folder),
            why=str(error).strip().splitlines()[0] if str(error).strip() else repr(error),
            next="download it again; a captioner that needs code of its own is not run: choose another",
            detail=str(error),
            key="caption_weights",
        ) from None
    return wrapper(model, processor)


def model_type(folder: Path) -> str:
    """What kind of model a folder says it holds. Raises InputError when it does not say."""
    path = folder / "config.json"
    try:
        found = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        return str(found["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} holds no captioner",
            where=str(path),
            why=f"config.json names no model_type ({error!r})",
            key="caption_weights",
        ) from None
