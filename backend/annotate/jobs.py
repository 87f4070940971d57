"""Jobs on captions and tags as plain data: what a page asks for, and what a process of its own does.

A job is a table: ``{"kind": "tag", "settings": {"train_data_dir": ..., "thresh": 0.4}, "download": false}``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from backend.annotate import cleaning, cleanrules, folders, metadata, options
from backend.annotate.runs import Progress
from backend.annotate.settings import CaptioningSettings, TaggingSettings
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
    """Clean the text files of a folder; with ``try`` only what would change."""
    given, rules = _settings(job), cleanrules.from_dicts(job.get("rules"))
    folder, extension = _path(given, "train_data_dir"), str(given.get("caption_extension") or ".txt")
    recursive = bool(given.get("recursive"))
    if job.get("try"):
        preview = folders.try_cleaning(folder, extension, rules, recursive=recursive)
        rows = [(one.path.name, "", one.before, one.after) for one in preview.changes]
        return {"changes": rows, "unchanged": preview.unchanged}
    done = folders.clean_folder(folder, extension, rules, recursive=recursive, progress=progress)
    lost = [(one.path.name, "was changed meanwhile") for one in done.conflicts]
    lost += [(Path(one.where).name, one.what) for one in done.failed]
    return {"written": len(done.written), "failed": lost, "edit": done.edit}


def _clean_file(job: Job, progress: Progress, say: Say) -> dict[str, Any]:
    """Clean a metadata file into another; with ``try`` only what would change."""
    given, rules = _settings(job), cleanrules.from_dicts(job.get("rules"))
    source = _path(given, "in_json")
    entries, changes = cleaning.clean_entries(metadata.read(source), rules)
    if job.get("try"):
        return {"changes": changes, "unchanged": len(entries) - len({change[0] for change in changes})}
    target = _path(given, "out_json")
    kept = write_cleaned(source, target, entries, bool(given.get("overwrite")))
    return {"written": len(changes), "failed": [], "output": str(target), "kept": str(kept or "")}


def _merge(job: Job, progress: Progress, say: Say) -> dict[str, Any]:
    """Take the texts beside pictures into a metadata file."""
    given = _settings(job)
    folder, target = _path(given, "train_data_dir"), _path(given, "out_json")
    source = str(given.get("in_json") or "").strip()
    entries = metadata.read(Path(source).expanduser()) if source else {}
    started = time.monotonic()
    done: metadata.Merged | None = None
    for which, key in (("caption", "caption_extension"), ("tags", "tags_extension")):
        ending = str(given.get(key) or "").strip()
        if ending:
            done = metadata.merge(
                folder, done.entries if done else entries, cast(Any, which), ending,
                full_path=bool(given.get("full_path")), recursive=bool(given.get("recursive")),
            )  # fmt: skip
            say(f"{which}: {done.text()}")
    if done is None:
        raise InputError(
            "nothing to take in",
            next="give the ending of captions, of tags, or both",
            key="caption_extension",
        )
    kept = metadata.write(target, done.entries)
    return {
        "written": done.texts, "failed": done.failed, "missing": done.missing, "entries": len(done.entries),
        "output": str(target), "kept": str(kept or ""), "seconds": time.monotonic() - started,
    }  # fmt: skip


KINDS: Mapping[str, Callable[[Job, Progress, Say], dict[str, Any]]] = {
    "tag": _tag,
    "caption": _caption,
    "try_tags": _try_tags,
    "try_captions": _try_captions,
    "clean": _clean,
    "clean_file": _clean_file,
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


def _path(given: Mapping[str, Any], key: str) -> Path:
    text = str(given.get(key) or "").strip()
    if not text:
        raise InputError(f"{key} is missing", key=key)
    return Path(text).expanduser()


def _download(job: Job) -> bool:
    return bool(job.get("download"))


def _telling(say: Say, debug: bool) -> Callable[[Path, str], None]:
    def tell(path: Path, text: str) -> None:
        if debug:
            say(f"{path.name}: {text}")

    return tell
