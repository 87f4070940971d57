"""The caption store: filters, edits, conflicts, undo after a restart."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.data.edit import MISSING, CaptionStore, Filter
from backend.data.edit import store as store_module
from backend.errors import InputError, RunFault
from tests.conftest import ROOT
from tests.data.data_kit import add_picture, plan_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "set"
    add_picture(place, "a.png", caption="sks dog, Grass, day")
    add_picture(place, "b.png", caption="sks dog, snow")
    add_picture(place, "c.png", caption="")
    add_picture(place, "d.png", caption=None)
    return place


def names(store: CaptionStore, wanted: Filter) -> str:
    return "".join(store.get(id).picture.stem for id in store.ids(wanted))


def texts(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), "abcd"),
        (Filter(tags=("SKS dog",)), "ab"),
        (Filter(tags=("sks",)), ""),
        (Filter(tags=("sks dog", "grass")), "a"),
        (Filter(without=("snow",)), "acd"),
        (Filter(text="NOW"), "b"),
        (Filter(regex="^sks.*w$"), "b"),
        (Filter(missing=True), "cd"),
        (Filter(missing=False), "ab"),
        (Filter(name="B.P"), "b"),
    ],
)
def test_filters(folder: Path, wanted: Filter, found: str) -> None:
    assert names(CaptionStore(folder), wanted) == found


def test_a_filter_that_is_no_expression_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="not a regular expression"):
        CaptionStore(folder).ids(Filter(regex="[a"))


def test_pages_are_slices(folder: Path) -> None:
    page = CaptionStore(folder).page(Filter(), offset=1, count=2)
    assert (page.total, page.offset, [item.picture.name for item in page.items]) == (4, 1, ["b.png", "c.png"])
    assert page.items[0].as_dict()["text"] == "sks dog, snow"


def test_one_edit_undone_and_made_again(folder: Path) -> None:
    store = CaptionStore(folder)
    caption = store.get("0/b.png")
    applied = store.edit(caption.id, "sks dog, ice", caption.version)
    assert [c.text for c in applied.written] == ["sks dog, ice"] and not applied.conflicts
    assert texts(folder)["b"] == "sks dog, ice"
    undone = store.undo()
    assert undone and undone.written[0].text == "sks dog, snow" == texts(folder)["b"]
    redone = store.redo()
    assert redone and texts(folder)["b"] == "sks dog, ice"
    assert store.redo() is None


def test_a_new_caption_file_goes_away_with_its_edit(folder: Path) -> None:
    store = CaptionStore(folder)
    assert store.get("0/d.png").version == MISSING and store.get("0/c.png").version != MISSING
    store.edit("0/d.png", "new", MISSING)
    assert texts(folder)["d"] == "new"
    store.undo()
    assert "d" not in texts(folder)
    store.redo()
    assert texts(folder)["d"] == "new"


def test_two_pages_edit_one_caption_and_both_texts_are_kept(folder: Path) -> None:
    one, two = CaptionStore(folder), CaptionStore(folder)
    seen_by_one, seen_by_two = one.get("0/a.png"), two.get("0/a.png")
    one.edit("0/a.png", "from one", seen_by_one.version)
    late = two.edit("0/a.png", "from two", seen_by_two.version)
    assert not late.written and texts(folder)["a"] == "from one"
    (conflict,) = late.conflicts
    assert (conflict.yours, conflict.theirs) == ("from two", "from one")
    assert "changed elsewhere" in conflict.as_dict()["what"]
    # Having seen both, the person may decide.
    assert two.edit("0/a.png", "from two", conflict.version).written
    assert texts(folder)["a"] == "from two"


def test_a_change_by_another_program_is_noticed_even_of_same_size_and_time(folder: Path) -> None:
    store = CaptionStore(folder)
    caption = store.get("0/b.png")
    facts = caption.path.stat()
    caption.path.write_text("sks dog, s|ow", encoding="utf-8")
    os.utime(caption.path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    applied = store.edit("0/b.png", "mine", caption.version)
    assert applied.conflicts[0].theirs == "sks dog, s|ow" == texts(folder)["b"]


def test_bulk_is_previewed_then_applied_and_undone_after_a_restart(folder: Path) -> None:
    store = CaptionStore(folder)
    before = texts(folder)
    preview = store.preview("add_front", {"tag": "photo"}, Filter(tags=("sks dog",)))
    assert preview.title == "Add tag in front: 'photo'"
    assert [(c.before, c.after) for c in preview.changes] == [
        ("sks dog, Grass, day", "photo, sks dog, Grass, day"),
        ("sks dog, snow", "photo, sks dog, snow"),
    ]
    assert texts(folder) == before, "a preview writes nothing"
    told: list[tuple[int, int]] = []
    assert len(store.apply(preview, lambda done, total: told.append((done, total))).written) == 2
    assert told == [(2, 2)]
    store.apply(store.preview("sort"))
    assert texts(folder)["b"] == "photo, sks dog, snow" and texts(folder)["a"] == "day, Grass, photo, sks dog"

    # Another process: everything it knows is on the disk.
    code = (
        "import sys; from pathlib import Path; from backend.data.edit import CaptionStore\n"
        "s = CaptionStore(Path(sys.argv[1])); s.undo(); s.undo()\n"
        "print([(i.title, i.state) for i in s.history()])\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert "[('Sort tags', 'undone'), (\"Add tag in front: 'photo'\", 'undone')]" in done.stdout
    assert texts(folder) == before
    # And this one sees what that one did.
    assert store.undo() is None
    assert store.redo() and texts(folder)["a"].startswith("photo")


def test_a_new_edit_ends_what_could_be_made_again(folder: Path) -> None:
    store = CaptionStore(folder)
    store.apply(store.preview("remove", {"tag": "snow"}))
    store.undo()
    store.edit("0/a.png", "new", store.get("0/a.png").version)
    assert store.redo() is None
    assert [item.title for item in store.history()] == ["Edit a.png"]


def test_undo_leaves_alone_what_changed_since(folder: Path) -> None:
    store = CaptionStore(folder)
    store.apply(store.preview("lower_case"))
    store.apply(store.preview("add_back", {"tag": "x"}, ids=["0/a.png", "0/b.png"]))
    (folder / "a.txt").write_text("by hand", encoding="utf-8")
    undone = store.undo()
    assert undone and [c.path.name for c in undone.written] == ["b.txt"]
    assert [(c.path.name, c.theirs) for c in undone.conflicts] == [("a.txt", "by hand")]
    assert texts(folder)["a"] == "by hand" and texts(folder)["b"] == "sks dog, snow"


def test_bulk_after_a_change_elsewhere_gives_a_conflict_and_does_the_others(folder: Path) -> None:
    store = CaptionStore(folder)
    preview = store.preview("remove", {"tag": "sks dog"})
    (folder / "a.txt").write_text("other", encoding="utf-8")
    applied = store.apply(preview)
    assert [c.path.name for c in applied.conflicts] == ["a.txt"]
    assert texts(folder)["a"] == "other" and texts(folder)["b"] == "snow"


def test_every_encoding_is_read_written_as_utf8_and_undone_to_the_byte(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    kinds = {
        "sjis": "桜の木の下にいる猫、春".encode("cp932"),
        "bom": b"\xef\xbb\xbfa, b\r\n",
        "utf16": "a, 猫".encode("utf-16"),
        "latin": "café, crème".encode("latin-1"),
    }
    for name, data in kinds.items():
        add_picture(folder, f"{name}.png", caption=None)
        (folder / f"{name}.txt").write_bytes(data)
    store = CaptionStore(folder)
    seen = {store.get(id).picture.stem: store.get(id) for id in store.ids()}
    assert seen["sjis"].text == "桜の木の下にいる猫、春" and seen["sjis"].encoding == "Shift-JIS"
    assert seen["bom"].text == "a, b\r\n" and seen["utf16"].text == "a, 猫"
    assert seen["latin"].text == "café, crème"
    store.apply(store.preview("add_back", {"tag": "x"}))
    assert texts(folder)["sjis"] == "桜の木の下にいる猫、春, x"
    assert (folder / "utf16.txt").read_bytes() == "a, 猫, x".encode()
    store.undo()
    assert {name: (folder / f"{name}.txt").read_bytes() for name in kinds} == kinds


def test_pictures_that_share_a_caption_are_changed_once(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "a.png", caption="x")
    add_picture(folder, "a.jpg", caption="x")
    store = CaptionStore(folder)
    preview = store.preview("add_back", {"tag": "y"})
    assert len(preview.changes) == 1
    store.apply(preview)
    assert texts(folder) == {"a": "x, y"} and store.get("0/a.png").text == "x, y" == store.get("0/a.jpg").text


def test_what_is_no_caption_is_named_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "a.png", caption=None)
    add_picture(folder, "b.png", caption=None)
    (folder / "a.txt").mkdir()
    (folder / "b.txt").write_bytes(b"x" * 2_000_000)
    store = CaptionStore(folder)
    assert store.get("0/a.png").problem == "is a folder, not a caption file"
    assert store.get("0/b.png").problem.startswith("is too large")
    assert store.preview("fill", {"text": "x"}).changes == ()
    with pytest.raises(InputError, match="is a folder"):
        store.edit("0/a.png", "x", MISSING)
    with pytest.raises(InputError, match="no picture"):
        store.get("0/../../etc/passwd")


def test_a_full_disk_keeps_the_old_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = CaptionStore(folder)
    monkeypatch.setattr(store_module, "replace_bytes", full)
    caption = store.get("0/a.png")
    applied = store.edit("0/a.png", "new", caption.version)
    assert "no space left" in applied.failed[0].text() and not applied.written
    assert texts(folder)["a"] == caption.text == store.get("0/a.png").text
    monkeypatch.undo()


def test_without_a_journal_nothing_is_changed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    store = CaptionStore(folder, journal=tmp_path / "file" / "journal.jsonl")
    with pytest.raises(RunFault, match="the record of edits cannot be written"):
        store.edit("0/a.png", "new", store.get("0/a.png").version)
    assert texts(folder)["a"] == "sks dog, Grass, day"


def test_a_journal_cut_off_by_a_crash_goes_on(folder: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    store = CaptionStore(folder, journal=journal)
    store.edit("0/a.png", "one", store.get("0/a.png").version)
    with journal.open("ab") as file:
        file.write(b'{"kind": "do", "id": 2, "ti')
    store = CaptionStore(folder, journal=journal)
    store.edit("0/a.png", "two", store.get("0/a.png").version)
    again = CaptionStore(folder, journal=journal)
    assert [item.title for item in again.history()] == ["Edit a.png", "Edit a.png"]
    again.undo()
    assert texts(folder)["a"] == "one"
    again.undo()
    assert texts(folder)["a"] == "sks dog, Grass, day"


def test_refresh_reads_only_what_changed(folder: Path) -> None:
    store = CaptionStore(folder)
    assert store.refresh() == 0
    (folder / "a.txt").write_text("elsewhere", encoding="utf-8")
    add_picture(folder, "e.png", caption="e")
    (folder / "b.png").unlink()
    assert store.refresh() == 2
    assert names(store, Filter()) == "acde" and store.get("0/a.png").text == "elsewhere"


def test_folders_inside_and_plans_belong_to_it(tmp_path: Path) -> None:
    add_picture(tmp_path / "set" / "2_sks dog", "a.png", caption="x")
    add_picture(tmp_path / "set" / "1_cat", "a.png", caption="y")
    add_picture(tmp_path / "set" / "_excluded", "z.png", caption="z")
    store = CaptionStore(tmp_path / "set")
    assert sorted(store.get(id).text for id in store.ids()) == ["x", "y"]
    of_plan = CaptionStore.of_plan(plan_of(tmp_path / "set"))
    assert sorted(of_plan.get(id).text for id in of_plan.ids()) == ["x", "y"]


def test_links_that_lead_nowhere_or_in_a_circle_hide_nothing(folder: Path) -> None:
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "a.caption").symlink_to(folder / "nowhere")
    (folder / "e.png").symlink_to(folder / "e.png")
    assert names(CaptionStore(folder), Filter(missing=False)) == "ab"


def test_captions_of_a_metadata_file_are_shown_and_not_edited(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "a.png", caption=None)
    add_picture(folder / "inside", "b.png", caption=None)
    metadata = tmp_path / "meta.json"
    metadata.write_text(
        '{"a.png": {"caption": "one, x"}, "inside/b.png": {"caption": "two"}}', encoding="utf-8"
    )
    store = CaptionStore.of_plan(plan_of(folder, in_json=str(metadata)))
    assert sorted((store.get(id).picture.name, store.get(id).text) for id in store.ids()) == [
        ("a.png", "one, x"),
        ("b.png", "two"),
    ]
    assert names(store, Filter(tags=("x",))) == "a" and store.statistics().counts["two"] == 1
    assert store.preview("add_back", {"tag": "y"}).changes == ()
    (id,) = store.ids(Filter(name="a.png"))
    with pytest.raises(InputError, match=r"has its caption in meta\.json: change it there"):
        store.edit(id, "new", store.get(id).version)
    assert store.refresh() == 0 and store.get(id).text == "one, x"


def test_a_plan_leaves_folders_inside_its_own_alone(tmp_path: Path) -> None:
    add_picture(tmp_path / "set", "a.png", caption="x")
    add_picture(tmp_path / "set" / "more", "b.png", caption="y")
    assert names(CaptionStore.of_plan(plan_of(tmp_path / "set")), Filter()) == "a"
    assert names(CaptionStore(tmp_path / "set"), Filter()) == "ab"


def test_new_captions_end_as_most_do(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in ("a.png", "b.c.png", "photo_50_30_20_20.png"):
        add_picture(folder, name, caption=None)
    (folder / "a.caption").write_text("x", encoding="utf-8")
    (folder / "photo.caption").write_text("face", encoding="utf-8")
    store = CaptionStore(folder)
    assert store.get("0/b.c.png").path.name == "b.c.caption"
    assert store.get("0/photo_50_30_20_20.png").text == "face"


def test_statistics(folder: Path) -> None:
    statistics = CaptionStore(folder).statistics()
    assert statistics.captions == 4
    assert next(iter(statistics.counts.items())) == ("sks dog", 2)
    assert statistics.counts["Grass"] == 1 and ("Grass", "day", 1) in statistics.pairs


def test_many_threads_lose_no_edit(folder: Path) -> None:
    store = CaptionStore(folder)
    lost: list[str] = []

    def add(number: int) -> None:
        for _ in range(200):
            caption = store.get("0/a.png")
            if store.edit("0/a.png", f"{caption.text}, n{number}", caption.version).written:
                return
        lost.append(str(number))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not lost
    assert {f"n{number}" for number in range(8)} <= {tag.strip() for tag in texts(folder)["a"].split(",")}


def test_ten_thousand_pictures_are_quick(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(10_000):
        (folder / f"{number:05d}.png").write_bytes(b"")
        tags = [f"tag{(number * k) % 97}" for k in range(1, 16)]
        (folder / f"{number:05d}.txt").write_text(", ".join(tags), encoding="utf-8")
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        started = time.perf_counter()
        work()
        seconds[name] = time.perf_counter() - started

    timed("open", lambda: CaptionStore(folder))
    store = CaptionStore(folder)
    timed("refresh", store.refresh)
    timed("page", lambda: store.page(Filter(tags=("tag3",)), 500, 50))
    timed("statistics", store.statistics)
    timed("preview", lambda: store.preview("remove", {"tag": "tag3"}))
    print({name: round(value, 3) for name, value in seconds.items()})
    assert len(store.ids()) == 10_000
    limits = {"open": 8, "refresh": 3, "page": 2, "statistics": 6, "preview": 4}
    assert {name: seconds[name] < limit for name, limit in limits.items()} == dict.fromkeys(limits, True)
