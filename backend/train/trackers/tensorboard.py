"""Logs for TensorBoard, as files in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoardTracker:
    """Writes one event file; pictures are put into it at their own size."""

    title = "TensorBoard"

    def __init__(
        self, folder: Path, settings: Mapping[str, Any] | None, arguments: Mapping[str, Any]
    ) -> None:
        """``settings``: shown under the tab *Text*; ``arguments``: further ones of ``SummaryWriter``."""
        from torch.utils.tensorboard import SummaryWriter

        given: dict[str, Any] = {"log_dir": str(folder), **arguments}
        self._writer: Any = SummaryWriter(**given)
        if settings is not None:
            rows = [f"| {key} | {value} |" for key, value in settings.items()]
            self._writer.add_text("settings", "\n".join(["| option | value |", "|---|---|", *rows]), 0)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def picture(self, tag: str, path: Path, caption: str, step: int) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            self._writer.add_image(tag, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def close(self, failed: bool) -> None:
        self._writer.close()
