"""Buckets for the pictures of a metadata file, and their latents in the cache.

The metadata is the JSON of fine-tuning: picture -> {"caption", "tags", ...}. Each picture found gets
"train_resolution", the bucket it will be trained at.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from backend.data import buckets
from backend.data.facts import default_facts
from backend.data.headers import EXTENSIONS, HeaderError, read_header
from backend.data.report import count, listing
from backend.data.scan import verify
from backend.data.types import Dataset, DatasetPlan, Picture, Subset
from backend.errors import EnvironmentFault, InputError, Problem, kind_of
from backend.settings import Settings

Entries = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class BucketRequest:
    """What ``tools/prepare_buckets_latents.py`` is asked for."""

    train_data_dir: Path
    in_json: Path
    out_json: Path
    max_resolution: tuple[int, int] = (512, 512)
    min_bucket_reso: int = 256
    max_bucket_reso: int = 1024
    bucket_reso_steps: int = 64
    bucket_no_upscale: bool = False
    full_path: bool = False
    flip_aug: bool = False
    alpha_mask: bool = False
    recursive: bool = False

    def rules(self) -> buckets.BucketRules:
        """Raises InputError for sizes that cannot work."""
        if self.bucket_reso_steps < 8 or self.bucket_reso_steps % 8:
            raise InputError(
                f"bucket_reso_steps {self.bucket_reso_steps} is not a multiple of 8", key="bucket_reso_steps"
            )
        if not self.bucket_no_upscale and min(self.max_resolution) < self.min_bucket_reso:
            raise InputError(
                f"min_bucket_reso {self.min_bucket_reso} is above the training size", key="min_bucket_reso"
            )
        if not self.bucket_no_upscale and max(self.max_resolution) > self.max_bucket_reso:
            raise InputError(
                f"max_bucket_reso {self.max_bucket_reso} is below the training size", key="max_bucket_reso"
            )
        return buckets.BucketRules(
            self.max_resolution, True, self.min_bucket_reso, self.max_bucket_reso,
            self.bucket_reso_steps, self.bucket_no_upscale,
        )  # fmt: skip


@dataclass
class Bucketed:
    """Metadata with buckets, and the plan of the pictures."""

    entries: Entries
    plan: DatasetPlan
    failed: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(file, what is wrong)."""
    unused: list[str] = field(default_factory=list[str])
    """Entries of the metadata without a picture."""
    added: list[str] = field(default_factory=list[str])
    """Pictures the metadata did not have."""


def read_metadata(path: Path) -> Entries:
    """The entries of a metadata file. Raises InputError naming the line that is wrong."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path.name} cannot be read ({(error.strerror or str(error)).lower()})", where=str(path)
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 (byte {error.start})", where=str(path)) from None
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path.name} line {error.lineno}: {error.msg}", where=str(path)) from None
    if not isinstance(data, dict):
        raise InputError(f"{path.name} holds no table of pictures", where=str(path))
    table = cast(dict[str, Any], data)
    wrong = [key for key, value in table.items() if not isinstance(value, dict)]
    if wrong:
        raise InputError(f"{path.name}: the entry of {wrong[0]} is no table", where=str(path))
    return cast(Entries, table)


def assign_buckets(request: BucketRequest, entries: Mapping[str, Mapping[str, Any]]) -> Bucketed:
    """Give each picture of the folder its bucket. Raises InputError when there is no picture."""
    folder = request.train_data_dir.expanduser().resolve()
    rules, subset = request.rules(), Subset(folder, flip_aug=request.flip_aug, alpha_mask=request.alpha_mask)
    done = Bucketed({key: dict(value) for key, value in entries.items()}, DatasetPlan(()))
    pictures: list[Picture] = []
    found = list(_pictures(folder, request.recursive))
    broken = dict(verify(found, default_facts()))
    done.failed += [(path.name, what) for path, what in broken.items()]
    for path in found:
        if path in broken:
            continue
        try:
            geometry = buckets.assign(read_header(path).size, rules)
        except HeaderError as error:
            done.failed.append((path.name, str(error)))
            continue
        except OSError as error:
            done.failed.append((path.name, f"cannot be read ({(error.strerror or str(error)).lower()})"))
            continue
        key = _key(path, folder, request.full_path, done.entries)
        if key not in done.entries:
            done.added.append(key)
        entry = done.entries.setdefault(key, {})
        entry["train_resolution"] = list(geometry.bucket)
        caption = str(entry.get("caption", ""))
        pictures.append(Picture(f"0/{key}", path, subset, caption, None, geometry, 1))
    if not pictures:
        raise InputError(f"No images in {folder}", next="choose the folder that holds the pictures")
    done.unused = sorted(key for key, value in done.entries.items() if "train_resolution" not in value)
    done.plan = DatasetPlan((_dataset(request, rules, tuple(pictures), subset),))
    return done


def _dataset(
    request: BucketRequest, rules: buckets.BucketRules, pictures: tuple[Picture, ...], subset: Subset
) -> Dataset:
    return Dataset(
        resolution=rules.resolution,
        batch_size=1,
        pictures=pictures,
        enable_bucket=True,
        min_bucket_reso=rules.min_bucket_reso,
        max_bucket_reso=rules.max_bucket_reso,
        bucket_reso_steps=rules.bucket_reso_steps,
        bucket_no_upscale=rules.bucket_no_upscale,
        subsets=(subset,),
    )


def _pictures(folder: Path, recursive: bool) -> Iterable[Path]:
    if not folder.is_dir():
        raise InputError(f"Folder not found: {folder}", next="choose the folder that holds the pictures")
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        yield from (
            Path(parent) / name
            for name in sorted(names)
            if Path(name).suffix.lower() in EXTENSIONS and not name.startswith(".")
        )


def _key(path: Path, folder: Path, full_path: bool, entries: Mapping[str, Any]) -> str:
    """The name under which the metadata has a picture, or the one it gets."""
    relative = path.relative_to(folder)
    spellings = [str(path), relative.as_posix(), str(relative), path.name]
    spellings += [str(path.with_suffix("")), relative.with_suffix("").as_posix(), path.stem]
    known = next((spelling for spelling in spellings if spelling in entries), None)
    return known or (str(path) if full_path else relative.as_posix())


def write_metadata(path: Path, entries: Entries) -> Path | None:
    """Write metadata; a file that stood there is kept beside it, and its new path given.

    Raises InputError or EnvironmentFault when it cannot be written; what stood there is as it was.
    """
    from backend.weights.safefile import write_text_atomic

    kept: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            kept = _free_name(path)
            shutil.copy2(path, kept)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        problem = Problem(
            f"{path.name} cannot be written ({reason})", where=str(path), next="choose another file"
        )
        raise kind_of(error)(problem) from error
    write_text_atomic(path, json.dumps(entries, ensure_ascii=False, indent=2) + "\n")
    return kept


def _free_name(path: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in range(1, 10_000):
        more = "" if number == 1 else f"-{number}"
        name = path.with_name(f"{path.stem}-before-{stamp}{more}{path.suffix}")
        if not name.exists():
            return name
    raise EnvironmentFault(f"no free name beside {path}")


def sentences(done: Bucketed, request: BucketRequest, kept: Path | None) -> list[str]:
    """The end of the command line: what became of the metadata."""
    lines = [f"{count(done.plan.image_count, 'picture')} with a bucket in {request.out_json}"]
    if kept is not None:
        lines.append(f"the {request.out_json.name} that was there is now {kept.name}")
    if done.added:
        lines.append(f"{count(len(done.added), 'picture')} not in the metadata added: {listing(done.added)}")
    if done.unused:
        lines.append(
            f"{count(len(done.unused), 'entry', 'entries')} without a picture: {listing(done.unused)}"
        )
    return lines


def model_settings(
    model: str, request: BucketRequest, mixed_precision: str, batch_size: int, threads: int | None
) -> Settings:
    """Settings that load the model as a training of that precision does."""
    return Settings.from_flat(
        {
            "pretrained_model_name_or_path": model,
            "train_data_dir": str(request.train_data_dir),
            "mixed_precision": mixed_precision,
            "vae_batch_size": batch_size,
            "cache_latents": True,
            "cache_latents_to_disk": True,
            "seed": 0,
            **({} if threads is None else {"max_data_loader_n_workers": threads}),
        }
    )
