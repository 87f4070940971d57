"""What the doctor knows of a dataset before its rules speak: folders, pictures, captions, masks, sizes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from backend.data import caption_files, config
from backend.data.buckets import assign, enlargement
from backend.data.config import read_config
from backend.data.folders import look as list_folder
from backend.data.folders import read_folders, read_metadata
from backend.data.gather import MOST_ENLARGED
from backend.data.headers import ENDINGS, Header
from backend.data.index import FolderIndex
from backend.data.lint import prints
from backend.data.lint.examine import Look, Watch, examine
from backend.data.metadata import scan_metadata
from backend.data.report import Report
from backend.data.scan import Found, Scan, scan_folder
from backend.data.specs import DatasetSpec, Defaults
from backend.data.split import split
from backend.data.types import Geometry, Picture, Subset
from backend.errors import InputError
from backend.settings import Settings

LONGEST_KEPT = 8000
"""Characters of a caption that are kept for the rules."""


@dataclass(frozen=True)
class Caption:
    """One caption file, read."""

    path: Path
    text: str = ""
    """The lines that are used, tidied; of several without wildcards the first."""
    problem: str = ""
    kind: str = ""
    """Of the problem: 'folder', 'huge', 'encoding' or 'unreadable'."""
    lines: int = 0
    control: bool = False

    @property
    def used(self) -> list[str]:
        return [line for line in self.text.split("\n") if line]


@dataclass
class Item:
    """One picture file."""

    path: Path
    subset: Subset
    header: Header | None = None
    """None when not even that can be read."""
    misnamed: bool = False
    caption_path: Path | None = None
    look: Look = field(default_factory=Look)
    caption: Caption | None = None
    mask: Path | None = None
    """Or the picture that guides it, where the subset's are such."""
    mask_look: Look = field(default_factory=Look)

    @property
    def sound(self) -> bool:
        return self.header is not None and not self.look.wrong


@dataclass
class Folder:
    """The pictures of one subset."""

    subset: Subset
    scan: Scan
    items: list[Item]
    spare_masks: list[Path] = field(default_factory=list[Path])

    @property
    def sound(self) -> list[Item]:
        return [item for item in self.items if item.sound]


@dataclass(frozen=True)
class Placed:
    """A picture in one dataset, with its size there."""

    item: Item
    geometry: Geometry
    spec: DatasetSpec


@dataclass
class Survey:
    """All that the rules look at."""

    source: str
    specs: list[DatasetSpec]
    folders: list[Folder]
    token_limit: int | None = None
    """max_token_length."""
    word: str | None = None
    """The trigger word, when one was given."""
    config: Path | None = None
    """The dataset file, when there is one."""
    complete: bool = True

    @property
    def items(self) -> Iterator[Item]:
        return (item for folder in self.folders for item in folder.items)

    @property
    def sound(self) -> list[Item]:
        return [item for item in self.items if item.sound]

    def trigger(self, subset: Subset) -> str | None:
        """The trigger word of a subset: the one that was given, else the first of several class tokens."""
        if subset.is_reg:
            return None
        words = (subset.class_tokens or "").split()
        return self.word or (words[0] if len(words) > 1 else None)

    @cached_property
    def placed(self) -> list[Placed]:
        """Every sound picture in every dataset that names its folder."""
        folders = {place(folder.subset): folder for folder in self.folders}
        return [
            Placed(item, assign(item.header.size, spec.rules), spec)
            for spec in self.specs
            for subset in spec.subsets
            for item in folders[place(subset)].sound
            if item.header is not None
        ]

    def used(self) -> Iterator[Placed]:
        """As ``placed``, without those that are left out for being far too small."""
        return (placed for placed in self.placed if enlargement(placed.geometry) <= MOST_ENLARGED)

    @cached_property
    def alike(self) -> list[list[Item]]:
        """Pictures that are the same or nearly so, in groups."""
        by_path = {item.path: item for item in reversed(self.sound) if item.look.prints is not None}
        items = list(by_path.values())[::-1]
        looks = [item.look.prints for item in items if item.look.prints is not None]
        found = prints.groups([item.look.digest for item in items], looks)
        return [[items[index] for index in group] for group in found]

    @cached_property
    def held_out(self) -> frozenset[Path]:
        """Pictures that are kept for validation and not trained on."""
        if not any(spec.validation_split for spec in self.specs):
            return frozenset()
        pictures = [
            [_picture(placed) for placed in self.used() if placed.spec is spec] for spec in self.specs
        ]
        shares = [spec.validation_split for spec in self.specs]
        parts = split(pictures, shares, [spec.validation_seed for spec in self.specs], Report())
        return frozenset(picture.path for part in parts.validation for picture in part)

    @cached_property
    def roots(self) -> tuple[Path, ...]:
        """The dataset's folders."""
        folders = [folder.subset for folder in self.folders]
        masks = [subset.conditioning_data_dir for subset in folders if subset.conditioning_data_dir]
        return tuple(dict.fromkeys([*(subset.image_dir for subset in folders), *masks]))


def place(subset: Subset) -> Path:
    """What a subset's pictures are listed in: a metadata file or a folder."""
    return subset.metadata_file or subset.image_dir


def survey(source: Settings | Path | str, word: str | None, control: bool, watch: Watch) -> Survey:
    """Find, read and decode everything. Raises :class:`InputError` when there is nothing to look at."""
    settings, shown = settings_of(source)
    report = Report()
    specs = _specs(settings, report, control)
    report.raise_if_any()
    if not specs:
        raise InputError("No pictures were given.", next="Name a dataset file or a folder of pictures.")
    found = Survey(shown, specs, [], settings.model.max_token_length, word, _config_file(settings))
    seen: set[Path] = set()
    for spec in specs:
        for subset in spec.subsets:
            if place(subset) not in seen:
                seen.add(place(subset))
                found.folders.append(_folder(subset, watch))
    _decode(found, watch)
    _read_captions(found, watch)
    return found


def settings_of(source: Settings | Path | str) -> tuple[Settings, str]:
    """Settings of a dataset file, a training config or a folder, and what to call it."""
    from backend.settings import read_toml

    if isinstance(source, Settings):
        return source, str(source.dataset.dataset_config or source.dataset.train_data_dir or "")
    path = Path(str(source).strip()).expanduser()
    if path.is_file() and not _is_dataset_file(path):
        return read_toml(path), str(path)
    key = "dataset_config" if path.is_file() or path.suffix.lower() in config.SUFFIXES else "train_data_dir"
    # Masks of a dataset file are looked at whether the training will use them or not.
    return Settings.from_flat({key: str(path), "masked_loss": key == "dataset_config"}), str(path)


def roots_of(source: Settings | Path | str) -> tuple[Path, ...]:
    """Files and folders that belong to a dataset, as far as they can be told; fixes are found by them."""
    settings, _ = settings_of(source)
    subsets = [subset for spec in _specs(settings, Report()) for subset in spec.subsets]
    wanted = settings.dataset
    given = (wanted.dataset_config, wanted.train_data_dir, wanted.reg_data_dir)
    found = [Path(name.strip()).expanduser() for name in given if name]
    found += [subset.image_dir for subset in subsets]
    found += [subset.conditioning_data_dir for subset in subsets if subset.conditioning_data_dir]
    return tuple(dict.fromkeys(path.resolve() for path in found))


def _is_dataset_file(path: Path) -> bool:
    """A training config names a dataset; a dataset file, also a broken one, is judged by its own reader."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    if path.suffix.lower() != ".toml":
        return True
    try:
        data = tomlkit.parse(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, TOMLKitError):
        return True
    flat = {**data, **{k: v for table in data.values() if isinstance(table, dict) for k, v in table.items()}}
    return "datasets" in data or not flat.keys() & {"dataset_config", "train_data_dir"}


def _specs(settings: Settings, report: Report, control: bool = False) -> list[DatasetSpec]:
    wanted, loss = settings.dataset, settings.loss
    # A usual size; whoever trains another family says so in the settings.
    defaults = Defaults(wanted, (512, 512), loss.masked_loss, loss.prior_loss_weight, control)
    path = _config_file(settings)
    if path is not None:
        return read_config(path, defaults, report)
    return read_metadata(defaults, report) if wanted.in_json else read_folders(defaults, report)


def _config_file(settings: Settings) -> Path | None:
    given = settings.dataset.dataset_config
    return Path(given.strip()).expanduser() if given else None


def _folder(subset: Subset, watch: Watch) -> Folder:
    try:
        scan = _scan(subset, lambda done: watch.progress("measuring", done, done))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{subset.image_dir} cannot be read ({reason}).") from None
    items = [_item(found, subset) for found in scan.pictures]
    items += [_broken(subset.image_dir / name, wrong, subset) for name, wrong in scan.broken.items()]
    folder = Folder(subset, scan, sorted(items, key=lambda item: item.path))
    if subset.conditioning_data_dir is not None:
        _pair_masks(folder, subset.conditioning_data_dir)
    return folder


def _scan(subset: Subset, progress: Callable[[int], None]) -> Scan:
    index = FolderIndex(place(subset))
    if subset.metadata_file is None:
        return scan_folder(subset.image_dir, subset.caption_extension, progress, index)
    report = Report()
    scan = scan_metadata(subset, False, report, Scan(place(subset), index=index), progress)
    report.raise_if_any()
    return scan


def _item(found: Found, subset: Subset) -> Item:
    misnamed = found.path.suffix.lower() not in ENDINGS[found.header.kind]
    item = Item(found.path, subset, found.header, misnamed)
    if subset.metadata_file is None:
        item.caption_path = found.caption_path
    elif found.caption:
        item.caption = Caption(subset.metadata_file, found.caption[:LONGEST_KEPT], lines=1)
    return item


def _broken(path: Path, wrong: str, subset: Subset) -> Item:
    """A file that is no picture; its caption leaves with it."""
    endings = (subset.caption_extension, ".txt", ".caption")
    beside = (path.with_name(path.stem + ending) for ending in endings)
    return Item(
        path,
        subset,
        caption_path=next((found for found in beside if found.exists()), None),
        look=Look(wrong=wrong),
    )


def _pair_masks(folder: Folder, masks: Path) -> None:
    by_stem = {Path(name).stem: masks / name for name in list_folder(masks).pictures}
    for item in folder.items:
        item.mask = by_stem.get(item.path.stem)
    used = {item.path.stem for item in folder.items}
    folder.spare_masks = sorted(path for stem, path in by_stem.items() if stem not in used)


def _decode(found: Survey, watch: Watch) -> None:
    """Fill in the looks; without those that were not reached when it was stopped."""
    pictures = [item.path for item in found.items if item.header is not None]
    masks = list(dict.fromkeys(item.mask for item in found.items if item.mask is not None))
    total = len(pictures) + len(masks)
    seen = dict(examine(pictures, "picture", _share(watch, 0, total)))
    seen |= examine(masks, "mask", _share(watch, len(pictures), total))
    for item in found.items:
        item.look = seen.get(item.path, item.look)
        if item.mask is not None:
            item.mask_look = seen.get(item.mask, item.mask_look)
    found.complete = len(seen) == total
    if not found.complete:
        for folder in found.folders:
            folder.items = [item for item in folder.items if _reached(item, seen)]


def _share(watch: Watch, before: int, total: int) -> Watch:
    """Tells the progress of a part as that of the whole."""
    return Watch(lambda phase, done, _: watch.progress(phase, before + done, total), watch.should_stop)


def _reached(item: Item, seen: Mapping[Path, Look]) -> bool:
    return item.header is None or (item.path in seen and (item.mask is None or item.mask in seen))


def _read_captions(found: Survey, watch: Watch) -> None:
    total = sum(len(folder.items) for folder in found.folders)
    number = 0
    for folder in found.folders:
        index = folder.scan.index or FolderIndex(place(folder.subset))
        for item in folder.items:
            if item.caption_path is not None:
                item.caption = _caption(item.caption_path, item.subset, index)
            number += 1
            if number % 500 == 0:
                watch.progress("reading captions", number, total)
        index.save()


def _caption(path: Path, subset: Subset, index: FolderIndex) -> Caption:
    rules = subset.captions
    read = index.caption(path, rules.caption_separator, rules.enable_wildcard)
    if read.problem:
        return Caption(path, problem=read.problem, kind=_problem_kind(path, read.problem))
    text = read.text if rules.enable_wildcard else read.text.partition("\n")[0]
    return Caption(path, text[:LONGEST_KEPT], lines=read.lines, control=read.control)


def _picture(placed: Placed) -> Picture:
    item = placed.item
    return Picture(item.path.name, item.path, item.subset, "", item.caption_path, placed.geometry, 1)


def _problem_kind(path: Path, problem: str) -> str:
    if path.is_dir():
        return "folder"
    if problem.startswith("is not UTF-8"):
        return "encoding"
    try:
        return "huge" if os.stat(path).st_size > caption_files.LIMIT else "unreadable"  # noqa: PTH116
    except OSError:
        return "unreadable"
