"""What the dataset engine hands to the trainer.

Two layers: a :class:`DatasetPlan` is made from files without torch and can be shown before
anything starts; a ``Batch`` (see ``loader``) holds the tensors of one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backend.errors import Problem


@dataclass(frozen=True)
class Geometry:
    """How one picture becomes its bucket: resize to ``resized``, then cut ``bucket`` at ``crop``.

    All in pixels of the upright picture; sizes are (width, height), crop is (left, top).
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    bucket: tuple[int, int]
    crop: tuple[int, int]


@dataclass(frozen=True)
class CaptionRules:
    """How the captions of a subset are turned into text at a visit (sd-scripts' options)."""

    shuffle_caption: bool = False
    caption_separator: str = ","
    keep_tokens: int = 0
    keep_tokens_separator: str = ""
    secondary_separator: str | None = None
    enable_wildcard: bool = False
    caption_prefix: str | None = None
    caption_suffix: str | None = None
    caption_dropout_rate: float = 0.0
    caption_dropout_every_n_epochs: int = 0
    caption_tag_dropout_rate: float = 0.0
    token_warmup_min: int = 1
    token_warmup_step: float = 0.0
    templates: tuple[str, ...] = ()
    """Whole captions, one of them at each visit, in place of what was written for the picture."""

    def random(self) -> bool:
        """True when the text can differ between visits."""
        return bool(
            self.shuffle_caption
            or self.enable_wildcard
            or self.caption_dropout_rate
            or self.caption_dropout_every_n_epochs
            or self.caption_tag_dropout_rate
            or self.token_warmup_step
            or self.templates
        )


@dataclass(frozen=True)
class Subset:
    """A folder of pictures with its rules."""

    image_dir: Path
    num_repeats: int = 1
    class_tokens: str | None = None
    caption_extension: str = ".caption"
    is_reg: bool = False
    flip_aug: bool = False
    color_aug: bool = False
    random_crop: bool = False
    face_crop_aug_range: tuple[float, float] | None = None
    alpha_mask: bool = False
    conditioning_data_dir: Path | None = None
    """Masks of the pictures, or with ``control`` the pictures that guide them."""
    control: bool = False
    metadata_file: Path | None = None
    """Names the pictures and their captions (fine-tuning); ``image_dir`` is where its keys start."""
    custom_attributes: Mapping[str, object] = field(default_factory=dict[str, object], hash=False)
    resize_interpolation: str | None = None
    prior_loss_weight: float = 1.0
    """Weight of the loss of these pictures when ``is_reg``."""
    captions: CaptionRules = field(default_factory=CaptionRules)


@dataclass(frozen=True)
class Picture:
    """One picture of a subset, found and measured but not decoded."""

    id: str
    """Stable name used as key of randomness: '<subset index>/<file name>'."""
    path: Path
    subset: Subset
    caption: str
    """Text of the caption file, or the subset's class tokens, or ''."""
    caption_path: Path | None
    geometry: Geometry
    repeats: int
    loss_weight: float = 1.0
    mask_path: Path | None = None
    conditioning_path: Path | None = None
    """The picture that guides this one, in a control subset."""


@dataclass(frozen=True)
class Dataset:
    """Pictures of one resolution and batch size, grouped into buckets."""

    resolution: tuple[int, int]
    batch_size: int
    pictures: tuple[Picture, ...]
    enable_bucket: bool
    min_bucket_reso: int
    max_bucket_reso: int
    bucket_reso_steps: int
    bucket_no_upscale: bool
    subsets: tuple[Subset, ...]
    validation_split: float = 0.0
    validation_seed: int | None = None
    network_multiplier: float = 1.0
    """How strongly a network acts on the model while it learns these pictures."""

    def buckets(self) -> dict[tuple[int, int], list[Picture]]:
        """(width, height) -> pictures, sorted by size."""
        found: dict[tuple[int, int], list[Picture]] = {}
        for picture in self.pictures:
            found.setdefault(picture.geometry.bucket, []).append(picture)
        return dict(sorted(found.items()))


@dataclass(frozen=True)
class DatasetPlan:
    """Everything that will be trained on, and everything worth telling about it."""

    datasets: tuple[Dataset, ...]
    notes: tuple[Problem, ...] = ()
    """Things a person should know that do not stop training (skipped files, missing captions)."""
    validation: DatasetPlan | None = None
    """Pictures held out of training to measure it by, each once and without anything random."""

    @property
    def image_count(self) -> int:
        """Pictures without repeats, regularisation excluded."""
        return sum(1 for d in self.datasets for p in d.pictures if not p.subset.is_reg)

    @property
    def train_images(self) -> int:
        """Pictures times repeats, regularisation excluded."""
        return sum(p.repeats for d in self.datasets for p in d.pictures if not p.subset.is_reg)

    @property
    def reg_images(self) -> int:
        """Regularisation pictures times repeats."""
        return sum(p.repeats for d in self.datasets for p in d.pictures if p.subset.is_reg)

    def batches_per_epoch(self, processes: int = 1) -> int:
        """Batches of all buckets; the last one of a bucket may be short.

        Several processes share each batch, which is that many times as large.
        """
        return sum(
            -(-sum(p.repeats for p in pictures) // (dataset.batch_size * processes))
            for dataset in self.datasets
            for pictures in dataset.buckets().values()
        )

    def summary(self) -> Mapping[str, object]:
        """The plan as plain data for the page: counts, captions, buckets, notes."""
        pictures = [p for d in self.datasets for p in d.pictures]
        return {
            "images": len({p.path for p in pictures}),
            "with_caption_file": sum(1 for p in pictures if p.caption_path),
            "train_images": self.train_images,
            "reg_images": self.reg_images,
            "validation_images": self.validation.image_count if self.validation else 0,
            "batches_per_epoch": self.batches_per_epoch(),
            "resolutions": [list(d.resolution) for d in self.datasets],
            "buckets": [
                {"size": list(size), "count": sum(p.repeats for p in found)}
                for d in self.datasets
                for size, found in d.buckets().items()
            ],
            "notes": [note.as_dict() for note in self.notes],
        }
