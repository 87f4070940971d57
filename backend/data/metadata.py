"""Metadata files of fine-tuning: one file that names pictures and their captions.

``.json`` is an object of picture -> {"caption", "tags"}; ``.jsonl`` has an object with "image_path",
"caption" and "tags" on each line, or those of image-folder datasets, "file_name" and "text". A picture
is named by its path, absolute or from the picture folder. Other entries (sizes that preparation scripts
wrote) are not needed: pictures are measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from backend.data import caption_files, positions
from backend.data.headers import EXTENSIONS
from backend.data.index import stamp_of
from backend.data.report import Report
from backend.data.scan import Found, Scan, measure
from backend.data.types import CaptionRules, Subset

Entry = tuple[str, dict[str, Any]]
"""A picture's name, and what is said of it."""
_LARGEST = 1 << 30
"""Bytes of a metadata file that is read."""


def scan_metadata(
    subset: Subset, skip: bool, report: Report, scan: Scan, progress: Callable[[int], None] | None = None
) -> Scan:
    """The pictures that a metadata file names, measured, with their text, added to ``scan``.

    What is wrong with the file becomes a problem that names file and line, or with ``skip`` a
    note; everything else in it is kept.
    """
    path = subset.metadata_file
    assert path is not None
    reader = _Reader(path, report, skip)
    seen: set[str] = set()
    for number, (key, facts) in enumerate(reader.entries(), 1):
        if key in seen:
            reader.tell("", f"names {key} twice; the first entry is used", note=True)
            continue
        seen.add(key)
        picture = _find(subset.image_dir, key)
        header = measure(scan, key, picture, stamp_of(picture) if scan.index else None)
        if header is not None:
            text = caption_of(facts, subset.captions)
            scan.pictures.append(Found(picture, header, path if text else None, key, text or None))
        if progress is not None and number % 100 == 0:
            progress(number)
    scan.pictures.sort(key=lambda found: found.key)
    return scan


def caption_of(facts: dict[str, Any], rules: CaptionRules) -> str:
    """The text of an entry: its caption, then its tags after the separator.

    Of several caption lines the first is used, or with wildcards all, each with the tags.
    """
    separator = rules.caption_separator
    tags = separator.join(line.strip() for line in str(facts.get("tags") or "").splitlines() if line.strip())
    caption = facts.get("caption") or facts.get("text")
    lines = [line.strip() for line in str(caption or "").splitlines() if line.strip()]
    lines = lines if rules.enable_wildcard else lines[:1]
    joined = [separator.join(part for part in (line, tags) if part) for line in lines or [""]]
    return caption_files.tidy("\n".join(joined), separator, rules.enable_wildcard).text


def _named(data: object) -> object:
    """The picture that a line is about; ``file_name`` is what lines of image-folder datasets call it."""
    facts = cast(dict[str, object], data) if isinstance(data, dict) else {}
    return facts.get("image_path") or facts.get("file_name")


def _find(folder: Path, key: str) -> Path:
    """The file of a picture; a name without ending is completed by one that is there."""
    path = folder / key.replace("\\", "/") if "\\" in key and not (folder / key).exists() else folder / key
    if path.suffix.lower() in EXTENSIONS or path.exists():
        return path
    endings = (path.with_name(path.name + ending) for ending in sorted(EXTENSIONS))
    return next((found for found in endings if found.exists()), path)


class _Reader:
    """Reads one file, line by line where its form allows."""

    def __init__(self, path: Path, report: Report, skip: bool) -> None:
        self.path, self.report, self.skip = path, report, skip

    def entries(self) -> Iterator[Entry]:
        try:
            size = self.path.stat().st_size
            if size > _LARGEST:
                self.tell("", f"is too large ({size / 1e9:.1f} GB)")
                return
            yield from self._lines() if self.path.suffix.lower() == ".jsonl" else self._object()
        except OSError as error:
            self.tell("", f"cannot be read ({(error.strerror or str(error)).lower()})")

    def _lines(self) -> Iterator[Entry]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    data = json.loads(line.decode("utf-8-sig"))
                except UnicodeDecodeError:
                    self.tell(f" line {number}", "is not UTF-8")
                except (json.JSONDecodeError, RecursionError) as error:
                    self.tell(f" line {number}", f"is not JSON ({getattr(error, 'msg', error)})")
                else:
                    key = _named(data)
                    if isinstance(key, str) and key.strip():
                        yield key.strip(), cast(dict[str, Any], data)
                    else:
                        self.tell(f" line {number}", "names no picture (image_path)")

    def _object(self) -> Iterator[Entry]:
        raw = self.path.read_bytes()
        try:
            text = raw.decode("utf-8-sig")
            data = json.loads(text)
        except UnicodeDecodeError as error:
            self.tell(f" line {raw.count(10, 0, error.start) + 1}", "is not UTF-8")
            return
        except json.JSONDecodeError as error:
            self.tell(f" line {error.lineno}, column {error.colno}", error.msg)
            return
        except RecursionError:
            self.tell("", "is nested too deeply")
            return
        if not isinstance(data, dict):
            self.tell("", "is no object of pictures")
            return
        lines: dict[positions.Path, int] | None = None
        for key, facts in cast(dict[str, Any], data).items():
            if isinstance(facts, dict):
                yield key, cast(dict[str, Any], facts)
                continue
            lines = positions.json_lines(text) if lines is None else lines
            self.tell(f" line {lines.get((key,), 1)}", f"says nothing of {key} that could be read")

    def tell(self, place: str, what: str, note: bool = False) -> None:
        told = self.report.note if note or self.skip else self.report.problem
        advice = "Correct it, or leave it out with 'Leave out broken pictures' (skip_broken_images)."
        if self.skip:
            advice = "It is left out; the rest of the file is used."
        told(
            f"{self.path.name}{place}{':' if place else ''} {what}.",
            where=str(self.path),
            next="" if note else advice,
            key="skip_broken_images",
            kind="twice" if note else "line",
        )
