"""Folders as datasets: '<repeats>_<words>' sub-folders, or one folder of pictures."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from backend.data.headers import EXTENSIONS, UNSUPPORTED
from backend.data.index import is_folder
from backend.data.report import Report, count, listing
from backend.data.specs import DatasetSpec, Defaults, Levels, make_dataset, make_subset
from backend.data.types import Subset

_NUMBERED = re.compile(r"^(\d+)(?:_(.*))?$", re.DOTALL)


@dataclass(frozen=True)
class Contents:
    """Names inside a folder, sorted."""

    folders: list[str] = field(default_factory=list[str])
    pictures: list[str] = field(default_factory=list[str])
    unsupported: list[str] = field(default_factory=list[str])


def look(folder: Path) -> Contents:
    """What a folder holds, itself only. Raises OSError. Names that start with a dot are passed over."""
    contents = Contents()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if is_folder(entry):
                contents.folders.append(entry.name)
            elif (ending := os.path.splitext(entry.name)[1].lower()) in EXTENSIONS:  # noqa: PTH122
                contents.pictures.append(entry.name)
            elif ending in UNSUPPORTED:
                contents.unsupported.append(entry.name)
    for names in (contents.folders, contents.pictures, contents.unsupported):
        names.sort()
    return contents


def repeats_and_words(name: str) -> tuple[int, str] | None:
    """(10, 'sks dog') of '10_sks dog'; (10, '') of '10_' and '10'; None of other names."""
    match = _NUMBERED.match(name)
    return (int(match[1]), (match[2] or "").strip()) if match else None


def read_folders(defaults: Defaults, report: Report) -> list[DatasetSpec]:
    """One dataset of the settings' picture folder and regularisation folder."""
    settings = defaults.settings
    subsets: list[Subset] = []
    for key, is_reg in (("train_data_dir", False), ("reg_data_dir", True)):
        given: str | None = getattr(settings, key)
        if given and is_reg and settings.num_class_images and not _holds_pictures(given):
            report.note(
                f"{count(settings.num_class_images, 'class picture')} will be drawn before training.",
                where=given,
            )
        elif given:
            subsets += _subsets(Path(given.strip()).expanduser(), key, is_reg, defaults, report)
    if not any(not subset.is_reg for subset in subsets):
        return []
    return [make_dataset(Levels(defaults), tuple(subsets), report)]


def _holds_pictures(given: str) -> bool:
    folder = Path(given.strip()).expanduser()
    return folder.is_dir() and class_pictures(folder) > 0


def class_pictures(folder: Path) -> int:
    """How many pictures a regularisation folder holds: those of its numbered folders, or else its own."""
    contents = look(folder)
    numbered = [name for name in contents.folders if repeats_and_words(name)]
    inside = sum(len(look(folder / name).pictures) for name in numbered)
    return inside if numbered else len(contents.pictures)


def read_metadata(defaults: Defaults, report: Report) -> list[DatasetSpec]:
    """One dataset of the settings' metadata file; its pictures lie in the picture folder."""
    settings = defaults.settings
    path = Path((settings.in_json or "").strip()).expanduser().resolve()
    given = (settings.train_data_dir or "").strip()
    folder = Path(given).expanduser().resolve() if given else path.parent
    if not path.is_file():
        what = "is a folder; a metadata file is needed" if path.is_dir() else "was not found"
        report.problem(f"{path} {what}.", key="in_json", next="Choose a .json or .jsonl file.")
    elif not folder.is_dir():
        report.problem(f"Folder not found: {folder}", key="train_data_dir")
    else:
        levels = Levels(defaults)
        subset = make_subset(
            levels,
            folder,
            class_tokens=settings.class_tokens,
            is_reg=False,
            alpha_mask=settings.alpha_mask,
            metadata=path,
        )
        return [make_dataset(levels, (subset,), report)]
    return []


def _subsets(folder: Path, key: str, is_reg: bool, defaults: Defaults, report: Report) -> list[Subset]:
    """The subsets of one folder; both a parent of numbered folders and a folder of pictures will do."""
    try:
        contents = look(folder)
    except OSError as error:
        report.problem(
            _cannot_look(folder, error), key=key, next="Choose the folder that holds the pictures."
        )
        return []
    numbered = {name: found for name in contents.folders if (found := repeats_and_words(name))}
    if numbered:
        return _numbered(folder.resolve(), contents, numbered, is_reg, defaults, report)
    if not contents.pictures:
        _nothing_here(folder, key, contents, report)
        return []
    return [_direct(folder.resolve(), contents, is_reg, defaults, report)]


def _numbered(
    folder: Path,
    contents: Contents,
    numbered: dict[str, tuple[int, str]],
    is_reg: bool,
    defaults: Defaults,
    report: Report,
) -> list[Subset]:
    found: list[Subset] = []
    for name, (repeats, words) in numbered.items():
        if repeats < 1:
            report.note(f"{name} is left out: its name asks for 0 repeats.", where=str(folder))
            continue
        found.append(_subset(folder / name, repeats, words, is_reg, defaults))
        said = f"'{words}'" if words else "no words"
        report.note(f"{name}: {count(repeats, 'repeat')}, {said}.", where=str(folder))
    others = [name for name in contents.folders if name not in numbered]
    if others:
        report.note(
            f"Not used, for want of a number in front: {count(len(others), 'folder')}, {listing(others)}.",
            where=str(folder),
            next="Name it like '10_sks dog' (repeats, then words) to use it.",
        )
    if contents.pictures:
        report.note(
            f"Not used, for lying beside the numbered folders: {count(len(contents.pictures), 'picture')}, "
            f"{listing(contents.pictures, 3)}.",
            where=str(folder),
            next="Move them into a numbered folder to use them.",
        )
    return found


def _direct(folder: Path, contents: Contents, is_reg: bool, defaults: Defaults, report: Report) -> Subset:
    """A folder of pictures itself; a name like '10_sks dog' counts."""
    repeats, words = repeats_and_words(folder.name) or (defaults.settings.dataset_repeats, "")
    repeats = max(1, repeats)
    report.note(
        f"Found {count(len(contents.pictures), 'picture')} directly in {folder.name}: "
        f"{count(repeats, 'repeat')}, {repr(words) if words else 'no words'}.",
        where=str(folder),
    )
    if contents.folders:
        report.note(
            f"{count(len(contents.folders), 'folder')} inside it not used: {listing(contents.folders)}.",
            where=str(folder),
        )
    return _subset(folder, repeats, words, is_reg, defaults)


def _subset(folder: Path, repeats: int, words: str, is_reg: bool, defaults: Defaults) -> Subset:
    settings = defaults.settings
    # The words for the subject would spoil pictures of the general class.
    words = words or ("" if is_reg else settings.class_tokens or "")
    return make_subset(
        Levels(defaults),
        folder,
        class_tokens=words,
        is_reg=is_reg,
        alpha_mask=settings.alpha_mask,
        masks=_guides(folder, defaults),
        num_repeats=repeats,
    )


def _guides(folder: Path, defaults: Defaults) -> Path | None:
    """Where the guide pictures of a folder lie: in one of its name among them, or with them all."""
    given = (defaults.settings.conditioning_data_dir or "").strip()
    if not (defaults.control and given):
        return None
    whole = Path(given).expanduser().resolve()
    return whole / folder.name if (whole / folder.name).is_dir() else whole


def nothing_found(folder: Path, contents: Contents) -> str:
    """The sentence for a folder without pictures."""
    looked = ", ".join(sorted(ending.lstrip(".") for ending in EXTENSIONS))
    found = (
        [f"found {count(len(contents.folders), 'folder')}: {', '.join(contents.folders[:5])}"]
        if contents.folders
        else []
    )
    if contents.unsupported:
        found.append(
            f"found {len(contents.unsupported)} of other kinds: {', '.join(contents.unsupported[:5])}"
        )
    return f"No images in {folder} ({'; '.join([f'looked for {looked}', *found])})."


def _nothing_here(folder: Path, key: str, contents: Contents, report: Report) -> None:
    report.problem(
        nothing_found(folder.resolve(), contents),
        key=key,
        next="Choose a folder of pictures, or one whose folders are named like '10_sks dog'."
        if not contents.folders
        else "Choose one of these folders, or name them like '10_sks dog' (repeats, then words).",
    )


def _cannot_look(folder: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"Folder not found: {folder}"
    if isinstance(error, NotADirectoryError):
        return f"{folder} is a file; a folder of pictures is needed."
    return f"{folder} cannot be read ({(error.strerror or str(error)).lower()})."
