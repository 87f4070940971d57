"""The dataset plan: everything that can be known about a dataset before anything heavy loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backend.data.config import read_config
from backend.data.facts import FileFacts, default_facts
from backend.data.folders import look, nothing_found, read_folders
from backend.data.gather import gather, tell_broken
from backend.data.mask_files import pair_masks
from backend.data.report import Report, count
from backend.data.scan import Scan, scan_folder, verify
from backend.data.specs import DatasetSpec, Defaults
from backend.data.types import Dataset, DatasetPlan, Picture

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
) -> DatasetPlan:
    """Find, measure and check all pictures the settings name.

    ``verify`` decodes every picture whole, unless it was decoded before and has not changed.
    ``default_resolution`` is the family's own, for when the settings leave it empty. ``facts``
    are the remembered hashes of files (those of Atelier's cache when None).

    Raises :class:`~backend.errors.InputError` with every problem that was found.
    """
    report = Report()
    specs = _specs(settings, default_resolution, report)
    builder = _Builder(report, facts or default_facts(), progress or _silent)
    if verify:
        builder.verify(specs)
    skip = settings.dataset.skip_broken_images
    datasets = [builder.dataset(spec, skip) for spec in specs]
    if not report.problems and not any(dataset.pictures for dataset in datasets):
        told = "; ".join(note.what for note in report.notes[:20])
        report.problem("No picture is left to train on.", why=told, next="Use larger or sound pictures.")
    report.raise_if_any()
    return DatasetPlan(tuple(datasets), tuple(dict.fromkeys(report.notes)))


def _specs(settings: Settings, default_resolution: int, report: Report) -> list[DatasetSpec]:
    wanted = settings.dataset
    defaults = Defaults(
        wanted,
        (default_resolution, default_resolution),
        settings.loss.masked_loss,
        settings.loss.prior_loss_weight,
    )
    if wanted.dataset_config:
        if wanted.train_data_dir or wanted.reg_data_dir:
            report.note("The dataset file is used; the picture folders are not.", key="dataset_config")
        return read_config(Path(wanted.dataset_config.strip()).expanduser(), defaults, report)
    if not wanted.train_data_dir:
        report.problem(
            "No pictures were given.",
            key="train_data_dir",
            next="Choose a picture folder (train_data_dir) or a dataset file (dataset_config).",
        )
        return []
    return read_folders(defaults, report)


def _silent(phase: str, done: int) -> None:
    return


class _Builder:
    """Scans each folder once and numbers subsets across datasets."""

    def __init__(self, report: Report, facts: FileFacts, progress: Progress) -> None:
        self.report, self.facts, self.progress = report, facts, progress
        self.scans: dict[tuple[Path, str], Scan] = {}
        self.broken: dict[Path, str] = {}
        self.measured = 0
        self.subset_count = 0

    def verify(self, specs: list[DatasetSpec]) -> None:
        """Decode every picture and mask; what fails is remembered by path."""
        paths: dict[Path, None] = {}
        for spec in specs:
            for subset in spec.subsets:
                scan = self.scan(subset.image_dir, subset.caption_extension)
                paths.update(dict.fromkeys(found.path for found in scan.pictures))
                masks = subset.conditioning_data_dir
                if masks is not None:
                    paths.update(dict.fromkeys(masks / name for name in look(masks).pictures))
        self.broken = dict(verify(paths, self.facts, lambda done: self.progress("checking", done)))

    def scan(self, folder: Path, caption_extension: str) -> Scan:
        key = (folder, caption_extension)
        if key not in self.scans:
            before = self.measured
            self.scans[key] = scan_folder(
                folder, caption_extension, lambda done: self.progress("measuring", before + done)
            )
            self.measured = before + len(self.scans[key].pictures)
        return self.scans[key]

    def dataset(self, spec: DatasetSpec, skip_broken: bool) -> Dataset:
        """One dataset with its pictures; problems go into the report."""
        pictures: list[Picture] = []
        empty: list[str] = []
        for subset in spec.subsets:
            scan = self._without_broken(self.scan(subset.image_dir, subset.caption_extension), skip_broken)
            if not scan.pictures and not scan.broken:
                empty.append(nothing_found(subset.image_dir, look(subset.image_dir)))
            elif scan.pictures:
                masks = pair_masks(subset.conditioning_data_dir, scan.pictures, self.broken, self.report)
                pictures += gather(subset, self.subset_count, scan, spec.rules, masks, self.report)
            self.subset_count += 1
        tell = self.report.note if pictures else self.report.problem
        for sentence in empty:
            tell(sentence)
        rules = spec.rules
        return Dataset(
            resolution=rules.resolution,
            batch_size=spec.batch_size,
            pictures=tuple(balance_regularisation(pictures, self.report)),
            enable_bucket=rules.enable_bucket,
            min_bucket_reso=rules.min_bucket_reso,
            max_bucket_reso=rules.max_bucket_reso,
            bucket_reso_steps=rules.bucket_reso_steps,
            bucket_no_upscale=rules.bucket_no_upscale,
            subsets=spec.subsets,
        )

    def _without_broken(self, scan: Scan, skip: bool) -> Scan:
        decoded = [found for found in scan.pictures if found.path not in self.broken]
        failed = {found.name: self.broken[found.path] for found in scan.pictures if found.path in self.broken}
        broken = dict(sorted({**scan.broken, **failed}.items()))
        tell_broken(scan, broken, skip, self.report)
        return replace(scan, pictures=decoded, broken=broken)


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
