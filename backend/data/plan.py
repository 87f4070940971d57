"""The dataset plan: everything that can be known about a dataset before anything heavy loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backend.data.config import read_config
from backend.data.facts import FileFacts, default_facts
from backend.data.folders import look, nothing_found, read_folders, read_metadata
from backend.data.gather import gather, tell_broken, tell_doubles, tell_profiles, tell_transparent
from backend.data.index import FolderIndex
from backend.data.mask_files import pair_masks
from backend.data.metadata import scan_metadata
from backend.data.report import Report, count
from backend.data.scan import Scan, scan_folder, verify
from backend.data.specs import DatasetSpec, Defaults, check_changes
from backend.data.split import split
from backend.data.templates import object_captions, style_captions
from backend.data.types import Dataset, DatasetPlan, Picture, Subset

if TYPE_CHECKING:
    from backend.settings import Settings

Progress = Callable[[str, int], None]
"""Told a phase ('measuring' or 'checking') and the number of pictures done."""


def build_plan(
    settings: Settings,
    *,
    verify: bool = True,
    default_resolution: int = 512,
    facts: FileFacts | None = None,
    progress: Progress | None = None,
    control: bool = False,
    lenient: bool = False,
) -> DatasetPlan:
    """Find, measure and check all pictures the settings name.

    ``verify`` decodes every picture whole, unless it was decoded before and has not changed.
    ``default_resolution`` is the family's own, for when the settings leave it empty. ``facts``
    are the remembered hashes of files (those of Atelier's cache when None). With ``control``, or
    where a ControlNet-LLLite is trained, conditioning_data_dir holds pictures that guide, not masks.
    ``lenient`` is for looking at a dataset and mending it: as long as there are pictures, problems are
    notes.

    Raises :class:`~backend.errors.InputError` with every problem that was found.
    """
    report = Report()
    specs = _specs(settings, default_resolution, report, control)
    if settings.dataset.dataset_config:  # for folders the rules between options say it
        caching = settings.caching
        check_changes(specs, caching.cache_latents or caching.cache_latents_to_disk, report)
    skip = settings.dataset.skip_broken_images
    builder = _Builder(report, facts or default_facts(), progress or _silent, skip)
    if verify:
        builder.verify(specs)
    gathered = [builder.pictures(spec) for spec in specs]
    builder.save()
    parts = split(
        gathered, [spec.validation_split for spec in specs], [spec.validation_seed for spec in specs], report
    )
    datasets = [
        _dataset(spec, balance_regularisation(found, report))
        for spec, found in zip(specs, parts.training, strict=True)
    ]
    held = [_dataset(spec, found) for spec, found in zip(specs, parts.validation, strict=True) if found]
    if lenient and any(dataset.pictures for dataset in datasets):
        report.notes[:0], report.problems = report.problems, []
    if not report.problems and not any(dataset.pictures for dataset in datasets):
        told = "; ".join(note.what for note in report.notes[:20])
        report.problem("No picture is left to train on.", why=told, next="Use larger or sound pictures.")
    report.raise_if_any()
    validation = DatasetPlan(tuple(held)) if held else None
    return DatasetPlan(tuple(datasets), tuple(dict.fromkeys(report.notes)), validation)


def _specs(settings: Settings, default_resolution: int, report: Report, control: bool) -> list[DatasetSpec]:
    wanted = settings.dataset
    defaults = Defaults(
        wanted,
        (default_resolution, default_resolution),
        settings.loss.masked_loss,
        settings.loss.prior_loss_weight,
        control or settings.model.training_method == "lllite",
        _templates(settings),
    )
    if wanted.dataset_config:
        if wanted.train_data_dir or wanted.reg_data_dir or wanted.in_json:
            report.note("The dataset file is used; the picture folders are not.", key="dataset_config")
        return read_config(Path(wanted.dataset_config.strip()).expanduser(), defaults, report)
    if wanted.in_json:
        return read_metadata(defaults, report)
    if not wanted.train_data_dir:
        report.problem(
            "No pictures were given.",
            key="train_data_dir",
            next="Choose a picture folder (train_data_dir) or a dataset file (dataset_config).",
        )
        return []
    return read_folders(defaults, report)


def _templates(settings: Settings) -> tuple[str, ...]:
    """Captions that are made of the word that is taught; () where captions are read."""
    word = settings.word
    if settings.model.training_method != "textual_inversion" or not word.token_string:
        return ()
    if word.use_object_template:
        return object_captions(word.token_string)
    return style_captions(word.token_string) if word.use_style_template else ()


def _silent(phase: str, done: int) -> None:
    return


class _Builder:
    """Scans each folder once and numbers subsets across datasets."""

    def __init__(self, report: Report, facts: FileFacts, progress: Progress, skip_broken: bool) -> None:
        self.report, self.facts, self.progress = report, facts, progress
        self.skip_broken = skip_broken
        self.scans: dict[tuple[Path, str], Scan] = {}
        self.indices: dict[Path, FolderIndex] = {}
        self.broken: dict[Path, str] = {}
        self.measured = 0
        self.subset_count = 0

    def verify(self, specs: list[DatasetSpec]) -> None:
        """Decode every picture and mask; what fails is remembered by path."""
        paths: dict[Path, None] = {}
        on_white: dict[Path, None] = {}
        masks: set[Path] = set()
        beside: set[Path] = set()
        for spec in specs:
            for subset in spec.subsets:
                own = dict.fromkeys(found.path for found in self.scan(subset).pictures)
                paths.update(own)
                on_white.update({} if subset.alpha_mask else own)
                folder = subset.conditioning_data_dir
                if folder is not None and folder.is_dir():  # one that is missing is told with the rest
                    names = [folder / name for name in look(folder).pictures]
                    beside.update(names)
                    masks.update(() if subset.control else names)
                    paths.update(dict.fromkeys(names))
        self.broken = dict(verify(paths, self.facts, lambda done: self.progress("checking", done), masks))
        sound = [path for path in paths if path not in self.broken]
        tell_profiles(sound, self.facts, self.report)
        tell_transparent((path for path in sound if path in on_white), self.facts, self.report)
        tell_doubles((path for path in sound if path not in beside), self.facts, self.report)

    def scan(self, subset: Subset) -> Scan:
        """The pictures of a subset, found and measured once for all who ask."""
        rules = subset.captions
        words = subset.caption_extension
        if subset.metadata_file:  # there the text depends on how it is read
            words = f"{rules.caption_separator}{rules.enable_wildcard}"
        folder = subset.metadata_file or subset.image_dir
        key = (folder, words)
        if key not in self.scans:
            before = self.measured

            def tell(done: int) -> None:
                self.progress("measuring", before + done)

            index = self.indices.setdefault(folder, FolderIndex(folder))
            if subset.metadata_file:
                scan = Scan(folder, index=index)
                self.scans[key] = scan_metadata(subset, self.skip_broken, self.report, scan, tell)
            else:
                self.scans[key] = scan_folder(folder, subset.caption_extension, tell, index)
            self.measured = before + len(self.scans[key].pictures)
        return self.scans[key]

    def save(self) -> None:
        """Keep what was measured and read, for the next start."""
        for index in self.indices.values():
            index.save()

    def pictures(self, spec: DatasetSpec) -> list[Picture]:
        """The pictures of one dataset; problems go into the report."""
        pictures: list[Picture] = []
        empty: list[str] = []
        for subset in spec.subsets:
            scan = self._without_broken(self.scan(subset), self.skip_broken)
            if not scan.pictures and not scan.broken:
                empty.append(
                    f"{subset.metadata_file} names no picture."
                    if subset.metadata_file
                    else nothing_found(subset.image_dir, look(subset.image_dir))
                )
            elif scan.pictures:
                folder = subset.conditioning_data_dir
                beside = pair_masks(folder, scan.pictures, self.broken, self.report, subset.control)
                pictures += gather(subset, self.subset_count, scan, spec.rules, beside, self.report)
            self.subset_count += 1
        tell = self.report.note if pictures else self.report.problem
        for sentence in empty:
            tell(sentence)
        return pictures

    def _without_broken(self, scan: Scan, skip: bool) -> Scan:
        decoded = [found for found in scan.pictures if found.path not in self.broken]
        failed = {found.name: self.broken[found.path] for found in scan.pictures if found.path in self.broken}
        broken = dict(sorted({**scan.broken, **failed}.items()))
        tell_broken(scan, broken, skip, self.report)
        return replace(scan, pictures=decoded, broken=broken)


def _dataset(spec: DatasetSpec, pictures: list[Picture]) -> Dataset:
    rules = spec.rules
    return Dataset(
        resolution=rules.resolution,
        batch_size=spec.batch_size,
        pictures=tuple(pictures),
        enable_bucket=rules.enable_bucket,
        min_bucket_reso=rules.min_bucket_reso,
        max_bucket_reso=rules.max_bucket_reso,
        bucket_reso_steps=rules.bucket_reso_steps,
        bucket_no_upscale=rules.bucket_no_upscale,
        subsets=spec.subsets,
        validation_split=spec.validation_split,
        validation_seed=spec.validation_seed,
        network_multiplier=spec.network_multiplier,
    )


def balance_regularisation(pictures: list[Picture], report: Report) -> list[Picture]:
    """Give regularisation pictures repeats so that they are seen as often as the others.

    With T the others' repeats in all: regularisation pictures are taken in order, each with its own
    repeats, until there are T; what is left over is not used. When all are taken and there are
    fewer than T, each in turn gets one repeat more until there are T.
    """
    regular = [picture for picture in pictures if picture.subset.is_reg]
    subject = [picture for picture in pictures if not picture.subset.is_reg]
    wanted = sum(picture.repeats for picture in subject)
    if not regular:
        return pictures
    repeats: list[int] = []
    total = 0
    for picture in regular:
        if total >= wanted:
            break
        repeats.append(picture.repeats)
        total += picture.repeats
    if repeats and total < wanted:
        each, more = divmod(wanted - total, len(repeats))
        repeats = [own + each + (i < more) for i, own in enumerate(repeats)]
    report.note(
        f"Regularisation: {len(repeats)} of {count(len(regular), 'picture')} used, {sum(repeats)} an epoch "
        f"beside {wanted} of the subject, with a loss weight of {regular[0].loss_weight:g}.",
    )
    used = [replace(picture, repeats=n) for picture, n in zip(regular, repeats, strict=False)]
    return subject + used


def picture_ids(plan: DatasetPlan) -> list[str]:
    """Identity and repeats of every picture: batches are counted over exactly these."""
    return sorted(f"{picture.id} x{picture.repeats}" for d in plan.datasets for picture in d.pictures)
