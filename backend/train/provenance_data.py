"""The dataset's part of a result file's ``ss_*`` metadata, in the two shapes that sd-scripts has.

With a dataset file everything stands in ``ss_datasets``; with folders alone in single keys.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from backend.data.types import Dataset, DatasetPlan, Picture, Subset

if TYPE_CHECKING:
    from backend.settings import Settings

TagFrequency = dict[str, dict[str, int]]


def dataset_metadata(settings: Settings, plan: DatasetPlan, processes: int) -> dict[str, object]:
    """Keys about pictures and captions; values that are composite are JSON text."""
    if settings.dataset.dataset_config or len(plan.datasets) != 1:
        return _of_file(plan)
    return _of_folders(settings, plan.datasets[0], processes)


def _of_file(plan: DatasetPlan) -> dict[str, object]:
    frequency: TagFrequency = {}
    for dataset in plan.datasets:
        # A folder that several datasets use counts once.
        frequency = {**tag_frequency(dataset.pictures), **frequency}
    subsets = [(s, d) for d in plan.datasets for s in d.subsets]
    return {
        "ss_datasets": json.dumps([_dataset(dataset) for dataset in plan.datasets]),
        "ss_tag_frequency": json.dumps(frequency),
        "ss_dataset_dirs": json.dumps(_folders((s, d) for s, d in subsets if not s.is_reg)),
    }


def _of_folders(settings: Settings, dataset: Dataset, processes: int) -> dict[str, object]:
    rules = settings.dataset
    total = dataset.batch_size * processes * settings.schedule.gradient_accumulation_steps
    low, high = _bucket_range(dataset)
    return {
        "ss_batch_size_per_device": dataset.batch_size,
        "ss_total_batch_size": total,
        "ss_resolution": dataset.resolution,
        "ss_color_aug": rules.color_aug,
        "ss_flip_aug": rules.flip_aug,
        "ss_random_crop": rules.random_crop,
        "ss_shuffle_caption": rules.shuffle_caption,
        "ss_enable_bucket": dataset.enable_bucket,
        "ss_bucket_no_upscale": dataset.bucket_no_upscale,
        "ss_min_bucket_reso": low,
        "ss_max_bucket_reso": high,
        "ss_keep_tokens": rules.keep_tokens,
        "ss_dataset_dirs": json.dumps(_folders((s, dataset) for s in dataset.subsets if not s.is_reg)),
        "ss_reg_dataset_dirs": json.dumps(_folders((s, dataset) for s in dataset.subsets if s.is_reg)),
        "ss_tag_frequency": json.dumps(tag_frequency(dataset.pictures)),
        "ss_bucket_info": json.dumps(_bucket_info(dataset)),
    }


def tag_frequency(pictures: Iterable[Picture]) -> TagFrequency:
    """Folder name -> tag in lower case -> pictures whose caption has it (repeats do not count)."""
    found: dict[str, Counter[str]] = {}
    for picture in pictures:
        tags = picture.caption.split(picture.subset.captions.caption_separator or ",")
        names = [tag.strip().lower() for tag in tags]
        found.setdefault(_name(picture.subset), Counter()).update(name for name in names if name)
    return {folder: dict(counts) for folder, counts in found.items()}


def _dataset(dataset: Dataset) -> dict[str, Any]:
    low, high = _bucket_range(dataset)
    filters = {subset.resize_interpolation for subset in dataset.subsets}
    return {
        "is_dreambooth": not any(subset.metadata_file for subset in dataset.subsets),
        "batch_size_per_device": dataset.batch_size,
        "num_train_images": sum(p.repeats for p in dataset.pictures if not p.subset.is_reg),
        "num_reg_images": sum(p.repeats for p in dataset.pictures if p.subset.is_reg),
        "resolution": list(dataset.resolution),
        "enable_bucket": dataset.enable_bucket,
        "min_bucket_reso": low,
        "max_bucket_reso": high,
        "tag_frequency": tag_frequency(dataset.pictures),
        "bucket_info": _bucket_info(dataset),
        "resize_interpolation": filters.pop() if len(filters) == 1 else None,
        "subsets": [_subset(subset, dataset) for subset in dataset.subsets],
    }


def _subset(subset: Subset, dataset: Dataset) -> dict[str, Any]:
    rules = subset.captions
    return {
        "img_count": _count(subset, dataset),
        "num_repeats": subset.num_repeats,
        "color_aug": subset.color_aug,
        "flip_aug": subset.flip_aug,
        "random_crop": subset.random_crop,
        "shuffle_caption": rules.shuffle_caption,
        "keep_tokens": rules.keep_tokens,
        "keep_tokens_separator": rules.keep_tokens_separator,
        "secondary_separator": rules.secondary_separator,
        "enable_wildcard": rules.enable_wildcard,
        "caption_prefix": rules.caption_prefix,
        "caption_suffix": rules.caption_suffix,
        "resize_interpolation": subset.resize_interpolation,
        "image_dir": subset.image_dir.name,
        "class_tokens": subset.class_tokens,
        "is_reg": subset.is_reg,
    }


def _name(subset: Subset) -> str:
    """What a subset is called: its metadata file, else its folder."""
    return (subset.metadata_file or subset.image_dir).name


def _count(subset: Subset, dataset: Dataset) -> int:
    return sum(1 for picture in dataset.pictures if picture.subset == subset)


def _bucket_range(dataset: Dataset) -> tuple[int | None, int | None]:
    return (dataset.min_bucket_reso, dataset.max_bucket_reso) if dataset.enable_bucket else (None, None)


def _bucket_info(dataset: Dataset) -> dict[str, Any] | None:
    """Pictures with repeats by bucket, and the mean of |bucket's aspect - picture's aspect|."""
    if not dataset.enable_bucket:
        return None
    buckets = dataset.buckets()
    errors = [
        abs(size[0] / size[1] - picture.geometry.original[0] / picture.geometry.original[1])
        for size, pictures in buckets.items()
        for picture in pictures
    ]
    return {
        "buckets": {
            str(place): {"resolution": list(size), "count": sum(picture.repeats for picture in pictures)}
            for place, (size, pictures) in enumerate(buckets.items())
        },
        "mean_img_ar_error": sum(errors) / len(errors) if errors else 0.0,
    }


def _folders(subsets: Iterable[tuple[Subset, Dataset]]) -> dict[str, dict[str, int]]:
    """Folder name -> repeats and pictures; a name met again becomes "name (2)"."""
    found: dict[str, dict[str, int]] = {}
    for subset, dataset in subsets:
        name, number = _name(subset), 2
        while name in found:
            name, number = f"{_name(subset)} ({number})", number + 1
        found[name] = {"n_repeats": subset.num_repeats, "img_count": _count(subset, dataset)}
    return found
