"""Whole jobs: tag a folder, caption a folder, try either on a few pictures, clean the texts of a folder.

What a page, a command line and a test call; each takes settings and tells its progress.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.annotate import cleaning, cleanrules, keeping, models, pictures, tagrules
from backend.annotate.runs import Outcome, Progress, describe_folder
from backend.annotate.settings import CaptioningSettings, PictureSettings, TaggingSettings, existing_of
from backend.data import images
from backend.data.edit import Applied, CaptionStore, Change, Preview
from backend.errors import InputError

if TYPE_CHECKING:
    from backend.annotate.captioners import Captioner
    from backend.annotate.describers import CaptionDescriber
    from backend.annotate.tagger import Tagger

Say = Callable[[str], None]
Told = Callable[[Path, str], None]
SAMPLE = 5
"""Pictures of a trial."""
_LEAST = 0.02
"""Scores below are not shown in a trial."""


def _silent(path: Path, text: str) -> None:
    return


def tag(
    settings: TaggingSettings, progress: Progress, say: Say, *, download: bool, on_text: Told = _silent
) -> Outcome:
    """Tag the pictures of a folder.

    Raises:
        InputError: no pictures, or settings or a tagger that cannot be used.
        EnvironmentFault: the tagger is not there and cannot be fetched.
        RunFault: texts cannot be written at all.
    """
    rules = tagrules.rules_of(settings)
    paths = pictures.find(Path(settings.train_data_dir), settings.recursive)

    def join(text: str, new: str) -> str:
        return tagrules.appended(text, tagrules.listed(new, rules.separator.strip() or ","), rules.separator)

    keeper = _keeper(settings, paths, settings.caption_extension, join, "Tag")
    tagger = open_tagger(settings, say, download=download)
    from backend.annotate.describers import TagDescriber

    describer = TagDescriber(tagger, rules)
    try:
        outcome = describe_folder(settings, paths, describer, keeper, "tags", progress, on_text)
    finally:
        tagger.close()
    if settings.frequency_tags:
        outcome.counts = dict(describer.counts.most_common())
    return outcome


def open_tagger(settings: TaggingSettings, say: Say, *, download: bool) -> Tagger:
    """The tagger that the settings name, ready. Raises as :func:`tag`."""
    from backend.annotate.tagger import Tagger

    folder = models.tagger(
        settings.repo_id, Path(settings.model_dir), say, download=download, again=settings.force_download
    )
    tagger = Tagger(folder)
    tags, device = len(tagger.table.names), "card" if tagger.device == "CUDA" else "processor"
    say(f"tagger in {folder}: {tags} tags, pictures of {tagger.size} px, on the {device}")
    return tagger


def try_tags(settings: TaggingSettings, progress: Progress, say: Say, *, download: bool) -> dict[str, Any]:
    """Scores and text for a few pictures of the folder; writes nothing. Raises as :func:`tag`."""
    rules = tagrules.rules_of(settings)
    paths = _few(pictures.find(Path(settings.train_data_dir), settings.recursive))
    tagger = open_tagger(settings, say, download=download)
    shown: list[dict[str, Any]] = []
    for done, (path, ready) in enumerate(pictures.prepared(paths, tagger.prepare, 2, SAMPLE), 1):
        row: dict[str, Any] = {"path": str(path), "name": path.name, "problem": "", "scores": [], "text": ""}
        if isinstance(ready, images.DecodeError):
            row["problem"] = str(ready)
        else:
            scores = tagger.scores(tagger.probabilities([ready])[0], _LEAST)
            row["scores"] = sorted(scores, key=lambda score: -score[2])
            row["order"] = [score[0] for score in scores]
            row["text"] = tagrules.text_of(scores, rules)
        shown.append(row)
        progress(done, len(paths))
    tagger.close()
    return {"pictures": shown}


def caption(
    settings: CaptioningSettings, progress: Progress, say: Say, *, download: bool, on_text: Told = _silent
) -> Outcome:
    """Caption the pictures of a folder. Raises as :func:`tag`."""
    paths = pictures.find(Path(settings.train_data_dir), settings.recursive)
    keeper = _keeper(settings, paths, settings.caption_extension, _join_captions, "Caption")
    captioner, describer = _open_captioner(settings, say, download=download)
    try:
        return describe_folder(settings, paths, describer, keeper, "captions", progress, on_text)
    finally:
        captioner.close()


def try_captions(
    settings: CaptioningSettings, progress: Progress, say: Say, *, download: bool
) -> dict[str, Any]:
    """Captions of a few pictures of the folder; writes nothing. Raises as :func:`tag`."""
    from backend.annotate.runs import complete

    paths = _few(pictures.find(Path(settings.train_data_dir), settings.recursive))
    captioner, describer = _open_captioner(settings, say, download=download)
    shown: list[dict[str, Any]] = []
    for done, (path, ready) in enumerate(pictures.prepared(paths, describer.prepare, 2, SAMPLE), 1):
        row: dict[str, Any] = {"path": str(path), "name": path.name, "problem": "", "text": ""}
        if isinstance(ready, images.DecodeError):
            row["problem"] = str(ready)
        else:
            row["text"] = complete(describer.describe([ready], [path])[0], settings, describer.glue)
        shown.append(row)
        progress(done, len(paths))
    captioner.close()
    return {"pictures": shown}


def _open_captioner(
    settings: CaptioningSettings, say: Say, *, download: bool
) -> tuple[Captioner, CaptionDescriber]:
    from backend.annotate.captioners import Writing, open_captioner
    from backend.annotate.describers import CaptionDescriber

    writing = Writing.of(settings)
    folder = models.captioner(models.hub_name(settings.caption_weights), say, download=download)
    captioner = open_captioner(folder)
    if settings.num_beams > 1 and not settings.beam_search:
        say("num_beams has no effect without beam_search")
    say(f"captioner in {folder}: on the {'card' if captioner.device == 'cuda' else 'processor'}")
    return captioner, CaptionDescriber(captioner, writing, settings.remove_words)


def _join_captions(text: str, new: str) -> str:
    return text if new in text else f"{text.rstrip().rstrip(',')}, {new}"


def _keeper(
    settings: PictureSettings, paths: Sequence[Path], extension: str, join: keeping.Join, doing: str
) -> keeping.Keeper:
    folder, existing = Path(settings.train_data_dir), existing_of(settings)
    if isinstance(settings, TaggingSettings) and settings.output_path:
        return keeping.OneFile(folder, Path(settings.output_path), "tags", existing, join)
    title = f"{doing} pictures of {folder.expanduser().resolve().name}"
    return keeping.CaptionFiles(folder, paths, extension, existing, join, title)


def _few(paths: Sequence[Path]) -> list[Path]:
    """Some pictures from all over the folder."""
    count = min(SAMPLE, len(paths))
    return [paths[place * len(paths) // count] for place in range(count)]


@dataclass(frozen=True)
class Cleaning:
    """What rules would change in the texts of a folder."""

    preview: Preview
    left: tuple[tuple[str, str], ...]
    """(text file, why it is left as it is)."""


def try_cleaning(
    folder: Path, extension: str, rules: Sequence[cleanrules.Rule], *, recursive: bool
) -> Cleaning:
    """What the rules would change in the caption files of a folder. Raises InputError."""
    return _cleaned(_texts(folder, extension, recursive), folder, rules)


def clean_folder(
    folder: Path, extension: str, rules: Sequence[cleanrules.Rule], *, recursive: bool, progress: Progress
) -> tuple[Applied, list[tuple[str, str]]]:
    """Clean the caption files of a folder, as one edit that can be undone; (that, what was left and why).

    Raises InputError, RunFault.
    """
    store = _texts(folder, extension, recursive)
    found = _cleaned(store, folder, rules)
    done = store.apply(found.preview, progress)
    left = [*found.left, *((one.path.name, "was changed meanwhile") for one in done.conflicts)]
    return done, left + [(Path(problem.where).name, problem.what) for problem in done.failed]


def _texts(folder: Path, extension: str, recursive: bool) -> CaptionStore:
    parents = dict.fromkeys(path.parent for path in pictures.find(folder, recursive))
    return keeping.open_store(folder, parents, extension)


def _cleaned(store: CaptionStore, folder: Path, rules: Sequence[cleanrules.Rule]) -> Cleaning:
    there = {
        caption.path: caption for caption in map(store.get, store.ids()) if caption.text or caption.problem
    }
    left = {path: why for path, one in there.items() if (why := one.problem or keeping.foreign(one))}
    captions = {path: one for path, one in there.items() if path not in left and one.text.strip()}
    texts = {path: cleaning.clean_text(caption.text, rules) for path, caption in captions.items()}
    changes = tuple(
        Change(caption.id, path, caption.text, texts[path], caption.version)
        for path, caption in captions.items()
        if texts[path] != caption.text.rstrip("\r\n")
    )
    title = f"Clean texts of {folder.expanduser().resolve().name}"
    return Cleaning(
        Preview(title, changes, len(captions) - len(changes)),
        tuple((path.name, why) for path, why in left.items()),
    )


def undo(folder: Path, extension: str, edit: int | None = None) -> Applied | None:
    """Take back the newest edit of a folder's texts; None when there is none.

    With ``edit`` only that one: InputError when another came after it.
    """
    place = folder.expanduser().resolve()
    store = keeping.open_store(place, [place], extension)
    newest = next((item for item in store.history(200) if item.state == "done"), None)
    if edit is not None and (newest is None or newest.id != edit):
        raise InputError(
            "the texts were edited since, or it is undone already",
            where=newest.title if newest else "",
            next="undo what came after it on the Dataset page first",
        )
    return store.undo()
