"""From pictures to a training set, and ahead of a training, for the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from backend.data.edit import Proposal, propose, write
from backend.errors import InputError, Problem
from ui.bind import wire_values
from ui.i18n import said, t
from ui.tabs.dataset.opened import Opened, mask_folder
from ui.tabs.dataset.shelf import TRAIN, Shelf

_ELSEWHERE = ("train_data_dir", "reg_data_dir", "dataset_config")
_LABELS = {
    "epochs": "data.build_epochs",
    "steps": "data.build_steps",
    "batch": "data.build_batch",
    "resolution": "data.build_resolution",
    "validation": "data.build_validation",
}


class BuildCalls:
    """What the server does to build a training set. Every method takes and gives JSON."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def propose_build(self, data: dict[str, Any]) -> dict[str, Any]:
        """What would be written; nothing is."""
        opened = self.shelf.get(data)
        order = data["order"]
        proposal = _proposal(opened, order)
        out = _target(opened, order)
        shown = _layout(proposal, out) if order["as"] == "folders" else proposal.toml
        summary = t(
            "data.build_sum",
            pictures=f"{len(proposal.pictures):,}",
            repeats=f"{proposal.repeats:,}",
            epochs=proposal.epochs,
            steps=f"{proposal.steps:,}",
        )
        notes = [said(note) for note in proposal.notes]
        return {"text": shown, "summary": summary, "notes": notes, "out": str(out)}

    def write_build(self, data: dict[str, Any]) -> dict[str, Any]:
        """Write the proposal as new files."""
        opened = self.shelf.get(data)
        order = data["order"]
        proposal = _proposal(opened, order)
        out = _target(opened, order)
        done = write(proposal, out, form="folders" if order["as"] == "folders" else "toml")
        options = (
            {**done.options, **_mask_options(proposal)} if order["as"] != "folders" else dict(done.options)
        )
        return {"options": options, "message": t("data.built", path=str(out))}

    def use_in_train(self, data: dict[str, Any]) -> dict[str, Any]:
        """Put what was written into the Train page's form; everything else there stays."""
        drafts = self.shelf.context.drafts
        kept = {key: value for key, value in self.shelf.train_draft().items() if key not in _ELSEWHERE}
        drafts.save(TRAIN, {**kept, **wire_values(data["options"])})
        return {"message": t("data.in_train")}


def _proposal(opened: Opened, order: dict[str, Any]) -> Proposal:
    """Raises InputError with what cannot be used."""
    share = _number(order, "validation", 0, 50) / 100
    side = _number(order, "resolution", 64, 8192)
    reg = str(order.get("reg") or "").strip()
    proposal = propose(
        _folder(opened),
        kind="style" if order.get("kind") == "style" else "subject",
        trigger=str(order.get("trigger") or ""),
        class_word=str(order.get("class_word") or ""),
        wanted_steps=_number(order, "steps", 1, 10_000_000),
        batch_size=_number(order, "batch", 1, 4096),
        epochs=_number(order, "epochs", 1, 100_000),
        reg_folder=Path(reg).expanduser() if reg else None,
        validation_share=share,
        resolution=(side, side),
    )
    return _with_masks(opened, proposal)


def _folder(opened: Opened) -> Path:
    """The one folder of pictures that is open; of several the place itself, which is refused in words."""
    subsets = [subset for dataset in opened.plan.datasets for subset in dataset.subsets if not subset.is_reg]
    folders = list(dict.fromkeys(subset.image_dir for subset in subsets))
    return folders[0] if len(folders) == 1 else opened.path


def _number(order: dict[str, Any], key: str, low: int, high: int) -> int:
    given = str(order.get(key) or "").strip()
    try:
        number = int(given)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise InputError(
            Problem(t("data.build_number", label=t(_LABELS[key]), value=given, low=low, high=f"{high:,}"))
        )
    return number


def _target(opened: Opened, order: dict[str, Any]) -> Path:
    """Where it will be written: as given, or a free place beside the dataset folder's name in our home."""
    given = str(order.get("out") or "").strip()
    if given:
        path = Path(given).expanduser()
        return path if path.is_absolute() else opened_base(opened) / path
    folder = order.get("as") == "folders"
    base = opened_base(opened)
    stem = f"{_folder(opened).name}-training"
    for number in range(1, 1000):
        name = stem if number == 1 else f"{stem}-{number}"
        place = base / (name if folder else f"{name}.toml")
        if not place.exists():
            return place
    return base / (stem if folder else f"{stem}.toml")


def opened_base(opened: Opened) -> Path:
    """The folder beside which new files are proposed."""
    return _folder(opened).parent if opened.path.is_dir() else opened.path.parent


def _layout(proposal: Proposal, out: Path) -> str:
    """The folders as a tree."""
    lines = [f"{out}/"]
    for concept in proposal.concepts:
        part = "reg" if concept.is_reg else "img"
        lines.append(f"    {part}/{concept.name}/    {concept.folder}")
    return "\n".join(lines) + "\n"


def _masks_of(opened: Opened) -> tuple[int, set[Path]]:
    """(pictures with a mask, the folders of masks)."""
    masked = [
        picture for picture in opened.pictures.values() if picture.mask_path and not picture.subset.is_reg
    ]
    return len(masked), {mask_folder(picture) for picture in masked}


def _with_masks(opened: Opened, proposal: Proposal) -> Proposal:
    """With the masks that were painted, when every picture has one: a picture without would be refused."""
    masked, folders = _masks_of(opened)
    if not masked:
        return proposal
    if masked < len(proposal.pictures) or len(folders) > 1:
        note = t("data.build_masks_some", n=f"{masked:,}", total=f"{len(proposal.pictures):,}")
        return replace(proposal, notes=(*proposal.notes, note))
    import tomlkit

    line = f"conditioning_data_dir = {tomlkit.item(str(folders.pop())).as_string()}"
    head, image_dir, rest = proposal.toml.partition("\nimage_dir = ")
    first, end, after = rest.partition("\n")
    return replace(proposal, toml=f"{head}{image_dir}{first}{end}{line}\n{after}")


def _mask_options(proposal: Proposal) -> dict[str, Any]:
    return {"masked_loss": True} if "\nconditioning_data_dir = " in proposal.toml else {}
