from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image

from backend.errors import InputError
from backend.generate import pictures
from backend.generate.parameters import parameters_text, read_parameters
from backend.generate.prompts import (
    network_tag,
    parse_line,
    parse_lines,
    read_prompt_file,
    with_networks,
)
from backend.generate.request import Guide, Hires, LoraUse, Request, StatedSizes


def test_all_options_of_a_line():
    got = parse_line("a cat, sitting --n bad, worse --w 512 --h 768 --d 7 --s 20 --l 6.5 --ss k_euler_a")
    assert got == Request("a cat, sitting", "bad, worse", 512, 768, 7, 20, 6.5, "euler_a")


@pytest.mark.parametrize(
    "line, prompt",
    [
        ("d 5 cats", "d 5 cats"),
        ("n bad hands", "n bad hands"),
        ("w 512 h 512", "w 512 h 512"),
        ("dogs -- and cats", "dogs -- and cats"),
        ("well--known", "well--known"),
    ],
)
def test_the_prompt_itself_is_not_searched_for_options(line, prompt):
    assert parse_line(line) == Request(prompt)


def test_options_ignore_case_and_the_last_one_wins():
    assert parse_line("x --W 64 --w 128 --D 3") == Request("x", width=128, seed=3)


def test_defaults_fill_what_a_line_leaves_out():
    defaults = Request(sampler="euler", clip_skip=2, steps=12)
    got = parse_line("x --s 5", defaults)
    assert (got.sampler, got.clip_skip, got.steps) == ("euler", 2, 5)


@pytest.mark.parametrize("text, scale", [("-2.5", -2.5), ("0", 0), ("7", 7)])
def test_negative_scales_are_numbers(text, scale):
    assert parse_line(f"x --l {text}").scale == scale


@pytest.mark.parametrize("text, steps", [("5000", 1000), ("0", 1)])
def test_steps_are_kept_in_range_with_a_note(text, steps):
    got = parse_line(f"x --s {text}")
    assert got.steps == steps
    assert got.notes == (f"--s {text} became {steps}",)


@pytest.mark.parametrize(
    "option, words",
    [
        ("--w wide", "whole number of pixels"),
        ("--d 1.5", "whole number"),
        ("--l nan", "a number"),
        ("--s 1e999", "steps"),
        ("--ss magic", "euler_a"),
        ("--fs 3", "other families"),
        ("--foo 1", "not an option"),
    ],
)
def test_what_cannot_be_used_is_left_out_with_a_note(option, words):
    got = parse_line(f"a cat {option}")
    assert (got.prompt, got.width, got.seed, got.scale, got.sampler) == ("a cat", None, None, 7.5, "ddim")
    assert len(got.notes) == 1 and words in got.notes[0] and option.split()[0] in got.notes[0]


def test_a_guide_picture_is_for_the_files_that_are_to_follow_it():
    assert parse_line("a cat --cn pose.png").guides == (Guide("", "pose.png"),)
    wanted = Request(guides=(Guide("lines.safetensors", "", 0.7),))
    assert parse_line("a cat --cn pose.png", wanted).guides == (Guide("lines.safetensors", "pose.png", 0.7),)


def test_an_empty_prompt_is_allowed_and_noted():
    got = parse_line("--n bad --w 64")
    assert (got.prompt, got.negative, got.width) == ("", "bad", 64)
    assert got.notes == ("the prompt is empty",)


def test_blank_lines_and_comments_are_skipped():
    text = "\ufeffa cat\n\n   \n# a comment\na dog --d 1\n"
    assert [r.prompt for r in parse_lines(text)] == ["a cat", "a dog"]


def test_text_file(tmp_path):
    path = tmp_path / "p.txt"
    path.write_bytes("\ufeff猫 --s 3\n".encode())
    assert read_prompt_file(path) == [Request("猫", steps=3)]


def test_json_file_of_texts_and_tables(tmp_path):
    path = tmp_path / "p.json"
    table = {
        "prompt": "a dog",
        "negative_prompt": "bad",
        "width": 256,
        "height": 320,
        "seed": 9,
        "sample_steps": 11,
        "scale": 3,
        "sample_sampler": "heun",
        "enum": 0,
        "colour": "red",
    }
    path.write_text(json.dumps(["a cat --d 4", table]))
    cat, dog = read_prompt_file(path)
    assert cat == Request("a cat", seed=4)
    assert dog == Request(
        "a dog",
        "bad",
        256,
        320,
        9,
        11,
        3,
        "heun",
        notes=("'colour' is not an option of prompts and was left out",),
    )


def test_toml_file_shares_keys(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(
        '[prompt]\nwidth = 128\nscale = 5.0\n[[prompt.subset]]\nprompt = "a"\n[[prompt.subset]]\nprompt = "b"\nseed = 2\n'
    )
    assert read_prompt_file(path) == [
        Request("a", width=128, scale=5.0),
        Request("b", width=128, scale=5.0, seed=2),
    ]


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("p.toml", "[prompt]\nwidth = 1\n[[prompt.subset]]\nwidth = 2\n", "'width' stands both"),
        ("p.toml", "[prompt\n", "line 1"),
        ("p.toml", "x = 1\n", "[prompt]"),
        ("p.json", "[1]", "prompt 1"),
        ("p.json", '{"prompt": "x"}', "list"),
        ("p.json", "[", "line 1"),
        ("p.yaml", "", ".toml"),
        ("gone.txt", None, "No such file"),
    ],
)
def test_bad_files_are_named(tmp_path, name, text, words):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_prompt_file(path)
    assert name in caught.value.text() and words in caught.value.text()


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "p.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"p\.txt[\s\S]*UTF-8"):
        read_prompt_file(path)


FULL = Request("a cat, (big:1.2)\nsecond line", "bad: worse", 512, 640, 7, 20, 6.5, "euler_a", clip_skip=2)


def test_parameters_text_is_as_other_programs_write_it():
    text = parameters_text(FULL, "my, model", (LoraUse("style", 0.8),))
    assert text.splitlines() == [
        "a cat, (big:1.2)",
        "second line <lora:style:0.8>",
        "Negative prompt: bad: worse",
        'Steps: 20, Sampler: Euler a, CFG scale: 6.5, Seed: 7, Size: 512x640, Model: "my, model", Clip skip: 2',
    ]


@pytest.mark.parametrize(
    "request_", [FULL, Request("x", width=64, height=64, seed=0), Request("", "", 64, 64, 1)]
)
def test_parameters_come_back_as_written(request_):
    got = read_parameters(parameters_text(request_, "base", (LoraUse("a b", 0.5), LoraUse("c"))))
    assert got.request == request_
    assert (got.model, got.loras, dict(got.others)) == ("base", (LoraUse("a b", 0.5), LoraUse("c")), {})


def test_all_that_decides_a_picture_comes_back():
    asked = Request(
        "x", "", 64, 96, 7, 5, 4, "lcm", max_token_length=0, emb_normalize_mode="abs", negative_scale=1.5,
        hires=Hires(1.5, "image", 9, 0.4, 96, 144), vae_tile=512, variation_seed=3, variation_strength=0.25,
        stated=StatedSizes(1, 2, 3, 4, 5, 6), zero_terminal_snr=True, strength=0.35, image="/home/me/in.png",
        mask="/home/me/mask.png", vae="/home/me/good.vae.pt", loras=(LoraUse("/home/me/a.safetensors", 1, 0.5),),
        guides=(Guide("/home/me/lines.safetensors", "/home/me/g.png", 0.8, 0.5),),
    )  # fmt: skip
    text = parameters_text(asked, "base")
    got = read_parameters(text)
    assert "/home/me" not in text
    files = {"image": "", "mask": "", "vae": "", "loras": (), "guides": ()}
    assert got.request == replace(asked, **files)
    assert (got.loras, got.vae) == ((LoraUse("a", 1.0, 0.5),), "good.vae.pt")
    assert got.others["Init image"] == "in.png" and "picture g.png" in got.others["Guide 0"]


def test_hires_of_another_program_has_the_pictures_strength():
    got = read_parameters(
        "x\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, "
        "Denoising strength: 0.55, Hires upscale: 2, Hires steps: 10, Hires upscaler: Latent (nearest)"
    ).request
    assert (got.sampler, got.hires) == ("dpmsolver++_karras", Hires(2.0, "latent", 10, 0.55))


@pytest.mark.parametrize(
    ("tag", "use"),
    [
        ("<lora:style>", LoraUse("style")),
        ("<lora:style:0.8>", LoraUse("style", 0.8)),
        ("<LORA:a b:-0.5>", LoraUse("a b", -0.5)),
        ("<lora:style:0.2:0.9>", LoraUse("style", 0.9, 0.2)),
        ("<lyco:style:unet=0.7:te=0.1>", LoraUse("style", 0.7, 0.1)),
    ],
)
def test_networks_are_named_in_a_prompt(tag, use):
    found = with_networks(Request(f"a cat {tag}, sitting"))
    assert (found.prompt, found.loras, found.notes) == ("a cat, sitting", (use,), ())
    assert with_networks(found) == found
    again = with_networks(Request(network_tag(use)))
    assert again.loras == (use,)


def test_a_strength_that_cannot_be_read_is_noted():
    found = with_networks(Request("x <lora:a:much>"))
    assert found.loras == (LoraUse("a", 1.0),) and "'much'" in found.notes[0]


def test_parameters_of_another_program():
    got = read_parameters(
        "masterpiece, <lora:x:1>cat\nNegative prompt: ugly,\nblurry\nSteps: 28, Sampler: DPM++ 2M Karras, "
        'CFG scale: 7, Seed: 123, Size: 512x768, Model hash: abc, Lora hashes: "x: 12, y: 34", Version: v1.6'
    )
    assert got.request == Request(
        "masterpiece,cat", "ugly,\nblurry", 512, 768, 123, 28, 7, "dpmsolver++_karras"
    )
    assert got.others == {"Model hash": "abc", "Lora hashes": '"x: 12, y: 34"', "Version": "v1.6"}


def test_text_without_settings_is_the_prompt():
    assert read_parameters("just a cat").request == Request("just a cat")


def test_pictures_carry_their_text_and_replace_nothing(tmp_path):
    image = Image.new("RGB", (16, 8), (10, 200, 30))
    first = pictures.save(image, tmp_path / "new" / "p.png", "猫\nSteps: 1")
    second = pictures.save(image, tmp_path / "new" / "p.png", "other")
    assert [first.name, second.name] == ["p.png", "p-2.png"]
    assert pictures.parameters_of(first) == "猫\nSteps: 1"
    assert pictures.parameters_of(second) == "other"
    assert sorted(p.name for p in first.parent.iterdir()) == ["p-2.png", "p.png"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        pictures.save(Image.new("RGB", (8, 8)), tmp_path / "p.png")
    assert list(tmp_path.iterdir()) == []


def test_thumbnails_are_small(tmp_path):
    path = pictures.save_thumbnail(Image.new("RGBA", (1024, 512)), tmp_path / "t" / "a.jpg")
    with Image.open(path) as small:
        assert small.size == (256, 128)


@pytest.mark.parametrize("name", ["../../etc/x", "a\nb", "<b>x</b>", "..", "con\x1b[31m"])
def test_names_become_safe(name):
    safe = pictures.safe_name(name)
    assert safe and not set(safe) & set("/\\<>\n\x1b") and not safe.startswith(".")
