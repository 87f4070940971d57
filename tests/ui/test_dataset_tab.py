"""The Dataset page's server side, called as the page's script calls it."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.data.lint import RULES
from ui.calls import callable_from_page
from ui.context import Context
from ui.drafts import Drafts
from ui.i18n import catalogue
from ui.tabs import dataset
from ui.tabs.dataset.building import BuildCalls
from ui.tabs.dataset.captions import CaptionCalls
from ui.tabs.dataset.doctor import DoctorCalls
from ui.tabs.dataset.looking import LookCalls
from ui.tabs.dataset.preparing import PrepareCalls
from ui.tabs.dataset.shelf import Shelf

ASSETS = Path(dataset.__file__).resolve().parents[2] / "assets"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    home = tmp_path / "home"
    monkeypatch.setenv("ATELIER_HOME", str(home))
    return Shelf(Context(home, home / "runs", Drafts(home / ".atelier" / "drafts")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "cats"
    place.mkdir()
    for index, words in enumerate(("sks, cat, grass", "sks, dog", "")):
        noise = np.random.default_rng(index).integers(0, 255, (96 + 16 * index, 128, 3), dtype=np.uint8)
        Image.fromarray(noise).save(place / f"{index}.png")
        if words:
            (place / f"{index}.txt").write_text(words, encoding="utf-8")
    return place


def call(method: Any, **data: Any) -> dict[str, Any]:
    """As the page does: faults come back as problems, and the answer must be JSON."""
    reply = callable_from_page(method)(data)
    return json.loads(json.dumps(reply))


def what(reply: dict[str, Any]) -> str:
    return " ".join(problem["what"] for problem in reply["problems"])


def test_opening_tells_the_figures_and_is_remembered(shelf: Shelf, folder: Path) -> None:
    look = LookCalls(shelf)
    reply = call(look.open_dataset, path=f" {folder} ", again=True)
    assert reply["problems"] == []
    facts = reply["facts"]
    assert (facts["pictures"], facts["captioned"], facts["masked"], facts["batches"]) == (3, 2, 0, 3)
    assert facts["tags"][0] == ["sks", 2]
    assert facts["buckets"] == [{"size": [512, 512], "count": 3}]
    opened = call(look.open_page)
    assert opened["path"] == str(folder)
    assert opened["recent"] == [str(folder)]


def test_the_buckets_are_those_of_the_train_page(shelf: Shelf, folder: Path) -> None:
    shelf.context.drafts.save("train", {"enable_bucket": True, "resolution": "64", "min_bucket_reso": 32})
    facts = call(LookCalls(shelf).open_dataset, path=str(folder), again=True)["facts"]
    assert [bucket["size"] for bucket in facts["buckets"]] != [[512, 512]]


@pytest.mark.parametrize("path", ["", "/no/such/place", "~nobody/x"])
def test_what_cannot_be_opened_is_said(shelf: Shelf, path: str) -> None:
    reply = call(LookCalls(shelf).open_dataset, path=path, again=True)
    assert what(reply)
    assert "facts" not in reply


def test_only_pictures_of_the_open_dataset_are_given(shelf: Shelf, folder: Path, tmp_path: Path) -> None:
    look = LookCalls(shelf)
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    for id in ("0/../secret.png", "0/../../secret.png", str(tmp_path / "secret.png"), "9/0.png", "0/0.txt"):
        assert call(look.thumbnails, path=str(folder), ids=[id])["thumbs"] == {}
        for method in (look.show_picture, look.open_mask):
            reply = call(method, path=str(folder), id=id)
            assert "no longer part" in what(reply)
    small = call(look.thumbnails, path=str(folder), ids=["0/0.png"])["thumbs"]["0/0.png"]
    assert small.startswith("data:image/webp;base64,")


def test_a_filter_finds_words_names_tags_and_what_is_missing(shelf: Shelf, folder: Path) -> None:
    look = LookCalls(shelf)

    def names(**wanted: str) -> list[str]:
        return [item["name"] for item in call(look.list_pictures, path=str(folder), **wanted)["items"]]

    assert names() == ["0.png", "1.png", "2.png"]
    assert names(text="GRASS") == ["0.png"]
    assert names(text="2.png") == ["2.png"]
    assert names(tag="dog") == ["1.png"]
    assert names(only="missing") == ["2.png"]
    assert names(only="unmasked", tag="sks") == ["0.png", "1.png"]
    page = call(look.list_pictures, path=str(folder), page=9, per=2)
    assert (page["page"], page["pages"], page["total"]) == (2, 2, 3)


def test_a_caption_based_on_an_old_text_is_not_written(shelf: Shelf, folder: Path) -> None:
    look, captions = LookCalls(shelf), CaptionCalls(shelf)
    shown = call(look.show_picture, path=str(folder), id="0/0.png")["picture"]
    (folder / "0.txt").write_text("another hand", encoding="utf-8")
    order = {"path": str(folder), "id": "0/0.png", "text": "mine"}
    reply = call(captions.save_caption, **order, mark=shown["mark"])
    assert reply["conflict"]["text"] == "another hand"
    assert (folder / "0.txt").read_text(encoding="utf-8") == "another hand"
    assert call(captions.save_caption, **order, mark=reply["conflict"]["mark"])["caption_file"] == "0.txt"
    assert (folder / "0.txt").read_text(encoding="utf-8") == "mine"
    assert call(captions.undo, path=str(folder))["history"]["redo"]
    assert (folder / "0.txt").read_text(encoding="utf-8") == "another hand"
    call(captions.redo, path=str(folder))
    assert (folder / "0.txt").read_text(encoding="utf-8") == "mine"
    assert "nothing to undo" in what(call(captions.redo, path=str(folder)))


def test_a_bulk_change_makes_what_the_preview_showed_and_no_more(shelf: Shelf, folder: Path) -> None:
    captions = CaptionCalls(shelf)
    order = {"path": str(folder), "op": "add_back", "values": {"tag": "photo"}, "filter": {"tag": "sks"}}
    preview = call(captions.preview_bulk, **order)
    assert [change["after"] for change in preview["changes"]] == ["sks, cat, grass, photo", "sks, dog, photo"]
    (folder / "2.txt").write_text("sks, late", encoding="utf-8")
    (folder / "1.txt").write_text("sks, elsewhere", encoding="utf-8")
    done = call(captions.apply_bulk, **order, versions=preview["versions"])
    assert done["message"].startswith("1 caption changed. 1 left alone")
    texts = [(folder / f"{index}.txt").read_text(encoding="utf-8") for index in range(3)]
    assert texts == ["sks, cat, grass, photo", "sks, elsewhere", "sks, late"]
    assert "regular expression" in what(
        call(captions.preview_bulk, path=str(folder), op="regex", values={"pattern": "("})
    )


def painted(size: tuple[int, int], kind: str = "PNG") -> str:
    image = Image.new("L", size, 0)
    image.paste(255, (0, 0, size[0] // 2, size[1]))
    data = io.BytesIO()
    image.save(data, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"


def test_a_mask_is_saved_in_the_size_of_its_picture_beside_no_original(shelf: Shelf, folder: Path) -> None:
    look = LookCalls(shelf)
    before = sorted(path.name for path in folder.iterdir())
    assert call(look.open_mask, path=str(folder), id="0/0.png") == {
        "problems": [],
        "size": [128, 96],
        "mask": "",
    }
    reply = call(look.save_mask, path=str(folder), id="0/0.png", png=painted((256, 192)))
    with Image.open(reply["file"]) as mask:
        assert mask.size == (128, 96)
        assert (mask.getpixel((2, 20)), mask.getpixel((120, 20))) == (255, 0)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert call(look.open_mask, path=str(folder), id="0/0.png")["mask"].startswith("data:image/png;base64,")
    items = call(look.list_pictures, path=str(folder), only="masked")["items"]
    assert [item["name"] for item in items] == ["0.png"]


@pytest.mark.parametrize(
    "png", ["", "data:image/png;base64,AAAA", "file:///etc/passwd", painted((128, 96), "GIF")]
)
def test_what_is_no_mask_is_refused(shelf: Shelf, folder: Path, png: str) -> None:
    reply = call(LookCalls(shelf).save_mask, path=str(folder), id="0/0.png", png=png)
    assert what(reply) == "The mask could not be read as a picture."


def test_the_doctor_examines_fixes_and_takes_back(shelf: Shelf, folder: Path) -> None:
    doctor = DoctorCalls(shelf)
    (folder / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    path = str(folder)
    assert call(doctor.examined, path=path)["findings"] is None
    call(doctor.examine, path=path)
    found = {one["rule"]: one for one in settled(doctor, path)["findings"]}
    assert found["unreadable"]["severity"] == "error"
    assert found["unreadable"]["examples"][0]["name"] == "3.png"
    assert found["caption_missing"]["examples"][0]["id"] == "0/2.png"
    lines = call(doctor.preview_fix, path=path, rule="unreadable")["lines"]
    assert any("3.png" in line and "_excluded" in line for line in lines)
    assert (folder / "3.png").exists()
    call(doctor.apply_fix, path=path, rule="unreadable")
    assert (folder / "_excluded" / "3.png").exists()
    after = settled(doctor, path)
    assert "unreadable" not in [one["rule"] for one in after["findings"]]
    assert after["undo"]
    assert call(doctor.undo_fix, path=path)["problems"] == []
    assert (folder / "3.png").exists()
    assert settled(doctor, path)["undo"] == ""


def settled(doctor: DoctorCalls, path: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        reply = call(doctor.examined, path=path)
        if not reply.get("running"):
            return reply
        time.sleep(0.02)
    raise AssertionError("the examination did not end")


ORDER = {
    "kind": "subject", "trigger": "sks", "class_word": "cat", "steps": "90", "epochs": "10", "batch": "1",
    "resolution": "64", "validation": "0", "reg": "", "out": "", "as": "toml",
}  # fmt: skip


def test_a_training_set_is_proposed_written_and_put_into_the_train_page(shelf: Shelf, folder: Path) -> None:
    build = BuildCalls(shelf)
    proposed = call(build.propose_build, path=str(folder), order=ORDER)
    assert "num_repeats = 3" in proposed["text"]
    out = Path(proposed["out"])
    assert not out.exists()
    written = call(build.write_build, path=str(folder), order=ORDER)
    assert out.read_text(encoding="utf-8") == proposed["text"]
    shelf.context.drafts.save("train", {"train_data_dir": "/elsewhere", "network_dim": 4})
    call(build.use_in_train, options=written["options"], path=str(folder))
    draft = shelf.train_draft()
    assert draft["dataset_config"] == str(out)
    assert draft["network_dim"] == 4
    assert draft["max_train_epochs"] == 10
    assert "train_data_dir" not in draft
    again = call(build.propose_build, path=str(folder), order=ORDER)
    assert again["out"] != proposed["out"]


def test_masks_are_written_into_the_set_when_every_picture_has_one(shelf: Shelf, folder: Path) -> None:
    look, build = LookCalls(shelf), BuildCalls(shelf)
    sizes = {
        item["id"]: (128, 96 + 16 * n)
        for n, item in enumerate(call(look.list_pictures, path=str(folder))["items"])
    }
    for number, (id, size) in enumerate(sizes.items()):
        reply = call(build.propose_build, path=str(folder), order=ORDER)
        assert "conditioning_data_dir" not in reply["text"]
        assert any("have a mask" in note for note in reply["notes"]) == (number > 0)
        call(look.save_mask, path=str(folder), id=id, png=painted(size))
    reply = call(build.write_build, path=str(folder), order={**ORDER, "out": "masked.toml"})
    assert reply["options"]["masked_loss"] is True
    opened = call(look.open_dataset, path=str(folder.parent / "masked.toml"), again=True)
    assert opened["facts"]["masked"] == 3


@pytest.mark.parametrize(
    "wrong", [{"steps": "many"}, {"validation": "80"}, {"resolution": ""}, {"trigger": ""}]
)
def test_an_order_that_cannot_be_is_refused_in_words(
    shelf: Shelf, folder: Path, wrong: dict[str, str]
) -> None:
    reply = call(BuildCalls(shelf).propose_build, path=str(folder), order={**ORDER, **wrong})
    assert what(reply)
    assert "text" not in reply


def test_preparing_needs_a_model_and_tells_the_commands(shelf: Shelf, folder: Path) -> None:
    prepare = PrepareCalls(shelf)
    told = call(prepare.prepare_commands, path=str(folder), model="/models/base model.safetensors")
    assert [line["command"].split()[1] for line in told["commands"]] == [
        "tools/cache_latents.py",
        "tools/cache_text_encoder_outputs.py",
    ]
    assert all(str(folder) in line["command"] for line in told["commands"])
    order = {"path": str(folder), "latents": True, "texts": False}
    assert "base model" in what(call(prepare.start_prepare, **order, model=""))
    assert "Choose what" in what(
        call(prepare.start_prepare, **{**order, "latents": False}, model="x.safetensors")
    )
    assert "/no/model" in json.dumps(call(prepare.start_prepare, **order, model="/no/model.safetensors"))
    assert not list(shelf.context.runs.glob("*/config.toml"))
    assert call(prepare.prepare_state, path=str(folder))["state"] == "none"


def test_every_text_of_the_page_exists_and_is_used() -> None:
    own = {key.removeprefix("data.") for key in catalogue() if key.startswith("data.")}
    scripts = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in dataset.SCRIPTS)
    page = (ASSETS / "dataset.html").read_text(encoding="utf-8")
    code = "\n".join(path.read_text(encoding="utf-8") for path in Path(dataset.__file__).parent.glob("*.py"))
    asked = set(re.findall(r'text\(\s*"([a-z_]+)"', scripts)) | set(
        re.findall(r"\[\[data\.([a-z_]+)\]\]", page)
    )
    asked |= set(re.findall(r'"data\.([a-z_]+)"', code)) | set(re.findall(r'detail: "([a-z_]+)"', scripts))
    asked |= {f"{name}_{n}" for name in re.findall(r'plural\("([a-z_]+)"', scripts) for n in ("one", "n")}
    asked |= {f"{name}_{n}" for name in re.findall(r'_number\("data\.([a-z_]+)"', code) for n in ("one", "n")}
    asked |= {name for pair in re.findall(r'\? "([a-z_]+)" : "([a-z_]+)"', scripts) for name in pair}
    asked |= {f"rule_{rule.id}" for rule in RULES}
    asked |= {f"severity_{one}" for one in ("error", "warning", "note")}
    asked |= {f"fix_{kind}" for kind in ("exclude", "rename", "convert", "caption", "config")}
    beginnings = {name for name in asked if name.endswith("_")} | {
        "_one",
        "_n",
        "applied",
        "changes",
        "found",
        "notes",
    }
    asked |= {"alt_original", "alt_trained"}
    assert sorted(asked - own - beginnings) == []
    assert sorted(own - asked) == []


def test_a_folder_is_shown_though_the_train_page_names_a_metadata_file_for_another(
    shelf: Shelf, folder: Path, tmp_path: Path
):
    """What stands beside the Train page's own folder says nothing of other folders."""
    other = tmp_path / "dogs"
    other.mkdir()
    Image.new("RGB", (128, 96)).save(other / "only.png")
    metadata = tmp_path / "meta.json"
    metadata.write_text(json.dumps({str(other / "only"): {"caption": "a dog"}}), encoding="utf-8")
    draft = {"training_method": "finetune", "train_data_dir": str(other), "in_json": str(metadata)}
    shelf.context.drafts.save("train", draft)
    look = LookCalls(shelf)
    assert call(look.open_dataset, path=str(folder), again=True)["facts"]["pictures"] == 3
    assert call(look.open_dataset, path=str(other), again=True)["facts"]["pictures"] == 1
