"""Taggers: both layouts, sizes, batches, tables, and what is wrong with files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from backend.annotate import folders, models, pictures
from backend.annotate.settings import TaggingSettings
from backend.annotate.tagger import Tagger, squared
from backend.annotate.tagnames import read_table
from backend.demo.reading import TAGGER
from backend.demo.world import Scene
from backend.errors import EnvironmentFault, InputError
from tests.annotate.onnx_kit import write_tagger

ROWS = [("blue", 0), ("green_thing", 0), ("red", 0)]
# Sure of a colour when its mean is above the middle.
WEIGHTS = [[0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]]
BIAS = [-12.75, -12.75, -12.75]


def flat(colour: tuple[int, int, int], size: tuple[int, int] = (20, 20)) -> np.ndarray:
    return np.full((size[1], size[0], 3), colour, dtype=np.uint8)


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("batch", ["N", 1, 2])
def test_layout_size_and_batch_are_read_from_the_model(
    tmp_path: Path, channels_first: bool, batch: int | str
) -> None:
    tagger = Tagger(
        write_tagger(tmp_path, ROWS, WEIGHTS, BIAS, channels_first=channels_first, size=12, batch=batch)
    )
    assert tagger.size == 12 and tagger.channels_first == channels_first
    ready = [tagger.prepare(flat(colour)) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    assert ready[0].shape == ((3, 12, 12) if channels_first else (12, 12, 3)) and ready[0].max() == 250
    found = tagger.probabilities(ready)
    # Colours are blue, green, red.
    assert [tagger.scores(row, 0.5)[0][0] for row in found] == ["red", "green_thing", "blue"]
    alone = np.concatenate([tagger.probabilities([one]) for one in ready])
    assert np.allclose(found, alone)


def test_what_is_not_square_gets_white_borders() -> None:
    found = squared(flat((0, 0, 0), (10, 4)))
    assert found.shape == (10, 10, 3)
    assert (found[:3] == 255).all() and (found[3:7] == 0).all() and (found[7:] == 255).all()


def test_a_table_in_json_wants_normalized_pictures_and_gives_logits(tmp_path: Path) -> None:
    # The colour's mean is -1 to 1 here; logits of -5 to 5 become probabilities.
    write_tagger(
        tmp_path, ROWS, [[5, 0, 0], [0, 5, 0], [0, 0, 5]], [0, 0, 0], channels_first=True, sigmoid=False
    )
    (tmp_path / "selected_tags.csv").unlink()
    table = {"0": {"tag": "blue", "category": "General"}, "1": {"tag": "good", "category": "Quality"}}
    table["2"] = {"tag": "red", "category": "Character"}
    (tmp_path / "tag_mapping.json").write_text(json.dumps(table))
    tagger = Tagger(tmp_path)
    scores = tagger.scores(tagger.probabilities([tagger.prepare(flat((255, 0, 0)))])[0])
    assert [(tag, category) for tag, category, _ in scores] == [
        ("blue", "general"),
        ("good", "quality"),
        ("red", "character"),
    ]
    assert scores[2][2] == pytest.approx(1 / (1 + np.exp(-5)), abs=1e-4) and scores[0][2] < 0.01
    other = {"idx_to_tag": {"0": "blue", "2": "red"}, "tag_to_category": {"blue": "General", "red": "Model"}}
    (tmp_path / "tag_mapping.json").write_text(json.dumps(other))
    assert read_table(tmp_path / "tag_mapping.json").categories == ("general", "general", "model")


def test_the_bundled_tagger_sees_what_is_there(drawn: dict[Path, Scene]) -> None:
    tagger = Tagger(TAGGER)
    rows = tagger.probabilities([tagger.prepare(pictures.load(path)) for path in drawn])
    hits = total = 0
    for row, scene in zip(rows, drawn.values(), strict=True):
        found = {
            tag.replace("_", " ") for tag, category, _ in tagger.scores(row, 0.35) if category == "general"
        }
        hits, total = hits + len(found & set(scene.tags())), total + len(found | set(scene.tags()))
    assert hits / total > 0.7


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda place: (place / "model.onnx").write_bytes(b"<html>"), "model.onnx cannot be opened"),
        (lambda place: (place / "selected_tags.csv").unlink(), "no table of tags"),
        (
            lambda place: (place / "selected_tags.csv").write_text("tag_id,name,category\n1,a,0\n"),
            "3 outputs, its table 1",
        ),
        (
            lambda place: (place / "selected_tags.csv").write_text("tag_id,name,category\n1,a,0\n2,,0\n"),
            "line 3",
        ),
        (lambda place: (place / "selected_tags.csv").write_text("tag_id,name,category\n"), "has no tags"),
        (lambda place: (place / "tag_mapping.json").write_text("[]"), ""),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, break_it, said: str) -> None:
    write_tagger(tmp_path, ROWS, WEIGHTS, BIAS)
    break_it(tmp_path)
    if not said:  # the first table counts; a second one does no harm
        assert Tagger(tmp_path).table.names[0] == "blue"
        return
    with pytest.raises(InputError, match=said):
        Tagger(tmp_path)


def test_taggers_are_found_where_people_put_them(tmp_path: Path, home: Path) -> None:
    name = "SmilingWolf/wd-vit-tagger-v3"
    assert models.find_tagger(name, tmp_path / "none") is None
    for place in (
        tmp_path / "a" / "SmilingWolf_wd-vit-tagger-v3", tmp_path / "b" / "wd-vit-tagger-v3", tmp_path / "c",
    ):  # fmt: skip
        write_tagger(place, ROWS, WEIGHTS, BIAS)
    for model_dir, place in (
        ("a", "a/SmilingWolf_wd-vit-tagger-v3"),
        ("b", "b/wd-vit-tagger-v3"),
        ("c", "c"),
    ):
        assert models.find_tagger(name, tmp_path / model_dir) == (tmp_path / place).resolve()
    assert models.find_tagger(str(tmp_path / "c"), tmp_path) == (tmp_path / "c").resolve()
    with pytest.raises(InputError, match=r"model\.onnx is missing"):
        models.find_tagger(str(tmp_path), tmp_path)
    with pytest.raises(InputError, match="no folder"):
        models.find_tagger("nowhere", tmp_path)
    with pytest.raises(InputError, match="is a file"):
        models.find_tagger(str(tmp_path / "c" / "model.onnx"), tmp_path)


def test_a_tagger_that_is_missing_says_how_to_get_it(tmp_path: Path, folder: Path) -> None:
    settings = TaggingSettings(train_data_dir=str(folder), model_dir=str(tmp_path / "here"))
    with pytest.raises(EnvironmentFault) as caught:
        folders.tag(settings, lambda done, total: None, print, download=True)
    said = caught.value.text()
    for part in (
        "wd-v1-4-convnext-tagger-v2",
        "about 390 MB",
        "model.onnx and selected_tags.csv",
        str(tmp_path / "here"),
        "bundled",
    ):
        assert part in said
    assert sorted(path.suffix for path in folder.iterdir()) == [".png"] * 6


def test_a_download_says_its_size_and_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    asked: list[dict[str, object]] = []

    def download(name: str, **how: object) -> None:
        asked.append({"name": name, **how})
        if name.endswith("empty"):
            return
        if name.endswith("far"):
            raise OSError("no route to host\nmore")
        write_tagger(Path(str(how["local_dir"])), ROWS, WEIGHTS, BIAS)

    files = [
        SimpleNamespace(rfilename="model.onnx", size=123_400_000),
        SimpleNamespace(rfilename="x.h5", size=9),
    ]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=files))
    said: list[str] = []
    place = models.tagger("some/tagger", tmp_path, said.append, download=True)
    assert place == tmp_path / "some_tagger" and "downloading 123 MB into" in said[0]
    assert models.tagger("some/tagger", tmp_path, said.append, download=False) == place and len(asked) == 1
    models.tagger("some/tagger", tmp_path, said.append, download=True, again=True)
    assert asked[1]["force_download"] is True
    with pytest.raises(InputError, match=r"model\.onnx is missing"):
        models.tagger("some/empty", tmp_path, said.append, download=True)
    with pytest.raises(EnvironmentFault, match="no route to host"):
        models.tagger("some/far", tmp_path, said.append, download=True)
    files[:] = [SimpleNamespace(rfilename=n, size=10**9) for n in ("a.safetensors", "a.bin", "config.json")]
    with pytest.raises(InputError, match=r"config\.json is missing"):
        models.captioner("some/captioner", said.append, download=True)
    assert "downloading 2.0 GB" in said[-1] and "*.bin" not in asked[-1]["allow_patterns"]
    with pytest.raises(EnvironmentFault, match="downloads are off"):
        models.tagger("some/far", tmp_path, said.append, download=False)


def test_a_fixed_picture_of_many_kinds_is_prepared(tmp_path: Path) -> None:
    tagger = Tagger(write_tagger(tmp_path, ROWS, WEIGHTS, BIAS))
    for number, mode in enumerate(("L", "P", "RGBA", "CMYK", "1")):
        path = tmp_path / f"{number}.{'tiff' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (9, 30)).save(path)
        assert tagger.prepare(pictures.load(path)).shape == (8, 8, 3)
