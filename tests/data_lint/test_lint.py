"""The doctor finds every planted fault and nothing else, remembers, and can be stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from backend.data import images
from backend.data.lint import RULES, Findings, lint
from backend.demo.planted import Planted, plant
from backend.demo.world import Scene, Thing, render
from backend.errors import InputError
from backend.settings import Settings


def found(findings: Findings) -> dict[str, set[str]]:
    return {one.rule: {example.path.name for example in one.examples} for one in findings.findings}


def test_every_planted_fault_is_found_and_nothing_else(planted: Planted) -> None:
    findings = lint(planted.config)
    assert found(findings) == planted.faults
    assert all(one.count == len(planted.faults[one.rule]) for one in findings.findings)
    assert findings.exit_code == 2


def test_every_rule_is_planted(planted: Planted) -> None:
    system_dependent = {"name_control", "unicode_twins", "caption_unreadable"}
    assert {rule.id for rule in RULES} - system_dependent <= planted.faults.keys()


def test_nothing_is_found_in_a_clean_dataset(clean: Planted) -> None:
    findings = lint(clean.config)
    assert findings.findings == () and findings.exit_code == 0 and findings.pictures == 16


def test_another_seed_gives_other_pictures_with_the_same_faults(tmp_path: Path, planted: Planted) -> None:
    other = plant(tmp_path / "other", seed=7)
    assert found(lint(other.config)) == other.faults == planted.faults


def detail(findings: Findings, rule: str, name: str) -> str:
    one = findings.get(rule)
    assert one is not None
    return next(example.detail for example in one.examples if example.path.name == name)


def test_details_say_how_much_and_what(planted: Planted) -> None:
    findings = lint(planted.config)
    assert detail(findings, "unreadable", "cut_off.png") == "is cut off (pixel data ends early)"
    assert detail(findings, "unreadable", "empty.png") == "is empty (0 bytes)"
    assert detail(findings, "unreadable", "page.jpg") == "is not an image (looks like HTML)"
    assert detail(findings, "upscaled", "small.png") == "64x64 px, enlarged 2.00 times"
    assert detail(findings, "cropped", "long.png") == "60% would be cut off (1600x160 px in 256x64)"
    assert detail(findings, "animated", "moving.webp").startswith("an animation (3 frames)")
    cut = detail(findings, "caption_cut", "caption_cut.png")
    assert "of 75 tokens" in cut and "max_token_length 225" in cut and "green leaves" in cut
    assert detail(findings, "trigger_spelling", "spelt_0.png") == "'zorvex' for 'zorvek'"
    assert detail(findings, "caption_encoding", "caption_encoding.txt").startswith(
        "is not UTF-8 (looks like Shift-JIS"
    )
    assert detail(findings, "small_bucket", "tall.png") == "64x192 has 1 picture for batches of 4"
    assert "'outdors'" in detail(findings, "tag_once", "tagged_3.png")


def test_findings_are_plain_data(planted: Planted) -> None:
    findings = lint(planted.config)
    data = json.loads(json.dumps(findings.as_dict()))
    assert len(data["findings"]) == len(findings.findings)
    severities = [one["severity"] for one in data["findings"]]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_what_has_not_changed_is_not_opened_again(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lint(planted.config)
    opened: list[int] = []
    real = images.decode_with_alpha

    def count(data: bytes) -> object:
        opened.append(len(data))
        return real(data)

    monkeypatch.setattr(images, "decode_with_alpha", count)
    assert found(lint(planted.config)) == found(first)
    assert len(opened) == 0

    changed = planted.config.parent / "subject" / "good_1.png"
    render(Scene((Thing("star", "red"),), "blue"), 99).save(changed)
    lint(planted.config)
    assert len(opened) == 1


def test_a_damaged_memory_is_made_anew(planted: Planted, tmp_path: Path) -> None:
    first = lint(planted.config)
    files = list((tmp_path / "home" / ".cache" / "doctor").iterdir())
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:-40] + b"\x00{broken")
    assert found(lint(planted.config)) == found(first)


def test_nothing_is_written_into_the_dataset(planted: Planted) -> None:
    def state() -> list[tuple[str, int, int]]:
        paths = sorted(planted.config.parent.rglob("*"))
        return [(str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths]

    before = state()
    lint(planted.config)
    assert state() == before


def test_progress_is_told_and_a_stop_is_obeyed(planted: Planted) -> None:
    told: list[tuple[str, int, int]] = []
    lint(planted.config, progress=lambda *step: told.append(step))
    assert any(done == total > 50 for phase, done, total in told if phase == "looking")

    stopped = lint(planted.config, should_stop=lambda: True)
    assert not stopped.complete and stopped.pictures < 10


def test_a_folder_settings_and_a_training_config_are_taken(clean: Planted, tmp_path: Path) -> None:
    folder = clean.config.parent / "subject"
    by_folder = lint(folder)
    by_settings = lint(Settings.from_flat({"train_data_dir": str(folder), "caption_extension": ".txt"}))
    config = tmp_path / "training.toml"
    config.write_text(f'train_data_dir = "{folder.as_posix()}"\n', encoding="utf-8")
    assert found(by_folder) == found(by_settings) == found(lint(config))
    assert by_folder.pictures == 8
    assert set(found(by_folder)) == {"upscaled"}  # 128 px pictures at the usual 512


def test_the_token_limit_is_the_training_s(planted: Planted) -> None:
    folder = str(planted.config.parent / "subject")
    base = {"train_data_dir": folder, "resolution": "128"}
    assert "caption_cut" in found(lint(Settings.from_flat({**base, "max_token_length": 150})))
    assert "caption_cut" not in found(lint(Settings.from_flat({**base, "max_token_length": 225})))


def test_a_trigger_word_can_be_given(clean: Planted) -> None:
    findings = lint(clean.config, trigger="zorvek robot")
    assert not findings.findings
    other = lint(clean.config, trigger="blorb")
    assert found(other) == {"trigger_missing": {"subject", "masked"}}
    assert other.exit_code == 0


@pytest.mark.parametrize("name", ["missing.toml", "missing"])
def test_a_source_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=name):
        lint(tmp_path / name)


def test_a_config_with_mistakes_is_refused_with_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "dataset.toml"
    path.write_text("[general]\nshuffel_caption = true\n[[datasets]]\nresolution = 64\n", encoding="utf-8")
    with pytest.raises(InputError) as raised:
        lint(path)
    assert "shuffle_caption" in raised.value.text() and "no subsets" in raised.value.text()


def test_photographs(tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data")
    folder = Path(data.__file__).parent
    names = (
        "astronaut",
        "coffee",
        "chelsea",
        "camera",
        "motorcycle_left",
        "motorcycle_right",
        "brick",
        "grass",
        "moon",
    )
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in names:
        (photos / f"{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
        (photos / f"{name}.txt").write_text(f"a photo of {name}", encoding="utf-8")
    with Image.open(photos / "astronaut.png") as picture:
        picture.resize((400, 400)).save(photos / "again.jpg", quality=70)
    (photos / "again.txt").write_text("once more", encoding="utf-8")
    settings = Settings.from_flat(
        {"train_data_dir": str(photos), "resolution": "256", "enable_bucket": True, "min_bucket_reso": 128}
    )
    # The motorcycle was taken with two lenses side by side.
    assert found(lint(settings)) == {"near_duplicate": {"again.jpg", "motorcycle_right.png"}}
