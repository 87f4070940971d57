"""WD14 taggers in ONNX Runtime: probabilities of tags for pictures.

The size of the picture and the order of its axes are read from the model. Colours are blue, green, red
and go from 0 to 255; what is not square gets white borders (SmilingWolf's model cards).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.annotate.tagnames import TABLES, TagTable, read_table
from backend.data import images
from backend.errors import EnvironmentFault, InputError

Pixels = NDArray[np.float32]
MODEL = "model.onnx"
_WHITE = 255


class Tagger:
    """A tagger out of a folder with ``model.onnx`` and its table of tags.

    Raises:
        InputError: a file is missing or damaged, or the two do not fit each other.
        EnvironmentFault: ONNX Runtime is not installed.
    """

    def __init__(self, folder: Path, threads: int = 0) -> None:
        self.folder = folder
        self.table: TagTable = read_table(table_of(folder))
        self._session: Any = _session(folder / MODEL, threads)
        self._input: Any = self._session.get_inputs()[0]
        self.channels_first, self.size, self.fixed_batch = _layout(folder, self._input.shape)
        outputs = self._session.get_outputs()[0].shape[-1]
        if isinstance(outputs, int) and outputs != len(self.table.names):
            raise InputError(
                f"the tagger has {outputs} outputs, its table {len(self.table.names)} tags",
                where=str(folder),
                next="take model.onnx and the table from the same place",
            )

    @property
    def device(self) -> str:
        """Where it runs in fact: 'CUDA' or 'CPU'. A card that fails leaves it on the processor."""
        return "CUDA" if "CUDAExecutionProvider" in self._session.get_providers() else "CPU"

    def prepare(self, pixels: images.Array) -> Pixels:
        """An RGB picture as one of a batch: (size, size, 3), or (3, size, size) as the model has it."""
        square = images.resize(squared(pixels), (self.size, self.size))
        found = square[:, :, ::-1].astype(np.float32)
        if self.table.normalized:
            found = found / 127.5 - 1
        return np.ascontiguousarray(found.transpose(2, 0, 1) if self.channels_first else found)

    def probabilities(self, batch: Sequence[Pixels]) -> NDArray[np.float32]:
        """Probabilities (pictures, tags) of prepared pictures, in the table's order."""
        size = self.fixed_batch or len(batch)
        parts = [self._run(batch[first : first + size], size) for first in range(0, len(batch), size)]
        found = np.concatenate(parts)
        return np.float32(1) / (1 + np.exp(-found)) if self.table.normalized else found

    def scores(self, row: NDArray[np.float32], least: float = 0.0) -> list[tuple[str, str, float]]:
        """(tag, category, probability) of one row for probabilities of ``least`` and above."""
        table = self.table
        return [
            (table.names[place], table.categories[place], float(row[place]))
            for place in np.flatnonzero(row >= least).tolist()
            if table.names[place]
        ]

    def close(self) -> None:
        """Give the model's memory back."""
        self._session = None

    def _run(self, part: Sequence[Pixels], size: int) -> NDArray[np.float32]:
        filled = [*part, *([part[-1]] * (size - len(part)))]
        found = self._session.run(None, {self._input.name: np.stack(filled)})[0]
        return np.asarray(found, dtype=np.float32)[: len(part)]


def squared(pixels: images.Array) -> images.Array:
    """The picture in the middle of a white square as wide as its longer side."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    if height == width:
        return pixels
    square = np.full((side, side, 3), _WHITE, dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def table_of(folder: Path) -> Path:
    """The table of tags in a tagger's folder. Raises InputError when the model or the table is missing."""
    if not (folder / MODEL).is_file():
        raise InputError(f"no {MODEL} in {folder}", next="choose a folder with a tagger", key="repo_id")
    found = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"no table of tags ({' or '.join(TABLES)}) in {folder}", key="repo_id")
    return found


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentFault(
            "tagging needs ONNX Runtime, which is not installed",
            why=str(error),
            next="install it: python -m pip install onnxruntime (for an NVIDIA card onnxruntime-gpu instead)",
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Faults reach us as exceptions; its own lines in red on the terminal say no more.
    options.log_severity_level = 4
    there = onnxruntime.get_available_providers()
    wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in there]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # the library raises kinds of its own
        raise InputError(
            f"{path.name} cannot be opened: it is damaged or no ONNX model",
            where=str(path),
            next="download the tagger again",
            detail=str(error),
            key="repo_id",
        ) from None


def _layout(folder: Path, shape: Sequence[Any]) -> tuple[bool, int, int]:
    """(channels come first, side in pixels, size of every batch or 0 for any) of a model's input shape."""
    batch = shape[0] if len(shape) == 4 and isinstance(shape[0], int) else 0
    if len(shape) == 4 and shape[3] == 3 and isinstance(shape[1], int):
        return False, shape[1], batch
    if len(shape) == 4 and shape[1] == 3 and isinstance(shape[2], int):
        return True, shape[2], batch
    raise InputError(
        f"{MODEL} is no tagger of pictures: its input is {list(shape)}", where=str(folder), key="repo_id"
    )
