"""The datasets that pages have open, by path, so that each page may look at another."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.errors import InputError
from ui.context import Context
from ui.i18n import t
from ui.tabs.dataset.opened import Opened

FORM = "dataset"
TRAIN = "train"
_KEPT = 4


class Shelf:
    """Opens datasets and keeps the last few."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._open: dict[str, Opened] = {}
        self._lock = threading.Lock()

    def train_draft(self) -> dict[str, Any]:
        """What stands in the Train page's form."""
        return self.context.drafts.load(TRAIN) or {}

    def open(self, path: str, again: bool) -> Opened:
        """The dataset at ``path``; ``again`` looks at everything anew.

        Raises:
            InputError: there is none, or nothing in it can be used.
        """
        place = Path(path.strip()).expanduser()
        if not path.strip():
            raise InputError(t("data.no_path"))
        place = place.resolve()
        found = self._open.get(str(place))
        if found is None or again:
            found = Opened(place, self.train_draft())
        else:
            found.refresh()
        with self._lock:
            others = {key: value for key, value in self._open.items() if key != str(place)}
            self._open = {**dict(list(others.items())[1 - _KEPT :]), str(place): found}
        return found

    def get(self, data: Mapping[str, Any]) -> Opened:
        """The dataset that a page speaks of; it is opened again after a restart of the server.

        Raises:
            InputError: it is not there any more.
        """
        path = str(data.get("path") or "")
        return self._open.get(path) or self.open(path, again=False)
