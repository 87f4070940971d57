"""Jobs on captions and tags as plain data: what a page asks for, and what a process of its own does.

A job is a table: ``{"kind": "tag", "settings": {"train_data_dir": ..., "thresh": 0.4}, "download": false}``.
With ``"device": "cpu"`` a card is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from backend.annotate import cleaning, cleanrules, folders, metadata, options
from backend.annotate.runs import Progress
from backend.annotate.settings import CaptioningSettings, CleaningSettings, MergingSettings, TaggingSettings
from backend.errors import InputError

Say = Callable[[str], None]
Job = Mapping[str, Any]


def _tag(job: Job, progress: Progress, say: Say) -> dict[str, Any]:
    settings = options.read(TaggingSettings, _settings(job))
    on_text = _telling(say, settings.debug)
    return folders.tag(settings, progress, say, download=_download(job), on_text=on_text).as_dict()


def _caption(job: Job, progress: Progress, say: Say) -> dict[str, Any]:
    settings = options.read(CaptioningSettings, _settings(job))
    on_text = _telling(say, settings.debug)
    return folders.caption(settings, progress, say, download=_download(job), on_text=on_text).as_dict()


def _try_tags(job: Job, progress: Progress, say: Say) -> dict[str, Any]:
    settings = options.read(TaggingSettings, _settings(job))
    return folders.try_tags(settings, progress, say, download=_download(job))


def _try_captions(job: Job, progress: Progress, say: Say) -> dict[str, Any]:
    settings = options.read(CaptioningSettings, _settings(job))
    return folders.try_captions(settings, progress, say, download=_download(job))


def _clean(job: Job, progress: Progress, say: Say) -> dict[str, Any]:
    """Clean the texts of a folder, or a metadata file; with ``try`` only what would change."""
    settings = options.read(CleaningSettings, _settings(job))
    rules = cleanrules.from_dicts(job.get("rules", cleanrules.as_dicts(cleanrules.RULES)))
    if settings.in_json and not settings.train_data_dir:
        return _clean_file(settings, rules, only_try=bool(job.get("try")))
    folder, extension = _path(settings.train_data_dir, "train_data_dir"), settings.caption_extension
    if job.get("try"):
        tried = folders.try_cleaning(folder, extension, rules, recursive=settings.recursive)
        rows = [(one.path.name, "", one.before, one.after) for one in tried.preview.changes]
        return {"changes": rows, "unchanged": tried.preview.unchanged, "failed": tried.left}
    done, left = folders.clean_folder(
        folder, extension, rules, recursive=settings.recursive, progress=progress
    )
    return {"what": "clean", "written": len(done.written), "failed": left, "edit": done.edit}


def _clean_file(
    settings: CleaningSettings, rules: Sequence[cleanrules.Rule], *, only_try: bool
) -> dict[str, Any]:
    source = _path(settings.in_json, "in_json")
    entries, changes = cleaning.clean_entries(metadata.read(source), rules)
    if only_try:
        return {"changes": changes, "unchanged": len(entries) - len({change[0] for change in changes})}
    target = _path(settings.out_json, "out_json")
    kept = write_cleaned(source, target, entries, settings.overwrite)
    found = {"what": "clean", "written": len(changes), "failed": [], "output": str(target)}
    return {**found, "kept": kept.name if kept else ""}


def _merge(job: Job, progress: Progress, say: Say) -> dict[str, Any]:
    """Take the texts beside pictures into a metadata file."""
    settings = options.read(MergingSettings, _settings(job))
    folder, target = _path(settings.train_data_dir, "train_data_dir"), _path(settings.out_json, "out_json")
    entries = metadata.read(_path(settings.in_json, "in_json")) if settings.in_json.strip() else {}
    parts: list[metadata.Merged] = []
    wanted: tuple[tuple[metadata.Which, str], ...] = (
        ("caption", settings.caption_extension),
        ("tags", settings.tags_extension),
    )
    for which, ending in wanted:
        if ending.strip():
            done = metadata.merge(
                folder, entries, which, ending, full_path=settings.full_path, recursive=settings.recursive
            )
            entries = done.entries
            parts.append(done)
            say(f"{which}: {done.text()}")
    if not parts:
        raise InputError("nothing to take in", next="give an ending of captions, of tags, or both")
    kept = metadata.write(target, entries)
    return {
        "what": "merge",
        "written": sum(part.texts for part in parts),
        "failed": [row for part in parts for row in part.failed],
        "notes": [part.text().splitlines()[0] for part in parts],
        "output": str(target),
        "kept": kept.name if kept else "",
    }


KINDS: Mapping[str, Callable[[Job, Progress, Say], dict[str, Any]]] = {
    "tag": _tag,
    "caption": _caption,
    "try_tags": _try_tags,
    "try_captions": _try_captions,
    "clean": _clean,
    "merge": _merge,
}
"""Kind of job -> what does it."""


def run_job(job: Job, progress: Progress, say: Say) -> dict[str, Any]:
    """Do a job; what came of it as plain data.

    Raises:
        AtelierError: as the job says it.
    """
    kind = str(job.get("kind") or "")
    if kind not in KINDS:
        raise InputError(f"unknown job {kind or '(none)'}", why=f"known: {', '.join(KINDS)}", key="kind")
    return KINDS[kind](job, progress, say)


def write_cleaned(source: Path, target: Path, entries: metadata.Entries, overwrite: bool) -> Path | None:
    """Write cleaned metadata; over its own source only when that was said. Gives where an old file is kept.

    Raises InputError, EnvironmentFault.
    """
    if source.resolve() == target.resolve() and not overwrite:
        raise InputError(
            f"{target.name} would be written over itself",
            where=str(target),
            next="choose another name for the result, or say that it is to be written over (overwrite)",
            key="out_json",
        )
    return metadata.write(target, entries)


def _settings(job: Job) -> dict[str, Any]:
    found = job.get("settings")
    if not isinstance(found, dict):
        raise InputError("the job has no settings", key="settings")
    return cast("dict[str, Any]", found)


def _path(text: str, key: str) -> Path:
    if not text.strip():
        raise InputError(f"{key} is missing", key=key)
    return Path(text.strip()).expanduser()


def _download(job: Job) -> bool:
    return bool(job.get("download"))


def _telling(say: Say, debug: bool) -> Callable[[Path, str], None]:
    def tell(path: Path, text: str) -> None:
        if debug:
            say(f"{path.name}: {text}")

    return tell
