"""What the command lines of captioning and tagging share."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from backend.annotate import folders, options
from backend.annotate.runs import Outcome
from backend.annotate.settings import CaptioningSettings, PictureSettings, TaggingSettings
from backend.data.edit.terminal import ProgressLine
from backend.errors import InputError

_OWN = ("undo",)


def parser(
    description: str | None, section: type[PictureSettings], leave_out: Collection[str] = ()
) -> argparse.ArgumentParser:
    """A parser for the folder, the options of ``section``, and undoing."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("train_data_dir", help="folder of pictures")
    options.add_arguments(found, section, ("train_data_dir", *leave_out))
    found.add_argument(
        "--caption_extention", dest="caption_extension", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    found.add_argument(
        "--undo", action="store_true", help="take back the last run over this folder, and do nothing else"
    )
    return found


def tag(arguments: argparse.Namespace) -> int:
    """Run ``tag_images_by_wd14_tagger.py``."""
    settings = options.read(TaggingSettings, _values(arguments))
    return _run(arguments, settings, settings.caption_extension, folders.tag, "tagging")


def caption(arguments: argparse.Namespace, **fixed: Any) -> int:
    """Run ``make_captions.py``, or a relative with some values ``fixed``."""
    settings = options.read(CaptioningSettings, _values(arguments) | fixed)
    return _run(arguments, settings, settings.caption_extension, folders.caption, "captioning")


def _values(arguments: argparse.Namespace) -> dict[str, Any]:
    return {key: value for key, value in vars(arguments).items() if key not in _OWN}


def _run(
    arguments: argparse.Namespace, settings: Any, extension: str, work: Callable[..., Outcome], doing: str
) -> int:
    if arguments.undo:
        return _undo(Path(settings.train_data_dir), extension)
    # A command line that names a model of the hub asks for it; HF_HUB_OFFLINE=1 forbids it all the same.
    online = os.environ.get("HF_HUB_OFFLINE", "") in ("", "0")

    def on_text(path: Path, text: str) -> None:
        if settings.debug:
            print(f"{path.name}: {text}")

    with ProgressLine(doing) as progress:
        outcome = work(
            settings, progress, lambda text: print(text, flush=True), download=online, on_text=on_text
        )
    print(outcome.text())
    if outcome.edit is not None:
        print(f"taken back with: {_undo_line(settings.train_data_dir, extension, type(settings))}")
    if outcome.stopped:
        return 130
    return 4 if outcome.failed else 0


def _undo_line(folder: str, extension: str, section: type[PictureSettings]) -> str:
    usual = section.model_fields["caption_extension"].default
    more = [] if extension == usual else ["--caption_extension", extension]
    return shlex.join(["python", f"tools/{Path(sys.argv[0]).name}", "--undo", *more, folder])


def _undo(folder: Path, extension: str) -> int:
    done = folders.undo(folder, extension)
    if done is None:
        raise InputError(f"no run over {folder} is left to take back")
    print(f"{done.title}: {len(done.written)} files are as they were")
    for conflict in done.conflicts:
        print(f"left: {conflict.path.name} was changed since")
    for problem in done.failed:
        print(f"failed: {problem.text()}")
    return 4 if done.failed else 0
