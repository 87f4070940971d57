"""From a scanned folder to its pictures: captions, masks, sizes, and what is worth telling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backend.data import caption_files
from backend.data.buckets import BucketRules, assign, enlargement
from backend.data.caption_files import CaptionText
from backend.data.facts import FileFacts
from backend.data.report import Report, count, listing
from backend.data.scan import Found, Scan
from backend.data.types import Geometry, Picture, Subset

MOST_ENLARGED = 8
"""A picture that would have to be enlarged more than this is left out."""
MOST_CUT = 0.9
"""A picture that would lose more than this share to the cut is left out."""
MUCH_CUT = 0.5
"""One that loses more than this share is named."""

_SMALL_ADVICE = (
    "Larger pictures teach more. With aspect buckets, bucket_no_upscale trains these at their own size; "
    "tools/lint_dataset.py --fix upscaled sets that or leaves them out."
)
_UNSUPPORTED_ADVICE = "Save them as PNG, JPEG or WebP to use them."

_SHOWN = 50
"""Broken files of one folder that are named one by one."""


@dataclass
class _Captions:
    """What the caption files of one folder were like, by file name."""

    missing: list[str] = field(default_factory=list[str])
    other_ending: list[str] = field(default_factory=list[str])
    of_face: list[str] = field(default_factory=list[str])
    empty: list[str] = field(default_factory=list[str])
    several_lines: list[str] = field(default_factory=list[str])
    control: list[str] = field(default_factory=list[str])
    doubled: list[str] = field(default_factory=list[str])


def gather(
    subset: Subset, index: int, scan: Scan, rules: BucketRules, beside: Mapping[str, Path], report: Report
) -> list[Picture]:
    """The pictures of one subset, ready but for what depends on other subsets.

    ``beside`` gives the mask (or with a control subset the guiding picture) of each picture that
    has one, by the picture's name.
    """
    found = _fitting(scan, rules, report)
    captions = _Captions()
    pictures = [
        Picture(
            id=f"{index}/{item.name}",
            path=item.path,
            subset=subset,
            caption=_caption(item, subset, captions, scan, report),
            caption_path=item.caption_path,
            geometry=assign(item.header.size, rules),
            repeats=subset.num_repeats,
            loss_weight=subset.prior_loss_weight if subset.is_reg else 1.0,
            mask_path=None if subset.control else beside.get(item.name),
            conditioning_path=beside.get(item.name) if subset.control else None,
        )
        for item in found
    ]
    _tell_captions(captions, subset, len(pictures), report)
    _tell_pictures(found, pictures, scan, report)
    return pictures


def tell_broken(scan: Scan, broken: Mapping[str, str], skip: bool, report: Report) -> None:
    """Name the files that cannot be used: as a note when they are left out, else as problems."""
    if not broken:
        return
    where = str(scan.folder)
    if skip:
        listed = "; ".join(f"{name} {wrong}" for name, wrong in list(broken.items())[:_SHOWN])
        report.note(
            f"{count(len(broken), 'picture')} left out: {listed}.", where=where, key="skip_broken_images"
        )
        return
    advice = "Repair it or move it elsewhere, or switch on 'Leave out broken pictures' (skip_broken_images)."
    for name, wrong in list(broken.items())[:_SHOWN]:
        report.problem(f"{name} {wrong}.", where=where, next=advice, key="skip_broken_images")
    if len(broken) > _SHOWN:
        report.problem(f"{len(broken) - _SHOWN} more pictures cannot be used.", where=where, next=advice)


def _fitting(scan: Scan, rules: BucketRules, report: Report) -> list[Found]:
    """Without pictures of which too little would be left to learn from."""
    kept: list[Found] = []
    for item in scan.pictures:
        geometry = assign(item.header.size, rules)
        factor, lost = enlargement(geometry), lost_share(geometry)
        if factor <= MOST_ENLARGED and lost <= MOST_CUT:
            kept.append(item)
            continue
        width, height = item.header.size
        limit = rules.min_bucket_reso if rules.enable_bucket else min(rules.resolution)
        if factor <= MOST_ENLARGED:
            report.note(
                f"{item.name} is left out: {width}x{height} px, of which {lost:.0%} would be cut.",
                where=str(scan.folder),
                next="" if rules.enable_bucket else "Switch on aspect buckets (enable_bucket).",
                kind="cut",
            )
            continue
        report.note(
            f"{item.name} is left out: {width}x{height} px, smaller than {limit} "
            f"(it would be enlarged {factor:.0f} times).",
            where=str(scan.folder),
            kind="small",
        )
    return kept


def _caption(item: Found, subset: Subset, seen: _Captions, scan: Scan, report: Report) -> str:
    """The text of a picture's caption file or metadata, else the subset's words."""
    words = subset.class_tokens or ""
    if item.caption is not None:
        return item.caption
    path = item.caption_path
    if path is None:
        seen.missing.append(item.name)
        return words
    rules = subset.captions
    reader = scan.index.caption if scan.index else caption_files.read
    read = reader(path, rules.caption_separator, rules.enable_wildcard)
    if read.problem:
        told = report.problem if read.fatal else report.note
        told(
            f"{path.name} {read.problem}.",
            where=str(path.parent),
            next=_caption_advice(read),
            kind="caption",
        )
        seen.missing.append(item.name)
        return words
    for names, applies in (
        (seen.other_ending, not path.name.endswith(subset.caption_extension)),
        (seen.of_face, not path.name.startswith(item.path.stem)),
        (seen.empty, not read.text),
        (seen.several_lines, read.lines > 1),
        (seen.control, read.control),
        (seen.doubled, read.doubled),
    ):
        if applies:
            names.append(path.name)
    return read.text if rules.enable_wildcard else read.text.partition("\n")[0]


def _caption_advice(read: CaptionText) -> str:
    if not read.fatal:
        return "The picture is treated as having no caption."
    if read.problem.startswith("is not UTF-8"):
        return "Save it as UTF-8 text; tools/lint_dataset.py does it with --fix caption_encoding."
    return "Allow reading it, or take the picture and its caption out of the folder."


def _tell_captions(seen: _Captions, subset: Subset, total: int, report: Report) -> None:
    where = str(subset.image_dir)
    if seen.missing:
        _tell_missing(seen.missing, subset, total, report)
    asked = subset.caption_extension
    wildcards = subset.captions.enable_wildcard
    lines = "one is taken at each visit" if wildcards else "the first is used"
    # Where all captions end alike they are those that are meant, whatever was asked for.
    mixed = seen.missing or len(seen.other_ending) < total
    for names, one, many in (
        (
            seen.other_ending if mixed else [],
            f"caption has another ending than {asked}",
            f"captions have another ending than {asked}",
        ),
        (
            seen.of_face,
            "caption is that of the name without the face crop at its end",
            "captions are those of names without the face crop at their end",
        ),
        (seen.empty, "caption is empty", "captions are empty"),
        (seen.several_lines, f"caption has several lines, {lines}", f"captions have several lines, {lines}"),
        (
            seen.control,
            "caption has control characters, left out",
            "captions have control characters, left out",
        ),
        (seen.doubled, "caption has a tag twice, used once", "captions have a tag twice, used once"),
    ):
        if names:
            report.note(f"{count(len(names), one, many)}: {listing(names)}.", where=where)


def _tell_missing(missing: list[str], subset: Subset, total: int, report: Report) -> None:
    where, words = str(subset.image_dir), subset.class_tokens
    have = f"{total - len(missing)} of {total} have captions: {listing(missing)} have none."
    looked = " and ".join(dict.fromkeys((subset.caption_extension, ".txt", ".caption")))
    if words and len(missing) == total:
        report.note(
            f"No caption files ({looked}): {count(total, 'picture')} trained as '{words}'.",
            where=where,
        )
    elif words:
        report.note(f"{have} They are trained as '{words}'.", where=where)
    elif len(missing) < total:
        report.note(
            f"{have} They are trained with an empty caption.",
            where=where,
            key="class_tokens",
            next="Write captions for them, or give words that stand for them (class_tokens).",
        )
    else:
        report.problem(
            f"None of {count(total, 'picture')} has a caption ({looked}), and there are no words for them.",
            where=where,
            key="class_tokens",
            why="A model learns a subject by the words beside its pictures.",
            next="Give class_tokens such as 'sks dog', or name the folder like '10_sks dog'"
            f"{', or write caption files' if not subset.is_reg else ''}.",
        )


def _tell_pictures(found: list[Found], pictures: list[Picture], scan: Scan, report: Report) -> None:
    where = str(scan.folder)
    enlarged = [p.path.name for p in pictures if enlargement(p.geometry) > 1]
    headers = [(item.name, item.header) for item in found]
    for names, text, advice in (
        ([item.name for item in found if item.misnamed], "named as another kind; read by content", ""),
        ([name for name, header in headers if header.cmyk], "CMYK; converted to sRGB", ""),
        (
            [name for name, header in headers if header.deep],
            "more than 8 bits a channel; scaled to 8 bits",
            "",
        ),
        (enlarged, "smaller than the training size; enlarged", _SMALL_ADVICE),
        (scan.unsupported, "of a kind that is not supported; not used", _UNSUPPORTED_ADVICE),
    ):
        if names:
            report.note(f"{count(len(names), 'picture')} {text}: {listing(names)}.", where=where, next=advice)
    if scan.unread:
        number = count(len(scan.unread), "caption is not read", "captions are not read")
        report.note(
            f"{number}, for the picture has one of another ending too: {listing(scan.unread)}.",
            where=where,
            next="caption_extension says which of the two is read.",
            key="caption_extension",
        )
    _tell_cut(pictures, where, report)
    for item in found:
        if item.header.frames > 1:
            report.note(
                f"{item.name} has {item.header.frames} pages; the first page is used."
                if item.header.kind == "tiff"
                else f"{item.name} is an animation ({item.header.frames} frames); the first frame is used.",
                where=where,
                next="Take it out of the folder if that frame should not be learnt.",
                kind="frames",
            )
    for names in scan.twins:
        report.note(
            f"{len(names)} names look like {names[0]} and are different files "
            "(composed and decomposed letters).",
            where=where,
            kind="twins",
        )
    for names in scan.shared_stems:
        report.note(
            f"{listing(names)} share one caption file, since they differ by their ending only.",
            where=where,
            next="Rename one of them to give it a caption of its own, or take one out of the folder.",
            kind="stems",
        )


def lost_share(geometry: Geometry) -> float:
    """Share of the picture that lies outside its cut."""
    bucket, resized = geometry.bucket, geometry.resized
    return 1 - bucket[0] * bucket[1] / (resized[0] * resized[1])


def _tell_cut(pictures: list[Picture], where: str, report: Report) -> None:
    """Name the pictures that lose most to the cut, the worst first."""
    lost = [(lost_share(picture.geometry), picture.path.name) for picture in pictures]
    worst = sorted(((share, name) for share, name in lost if share > MUCH_CUT), reverse=True)
    if worst:
        listed = listing(f"{name} ({share:.0%})" for share, name in worst)
        report.note(
            f"{count(len(worst), 'picture loses', 'pictures lose')} more than half to the cut: {listed}.",
            where=where,
            next="Crop it by hand, or use aspect buckets (enable_bucket).",
        )


def tell_doubles(paths: Iterable[Path], facts: FileFacts, report: Report) -> None:
    """Name the pictures of a folder that are the same to the byte."""
    alike: dict[tuple[Path, str], list[str]] = {}
    for path in paths:
        if path.exists():
            alike.setdefault((path.parent, facts.content(path)), []).append(path.name)
    for folder in dict.fromkeys(folder for folder, _ in alike):
        doubled = [names for (place, _), names in alike.items() if place == folder and len(names) > 1]
        if doubled:
            listed = listing(" = ".join(names[:4]) for names in doubled)
            report.note(
                f"{count(len(doubled), 'picture is', 'pictures are')} there more than once: {listed}.",
                where=str(folder),
                next="Remove the copies, unless they are there to be seen more often.",
            )


def tell_profiles(paths: Iterable[Path], facts: FileFacts, report: Report) -> None:
    """Name the pictures whose colour profile is broken."""
    broken = [path.name for path in paths if path.exists() and facts.decoded_as(path) in ("p", "b")]
    if broken:
        report.note(
            f"{count(len(broken), 'picture has', 'pictures have')} a broken colour profile, "
            f"so the colours count as sRGB: {listing(broken)}."
        )


def tell_transparent(paths: Iterable[Path], facts: FileFacts, report: Report) -> None:
    """Name the pictures that are shown on white; ``paths``: those whose transparency is no mask."""
    clear = [path.name for path in paths if path.exists() and facts.decoded_as(path) in ("t", "b")]
    if clear:
        report.note(
            f"{count(len(clear), 'picture is', 'pictures are')} partly transparent and put on white: "
            f"{listing(clear)}.",
            next="Use the transparency as a mask (alpha_mask), or put them on another background yourself.",
            key="alpha_mask",
        )
