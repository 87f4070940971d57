"""The gallery of the Generate page, and sending pictures on."""

from __future__ import annotations

import pytest

from backend.errors import InputError
from tests.ui.generate.kit import drawn, finished, values, with_worker
from ui.tabs.generate.made import GalleryCalls


@pytest.fixture
def made(context, desk, calls) -> GalleryCalls:
    with_worker(desk.studio, drawn)
    for prompt in ("a cat", "a dog"):
        calls.draw({"values": values(context, prompt=prompt)})
    finished(desk.studio)
    return GalleryCalls(desk)


def test_the_gallery_finds_searches_and_shows_small_ones(made):
    reply = made.list_made({})
    assert (reply["total"], reply["pages"]) == (2, 1)
    (dog,) = made.list_made({"words": "dog"})["items"]
    assert dog["text"].startswith("a dog") and dog["size"] == [8, 8]
    small = made.small_ones({"paths": [dog["path"], "../base.safetensors"]})["small"]
    assert small[dog["path"]].endswith(".webp") and small["../base.safetensors"] == ""


def test_a_picture_is_sent_on(made, context, tmp_path):
    (cat,) = made.list_made({"words": "cat"})["items"]
    assert made.use_settings({"path": cat["path"]})["values"]["prompt"] == "a cat"
    assert made.use_picture({"path": cat["path"]})["given"]["size"] == [8, 8]
    by_place = made.use_picture({"path": str(context.home / "outputs" / cat["path"])})
    assert by_place["given"]["size"] == [8, 8], "the Draw view names pictures by their whole path"
    folder = tmp_path / "training"
    with pytest.raises(InputError, match="training"):
        made.to_dataset({"path": cat["path"], "folder": str(folder)})
    folder.mkdir()
    for _ in range(2):
        made.to_dataset({"path": cat["path"], "folder": f'"{folder}"'})
    assert len(list(folder.glob("*.png"))) == 2, "nothing is replaced"
    assert [path.read_text() for path in folder.glob("*.txt")] == ["a cat"] * 2
    with pytest.raises(InputError, match="not there"):
        made.use_picture({"path": "../base.safetensors"})


def test_folders_of_the_dataset_page_are_offered(made, context, tmp_path):
    (tmp_path / "mine").mkdir()
    context.drafts.save("dataset", {"path": str(tmp_path / "mine")})
    context.drafts.remember("dataset", {"path": str(tmp_path / "gone")})
    assert made.dataset_folders({})["folders"] == [str(tmp_path / "mine")]
