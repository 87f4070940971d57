"""Opening a dataset, its pictures page by page, one picture large, and masks, for the page."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

from backend.data.edit import load_mask, save_mask
from backend.data.headers import HeaderError, read_header
from backend.errors import InputError
from ui.i18n import t
from ui.tabs.dataset import sight
from ui.tabs.dataset.opened import mask_folder
from ui.tabs.dataset.shelf import FORM, TRAIN, Shelf

_MOST = 200
"""Pictures that one call may ask for."""
_LONGEST = 2048
"""Pixels of the side of a mask that is sent to the page."""
_MASK_BYTES = 64_000_000


class LookCalls:
    """What the server does to show a dataset. Every method takes and gives JSON."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def open_page(self, data: dict[str, Any]) -> dict[str, Any]:
        """What was open last, and places used before."""
        last = self.shelf.context.drafts.load(FORM) or {}
        return {"path": str(last.get("path") or ""), "recent": self._recent()}

    def open_dataset(self, data: dict[str, Any]) -> dict[str, Any]:
        """The figures of a folder or dataset file; it is remembered."""
        opened = self.shelf.open(str(data["path"]), again=bool(data.get("again")))
        path = str(opened.path)
        if data.get("again"):
            self.shelf.context.drafts.save(FORM, {"path": path})
            self.shelf.context.drafts.remember(FORM, {"path": path})
        return {"path": path, "facts": opened.facts(), "recent": self._recent()}

    def _recent(self) -> list[str]:
        """Places used here, then those of the Train page."""
        drafts = self.shelf.context.drafts
        trained = drafts.recent(TRAIN)
        draft = self.shelf.train_draft()
        found = [
            *drafts.recent(FORM).get("path", []),
            *(str(draft[key]) for key in ("train_data_dir", "dataset_config") if draft.get(key)),
            *trained.get("train_data_dir", []),
            *trained.get("dataset_config", []),
        ]
        return list(dict.fromkeys(found))

    def list_pictures(self, data: dict[str, Any]) -> dict[str, Any]:
        """One page of the pictures that pass a filter."""
        opened = self.shelf.get(data)
        ids = opened.wanted(data)
        per = max(1, min(int(data.get("per") or 60), _MOST))
        pages = max(1, -(-len(ids) // per))
        page = max(1, min(int(data.get("page") or 1), pages))
        items = opened.items(ids[(page - 1) * per : page * per])
        return {"total": len(ids), "page": page, "pages": pages, "items": items}

    def thumbnails(self, data: dict[str, Any]) -> dict[str, Any]:
        """Small pictures by id, as they are trained."""
        opened = self.shelf.get(data)
        asked = [id for id in data["ids"][:_MOST] if id in opened.pictures]
        pictures = [(id, opened.pictures[id]) for id in asked]
        return {"thumbs": sight.thumbnails(pictures, bool(data.get("mask")))}

    def show_picture(self, data: dict[str, Any]) -> dict[str, Any]:
        """One picture large: the original, and as it is trained."""
        opened = self.shelf.get(data)
        id = str(data["id"])
        picture = opened.picture(id)
        opened.refresh()
        caption = opened.store.get(id)
        geometry = picture.geometry
        kept = geometry.bucket[0] * geometry.bucket[1] / (geometry.resized[0] * geometry.resized[1])
        trained = max(geometry.bucket)
        return {
            "picture": {
                "id": id,
                "name": picture.path.name,
                "caption": caption.text,
                "mark": caption.version,
                "caption_file": "" if caption.missing else caption.path.name,
                "tokens": opened.tokens(caption.text),
                "original": geometry.original,
                "resized": geometry.resized,
                "bucket": geometry.bucket,
                "crop": geometry.crop,
                "lost": 100 * (1 - kept),
                "original_picture": sight.seen(picture, sight.LARGE, masked=False, as_trained=False),
                "trained_picture": sight.seen(picture, trained, masked=False),
                "masked_picture": sight.seen(picture, trained, masked=True) if picture.mask_path else "",
            }
        }

    def open_mask(self, data: dict[str, Any]) -> dict[str, Any]:
        """The size of a picture, and the mask it has."""
        picture = self.shelf.get(data).picture(str(data["id"]))
        try:
            size = read_header(picture.path).size
        except (HeaderError, OSError) as error:
            raise InputError(f"{picture.path.name} {error}") from None
        mask = load_mask(picture.path, mask_folder(picture))
        if mask is not None:
            step = -(-max(size) // _LONGEST)
            mask = mask[::step, ::step]
        return {"size": size, "mask": "" if mask is None else sight.png_address(mask)}

    def save_mask(self, data: dict[str, Any]) -> dict[str, Any]:
        """Keep what was painted as the picture's mask file."""
        opened = self.shelf.get(data)
        picture = opened.picture(str(data["id"]))
        folder = mask_folder(picture)
        saved = save_mask(picture.path, _painted(str(data["png"])), folder)
        self.shelf.open(str(opened.path), again=True)
        message = t("data.mask_saved", file=saved.name)
        if picture.subset.conditioning_data_dir is None:
            message += " " + t("data.mask_use", folder=str(folder))
        return {"file": str(saved), "message": message}


def _painted(address: str) -> Any:
    """The grey picture, (height, width), that a page sent. Raises InputError: it is none."""
    import numpy as np
    from PIL import Image

    head, _, body = address.partition(",")
    try:
        if head != "data:image/png;base64" or len(body) > _MASK_BYTES:
            raise ValueError
        with Image.open(io.BytesIO(base64.b64decode(body, validate=True)), formats=["PNG"]) as image:
            return np.asarray(image.convert("L"))
    except (ValueError, OSError, binascii.Error, Image.DecompressionBombError):
        raise InputError(t("data.mask_bad")) from None
