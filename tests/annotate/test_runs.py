"""Whole folders: nothing written by hand is lost, one bad picture stops nothing, and runs can be undone."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.annotate import folders, keeping, pictures
from backend.annotate.runs import Outcome, describe_folder
from backend.annotate.settings import PictureSettings, TaggingSettings
from backend.data import images
from backend.data.edit import CaptionStore
from backend.errors import InputError
from tests.annotate.onnx_kit import write_tagger

Texts = Callable[..., dict[str, str]]


def silent(done: int, total: int) -> None:
    return


class Sayer:
    """Says what it is told to, or raises it."""

    glue = " "

    def __init__(self, say: Callable[[Path], str] = lambda path: f"seen {path.stem}") -> None:
        self.say, self.batches = say, list[list[str]]()

    def prepare(self, pixels: images.Array) -> images.Array:
        return pixels

    def describe(self, batch: Sequence[Any], paths: Sequence[Path]) -> list[str]:
        assert len(batch) == len(paths) and all(isinstance(one, np.ndarray) for one in batch)
        self.batches.append([path.name for path in paths])
        return [self.say(path) for path in paths]


def run(
    folder: Path, sayer: Sayer | None = None, progress: Callable[[int, int], None] = silent, **options: Any
) -> Outcome:
    settings = PictureSettings(train_data_dir=str(folder), **options)
    paths = pictures.find(folder, settings.recursive)
    keeper = keeping.CaptionFiles(
        folder, paths, ".txt", settings.existing, lambda old, new: f"{old}, {new}", "Test run"
    )
    return describe_folder(settings, paths, sayer or Sayer(), keeper, "captions", progress)


def test_only_pictures_without_text_get_one(folder: Path, texts: Texts) -> None:
    (folder / "img_00.txt").write_text("by hand\n")
    (folder / "img_01.txt").write_text("  \n")
    seen: list[tuple[int, int]] = []
    outcome = run(folder, progress=lambda done, total: seen.append((done, total)), batch_size=2)
    assert texts() == {"img_00": "by hand\n"} | {f"img_0{n}": f"seen img_0{n}" for n in range(1, 6)}
    assert (outcome.written, outcome.total, outcome.had_text, outcome.failed) == (5, 5, 1, [])
    assert (
        seen[-1] == (5, 5)
        and "wrote captions for 5 of 5 pictures" in outcome.text()
        and "1 had text already" in outcome.text()
    )
    again = run(folder)
    assert again.written == 0 and again.had_text == 6 and again.edit is None


@pytest.mark.parametrize(
    ("existing", "text"), [("replace", "seen img_00"), ("append", "by hand, seen img_00")]
)
def test_replacing_and_appending_are_choices_and_can_be_undone(
    folder: Path, texts: Texts, existing: str, text: str
) -> None:
    (folder / "img_00.txt").write_bytes(b"\xef\xbb\xbfby hand\r\n" if existing == "replace" else b"by hand")
    before = (folder / "img_00.txt").read_bytes()
    outcome = run(folder, existing=existing)
    assert texts()["img_00"] == text and outcome.written == 6
    assert folders.undo(folder, ".txt", outcome.edit) is not None
    assert (folder / "img_00.txt").read_bytes() == before and list(texts()) == ["img_00"]


def test_one_undo_takes_back_a_run_of_many_parts(
    folder: Path, texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.annotate.runs._KEEP_EVERY", 0.0)
    outcome = run(folder)
    store = CaptionStore(folder)
    assert [(item.title, item.files) for item in store.history()] == [("Test run", 6)] and store.history()[
        0
    ].id == outcome.edit
    assert store.undo() and texts() == {}
    assert CaptionStore(folder).redo() and len(texts()) == 6


def test_an_edit_that_came_after_a_run_is_not_undone_in_its_place(folder: Path, texts: Texts) -> None:
    outcome = run(folder)
    store = CaptionStore(folder)
    first = store.get(store.ids()[0])
    store.edit(first.id, "better", first.version)
    with pytest.raises(InputError, match="edited since"):
        folders.undo(folder, ".txt", outcome.edit)
    assert folders.undo(folder, ".txt") and texts()["img_00"] == "seen img_00"
    assert folders.undo(folder, ".txt", outcome.edit) and texts() == {}
    assert folders.undo(folder, ".txt") is None


def test_pictures_that_fail_are_named_and_the_rest_goes_on(folder: Path, texts: Texts) -> None:
    cut = (folder / "img_01.png").read_bytes()
    (folder / "img_01.png").write_bytes(cut[: len(cut) // 2])
    (folder / "img_02.png").write_bytes(b"")
    (folder / "page.jpg").write_text("<!DOCTYPE html><p>404")
    (folder / "img_03.txt").mkdir()

    def say(path: Path) -> str:
        if path.stem == "img_04":
            raise RuntimeError("CUDA out of memory\nmore")
        return "" if path.stem == "img_05" else "text"

    sayer = Sayer(say)
    outcome = run(folder, sayer, batch_size=4)
    failed = dict(outcome.failed)
    assert texts()["img_00"] == "text" and outcome.written == 1 and outcome.total == 7
    assert set(failed) == {"img_01.png", "img_02.png", "img_03.png", "img_04.png", "page.jpg"}
    assert (
        "cut off" in failed["img_01.png"]
        and "0 bytes" in failed["img_02.png"]
        and "HTML" in failed["page.jpg"]
    )
    assert (
        "is a folder" in failed["img_03.png"]
        and failed["img_04.png"] == "could not be described (CUDA out of memory)"
    )
    assert outcome.empty == ["img_05.png"] and not (folder / "img_05.txt").exists()
    assert "wrote captions for 1 of 7 pictures" in outcome.text() and "failed: img_04.png" in outcome.text()
    # The batch was tried again picture by picture.
    assert sayer.batches[0] == ["img_00.png", "img_04.png", "img_05.png"] and ["img_00.png"] in sayer.batches


def test_a_stop_keeps_what_was_made(folder: Path, texts: Texts) -> None:
    def say(path: Path) -> str:
        if path.stem == "img_03":
            raise KeyboardInterrupt
        return "text"

    outcome = run(folder, Sayer(say))
    assert outcome.stopped and sorted(texts()) == ["img_00", "img_01", "img_02"] and outcome.written == 3
    assert outcome.text().startswith("stopped: wrote captions for 3 of 6")


def test_a_caption_changed_meanwhile_is_left(folder: Path, texts: Texts) -> None:
    def say(path: Path) -> str:
        (folder / "img_00.txt").write_text("typed while it ran")
        return "text"

    outcome = run(folder, Sayer(say), batch_size=8)
    assert texts()["img_00"] == "typed while it ran" and outcome.written == 5
    assert outcome.failed == [("img_00.png", "keeps its text: img_00.txt was changed meanwhile")]


def test_two_pictures_of_one_caption_file_are_told(folder: Path, texts: Texts) -> None:
    (folder / "img_00.jpg").write_bytes((folder / "img_00.png").read_bytes())
    outcome = run(folder)
    assert outcome.failed == [("img_00.png", "shares img_00.txt with img_00.jpg, which gives the text")]
    assert texts()["img_00"] == "seen img_00" and outcome.written == 6
    again = run(folder)
    assert again.failed == [] and again.had_text == 7


def test_the_file_of_another_name_or_ending_is_never_taken(tmp_path: Path, folder: Path) -> None:
    place = tmp_path / "odd"
    place.mkdir()
    data = (folder / "img_00.png").read_bytes()
    (place / "x_10_10_64_64.png").write_bytes(data)
    (place / "x.txt").write_text("of another picture")
    (place / "a.b.png").write_bytes(data)
    (place / "a.c.png").write_bytes(data)
    (place / "a.b.caption").write_text("of the other step")
    run(place, existing="replace")
    assert (place / "x.txt").read_text() == "of another picture" and (
        place / "a.b.caption"
    ).read_text() == "of the other step"
    assert {path.name for path in place.glob("*.txt")} == {"x.txt", "x_10_10_64_64.txt", "a.b.txt", "a.c.txt"}


def test_texts_of_another_ending_stay_and_are_told(folder: Path, texts: Texts) -> None:
    for name in ("img_00", "img_02"):
        (folder / f"{name}.caption").write_text("by hand")
    (note,) = run(folder).notes
    assert note.startswith("2 pictures have a text with another ending too, which stays as it is")
    assert "img_00.caption, img_02.caption" in note and "caption_extension" in note
    assert texts(".caption") == {"img_00": "by hand", "img_02": "by hand"}


def test_a_text_of_another_encoding_is_not_guessed_at(folder: Path, texts: Texts) -> None:
    foreign = "日本語の説明です".encode("shift-jis")
    (folder / "img_00.txt").write_bytes(foreign)
    outcome = run(folder, existing="append")
    assert (folder / "img_00.txt").read_bytes() == foreign and outcome.written == 5
    assert outcome.failed[0][0] == "img_00.png" and "looks like Shift-JIS" in outcome.failed[0][1]
    assert run(folder, existing="replace").written == 6 and texts()["img_00"] == "seen img_00"
    assert folders.undo(folder, ".txt") and (folder / "img_00.txt").read_bytes() == foreign


def test_folders_inside_are_looked_into_when_asked(folder: Path, texts: Texts) -> None:
    inside = folder / "one" / "two"
    inside.mkdir(parents=True)
    (inside / "deep.png").write_bytes((folder / "img_00.png").read_bytes())
    assert run(folder).total == 6
    outcome = run(folder, recursive=True)
    assert outcome.total == 1 and texts()["deep"] == "seen deep"
    assert folders.undo(folder, ".txt", outcome.edit) and "deep" not in texts()
    with pytest.raises(InputError, match="No images") as caught:
        pictures.find(folder / "one", False)
    assert "two" in caught.value.text() and caught.value.problems[0].key == "recursive"
    with pytest.raises(InputError, match="Folder not found"):
        pictures.find(folder / "nowhere", False)


def test_words_in_front_and_behind(folder: Path, texts: Texts) -> None:
    run(folder, caption_prefix="sks,", caption_postfix="in oil ")
    assert texts()["img_02"] == "sks, seen img_02 in oil"


def test_few_pictures_are_held_at_a_time(tmp_path: Path, folder: Path) -> None:
    """Memory stays bounded however many pictures there are: decoding waits for the model."""
    source = (folder / "img_00.png").read_bytes()
    paths = [tmp_path / f"{number}.png" for number in range(40)]
    for path in paths:
        path.write_bytes(source)
    lock, decoded, taken, most = threading.Lock(), 0, 0, 0

    def prepare(pixels: images.Array) -> int:
        nonlocal decoded, most
        with lock:
            decoded += 1
            most = max(most, decoded - taken)
        return 1

    for _ in pictures.prepared(paths, prepare, 3, 6):
        with lock:
            taken += 1
    assert decoded == 40 and most <= 7


def test_tags_go_into_one_file_when_asked(tmp_path: Path, folder: Path, texts: Texts) -> None:
    model = write_tagger(tmp_path / "m", [("a", 0), ("b", 0)], [[0, 0]] * 3, [3, -3])
    out = tmp_path / "tags.json"
    out.write_text(json.dumps({str(folder / "img_00.png"): {"caption": "c", "tags": "mine"}}))
    settings = TaggingSettings(
        train_data_dir=str(folder), repo_id=str(model), output_path=str(out), frequency_tags=True
    )
    outcome = folders.tag(settings, silent, print, download=False)
    found = json.loads(out.read_text())
    assert texts() == {} and len(found) == 6 and found[str(folder / "img_01.png")] == {"tags": "a"}
    assert found[str(folder / "img_00.png")] == {"caption": "c", "tags": "mine"} and outcome.had_text == 1
    assert outcome.counts == {"a": 5} and len(list(tmp_path.glob("tags-before-*.json"))) == 1
    lines = tmp_path / "tags.jsonl"
    folders.tag(
        settings.model_copy(update={"output_path": str(lines), "append_tags": True}),
        silent,
        print,
        download=False,
    )
    folders.tag(
        settings.model_copy(update={"output_path": str(lines), "append_tags": True}),
        silent,
        print,
        download=False,
    )
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(rows) == 6 and rows[0] == {"image_path": str(folder / "img_00.png"), "tags": "a"}


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_a_folder_that_may_not_be_written_is_told(folder: Path) -> None:
    folder.chmod(0o555)
    try:
        outcome = run(folder)
        assert outcome.written == 0 and all("cannot be written" in why for _, why in outcome.failed)
    finally:
        folder.chmod(0o755)
