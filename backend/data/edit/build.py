"""From a folder of pictures to a training set: a dataset file, or folders with repeats in their names."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backend.data import caption_files
from backend.data.edit.files import new_bytes, write_problem
from backend.data.edit.folder import Concept, make_dreambooth_folder, scan_pictures
from backend.data.edit.types import Written
from backend.data.plan import build_plan
from backend.data.report import count, listing
from backend.data.scan import Found, Scan
from backend.data.types import DatasetPlan
from backend.errors import InputError, RunFault
from backend.settings import Settings

TrainingKind = Literal["subject", "style"]
Form = Literal["toml", "folders"]

_VALIDATION_SEED = 42


@dataclass(frozen=True)
class _Wish:
    """What was asked for."""

    folder: Path
    words: str
    class_word: str
    wanted_steps: int
    batch_size: int
    epochs: int
    reg_folder: Path | None
    validation_share: float
    resolution: tuple[int, int]
    caption_extension: str = ".txt"
    caption_prefix: str = ""


@dataclass(frozen=True)
class Proposal:
    """A training set that could be written; nothing has been written yet."""

    wish: _Wish = field(repr=False)
    pictures: tuple[Path, ...]
    words: str
    """Caption of pictures without a caption file: trigger word and class."""
    repeats: int
    epochs: int
    steps_per_epoch: int
    captions_found: int
    """Pictures that have a caption file."""
    toml: str
    """The dataset file as it would be written."""
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Settings of the training beside the dataset itself: option -> value."""

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.steps_per_epoch * self.epochs

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """The same set as folders."""
        main = Concept(self.wish.folder, self.words, self.repeats)
        if self.wish.reg_folder is None:
            return (main,)
        return main, Concept(self.wish.reg_folder, self.wish.class_word, 1, is_reg=True)

    @property
    def folder_name(self) -> str:
        """'12_sks dog'. Raises InputError when the words cannot be part of a folder's name."""
        return self.concepts[0].name

    def preview(self) -> dict[str, Any]:
        """Everything as plain data, for the page."""
        return {
            "pictures": len(self.pictures), "captions_found": self.captions_found, "words": self.words,
            "repeats": self.repeats, "epochs": self.epochs, "steps": self.steps,
            "steps_per_epoch": self.steps_per_epoch, "toml": self.toml, "notes": list(self.notes),
            "options": dict(self.options),
        }  # fmt: skip


def propose(
    folder: Path,
    *,
    kind: TrainingKind = "subject",
    trigger: str = "",
    class_word: str = "",
    wanted_steps: int = 1500,
    batch_size: int = 1,
    epochs: int = 10,
    reg_folder: Path | None = None,
    validation_share: float = 0.0,
    resolution: tuple[int, int] = (512, 512),
) -> Proposal:
    """A training set out of the pictures of ``folder``; nothing is written.

    ``trigger`` is the word that will call what is learnt, ``class_word`` what it is ('dog'). Repeats
    are such that ``epochs`` epochs come nearest to ``wanted_steps``; when even one repeat is too much,
    there are fewer epochs. ``validation_share`` (0 to 0.5) of the pictures is kept out of training.

    Raises InputError with everything that cannot be used.
    """
    trigger, class_word = trigger.strip(), class_word.strip()
    _check_numbers(wanted_steps, batch_size, epochs, validation_share)
    if kind == "subject" and not trigger:
        raise InputError(
            "a subject needs a trigger word", next="give a rare word, such as sks", key="trigger"
        )
    words = " ".join(filter(None, (trigger, class_word or ("style" if kind == "style" and trigger else ""))))
    scan = scan_pictures(folder)
    wish = _Wish(
        scan.folder, words, class_word, wanted_steps, batch_size, epochs,
        scan_pictures(reg_folder).folder if reg_folder else None, validation_share, resolution,
        _extension(scan.pictures), _prefix(scan.pictures, trigger, words),
    )  # fmt: skip
    repeats, epochs, per_epoch = _balance(wish)
    plan_notes = [note.text() for note in _plan(wish, repeats).notes]
    return Proposal(
        wish,
        pictures=tuple(found.path for found in scan.pictures),
        words=words,
        repeats=repeats,
        epochs=epochs,
        steps_per_epoch=per_epoch,
        captions_found=sum(1 for found in scan.pictures if found.caption_path),
        toml=_toml(wish, repeats, f"{epochs} epochs of {per_epoch} steps: {epochs * per_epoch} steps."),
        notes=tuple(dict.fromkeys([*_notes(wish, scan, kind, trigger, epochs), *plan_notes])),
        options=_options(wish, epochs, bool(scan.broken)),
    )


def write(proposal: Proposal, target: Path, *, form: Form = "toml", link: bool = False) -> Written:
    """Write a proposal: a dataset file that names the pictures where they are, or folders of copies.

    ``target`` is the file (or a folder: 'dataset.toml' in it), or the folder that gets ``img`` and
    ``reg``. ``link`` as in :func:`make_dreambooth_folder`. Existing files are never replaced.

    Raises InputError (something is in the way) or RunFault (it cannot be written).
    """
    if form == "folders":
        report = make_dreambooth_folder(target, proposal.concepts, link=link)
        root = target.expanduser().resolve()
        reg = {"reg_data_dir": str(root / "reg")} if proposal.wish.reg_folder else {}
        return Written(report.written, {**proposal.options, "train_data_dir": str(root / "img"), **reg})
    path = target.expanduser().resolve()
    path = path if path.suffix.lower() == ".toml" else path / "dataset.toml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new_bytes(path, proposal.toml.encode("utf-8"))
    except FileExistsError:
        raise InputError(
            f"{path} exists already",
            why="existing files are never replaced",
            next="choose another name",
        ) from None
    except OSError as error:
        raise RunFault(write_problem(path, error)) from error
    return Written((path,), {**_without_file_keys(proposal.options), "dataset_config": str(path)})


def _check_numbers(steps: int, batch: int, epochs: int, share: float) -> None:
    for key, value in (("wanted_steps", steps), ("batch_size", batch), ("epochs", epochs)):
        if value < 1:
            raise InputError(f"{key}: {value} is below 1", key=key)
    if not 0 <= share <= 0.5:
        raise InputError(f"validation_share: {share} is outside 0 to 0.5", key="validation_share")


def _balance(wish: _Wish) -> tuple[int, int, int]:
    """(repeats, epochs, steps an epoch) nearest to the wanted steps."""
    single = _plan(wish, 1).batches_per_epoch()
    if single * wish.epochs >= wish.wanted_steps:
        epochs = max(1, round(wish.wanted_steps / single))
        return 1, min(epochs, wish.epochs), single
    best = (1, single)
    # r repeats give at most r times the batches of one, and at least that over the batch size; batches
    # grow with repeats, so the counts around the wish are found by halving.
    needed = wish.wanted_steps / (wish.epochs * single)
    low, high = max(1, math.floor(needed)), max(1, math.ceil(needed * wish.batch_size))
    while low <= high:
        repeats = (low + high) // 2
        batches = _plan(wish, repeats).batches_per_epoch() if repeats > 1 else single
        if abs(batches * wish.epochs - wish.wanted_steps) < abs(best[1] * wish.epochs - wish.wanted_steps):
            best = (repeats, batches)
        low, high = (repeats + 1, high) if batches * wish.epochs < wish.wanted_steps else (low, repeats - 1)
    return best[0], wish.epochs, best[1]


def _plan(wish: _Wish, repeats: int) -> DatasetPlan:
    """What the dataset engine makes of the set."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset.toml"
        path.write_text(_toml(wish, repeats), encoding="utf-8")
        settings = Settings.from_flat({"dataset_config": str(path), "skip_broken_images": True})
        return build_plan(settings, verify=False)


def _toml(wish: _Wish, repeats: int, comment: str = "") -> str:
    dataset: dict[str, Any] = {
        "resolution": list(wish.resolution),
        "batch_size": wish.batch_size,
        "enable_bucket": True,
        "caption_extension": wish.caption_extension,
    }
    if wish.validation_share:
        dataset |= {"validation_split": wish.validation_share, "validation_seed": _VALIDATION_SEED}
    main: dict[str, Any] = {"image_dir": str(wish.folder), "num_repeats": repeats}
    main |= {"class_tokens": wish.words} if wish.words else {}
    main |= {"caption_prefix": wish.caption_prefix} if wish.caption_prefix else {}
    lines = [f"# {comment}"] if comment else []
    lines += ["[[datasets]]", *_pairs(dataset), "", "[[datasets.subsets]]", *_pairs(main)]
    if wish.reg_folder is not None:
        reg = {"image_dir": str(wish.reg_folder), "is_reg": True, "num_repeats": 1}
        reg |= {"class_tokens": wish.class_word} if wish.class_word else {}
        lines += [
            "",
            "# Regularisation: pictures of the class in general.",
            "[[datasets.subsets]]",
            *_pairs(reg),
        ]
    return "\n".join(lines) + "\n"


def _pairs(table: Mapping[str, Any]) -> list[str]:
    import tomlkit

    return [f"{key} = {tomlkit.item(value).as_string()}" for key, value in table.items()]


def _extension(pictures: Sequence[Found]) -> str:
    """The ending of most captions."""
    endings = [found.caption_path.suffix for found in pictures if found.caption_path]
    return max(sorted(set(endings)), key=endings.count) if endings else ".txt"


def _prefix(pictures: Sequence[Found], trigger: str, words: str) -> str:
    """What goes in front of captions: the words, when every picture has a caption and none the trigger."""
    texts = _texts(pictures)
    if (
        not trigger
        or len(texts) < len(pictures)
        or any(trigger.casefold() in t.casefold() for t in texts.values())
    ):
        return ""
    return f"{words},"


def _texts(pictures: Sequence[Found]) -> dict[str, str]:
    """Captions that are not empty, by picture name."""
    found = {item.name: caption_files.read(item.caption_path).text for item in pictures if item.caption_path}
    return {name: text for name, text in found.items() if text}


def _notes(wish: _Wish, scan: Scan, kind: TrainingKind, trigger: str, epochs: int) -> list[str]:
    texts = _texts(scan.pictures)
    without = [found.name for found in scan.pictures if found.name not in texts]
    notes: list[str] = []
    if wish.caption_prefix:
        notes.append(
            f"No caption has the trigger word; {wish.caption_prefix!r} is put in front of each in training."
        )
    elif trigger:
        lacking = [name for name, text in texts.items() if trigger.casefold() not in text.casefold()]
        if lacking:
            notes.append(
                f"The trigger word is missing in {count(len(lacking), 'caption')}: {listing(lacking)}."
            )
    if without and kind == "style":
        notes.append(
            f"{count(len(without), 'picture')} without a caption: {listing(without)}. A style is learnt "
            "best when captions say what is shown, so that only the style is left to the trigger word."
        )
    if epochs < wish.epochs:
        notes.append(
            f"{wish.epochs} epochs would be more than {wish.wanted_steps} steps even without repeats; "
            f"{epochs} are proposed."
        )
    return notes


def _options(wish: _Wish, epochs: int, broken: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "resolution": f"{wish.resolution[0]},{wish.resolution[1]}",
        "enable_bucket": True,
        "train_batch_size": wish.batch_size,
        "max_train_epochs": epochs,
        "caption_extension": wish.caption_extension,
    }
    if wish.caption_prefix:
        options["caption_prefix"] = wish.caption_prefix
    if wish.validation_share:
        options |= {"validation_split": wish.validation_share, "validation_seed": _VALIDATION_SEED}
    return {**options, "skip_broken_images": True} if broken else options


def _without_file_keys(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a dataset file does not hold itself."""
    kept = ("train_batch_size", "max_train_epochs", "skip_broken_images")
    return {key: options[key] for key in kept if key in options}
