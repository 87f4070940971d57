"""Presets: those that come along are right, and a user's own are kept safely."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import InputError
from backend.settings import Settings, check, delete_preset, list_presets, read_preset, save_preset
from backend.settings.presets import BUNDLED, Preset

ALL = list_presets()


def test_there_are_presets_for_the_usual_cases() -> None:
    assert {path.stem for path in (BUNDLED / "sd15").glob("*.toml")} >= {
        "character",
        "style",
        "small-card",
        "card-12gb",
        "quick-look",
        "demo",
    }


@pytest.mark.parametrize("family", ["sd21", "sdxl"])
def test_other_families_have_them_too(family: str) -> None:
    names = {path.stem for path in (BUNDLED / family).glob("*.toml")}
    assert names >= {"character", "style", "small-card", "card-12gb", "card-24gb", "quick-look"}
    assert family != "sdxl" or "adafactor" in names


@pytest.mark.parametrize("preset", ALL, ids=lambda preset: preset.path.stem)
def test_a_bundled_preset_is_right(preset: Preset) -> None:
    assert preset.problems == ()
    assert preset.title and preset.description and preset.family and preset.method and not preset.own
    verdict = check(preset.settings, complete=False)
    assert verdict.errors == [] and verdict.settings == preset.settings
    assert all("no sample pictures are drawn" in note.what for note in verdict.notes)


@pytest.mark.parametrize("preset", ALL, ids=lambda preset: preset.path.stem)
def test_a_bundled_preset_says_only_what_differs_and_why(preset: Preset) -> None:
    lines = preset.path.read_text(encoding="utf-8").split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith("[") and line != "[preset]")
    keys = [number for number, line in enumerate(lines) if number > start and "=" in line and line[0] != "#"]
    assert {lines[number].split(" =")[0] for number in keys} == set(preset.values)
    assert all(lines[number - 1].startswith("# ") for number in keys)


def test_save_list_read_delete(tmp_path: Path) -> None:
    given = {
        "network_dim": 8,
        "train_data_dir": "/home/me/pictures",
        "output_name": "me",
        "sample_prompt_text": "a cat",
    }
    path = save_preset(tmp_path, "  Mein  Größtes / Bild ", Settings.from_flat(given), "for me", family="sd1")
    assert path.name == "mein-größtes-bild.toml"
    mine = read_preset(path, own=True)
    assert (mine.title, mine.description, mine.family, mine.own) == (
        "Mein Größtes / Bild",
        "for me",
        "sd1",
        True,
    )
    assert mine.values == {"network_dim": 8}
    assert [preset for preset in list_presets(tmp_path) if preset.own] == [mine]
    assert len(list_presets(tmp_path)) == len(ALL) + 1

    gone = delete_preset(path)
    assert not path.exists() and gone.is_file() and gone.parent.name == ".trash"
    again = delete_preset(save_preset(tmp_path, mine.title, mine.settings))
    assert again != gone and gone.is_file()
    assert list_presets(tmp_path) == ALL


def test_a_name_that_is_taken_is_only_replaced_when_asked(tmp_path: Path) -> None:
    path = save_preset(tmp_path, "Mine", Settings.from_flat({"network_dim": 8}))
    with pytest.raises(InputError, match="already"):
        save_preset(tmp_path, "mine", Settings())
    assert read_preset(path).values == {"network_dim": 8}
    save_preset(tmp_path, "mine", Settings.from_flat({"network_dim": 16}), replace=True)
    assert read_preset(path).values == {"network_dim": 16}
    with pytest.raises(InputError, match="no name"):
        save_preset(tmp_path, "  ", Settings())


def test_bundled_presets_are_not_deleted() -> None:
    with pytest.raises(InputError, match="comes with Atelier"):
        delete_preset(ALL[0].path)
    assert ALL[0].path.is_file()


def test_a_broken_preset_says_why_and_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("network_dim = 0\noutput_name = 'x'\n", encoding="utf-8")
    save_preset(tmp_path, "fine", Settings())
    broken, fine = [preset for preset in list_presets(tmp_path) if preset.own]
    assert fine.problems == () and broken.values == {}
    told = "\n".join(problem.text() for problem in broken.problems)
    assert "line 1: network_dim: 0 is out of range" in told and "output_name belongs to one run" in told
