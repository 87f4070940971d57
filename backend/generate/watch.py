"""Who looks on while pictures are drawn: progress, previews, and the wish to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all) of the pictures being drawn."""
ShouldStop = Callable[[], bool]
OnPreview = Callable[[list[Image.Image]], None]
"""Called with small pictures (an eighth of the sides), one for each of the pictures being drawn."""


class Stopped(Exception):
    """Drawing was interrupted on request."""


@dataclass
class Watch:
    """The callbacks of one batch, and how far it is."""

    on_step: OnStep | None = None
    should_stop: ShouldStop | None = None
    on_preview: OnPreview | None = None
    preview_seconds: float = 1.0
    """At least so long between two previews."""
    total: int = 0
    """Steps of all passes."""
    _before: int = 0
    """Steps of the passes that are finished."""
    _last_preview: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Raises :class:`Stopped` when it was asked for."""
        if self.should_stop and self.should_stop():
            raise Stopped

    def stepped(self, share: float, steps: int) -> None:
        """``share`` (0..1) of a pass of ``steps`` steps is done."""
        if self.on_step:
            self.on_step(self._before + math.ceil(share * steps), self.total)
        if share >= 1:
            self._before += steps

    def show(self, picture: Callable[[], Tensor], develop: Callable[[Tensor], list[Image.Image]]) -> None:
        """A preview of the latents that ``picture`` makes, when somebody looks and it is time."""
        now = time.monotonic()
        if self.on_preview and now - self._last_preview >= self.preview_seconds:
            self._last_preview = now
            self.on_preview(develop(picture()))
