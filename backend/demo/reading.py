"""The bundled tagger and captioner: what they see in pictures.

The tagger is a file in WD14's layout and needs ONNX Runtime alone; the captioner is a BLIP of transformers.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.errors import InputError
from backend.system.paths import REPOSITORY

TAGGER = REPOSITORY / "models" / "demo" / "tagger"
CAPTIONER = REPOSITORY / "models" / "demo" / "captioner"
THRESHOLD = 0.35
"""The usual one of WD14 taggers."""
_BATCH = 16
_RATING = "9"


class TagReader:
    """A WD14-like tagger out of a folder with ``model.onnx`` and ``selected_tags.csv``.

    :raises InputError: when one of the two files is missing.
    """

    def __init__(self, folder: Path = TAGGER) -> None:
        import onnxruntime

        model, table = _there(folder / "model.onnx"), _there(folder / "selected_tags.csv")
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self._kept = [index for index, row in enumerate(rows) if row["category"] != _RATING]
        self.tags = [rows[index]["name"].replace("_", " ") for index in self._kept]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0]

    def probabilities(self, pictures: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """Probabilities (pictures, tags) of :attr:`tags`, without the ratings."""
        side = self._input.shape[1]
        pixels = np.stack([_bgr(picture, side) for picture in pictures])
        parts: list[Any] = [
            self._session.run(None, {self._input.name: pixels[first : first + _BATCH]})[0]
            for first in range(0, len(pixels), _BATCH)
        ]
        return np.concatenate(parts)[:, self._kept]

    def tags_of(self, pictures: Sequence[Image.Image], threshold: float = THRESHOLD) -> list[list[str]]:
        """Tags above the threshold, the surest first."""
        found: list[list[str]] = []
        for row in self.probabilities(pictures):
            order = np.argsort(-row, kind="stable")
            found.append([self.tags[index] for index in order if row[index] > threshold])
        return found


def _bgr(picture: Image.Image, side: int) -> npt.NDArray[np.float32]:
    """(side, side, 3), 0 to 255, blue first; white is put around what is not square."""
    picture = picture.convert("RGB")
    longest = max(picture.size)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    if longest != side:
        square = square.resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(square, dtype=np.float32)[:, :, ::-1]


class CaptionReader:
    """A BLIP out of a folder, on the processor.

    :raises InputError: when the folder has no model.
    """

    def __init__(self, folder: Path = CAPTIONER) -> None:
        self.folder = folder
        _there(folder / "model.safetensors")

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoProcessor, BlipForConditionalGeneration

        model = BlipForConditionalGeneration.from_pretrained(
            self.folder, local_files_only=True, dtype=torch.float32
        )
        return AutoProcessor.from_pretrained(self.folder, local_files_only=True), model.eval()

    def captions_of(self, pictures: Sequence[Image.Image]) -> list[str]:
        """The likeliest caption of each picture, word by word."""
        import torch

        processor, model = self._parts
        found: list[str] = []
        with torch.inference_mode():
            for first in range(0, len(pictures), _BATCH):
                part = [picture.convert("RGB") for picture in pictures[first : first + _BATCH]]
                pixels = processor(images=part, return_tensors="pt")["pixel_values"]
                ids = model.generate(pixel_values=pixels, max_new_tokens=36, num_beams=1, do_sample=False)
                found += processor.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in found]


def _there(path: Path) -> Path:
    if not path.is_file():
        raise InputError("a file of the bundled models is missing", where=str(path), next="update Atelier")
    return path
