"""The gallery: everything that was made, and sending it on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from backend.errors import InputError, Problem
from backend.generate.gallery import KINDS, Entry, Gallery
from backend.generate.parameters import read_parameters
from ui.i18n import t
from ui.tabs.generate.drawing import Desk, restored
from ui.tabs.generate.inputs import copy_beside, file_url
from ui.thumbnails import thumbnail

DATASET = "dataset"
_PER_PAGE = 60
_THREADS = 4


class GalleryCalls:
    """What the server does for the gallery. Every method takes and gives JSON."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.gallery = Gallery(desk.outputs, desk.context.home / ".atelier" / "gallery.sqlite")

    def list_made(self, data: dict[str, Any]) -> dict[str, Any]:
        """One page of the pictures that fit the words, the newest first."""
        kind = str(data.get("kind") or "")
        page = max(int(data.get("page") or 1), 1)
        if page == 1:
            self.gallery.refresh()
        per = min(max(int(data.get("per") or _PER_PAGE), 1), 500)
        words = str(data.get("words") or "")
        found = self.gallery.search(words, kind if kind in KINDS else "", (page - 1) * per, per)
        items = [self._item(entry) for entry in found.entries]
        return {"items": items, "total": found.total, "page": page, "pages": -(-found.total // per)}

    def small_ones(self, data: dict[str, Any]) -> dict[str, Any]:
        """Addresses of small copies by path; made when they are first seen."""
        paths = [str(path) for path in data.get("paths") or ()][:100]
        with ThreadPoolExecutor(_THREADS) as pool:
            made = pool.map(self._small, paths)
            return {"small": dict(zip(paths, made, strict=True))}

    def use_settings(self, data: dict[str, Any]) -> dict[str, Any]:
        """The settings of a picture that was made here, for the form."""
        return restored(self.desk.context, self._entry_text(self._file(data)))

    def use_picture(self, data: dict[str, Any]) -> dict[str, Any]:
        """A picture that was made here, to start from or to be followed."""
        name = self.desk.inputs.take_file(self._file(data))
        return {"given": self.desk.inputs.facts(name)}

    def dataset_folders(self, data: dict[str, Any]) -> dict[str, Any]:
        """Folders that a picture may be sent to: those the Dataset and Train pages used."""
        drafts = self.desk.context.drafts
        last = (drafts.load(DATASET) or {}).get("path")
        found = [
            last,
            *drafts.recent(DATASET).get("path", []),
            *drafts.recent("train").get("train_data_dir", []),
        ]
        return {
            "folders": [path for path in dict.fromkeys(map(str, filter(None, found))) if Path(path).is_dir()]
        }

    def to_dataset(self, data: dict[str, Any]) -> dict[str, Any]:
        """Copy a picture into a folder of training pictures, with its prompt as the caption."""
        source = self._file(data)
        folder = Path(str(data.get("folder") or "").strip().strip("\"'")).expanduser()
        if not str(data.get("folder") or "").strip() or not folder.is_dir():
            raise InputError(
                Problem(t("gen.no_folder", path=str(folder)), next=t("gen.no_folder_next"), key="folder")
            )
        caption = read_parameters(self._entry_text(source)).request.prompt
        try:
            target = copy_beside(source, folder, caption)
        except OSError as error:
            raise InputError(
                t("gen.not_copied", path=str(folder)), why=error.strerror or str(error)
            ) from None
        return {"message": t("gen.copied", name=target.name, path=str(folder))}

    def _file(self, data: dict[str, Any]) -> Path:
        """The picture that a page names. Raises InputError: it is none of ours."""
        named = str(data.get("path") or "")
        path = named.removeprefix(str(self.desk.outputs)).lstrip("/\\") if named else ""
        found = self.gallery.file(path) if path else None
        if found is None:
            raise InputError(t("gen.picture_gone"), next=t("gen.picture_gone_next"))
        return found

    def _entry_text(self, path: Path) -> str:
        from PIL import Image

        with Image.open(path) as image:
            return str(image.info.get("parameters", ""))

    def _item(self, entry: Entry) -> dict[str, Any]:
        path = self.desk.outputs / entry.path
        return {
            "path": entry.path,
            "name": path.name,
            "url": file_url(path),
            "text": entry.text,
            "size": [entry.width, entry.height],
            "made": entry.changed / 1e9,
        }

    def _small(self, path: str) -> str:
        found = self.gallery.file(path)
        small = thumbnail(found) if found else None
        return file_url(small) if small else ""
