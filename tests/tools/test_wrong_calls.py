"""Every tool ends a wrong call with exit code 2 and a message, never with a traceback, and leaves nothing."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import ROOT
from tests.weights.weights_kit import make_lora

TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))
NO_COMMANDS = ("bench_models",)
PASSES_ON = ("run_tests",)
"""Its arguments are pytest's."""
NEEDS_NOTHING = ("make_constraints", "make_demo", "make_reference", "run_tests")
"""Without an argument these do what they are for, as benchmarks do."""

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a tool in this process; its exit code, and what it said."""

    def run(tool: str, *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [f"{tool}.py", *map(str, arguments)])
        threads = torch.get_num_threads()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "tools" / f"{tool}.py"), run_name="__main__")
        torch.set_num_threads(threads)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.err

    return run


class Place:
    """A folder with every kind of wrong file, a sound LoRA and a folder of pictures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pictures = folder / "pictures"
        self.pictures.mkdir()
        Image.new("RGB", (64, 64), (200, 30, 30)).save(self.pictures / "a.png")
        self.lora = make_lora(folder / "lora.safetensors")
        (folder / "page.safetensors").write_text("<html>404</html>")
        (folder / "empty.safetensors").write_bytes(b"")
        (folder / "notes.txt").write_text("some text")
        (folder / "list.json").write_text("[1, 2]")
        (folder / "broken.json").write_text('{"a": 1,\n  "b": [}\n')
        (folder / "metadata.json").write_text('{"a.png": {"caption": "a"}}')
        (folder / "bare").mkdir()
        self.before = self.files()

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}

    def word(self, word: object) -> object:
        """A word of a call: names of the folder are written as ``@name``."""
        return self.folder / word[1:] if isinstance(word, str) and word.startswith("@") else word


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "wrong").mkdir()
    return Place(tmp_path / "wrong")


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool not in (*NO_COMMANDS, *PASSES_ON)])
def test_an_unknown_option(tool: str, call: Call) -> None:
    code, said = call(tool, "--no_such_option_here", "3")
    assert code == 2 and ("no_such_option_here" in said or "usage" in said)


@pytest.mark.parametrize(
    "tool",
    [tool for tool in TOOLS if tool not in (*NO_COMMANDS, *NEEDS_NOTHING) and not tool.startswith("bench")],
)
def test_no_argument(tool: str, call: Call, place: Place) -> None:
    code, said = call(tool)
    assert code == 2 and len(said) > 20


TRAINERS = (
    "train_network", "sdxl_train_network", "sd3_train_network", "train_db", "fine_tune", "sdxl_train",
    "sd3_train", "cache_latents", "cache_text_encoder_outputs",
)  # fmt: skip
WORDS = ("train_textual_inversion", "train_textual_inversion_XTI", "sdxl_train_textual_inversion")
TRAINING = ("--pretrained_model_name_or_path", "IN", "--train_data_dir", "@pictures", "--resolution", 64)
READ = {
    "check_lora_weights": ("IN",),
    "show_metadata": ("--model", "IN"),
    "convert_diffusers20_original_sd": ("IN", "@out.safetensors"),
    "convert_lora": ("--model", "IN", "--save_to", "@out.safetensors"),
    "extract_lora_from_dylora": ("--unit", 2, "--model", "IN", "--save_to", "@out.safetensors"),
    "extract_lora_from_models": ("--model_org", "IN", "--model_tuned", "IN", "--save_to", "@out.safetensors"),
    "lycoris_locon_extract": ("IN", "IN", "@out.safetensors"),
    "merge_lora": ("--models", "IN", "--ratios", 1, "--save_to", "@out.safetensors"),
    "sdxl_merge_lora": ("--models", "IN", "--ratios", 1, "--save_to", "@out.safetensors"),
    "sd3_merge_lora": ("--models", "IN", "--ratios", 1, "--save_to", "@out.safetensors"),
    "svd_merge_lora": ("--models", "IN", "--ratios", 1, "--save_to", "@out.safetensors", "--new_rank", 2),
    "merge_lycoris": ("IN", "@lora.safetensors", "@out.safetensors"),
    "merge_models": ("--models", "IN", "IN", "--output", "@out.safetensors"),
    "merge_sd3_safetensors": ("--dit", "IN", "--output", "@out.safetensors"),
    "resize_lora": ("--model", "IN", "--save_to", "@out.safetensors", "--new_rank", 2),
    "gen_img": ("--ckpt", "IN", "--prompt", "a cat", "--outdir", "@out"),
    "sdxl_gen_img": ("--ckpt", "IN", "--prompt", "a cat", "--outdir", "@out"),
    "prepare_buckets_latents": ("@pictures", "@metadata.json", "@out.json", "IN"),
    "probe_step": ("--tensors", "IN", "--captions", "@list.json", "--out", "@out.json"),
    **dict.fromkeys(TRAINERS, TRAINING),
    **dict.fromkeys(WORDS, (*TRAINING, "--token_string", "mycat", "--init_word", "cat")),
    "sdxl_train_control_net_lllite": (*TRAINING, "--conditioning_data_dir", "@pictures"),
}  # fmt: skip
"""Tool -> a call with a model file (or tensors) as IN."""
SAID = {
    "missing.safetensors": "not found",
    "page.safetensors": "HTML",
    "empty.safetensors": "empty",
    "bare": "folder",
}


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("tool", READ)
def test_a_file_that_is_no_model(tool: str, name: str, call: Call, place: Place) -> None:
    code, said = call(tool, *(place.word(f"@{name}" if word == "IN" else word) for word in READ[tool]))
    assert code == 2 and SAID[name] in said and name in said
    assert place.files() == place.before


WRITE = {
    "show_metadata": ("--model", "@lora.safetensors", "--strip", "--save_to", "OUT"),
    "convert_lora": ("--model", "@lora.safetensors", "--to", "diffusers", "--save_to", "OUT"),
    "extract_lora_from_dylora": ("--unit", 2, "--model", "@lora.safetensors", "--save_to", "OUT"),
    "merge_lora": ("--models", "@lora.safetensors", "--ratios", 1, "--save_to", "OUT"),
    "svd_merge_lora": ("--models", "@lora.safetensors", "--ratios", 1, "--new_rank", 2, "--save_to", "OUT"),
    "resize_lora": ("--model", "@lora.safetensors", "--new_rank", 2, "--save_to", "OUT"),
    "make_random_sd15": ("OUT",),
}  # fmt: skip
"""Tool -> a call that writes the model file OUT."""


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("notes.txt/out.safetensors", "is a file"),
        ("n" * 300 + ".safetensors", "too long"),
        ("bare", "end the name in"),
    ],
)
@pytest.mark.parametrize("tool", WRITE)
def test_a_model_file_that_cannot_be_written(
    tool: str, name: str, word: str, call: Call, place: Place
) -> None:
    code, said = call(tool, *(place.word(f"@{name}" if part == "OUT" else part) for part in WRITE[tool]))
    assert code == 2 and word in said and "-> " in said
    assert place.files() == place.before


@pytest.mark.parametrize("tool", [tool for tool in WRITE if "@lora.safetensors" in WRITE[tool]])
def test_an_input_is_never_written_over(tool: str, call: Call, place: Place) -> None:
    if tool == "extract_lora_from_dylora":
        (place.folder / "lora-0002.safetensors").write_bytes(b"somebody's file")
    before = {path: path.read_bytes() for path in place.folder.glob("*.safetensors")}
    code, said = call(tool, *(place.word("@lora.safetensors" if w == "OUT" else w) for w in WRITE[tool]))
    assert code == 2 and "-> " in said and ("the output is the input" in said or "is there already" in said)
    assert all(path.read_bytes() == data for path, data in before.items())


FOLDERS = {
    "group_images": ("IN", "OUT"),
    "make_canny": ("IN", "OUT"),
    "make_dreambooth_folder": ("IN", "OUT"),
    "resize_images_to_resolution": ("IN", "OUT"),
    "merge_captions_to_metadata": ("IN", "OUT"),
    "merge_dd_tags_to_metadata": ("IN", "OUT"),
}
"""Tool -> a call with a folder of pictures IN and what is written OUT."""


@pytest.mark.parametrize("name", ["missing", "notes.txt", "bare"])
@pytest.mark.parametrize("tool", [*FOLDERS, "make_captions", "make_captions_by_git", "lint_dataset"])
def test_a_folder_without_pictures(tool: str, name: str, call: Call, place: Place) -> None:
    words = {"IN": f"@{name}", "OUT": "@out"}
    code, said = call(tool, *(place.word(words[word]) for word in FOLDERS.get(tool, ("IN",))))
    assert code == 2 and name in said
    assert place.files() == place.before


@pytest.mark.parametrize("name", ["notes.txt/out", "n" * 300])
@pytest.mark.parametrize("tool", FOLDERS)
def test_a_place_where_nothing_can_be_written(tool: str, name: str, call: Call, place: Place) -> None:
    code, said = call(tool, place.pictures, place.folder / name)
    assert code == 2 and name[:20] in said and "-> " in said
    assert place.files() == place.before


@pytest.mark.parametrize(
    ("name", "word"), [("missing.json", "missing.json"), ("broken.json", "line 2"), ("list.json", "table")]
)
@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("clean_captions_and_tags", ("IN", "@out.json")),
        ("merge_captions_to_metadata", ("@pictures", "@out.json", "--in_json", "IN")),
        ("merge_dd_tags_to_metadata", ("@pictures", "@out.json", "--in_json", "IN")),
        ("prepare_buckets_latents", ("@pictures", "IN", "@out.json", "@lora.safetensors")),
    ],
)
def test_metadata_that_cannot_be_read(
    tool: str, words: tuple[str, ...], name: str, word: str, call: Call, place: Place
) -> None:
    code, said = call(tool, *(place.word(f"@{name}" if part == "IN" else part) for part in words))
    assert (code == 2 and word in said) or (tool == "prepare_buckets_latents" and code == 2)
    assert place.files() == place.before


def test_one_bad_picture_does_not_stop_the_others(call: Call, place: Place) -> None:
    (place.pictures / "b.png").write_bytes(b"")
    for tool in ("make_canny", "resize_images_to_resolution", "make_dreambooth_folder"):
        code, _ = call(tool, place.pictures, place.folder / f"out-{tool}")
        assert code == 4, tool
        assert any(path.suffix in (".png", ".jpg") for path in (place.folder / f"out-{tool}").rglob("*"))


@pytest.mark.parametrize("name", ["notes.txt/out", "n" * 300])
def test_no_picture_is_drawn_that_could_not_be_saved(
    name: str, call: Call, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.families.load", lambda *_, **__: pytest.fail("a model was loaded"))
    code, said = call("gen_img", "--ckpt", place.lora, "--prompt", "x", "--outdir", place.folder / name)
    assert code == 2 and name[:20] in said and "-> " in said
    assert place.files() == place.before
