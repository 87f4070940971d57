"""The part of ``modelspec.*`` that a person writes: title, author, licence, a small picture, ...

Stability's model metadata standard 1.0.1, https://github.com/Stability-AI/ModelSpec.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from backend.errors import InputError
from backend.settings.sections import MetadataSettings

_LONGEST_SIDE = 512
_KEPT_BYTES = 256 * 1024
"""Pictures within both bounds are kept as they are."""


def words_for_people(metadata: MetadataSettings) -> dict[str, str | None]:
    """The standard's fields without their prefix; None for those that are empty.

    Raises:
        InputError: the thumbnail is no picture.
    """
    return {
        "title": metadata.metadata_title,
        "author": metadata.metadata_author,
        "description": metadata.metadata_description,
        "license": metadata.metadata_license,
        "tags": metadata.metadata_tags,
        "usage_hint": metadata.metadata_usage_hint,
        "thumbnail": thumbnail(Path(metadata.metadata_thumbnail)) if metadata.metadata_thumbnail else None,
        "merged_from": metadata.metadata_merged_from,
        "trigger_phrase": metadata.metadata_trigger_phrase,
        "preprocessor": metadata.metadata_preprocessor,
        "is_negative_embedding": "true" if metadata.metadata_is_negative_embedding else None,
    }


def thumbnail(path: Path) -> str:
    """A picture as a ``data:`` URL; a large one as a JPEG of at most 512 px a side.

    Raises:
        InputError: it is no picture.
    """
    try:
        data = path.expanduser().read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            kind = Image.MIME.get(picture.format or "", "")
            if kind and max(picture.size) <= _LONGEST_SIDE and len(data) <= _KEPT_BYTES:
                return _url(kind, data)
            picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
            small = io.BytesIO()
            picture.convert("RGB").save(small, "JPEG", quality=88)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(
            "metadata_thumbnail: this is no picture that can be read",
            where=str(path),
            why=str(error),
            next="choose a PNG, JPEG or WebP picture",
            key="metadata_thumbnail",
        ) from error
    return _url("image/jpeg", small.getvalue())


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
