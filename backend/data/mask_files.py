"""Pairs pictures with the masks, or the guiding pictures, of another folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from backend.data.folders import look
from backend.data.headers import HeaderError, read_header
from backend.data.report import Report, count, listing
from backend.data.scan import Found


def pair_masks(
    folder: Path | None,
    found: Iterable[Found],
    broken: Mapping[Path, str],
    report: Report,
    control: bool = False,
) -> dict[str, Path]:
    """Picture name -> its mask file (or guiding picture); nothing without a ``folder``.

    A picture without a mask, a mask that is ``broken`` and one of another shape than its picture
    are problems.
    """
    word = "conditioning picture" if control else "mask"
    key = "dataset_config" if control else "masked_loss"
    if folder is None:
        return {}
    if not folder.is_dir():
        report.problem(f"Folder not found: {folder}", key=key)
        return {}
    by_stem = {Path(name).stem: folder / name for name in look(folder).pictures}
    masks: dict[str, Path] = {}
    missing: list[str] = []
    scaled: list[str] = []
    for item in found:
        mask = by_stem.pop(item.path.stem, None)
        if mask is None:
            missing.append(item.name)
            continue
        wrong, other_size = _fits(mask, item)
        if wrong := broken.get(mask) or wrong:
            report.problem(
                f"{word.capitalize()} {mask.name} {wrong}.",
                where=str(folder),
                next=f"Mend the {word}, or take the picture out.",
                key=key,
                kind="mask",
            )
        else:
            masks[item.name] = mask
            scaled += [mask.name] if other_size else []
    if missing:
        report.problem(
            f"{count(len(missing), 'picture')} without a {word}: {listing(missing)}.",
            where=str(folder),
            next=f"Put a {word} of the same name there, or take the picture out.",
            key=key,
        )
    if scaled and control:
        report.note(
            f"{count(len(scaled), 'guiding picture')} of another size will be scaled: {listing(scaled)}.",
            where=str(folder),
        )
    elif scaled:
        report.note(
            f"{count(len(scaled), 'mask')} of another size will be scaled: {listing(scaled)}.",
            where=str(folder),
        )
    if by_stem:
        spare = listing(sorted(path.name for path in by_stem.values()))
        report.note(f"{word.capitalize()}s of no picture are not used: {spare}.", where=str(folder))
    return masks


def _fits(mask: Path, item: Found) -> tuple[str, bool]:
    """(what is wrong with a mask file, '' when it can be used; whether its size is not its picture's)."""
    try:
        width, height = read_header(mask).size
    except HeaderError as error:
        return str(error), False
    except OSError as error:
        return f"cannot be read ({(error.strerror or str(error)).lower()})", False
    across, down = item.header.size
    if abs(width * down - height * across) > max(across, down):
        return f"is {width}x{height} px, another shape than {item.name} ({across}x{down} px)", True
    return "", (width, height) != (across, down)
