"""Fixes cure what they promise, lose nothing, and can be taken back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.data import images
from backend.data.lint import Fix, lint, pending, roots_of
from backend.data.lint import fixes as module
from backend.data.lint.fixes import Move, Rewrite
from backend.data.lint.journal import Journal
from backend.demo.planted import Planted, files
from backend.errors import AtelierError, EnvironmentFault, InputError


def fix_of(planted: Planted, rule: str) -> Fix:
    finding = lint(planted.config).get(rule)
    assert finding is not None and finding.fix is not None
    return finding.fix


def contents(folder: Path) -> set[bytes]:
    return {data for _, data in files(folder)}


def test_every_fix_cures_loses_nothing_and_is_taken_back(planted: Planted) -> None:
    folder = planted.config.parent
    before = dict(files(folder))
    fixes = {one.rule: one.fix for one in lint(planted.config).findings if one.fix}
    assert len(fixes) > 25
    for rule, fix in fixes.items():
        assert fix.preview() and dict(files(folder)) == before, rule
        undo = fix.apply()
        after = lint(planted.config)
        assert after.get(rule) is None, rule
        assert set(before.values()) <= contents(folder), rule
        assert undo.apply() == [], rule
        assert dict(files(folder)) == before, rule
    assert pending([folder]) == []


def test_all_fixes_one_after_the_other(planted: Planted) -> None:
    """What is left has no fix; every byte there was is still there."""
    folder = planted.config.parent
    before = dict(files(folder))
    for _ in range(60):
        fix = next((one.fix for one in lint(planted.config).findings if one.fix), None)
        if fix is None:
            break
        fix.apply()
    left = {one.rule for one in lint(planted.config).findings}
    assert left <= {"no_captions", "caption_cut", "caption_lines", "caption_unreadable", "small_bucket",
                    "tag_everywhere", "tag_once", "mask_size"}  # fmt: skip
    assert set(before.values()) <= contents(folder)
    for undo in pending([folder]):
        assert undo.apply() == []
    assert dict(files(folder)) == before


def test_leaving_out_takes_caption_and_mask_along(planted: Planted) -> None:
    folder = planted.config.parent
    fix_of(planted, "mask_black").apply()
    for place in (
        "masked/_excluded/mask_black.png",
        "masked/_excluded/mask_black.txt",
        "masks/_excluded/mask_black.png",
    ):
        assert (folder / place).is_file()
    assert not (folder / "masked" / "mask_black.txt").exists()


def test_a_caption_that_another_picture_needs_stays(planted: Planted) -> None:
    fix_of(planted, "shared_caption").apply()
    subject = planted.config.parent / "subject"
    assert (subject / "pair.txt").is_file() and (subject / "_excluded" / "pair.png").is_file()


def test_captions_become_utf8_with_the_original_beside(planted: Planted) -> None:
    fix_of(planted, "caption_encoding").apply()
    subject = planted.config.parent / "subject"
    assert (subject / "caption_encoding.txt").read_text(encoding="utf-8") == "zorvek robot, 赤いロボット"
    assert (subject / "caption_encoding.txt.bak").read_bytes() == "zorvek robot, 赤いロボット".encode("cp932")


def test_trigger_words_are_put_right(planted: Planted) -> None:
    subject = planted.config.parent / "subject"
    fix_of(planted, "trigger_spelling").apply()
    assert {(subject / f"spelt_{i}.txt").read_text(encoding="utf-8") for i in range(3)} == {
        "zorvek robot beside a tree"
    }
    fix_of(planted, "trigger_missing").apply()
    assert (subject / "trigger_missing.txt").read_text(encoding="utf-8") == "zorvek, a machine in a garden"


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("cmyk", "print"),
        ("deep", "deep"),
        ("rotated", "on_side"),
        ("transparent", "see_through"),
        ("profile_broken", "profile"),
    ],
)
def test_pictures_are_converted_to_what_training_sees(planted: Planted, rule: str, name: str) -> None:
    fix = fix_of(planted, rule)
    source = fix.steps[0].source
    seen = images.decode(source.read_bytes())
    fix.apply()
    with Image.open(source.with_name(f"{name}.png")) as written:
        assert written.mode == "RGB" and written.format == "PNG"
        assert np.array_equal(np.asarray(written), seen)
    assert source.with_name(f"{source.name}.bak").is_file()


def test_an_inverted_mask_is_turned_round(planted: Planted) -> None:
    mask = planted.config.parent / "masks" / "mask_inverted.png"
    before = images.decode_mask(mask.read_bytes())
    fix_of(planted, "mask_inverted").apply()
    assert np.array_equal(images.decode_mask(mask.read_bytes()), 255 - before)


def test_the_config_is_changed_with_its_comments(planted: Planted) -> None:
    text = "# mine\n" + planted.config.read_text(encoding="utf-8")
    planted.config.write_text(text, encoding="utf-8")
    fix = fix_of(planted, "upscaled")
    assert fix.text is not None and fix.text.startswith("# mine") and "bucket_no_upscale = true" in fix.text
    fix.apply()
    assert planted.config.read_text(encoding="utf-8") == fix.text
    assert planted.config.with_name("dataset.toml.bak").read_text(encoding="utf-8") == text


def test_names_that_are_taken_are_not_used_again(planted: Planted) -> None:
    excluded = planted.config.parent / "subject" / "_excluded"
    excluded.mkdir()
    (excluded / "twice_b.png").write_bytes(b"mine")
    fix_of(planted, "exact_duplicate").apply()
    assert (excluded / "twice_b.png").read_bytes() == b"mine" and (excluded / "twice_b_2.png").is_file()


def test_a_fix_that_fails_half_way_is_taken_back(planted: Planted) -> None:
    fix = fix_of(planted, "caption_encoding")
    before = dict(files(planted.config.parent))

    def fails(data: bytes) -> bytes:
        raise ValueError("no such letters")

    good = planted.config.parent / "subject" / "good_0.txt"
    steps = (*fix.steps, Rewrite(good, good, fails, good.with_name("good_0.txt.bak")))
    with pytest.raises(InputError, match="no such letters"):
        replace(fix, steps=steps).apply()
    assert dict(files(planted.config.parent)) == before
    assert pending([planted.config.parent]) == []


def test_a_fix_that_was_interrupted_can_be_taken_back(planted: Planted) -> None:
    subject = planted.config.parent / "subject"
    before = dict(files(subject))
    journal = Journal.begin("unreadable", "Move 2 pictures.", [subject])
    journal.folder(subject / "_excluded")
    journal.move(subject / "empty.png", subject / "_excluded" / "empty.png")
    with journal.path.open("a", encoding="utf-8") as file:
        file.write('{"fix": "' + journal.id + '", "do": "mo')  # the machine stopped here
    (undo,) = pending([planted.config.parent])
    assert undo.files == 1 and undo.apply() == []
    assert dict(files(subject)) == before and not (subject / "_excluded").exists()


def test_what_was_changed_since_is_left_and_told(planted: Planted) -> None:
    undo = fix_of(planted, "caption_encoding").apply()
    caption = planted.config.parent / "subject" / "caption_encoding.txt"
    caption.write_text("better words", encoding="utf-8")
    left = undo.apply()
    assert any("was changed since" in sentence for sentence in left)
    assert caption.read_text(encoding="utf-8") == "better words"
    assert caption.with_name("caption_encoding.txt.bak").is_file()


def test_a_fix_is_taken_back_once(planted: Planted) -> None:
    undo = fix_of(planted, "caption_encoding").apply()
    assert undo.apply() == []
    assert undo.apply() == ["This fix was taken back before."]


def test_the_journal_is_not_in_the_dataset(planted: Planted, tmp_path: Path) -> None:
    undo = fix_of(planted, "exact_duplicate").apply()
    assert undo.journal.is_relative_to(tmp_path / "home")


def test_nothing_outside_the_dataset_is_touched(planted: Planted, tmp_path: Path) -> None:
    fix = fix_of(planted, "exact_duplicate")
    other = tmp_path / "other.png"
    other.write_bytes(b"mine")
    for step in (Move(other, fix.roots[0] / "x.png"), Move(fix.steps[0].source, tmp_path / "x.png")):
        with pytest.raises(InputError, match="outside the dataset"):
            replace(fix, steps=(step,)).apply()
    assert other.read_bytes() == b"mine"


def test_a_file_that_has_gone_meanwhile(planted: Planted) -> None:
    fix = fix_of(planted, "exact_duplicate")
    fix.steps[0].source.unlink()
    with pytest.raises(InputError, match="has changed or gone"):
        fix.apply()


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Takes the right to write into a folder; root keeps it, so for root the system's answer is played."""

    def take(folder: Path) -> None:
        folder.chmod(0o555)
        if os.access(folder, os.W_OK):
            real = os.open

            def refuse(path: Path, *rest: int) -> int:
                if Path(path).parent == folder:
                    raise PermissionError(13, "Permission denied")
                return real(path, *rest)

            monkeypatch.setattr(module.os, "open", refuse)

    return take


def test_a_read_only_folder_is_refused(planted: Planted, read_only: Callable[[Path], None]) -> None:
    fix = fix_of(planted, "exact_duplicate")
    subject = planted.config.parent / "subject"
    before = dict(files(subject))
    read_only(subject)
    with pytest.raises(EnvironmentFault) as raised:
        fix.apply()
    subject.chmod(0o755)
    assert f"cannot write to {subject} (permission denied)" in raised.value.text()
    assert isinstance(raised.value, AtelierError) and raised.value.exit_code == 3
    assert dict(files(subject)) == before


def test_without_a_journal_nothing_is_done(planted: Planted, tmp_path: Path) -> None:
    fix = fix_of(planted, "exact_duplicate")
    before = dict(files(planted.config.parent))
    (tmp_path / "home" / ".atelier").write_text("a file in its place")
    with pytest.raises(EnvironmentFault, match="cannot write to"):
        fix.apply()
    assert dict(files(planted.config.parent)) == before


def test_fixes_are_found_by_the_folder_even_when_nothing_is_left_in_it(clean: Planted) -> None:
    folder = clean.config.parent / "subject"
    for path in folder.glob("*.txt"):
        path.write_text("", encoding="utf-8")
    finding = lint(folder).get("caption_empty")
    assert finding is not None and finding.fix is not None
    finding.fix.apply()
    (undo,) = pending(roots_of(folder))
    assert undo.apply() == [] and len(list(folder.glob("*.png"))) == 8
