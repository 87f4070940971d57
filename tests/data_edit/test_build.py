"""Training sets out of folders of pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.data.edit import propose, write
from backend.data.plan import build_plan
from backend.errors import InputError
from backend.settings import Settings
from backend.settings.length import run_length
from tests.data.data_kit import add_picture

Make = Callable[..., Path]


def trained(options: dict[str, object]) -> tuple[int, int, list[str]]:
    """(steps, pictures without repeats, captions) of a training with these settings."""
    settings = Settings.from_flat(dict(options))
    plan = build_plan(settings, verify=False)
    length = run_length(settings, plan.batches_per_epoch())
    pictures = [picture for dataset in plan.datasets for picture in dataset.pictures]
    return length.steps, plan.image_count, sorted({picture.caption for picture in pictures})


@pytest.mark.parametrize(
    ("wanted", "batch", "epochs"), [(600, 1, 10), (1500, 2, 10), (137, 4, 3), (50, 1, 1)]
)
def test_the_steps_promised_are_the_steps_trained(
    originals: Make, tmp_path: Path, wanted: int, batch: int, epochs: int
) -> None:
    proposal = propose(
        originals(7), trigger="sks", class_word="dog", wanted_steps=wanted, batch_size=batch, epochs=epochs
    )
    written = write(proposal, tmp_path / "set.toml")
    assert written.files == (tmp_path / "set.toml",)
    assert (tmp_path / "set.toml").read_text(encoding="utf-8") == proposal.toml
    assert trained(dict(written.options))[0] == proposal.steps == proposal.preview()["steps"]
    # One repeat more or less would be further off.
    step = proposal.epochs * -(-7 // batch)
    assert abs(proposal.steps - wanted) <= max(step, proposal.epochs)


def test_folders_and_file_give_the_same_training(originals: Make, tmp_path: Path) -> None:
    source = originals(5, caption=None)
    proposal = propose(source, trigger="sks", class_word="dog", wanted_steps=300, epochs=5)
    assert proposal.folder_name == f"{proposal.repeats}_sks dog" and proposal.words == "sks dog"
    from_file = write(proposal, tmp_path / "out")
    from_folders = write(proposal, tmp_path / "folders", form="folders")
    assert from_file.files == (tmp_path / "out" / "dataset.toml",)
    assert len(from_folders.files) == 5
    assert (tmp_path / "folders" / "img" / proposal.folder_name / "img_00.png").is_file()
    assert trained(dict(from_file.options)) == trained(dict(from_folders.options))
    assert trained(dict(from_file.options))[2] == ["sks dog"]


def test_copies_keep_bytes_and_times_and_captions_come_along(originals: Make, tmp_path: Path) -> None:
    source = originals(3)
    proposal = propose(source, trigger="dog", wanted_steps=30, epochs=1)
    written = write(proposal, tmp_path / "out", form="folders")
    assert sorted(path.name for path in written.files) == sorted(path.name for path in source.iterdir())
    for path in written.files:
        original = source / path.name
        assert path.read_bytes() == original.read_bytes()
        assert path.stat().st_mtime_ns == original.stat().st_mtime_ns
        assert path.stat().st_ino != original.stat().st_ino


@pytest.mark.skipif(not hasattr(os, "link"), reason="needs links")
def test_links_share_pictures_but_never_captions(originals: Make, tmp_path: Path) -> None:
    source = originals(2)
    written = write(
        propose(source, trigger="dog", wanted_steps=10, epochs=1), tmp_path / "out", form="folders", link=True
    )
    same = {path.suffix: path.stat().st_ino == (source / path.name).stat().st_ino for path in written.files}
    assert same == {".png": True, ".txt": False}


def test_a_trigger_that_no_caption_has_goes_in_front(originals: Make, tmp_path: Path) -> None:
    proposal = propose(originals(3), trigger="sks", class_word="dog", wanted_steps=30, epochs=1)
    assert 'caption_prefix = "sks dog,"' in proposal.toml
    assert any("No caption has the trigger word" in note for note in proposal.notes)
    folders = write(proposal, tmp_path / "out", form="folders")
    assert folders.options["caption_prefix"] == "sks dog,"


def test_captions_that_lack_the_trigger_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "a.png", caption="sks dog on grass")
    add_picture(folder, "b.png", caption="a dog")
    add_picture(folder, "c.png", caption=None)
    proposal = propose(folder, trigger="sks", wanted_steps=30, epochs=1)
    assert "caption_prefix" not in proposal.toml
    assert any("missing in 1 caption: b.png" in note for note in proposal.notes)
    assert proposal.captions_found == 2


def test_a_style_without_captions_is_told_why_they_help(originals: Make) -> None:
    proposal = propose(originals(2, caption=None), kind="style", trigger="inky", wanted_steps=20, epochs=1)
    assert proposal.words == "inky style"
    assert any("2 pictures without a caption" in note for note in proposal.notes)


def test_regularisation_counts_in_the_steps(originals: Make, tmp_path: Path) -> None:
    source, reg = originals(4), originals(3, name="dogs", caption=None)
    proposal = propose(source, trigger="sks", class_word="dog", wanted_steps=400, epochs=5, reg_folder=reg)
    assert trained(dict(write(proposal, tmp_path / "a.toml").options))[0] == proposal.steps
    assert abs(proposal.steps - 400) <= 2 * 4 * 5
    folders = write(proposal, tmp_path / "out", form="folders")
    assert (tmp_path / "out" / "reg" / "1_dog" / "img_02.png").is_file()
    assert trained(dict(folders.options))[0] == proposal.steps


def test_a_validation_part_is_kept_out_of_training_and_of_the_steps(originals: Make, tmp_path: Path) -> None:
    proposal = propose(originals(10), trigger="sks", wanted_steps=200, epochs=5, validation_share=0.2)
    assert (proposal.steps, proposal.repeats) == (200, 5)
    for form, target in (("toml", tmp_path / "set.toml"), ("folders", tmp_path / "out")):
        options = dict(write(proposal, target, form=form).options)  # type: ignore[arg-type]
        plan = build_plan(Settings.from_flat(options), verify=False)
        assert (plan.image_count, plan.validation and plan.validation.image_count) == (8, 2)
        assert trained(options)[0] == 200


def test_too_many_pictures_lower_the_epochs(originals: Make) -> None:
    proposal = propose(originals(6), trigger="sks", wanted_steps=12, epochs=10)
    assert (proposal.repeats, proposal.epochs, proposal.steps) == (1, 2, 12)
    assert any("10 epochs would be more than 12 steps" in note for note in proposal.notes)


def test_nothing_is_replaced_and_nothing_is_written_among_the_originals(
    originals: Make, tmp_path: Path
) -> None:
    source = originals(2)
    proposal = propose(source, trigger="sks", wanted_steps=10, epochs=1)
    write(proposal, tmp_path / "set.toml")
    with pytest.raises(InputError, match="exists already"):
        write(proposal, tmp_path / "set.toml")
    write(proposal, tmp_path / "out", form="folders")
    with pytest.raises(InputError, match="would be replaced"):
        write(proposal, tmp_path / "out", form="folders")
    with pytest.raises(InputError, match="where the originals are"):
        write(proposal, source, form="folders")


def test_broken_pictures_are_left_out_and_the_training_knows(originals: Make, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    add_picture(folder, "a.png", caption="sks")
    (folder / "b.png").write_bytes(b"")
    proposal = propose(folder, trigger="sks", wanted_steps=10, epochs=1)
    assert len(proposal.pictures) == 1 and any("b.png" in note for note in proposal.notes)
    written = write(proposal, tmp_path / "set.toml")
    assert trained(dict(written.options))[:2] == (10, 1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trigger": ""}, "needs a trigger word"),
        ({"wanted_steps": 0}, "wanted_steps: 0 is below 1"),
        ({"validation_share": 0.9}, "outside 0 to 0.5"),
    ],
)
def test_what_cannot_be_used_is_said(originals: Make, values: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        propose(originals(2), **{"trigger": "sks", **values})  # type: ignore[arg-type]


def test_a_folder_without_pictures_or_words_no_folder_can_have(originals: Make, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="No images in"):
        propose(tmp_path / "empty", trigger="sks")
    with pytest.raises(InputError, match="Folder not found"):
        propose(tmp_path / "nowhere", trigger="sks")
    proposal = propose(originals(2), trigger="a/b", wanted_steps=10, epochs=1)
    with pytest.raises(InputError, match="cannot be the name of a folder"):
        write(proposal, tmp_path / "out", form="folders")
    assert trained(dict(write(proposal, tmp_path / "set.toml").options))[0] == 10


def test_names_of_every_script_work(tmp_path: Path) -> None:
    folder = tmp_path / "写真 [ü] #1 \"x\" 'y' %"
    add_picture(folder, "猫 1.png", caption="sks 猫")
    proposal = propose(folder, trigger="sks", class_word="猫", wanted_steps=10, epochs=1)
    written = write(proposal, tmp_path / "セット.toml")
    assert trained(dict(written.options)) == (10, 1, ["sks 猫"])
