"""Pictures that were given to the page: to start from, to paint over, to be followed.

Each is kept under the digest of its content, so the page names it without saying where it lies.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from backend.errors import InputError
from backend.wholefile import replacing
from ui.context import Context
from ui.i18n import t

_NAME = re.compile(r"^[0-9a-f]{40}\.png$")
_MOST_PIXELS = 64_000_000
_KEPT = 200


class Inputs:
    """The folder of given pictures."""

    def __init__(self, context: Context) -> None:
        self.folder = context.home / ".atelier" / "inputs"
        self.folder.mkdir(parents=True, exist_ok=True)
        context.allow(self.folder)

    def take(self, address: str) -> str:
        """Keep a picture that a page sent as a ``data:`` address; returns its name.

        Raises:
            InputError: it is no picture.
        """
        try:
            return self._keep(base64.b64decode(address.partition(",")[2], validate=True))
        except binascii.Error:
            raise InputError(t("gen.no_picture_file")) from None

    def take_file(self, path: Path) -> str:
        """Keep a copy of a picture's file; returns its name. Raises as :meth:`take`."""
        try:
            return self._keep(path.read_bytes())
        except OSError as error:
            raise InputError(t("gen.no_picture_file"), where=str(path), why=error.strerror or "") from None

    def path(self, name: str) -> Path:
        """The file of a name.

        Raises:
            InputError: it was let go meanwhile, or never given.
        """
        found = self.folder / name
        if not _NAME.match(name) or not found.is_file():
            raise InputError(t("gen.picture_gone"), next=t("gen.picture_gone_next"), key="image")
        return found

    def paths(self, names: Iterable[str]) -> dict[str, str]:
        """Name -> file. Raises as :meth:`path`."""
        return {name: str(self.path(name)) for name in names}

    def facts(self, name: str) -> dict[str, object] | None:
        """What a page shows of a given picture, None when it is gone."""
        from PIL import Image

        try:
            path = self.path(name)
            with Image.open(path) as image:
                return {"name": name, "url": file_url(path), "size": list(image.size)}
        except (InputError, OSError):
            return None

    def _keep(self, data: bytes) -> str:
        from PIL import Image, ImageOps

        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise InputError(t("gen.picture_too_large", width=image.width, height=image.height))
                upright = ImageOps.exif_transpose(image)
                plain = upright.convert("RGBA" if _has_transparency(upright) else "RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            raise InputError(t("gen.no_picture_file")) from None
        name = hashlib.sha1(data, usedforsecurity=False).hexdigest() + ".png"
        path = self.folder / name
        if path.is_file():
            os.utime(path)
        else:
            with replacing(path) as new:
                plain.save(new.file, "PNG", compress_level=1)
        self._tidy()
        return name

    def _tidy(self) -> None:
        """Let go of what was used longest ago; only files that were made here."""
        files = sorted(
            (path for path in self.folder.iterdir() if _NAME.match(path.name)),
            key=lambda path: path.stat().st_mtime,
        )
        for path in files[:-_KEPT]:
            path.unlink(missing_ok=True)


def _has_transparency(image: object) -> bool:
    return bool(getattr(image, "has_transparency_data", False))


def file_url(path: Path) -> str:
    """A file's address in the page; only files in allowed folders are given there."""
    return "/gradio_api/file=" + quote(path.resolve().as_posix(), safe="/:")


def copy_beside(source: Path, folder: Path, caption: str) -> Path:
    """Copy a picture into a folder of pictures with its caption, under a name that is free there.

    Raises:
        OSError: as the file system reports it.
    """
    stem = f"{time.strftime('%Y%m%d')}_{source.stem}"
    number = 0
    while True:
        target = folder / (stem + (f"-{number}" if number else "") + source.suffix)
        number += 1
        if target.exists() or target.with_suffix(".txt").exists():
            continue
        with replacing(target) as new, source.open("rb") as old:
            shutil.copyfileobj(old, new.file)
        if caption:
            with replacing(target.with_suffix(".txt")) as new:
                new.file.write(caption.encode("utf-8"))
        return target
