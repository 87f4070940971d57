"""The command lines as people type them, run in this process."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.annotate import options
from backend.annotate.settings import CaptioningSettings, MergingSettings, TaggingSettings
from backend.errors import run_main
from tests.annotate.onnx_kit import write_tagger

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(tool: str, *words: object) -> tuple[int, str]:
        path = root / "tools" / f"{tool}.py"
        spec = importlib.util.spec_from_file_location(f"tool_{tool}", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, words)])
        code = run_main(module.main)
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


@pytest.fixture
def tagger(tmp_path: Path) -> Path:
    return write_tagger(tmp_path / "model", [("long_hair", 0), ("c", 0)], [[0, 0]] * 3, [3, -3])


def test_tagging_cleaning_and_merging_as_in_the_documents(
    run: Run, folder: Path, tagger: Path, tmp_path: Path
) -> None:
    (folder / "img_05.png").write_bytes(b"")
    code, said = run(
        "tag_images_by_wd14_tagger", "--batch_size", 4, "--onnx", "--thresh", 0.8, "--remove_underscore",
        "--model_dir", tagger, folder,
    )  # fmt: skip
    assert code == 4 and "wrote tags for 5 of 6 pictures" in said and "failed: img_05.png is empty" in said
    assert (folder / "img_00.txt").read_text() == "long hair"
    for name in ("img_00", "img_01"):
        (folder / f"{name}.caption").write_text("there is a dog")
    first, second, clean = (
        tmp_path / name for name in ("meta_cap.json", "meta_cap_dd.json", "meta_clean.json")
    )
    code, said = run("merge_captions_to_metadata", "--full_path", folder, first)
    assert code == 0 and "took in the text of 2 of 6 pictures" in said
    code, said = run("merge_dd_tags_to_metadata", "--full_path", folder, "--in_json", first, second)
    assert code == 0 and json.loads(second.read_text())[str(folder / "img_00.png")] == {
        "caption": "there is a dog",
        "tags": "long hair",
    }
    code, said = run("clean_captions_and_tags", second, clean, "--debug")
    assert code == 0 and "+ a dog" in said and "changed 2 texts of 5 pictures" in said
    assert json.loads(clean.read_text())[str(folder / "img_00.png")]["caption"] == "a dog"
    assert "there is" in second.read_text()
    code, said = run("clean_captions_and_tags", second, second)
    assert code == 2 and "written over itself" in said and "there is" in second.read_text()
    code, said = run("clean_captions_and_tags", second, second, "--overwrite")
    assert code == 0 and "there is" not in second.read_text() and "is kept as meta_cap_dd-before-" in said
    code, said = run("tag_images_by_wd14_tagger", "--undo", folder)
    assert code == 0 and "5 files are as they were" in said and not list(folder.glob("*.txt"))
    code, said = run("tag_images_by_wd14_tagger", "--undo", folder)
    assert code == 2 and "is left to take back" in said


def test_merging_adds_to_a_file_that_is_there_and_tells_of_other_endings(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "meta.json"
    out.write_text('{"other.png": {"caption": "x"}}')
    (folder / "img_00.txt").write_text("words")
    code, said = run("merge_captions_to_metadata", folder, out)
    assert (
        code == 0 and "no text here ends with .caption; there are .txt files" in said and "adding to" in said
    )
    assert run("merge_captions_to_metadata", folder, out, "--caption_extention", ".txt")[0] == 0
    assert json.loads(out.read_text()) == {"other.png": {"caption": "x"}, "img_00.png": {"caption": "words"}}


def test_texts_of_a_folder_are_cleaned_by_rules_of_ones_own(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "img_00.txt").write_text("a dog")
    rules = tmp_path / "rules.json"
    assert run("clean_captions_and_tags", "--write_rules", rules)[0] == 0
    assert len(json.loads(rules.read_text())) > 5
    assert run("clean_captions_and_tags", "--write_rules", rules)[0] == 2
    rules.write_text('[{"on": "caption", "kind": "replace", "pattern": "dog", "with": "cat"}]')
    assert run("clean_captions_and_tags", "--train_data_dir", folder, "--rules", rules)[0] == 0
    assert (folder / "img_00.txt").read_text() == "a cat"
    assert run("clean_captions_and_tags", "--train_data_dir", folder, "--undo")[0] == 0
    assert (folder / "img_00.txt").read_text() == "a dog"
    assert run("clean_captions_and_tags")[0] == 2


def test_captions_by_blip_and_by_git(run: Run, folder: Path, tmp_path: Path) -> None:
    from tests.annotate import captioner_kit

    for path in sorted(folder.iterdir())[2:]:
        path.unlink()
    code, said = run("make_captions", "--batch_size", 8, "--caption_weights", "bundled", "--seed", 3, folder)
    assert code == 0 and "wrote captions for 2 of 2" in said and len(list(folder.glob("*.caption"))) == 2
    model = captioner_kit.make("git", tmp_path / "git")
    code, said = run(
        "make_captions_by_git",
        "--model_id",
        model,
        "--max_length",
        6,
        "--caption_extension",
        ".cap",
        "--remove_words",
        folder,
    )
    assert code == 0 and all(0 < len(path.read_text().split()) <= 6 for path in folder.glob("*.cap"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--thresh", "2"], "thresh: 2.0 cannot be used"),
        (["--batch_size", "0"], "allowed: 1 to 512"),
        (["--tag_replacement", "a"], "not of the form"),
    ],
)
def test_values_out_of_range_are_refused(
    run: Run, folder: Path, tagger: Path, words: list[str], said: str
) -> None:
    code, text = run("tag_images_by_wd14_tagger", folder, "--repo_id", tagger, *words)
    assert code == 2 and said in text


def test_options_are_those_of_the_reference(root: Path) -> None:
    path = root.parent / "shared" / "reference" / "options.json"
    if not path.is_file():
        pytest.skip("the reference of options is not at hand")
    reference = json.loads(path.read_text())
    known = {
        "finetune/tag_images_by_wd14_tagger.py": TaggingSettings,
        "finetune/make_captions.py": CaptioningSettings,
    }
    for script, section in known.items():
        fields = {option["key"]: option for option in options.form(section)}
        for option in reference[script]:
            name = option["name"]
            if name == "caption_extention":
                continue
            assert name in fields, name
            if name not in ("train_data_dir", "caption_weights") and "default" in option:
                assert fields[name]["default"] == option["default"], name


def test_a_form_gives_the_command_that_does_the_same() -> None:
    values = {
        "train_data_dir": "/x y",
        "thresh": 0.5,
        "recursive": True,
        "remove_underscore": False,
        "undesired_tags": "",
    }
    line = options.command("tag.py", TaggingSettings, values, ("train_data_dir",))
    assert line == "python tools/tag.py '/x y' --thresh 0.5 --recursive"
    assert (
        options.command("m.py", MergingSettings, {}, ("train_data_dir", "out_json"))
        == "python tools/m.py TRAIN_DATA_DIR OUT_JSON"
    )


def test_every_option_is_used(root: Path) -> None:
    """An option that nothing reads would be a promise that is not kept."""
    from tests import house

    files = [path for path in house.sources() if "annotate" in path.parts and path.name != "settings.py"]
    words = {word for path in files for word in house.words_read(path)} | house.words_read(
        root / "backend/annotate/settings.py"
    )
    body = (root / "backend/annotate/settings.py").read_text()
    used = body[body.index("def thresholds") :]
    fields = {
        option["key"]
        for section in (TaggingSettings, CaptioningSettings, MergingSettings)
        for option in options.form(section)
    }
    by_name = {
        "general_threshold",
        "character_threshold",
        "copyright_threshold",
        "artist_threshold",
        "meta_threshold",
        "model_threshold",
    }
    unread = [key for key in fields - by_name - {"onnx"} if key not in words and key not in used]
    assert unread == [] and '_threshold"' in used
