"""What went wrong while drawing, in words."""

from __future__ import annotations

import traceback

from backend.errors import AtelierError, Problem

_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def problems_of(error: BaseException) -> list[Problem]:
    """The problems of an error of any kind, with the technical text folded away."""
    if isinstance(error, AtelierError):
        return list(error.problems)
    detail = "".join(traceback.format_exception(error))
    if is_out_of_memory(error):
        return [
            Problem(
                "there was not enough memory to draw the picture",
                why="the picture, the batch or the model is too large for what is free now",
                next="Draw smaller pictures or fewer at once, or end other programs that use the GPU.",
                detail=detail,
            )
        ]
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return [
            Problem(
                f"a file cannot be read or written: {reason}",
                where=str(error.filename or ""),
                next="Check free space and permissions of the folder.",
                detail=detail,
            )
        ]
    return [Problem(f"drawing failed: {error!r}", why="this is likely a fault in Atelier", detail=detail)]


def is_out_of_memory(error: BaseException) -> bool:
    """True for every way in which memory of a device or of the machine runs out."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _MEMORY)
    )
