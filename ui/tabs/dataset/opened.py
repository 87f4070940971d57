"""A dataset that a page has open: its plan, its captions, and the figures drawn from them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from backend.data import tokens
from backend.data.edit import Caption, CaptionStore, Filter, histograms, mask_of, masks_folder
from backend.data.plan import build_plan
from backend.data.types import Dataset, DatasetPlan, Picture
from backend.errors import InputError, Problem
from backend.settings import Settings
from ui.bind import read
from ui.calls import problem_dicts
from ui.i18n import said, t

_TAGS = 2000
"""Tags that are sent to the page."""
_CONFIGS = (".toml", ".json")
_ELSEWHERE = ("train_data_dir", "reg_data_dir", "dataset_config", "in_json")
_BESIDE = ("reg_data_dir", "in_json")
"""What the Train page's form says of its own folder, and of no other."""


def settings_for(path: Path, draft: Mapping[str, Any]) -> Settings:
    """How the dataset at ``path`` would be trained: as the Train page's form says, where it can be read.

    Masks of a dataset file are looked at whether the training will use them or not.
    """
    settings = read({key: value for key, value in draft.items() if key not in _ELSEWHERE}).settings
    key = "dataset_config" if path.suffix.lower() in _CONFIGS and not path.is_dir() else "train_data_dir"
    beside = {name: draft.get(name) if draft.get("train_data_dir") == str(path) else None for name in _BESIDE}
    masked = key == "dataset_config" or settings.loss.masked_loss
    return settings.replace(**{key: str(path), **beside, "masked_loss": masked})


class Opened:
    """One open dataset. Safe for several threads: what changes is replaced as a whole."""

    def __init__(self, path: Path, draft: Mapping[str, Any]) -> None:
        """Raises InputError: there is no dataset at ``path``, or nothing in it can be used."""
        self.path, self.settings = path, settings_for(path, draft)
        # What would keep a training from starting is a note here, where it can be mended.
        self.plan: DatasetPlan = build_plan(self.settings, verify=False, lenient=True)
        self.store = CaptionStore.of_plan(self.plan)
        self.limit = tokens.room(self.settings.model.max_token_length)
        self.pictures = self._matched()
        self._lock = threading.Lock()
        self._lengths: dict[str, int] = {}

    def refresh(self) -> None:
        """Take in captions that changed on disk."""
        self.store.refresh()

    def _matched(self) -> dict[str, Picture]:
        """The plan's pictures by the ids of the caption store, in its order.

        In several datasets of different sizes a picture is shown as the first one sees it.
        """
        folders: dict[Path, Path] = {}
        planned: dict[Path, Picture] = {}
        for picture in _all_pictures(self.plan):
            folder = picture.path.parent
            if folder not in folders:
                folders[folder] = folder.resolve()
            planned.setdefault(folders[folder] / picture.path.name, picture)
        found = ((id, planned.get(self.store.get(id).picture)) for id in self.store.ids())
        return _with_masks({id: picture for id, picture in found if picture is not None})

    def picture(self, id: str) -> Picture:
        """Raises InputError: the dataset has no such picture, so nothing else can be asked for."""
        found = self.pictures.get(id)
        if found is None:
            raise InputError(t("data.gone"))
        return found

    def lengths(self, texts: list[str]) -> list[int]:
        """Tokens of texts; those counted before are remembered."""
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._lengths]
            self._lengths.update(zip(new, tokens.counts(new), strict=True))
            return [self._lengths[text] for text in texts]

    def spoken(self, caption: Caption, picture: Picture) -> str:
        """What the picture is trained with: its caption, or the words that stand for its folder."""
        return caption.text if caption.text.strip() else (picture.subset.class_tokens or "")

    def wanted(self, asked: Mapping[str, Any]) -> list[str]:
        """Ids of the pictures that pass a page's filter."""
        words, tag, only = (str(asked.get(key) or "").strip() for key in ("text", "tag", "only"))
        tags = (tag,) if tag else ()
        missing = True if only == "missing" else None
        ids = self.store.ids(Filter(tags=tags, text=words, missing=missing))
        if words:
            named = set(self.store.ids(Filter(tags=tags, name=words, missing=missing)))
            passed = named.union(ids)
            ids = [id for id in self.store.ids(Filter(tags=tags, missing=missing)) if id in passed]
        ids = [id for id in ids if id in self.pictures]
        if only in ("masked", "unmasked"):
            return [id for id in ids if bool(self.pictures[id].mask_path) == (only == "masked")]
        if only == "cut":
            lengths = self.lengths([self.store.get(id).text for id in ids])
            return [id for id, length in zip(ids, lengths, strict=True) if length > self.limit]
        return ids

    def items(self, ids: list[str]) -> list[dict[str, Any]]:
        """What a card in the grid shows of each picture."""
        captions = [self.store.get(id) for id in ids]
        lengths = self.lengths([caption.text for caption in captions])
        return [
            self._item(caption, self.pictures[caption.id], length)
            for caption, length in zip(captions, lengths, strict=True)
        ]

    def _item(self, caption: Caption, picture: Picture, length: int) -> dict[str, Any]:
        return {
            "id": caption.id,
            "name": picture.path.name,
            "caption": self.spoken(caption, picture),
            "missing": not caption.text.strip(),
            "cut": length > self.limit,
            "masked": picture.mask_path is not None,
            "mark": changed_at(picture),
        }

    def tokens(self, text: str) -> dict[str, Any]:
        """How long a caption is, and what of it is cut off."""
        kept, cut = tokens.cut(text, self.limit)
        return {"n": tokens.count(text), "limit": self.limit, "kept": kept, "cut": cut}

    def facts(self) -> dict[str, Any]:
        """The figures of the whole dataset."""
        captions = [self.store.get(id) for id in self.pictures]
        counts = self.store.statistics(pairs=0).counts
        bars = histograms(self.plan)
        return {
            "pictures": len(self._trained()),
            "reg": len(self.pictures) - len(self._trained()),
            "captioned": sum(bool(caption.text.strip()) for caption in captions if not self._is_reg(caption)),
            "masked": sum(picture.mask_path is not None for picture in self.pictures.values()),
            "held": len({p.path for d in self._held() for p in d.pictures}),
            "batches": self.plan.batches_per_epoch(),
            "seen": self.plan.train_images,
            "resolution": ", ".join(dict.fromkeys(f"{w}×{h}" for w, h in self._resolutions())),
            "buckets": [{"size": row["size"], "count": row["count"]} for row in bars["buckets"]],
            "sizes": [[row["label"], row["count"]] for row in bars["sizes"]],
            "tags": list(counts.items())[:_TAGS],
            "notes": problem_dicts(self.plan.notes),
            "history": self.history(),
        }

    def history(self) -> dict[str, str]:
        """What Undo and Redo would do, in words; '' when there is nothing."""
        items = self.store.history(200)
        return {
            "undo": said(next((item.title for item in items if item.state == "done"), "")),
            "redo": said(next((item.title for item in reversed(items) if item.state == "undone"), "")),
        }

    def _held(self) -> tuple[Dataset, ...]:
        return self.plan.validation.datasets if self.plan.validation else ()

    def _is_reg(self, caption: Caption) -> bool:
        return self.pictures[caption.id].subset.is_reg

    def _trained(self) -> list[Picture]:
        return [picture for picture in self.pictures.values() if not picture.subset.is_reg]

    def _resolutions(self) -> list[tuple[int, int]]:
        return [dataset.resolution for dataset in self.plan.datasets]


def _all_pictures(plan: DatasetPlan) -> Iterator[Picture]:
    """Of the training, then those that are kept for validation."""
    parts = (plan, plan.validation) if plan.validation else (plan,)
    return (picture for part in parts for dataset in part.datasets for picture in dataset.pictures)


def changed_at(picture: Picture) -> str:
    """Changes when the picture or its mask does, so that an old thumbnail is not shown."""
    stamps: list[str] = []
    for path in (picture.path, picture.mask_path):
        try:
            stamps.append(str(path.stat().st_mtime_ns) if path else "")
        except OSError:
            stamps.append("")
    return "-".join(stamps)


def mask_folder(picture: Picture) -> Path:
    """Where the picture's mask lies, or will lie when it is painted."""
    return picture.subset.conditioning_data_dir or masks_folder(picture.subset.image_dir)


def _with_masks(pictures: dict[str, Picture]) -> dict[str, Picture]:
    """Masks that were painted here are shown before a dataset file names their folder."""
    painted = {
        folder for folder in {mask_folder(picture) for picture in pictures.values()} if folder.is_dir()
    }
    return {id: _with_mask(picture, painted) for id, picture in pictures.items()}


def _with_mask(picture: Picture, painted: set[Path]) -> Picture:
    folder = mask_folder(picture)
    found = mask_of(picture.path, folder) if picture.mask_path is None and folder in painted else None
    return replace(picture, mask_path=found) if found else picture


def missing_path() -> InputError:
    """Nothing was given to open."""
    return InputError(Problem(t("data.no_path")))
