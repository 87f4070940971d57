"""Grids: what their cells are drawn with, the folder that keeps one, its sheet, and how axes are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from backend.errors import InputError
from backend.generate import grid as grids
from backend.generate.grid import Axis, Grid, create, listed, opened, planned
from backend.generate.grid_sheet import sheet, write_sheet
from backend.generate.grid_values import axis_of
from backend.generate.request import Guide, LoraUse, Request


@pytest.fixture
def loras(tmp_path: Path, monkeypatch) -> list[str]:
    """Two files that count as networks, and one base model."""
    for name in ("one.safetensors", "two.safetensors", "base.safetensors"):
        (tmp_path / name).write_bytes(b"x")

    class Kind:
        def __init__(self, path):
            self.kind = "base" if "base" in str(path) else "network"

    monkeypatch.setattr("backend.system.identify.identify", Kind)
    return [str(tmp_path / "one.safetensors"), str(tmp_path / "two.safetensors")]


def paint(folder, place, colour=(200, 30, 30), size=(64, 48)) -> None:
    folder.picture(place).parent.mkdir(exist_ok=True)
    Image.new("RGB", size, colour).save(folder.picture(place))


def test_every_cell_is_drawn_with_the_values_of_its_place(loras):
    stack = (LoraUse("style.safetensors", 0.5, 0.2),)
    request = Request("a cat", seed=7, count=4, batch=2, loras=stack)
    axes = (Axis("file", tuple(loras)), Axis("strength", (0.5, 1.0)), Axis("steps", (4, 8)))
    found = planned("base.safetensors", request, axes)
    model, cell = found.cell((1, 0, 1))
    assert model == "base.safetensors" and (cell.steps, cell.seed, cell.count) == (8, 7, 1)
    assert cell.loras == (LoraUse(loras[1], 0.5), *stack)
    # One file after another, so that none is loaded twice.
    assert [place[0] for place in found.places] == [0] * 4 + [1] * 4
    assert len(set(found.places)) == 8


def test_a_file_on_the_axis_does_not_act_from_the_stack_too(loras):
    stack = (LoraUse(loras[1], 1.0), LoraUse("style.safetensors", 0.5))
    found = planned("m", Request(loras=stack), (Axis("file", tuple(loras)),))
    assert found.cell((0,))[1].loras == (LoraUse(loras[0]), stack[1])
    assert found.cell((1,))[1].loras == (LoraUse(loras[1]), stack[1])


def test_base_models_on_an_axis_take_the_models_place(loras, tmp_path):
    base = str(tmp_path / "base.safetensors")
    found = planned("other.safetensors", Request(loras=(LoraUse("l"),)), (Axis("file", (base,)),))
    model, cell = found.cell((0,))
    assert (model, cell.loras, found.file_kind) == (base, (LoraUse("l"),), "base")
    assert cell.seed is not None, "a grid decides its seed once"


def test_a_strength_alone_is_that_of_the_first_network():
    stack = (LoraUse("a", 1.0, 0.3), LoraUse("b", 0.7))
    found = planned("m", Request(loras=stack), (Axis("strength", (0.25,)),))
    assert found.cell((0,))[1].loras == (LoraUse("a", 0.25), stack[1])


@pytest.mark.parametrize(
    "axes, words",
    [
        ((), "one to 3 axes"),
        ((Axis("seed", (1,)), Axis("seed", (2,))), "two axes"),
        ((Axis("colour", (1,)),), "'colour'"),
        ((Axis("steps", ()),), "no values"),
        ((Axis("steps", (0,)),), "from 1 to 1000"),
        ((Axis("sampler", ("magic",)),), "magic"),
        ((Axis("file", ("/nowhere/gone.safetensors",)),), "gone"),
        ((Axis("strength", (1.0,)),), "needs a LoRA"),
        ((Axis("seed", tuple(range(1001))), Axis("scale", (1, 2))), "2002 cells"),
    ],
)
def test_axes_that_cannot_be_drawn_are_refused(axes, words):
    with pytest.raises(InputError, match=words):
        planned("m", Request(), axes)


def test_words_on_an_axis_have_to_be_in_every_prompt(tmp_path, monkeypatch):
    files = [str(tmp_path / name) for name in ("my cat-step00000100.pt", "my cat.pt")]
    for file in files:
        Path(file).write_bytes(b"x")
    monkeypatch.setattr("backend.generate.grid.kind_of", lambda _files: "embedding")
    prompts = Axis("prompt", ("(My Cat:1.2) asleep", "my cats"))
    with pytest.raises(InputError, match="'my cat'") as caught:
        planned("m", Request(), (Axis("file", tuple(files)), prompts))
    assert [problem.where for problem in caught.value.problems] == ["my cats"]
    found = planned("m", Request(), (Axis("file", tuple(files)), Axis("prompt", prompts.values[:1])))
    assert found.cell((0, 0))[1].prompt == "(my cat-step00000100:1.2) asleep"
    assert found.cell((1, 0))[1].prompt == "(my cat:1.2) asleep"


def test_guides_on_an_axis_need_a_picture(tmp_path, monkeypatch):
    file = tmp_path / "edges.safetensors"
    file.write_bytes(b"x")
    monkeypatch.setattr("backend.generate.grid.kind_of", lambda _files: "lllite")
    with pytest.raises(InputError, match="guide picture"):
        planned("m", Request(), (Axis("file", (str(file),)),))
    request = Request(guides=(Guide("old", "lines.png", ratio=0.5), Guide("second", "b.png")))
    found = planned("m", request, (Axis("file", (str(file),)), Axis("strength", (0.3,))))
    assert found.cell((0, 0))[1].guides == (Guide(str(file), "lines.png", 0.3, 0.5), request.guides[1])


def test_files_of_two_kinds_are_refused(loras, tmp_path):
    with pytest.raises(InputError, match="one axis"):
        planned("m", Request(), (Axis("file", (loras[0], str(tmp_path / "base.safetensors"))),))


def test_a_folder_remembers_everything_and_goes_on_where_it_was_left(tmp_path):
    picture = tmp_path / "start.png"
    Image.new("RGB", (8, 8)).save(picture)
    request = Request("ein Käse", image=str(picture), seed=3, loras=(LoraUse("l", 0.5),))
    grid = planned("m.safetensors", request, (Axis("seed", (1, 2, 3)), Axis("scale", (4.0, 7.5))), "my grid")
    folder = create(tmp_path / "grids", grid)
    again = opened(folder.path)
    assert again.grid == folder.grid and again.grid.axes == grid.axes
    kept = Path(again.grid.request.image)
    assert kept.parent.parent == folder.path and kept.is_file(), "the picture is copied, not pointed at"
    assert len(again.missing()) == 6
    paint(again, (1, 0))
    assert again.finished() == [(1, 0)]
    assert (1, 0) not in opened(folder.path).missing() and len(opened(folder.path).missing()) == 5
    second = create(tmp_path / "grids", grid)
    assert [item.id for item in listed(tmp_path / "grids")] == sorted([folder.id, second.id], reverse=True)


def test_a_damaged_plan_is_said_and_left_out_of_the_list(tmp_path):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "grid.json").write_text('{"axes": 3}')
    with pytest.raises(InputError, match=r"grid\.json"):
        opened(tmp_path / "odd")
    with pytest.raises(InputError, match="no grid"):
        opened(tmp_path / "gone")
    assert listed(tmp_path) == [] == listed(tmp_path / "gone")


def test_a_grid_that_cannot_be_made_leaves_no_folder(tmp_path):
    grid = planned("m", Request(image=str(tmp_path / "gone.png")), (Axis("seed", (1,)),))
    with pytest.raises(InputError, match=r"gone\.png"):
        create(tmp_path / "grids", grid)
    assert list((tmp_path / "grids").iterdir()) == []


def test_labels_tell_files_of_one_name_apart():
    axis = Axis("file", ("/a/x.safetensors", "/b/x.safetensors", "/b/y.safetensors"))
    assert axis.labels() == ["a/x", "b/x", "y"]
    assert Axis("strength", (0.8,)).labels() == ["× 0.8"]
    assert Axis("sampler", ("euler_a",)).labels() == ["Euler a"]
    grid = Grid("m", Request(), (Axis("seed", (5,)), Axis("scale", (7.0,))))
    assert grid.label((0, 0)) == "seed 5, CFG 7"


def test_the_sheet_holds_every_cell_where_it_belongs(tmp_path):
    axes = (Axis("seed", (1, 2)), Axis("scale", (4.0, 7.5)), Axis("prompt", ("a cat", "犬")))
    folder = create(tmp_path, planned("m", Request(), axes))
    colours = {
        (0, 0, 0): (200, 0, 0), (1, 0, 0): (0, 200, 0), (0, 1, 0): (0, 0, 200), (1, 1, 1): (200, 0, 200)
    }  # fmt: skip
    for place, colour in colours.items():
        paint(folder, place, colour)
    image = sheet(folder)
    spots = {colour: spot(image, colour) for colour in colours.values()}
    red, green, blue, last = spots.values()
    assert red[0] < green[0] and red[1] == green[1]
    assert red[0] == blue[0] and red[1] < blue[1] < last[1]
    path = write_sheet(folder)
    assert Image.open(path).size == image.size and path.name == "sheet.png"
    ink = sum(1 for pixel in image.getdata() if max(pixel) < 90)
    assert ink > 100, "labels are written"


def test_a_large_sheet_is_scaled_down(tmp_path, monkeypatch):
    monkeypatch.setattr("backend.generate.grid_sheet.LONGEST", 300)
    folder = create(tmp_path, planned("m", Request(), (Axis("seed", tuple(range(10))),)))
    paint(folder, (0,), size=(128, 128))
    assert sheet(folder).width < 450


def spot(image: Image.Image, colour) -> tuple[int, int]:
    """Left and top of the pixels of a colour."""
    mask = Image.new("L", image.size)
    mask.putdata([255 if pixel == colour else 0 for pixel in image.getdata()])
    box = mask.getbbox()
    assert box is not None, f"no pixel is {colour}"
    return box[:2]


@pytest.mark.parametrize(
    "key, text, values",
    [
        ("seed", "1-3, 10", (1, 2, 3, 10)),
        ("seed", "18446744073709551", (18446744073709551,)),
        ("seed", "2-8 (+3)", (2, 5, 8)),
        ("strength", "0.4-1 (+0.2)", (0.4, 0.6, 0.8, 1.0)),
        ("strength", "0-1 [5]", (0, 0.25, 0.5, 0.75, 1)),
        ("strength", "-1, 0.5", (-1, 0.5)),
        ("strength", "-1-1 (+1)", (-1, 0, 1)),
        ("scale", "9-5 (-2)", (9, 7, 5)),
        ("steps", "10, 10, 20", (10, 20)),
        ("sampler", "k_euler_a, DPM++ 2M", ("euler_a", "dpmsolver++")),
        ("prompt", "a cat, red\n\n a dog ", ("a cat, red", "a dog")),
        ("file", ' "/x/a b.safetensors" \n/x/c', (str(Path("/x/a b.safetensors")), str(Path("/x/c")))),
    ],
)
def test_axes_as_people_write_them(key, text, values):
    assert axis_of(key, text).values == (pytest.approx(values) if key == "strength" else values)


@pytest.mark.parametrize(
    "key, text", [("seed", "1.5"), ("seed", "x"), ("steps", "1-9 (-1)"), ("sampler", "magic"), ("hue", "1")]
)
def test_what_cannot_be_read_is_named(key, text):
    with pytest.raises(InputError, match=text.split()[0] if key != "hue" else "hue"):
        axis_of(key, text)


def test_the_axes_are_those_that_are_offered():
    assert list(grids.AXES) == ["file", "strength", "prompt", "seed", "sampler", "steps", "scale"]
