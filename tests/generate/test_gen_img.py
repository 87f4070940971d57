"""``gen_img.py``: its options, its prompt lines, and what it writes."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest
from PIL import Image

from backend.errors import InputError
from backend.generate import gen_lines, gen_options, gen_run, wildcards
from backend.generate.request import Request, StatedSizes
from tests.generate.test_attachments import write_network

SCRIPTS = {"gen_img.py": False, "sdxl_gen_img.py": True}


@pytest.mark.parametrize("script", SCRIPTS)
def test_options_have_sd_scripts_names_and_defaults(script, root):
    wanted = json.loads((root / "tests" / "golden" / "gen_img_options.json").read_text())[script]
    actions = {each.dest: each for each in gen_options.parser(None, SCRIPTS[script])._actions}
    del actions["help"]
    assert actions.keys() == {each["name"] for each in wanted}
    for each in wanted:
        found = actions[each["name"]]
        assert found.default == each.get("default"), each["name"]
        assert (found.nargs == 0) == (each.get("nargs") == 0), each["name"]
        assert (found.nargs == "*") == (each.get("nargs") in ("*", 2)), each["name"]
        if each.get("nargs") != 0:
            assert found.type.__name__ == each["type"], each["name"]


def parsed(*words: str, sdxl: bool = False):
    return gen_options.parser(None, sdxl).parse_args(list(words))


def test_what_cannot_be_done_is_refused_by_name_with_the_reason():
    for name, (option, why) in gen_options.REFUSED.items():
        value = [] if option.kind == gen_options.FLAG else ["7"]
        with pytest.raises(InputError) as caught:
            gen_options.check(parsed(f"--{name}", *value))
        assert f"--{name}" in caught.value.text() and why in caught.value.text()


def test_what_changes_nothing_is_taken_with_a_word():
    for name, (option, why) in gen_options.NEEDLESS.items():
        value = [] if option.kind == gen_options.FLAG else ["1"]
        assert gen_options.check(parsed(f"--{name}", *value)) == [f"--{name} changes nothing: {why}"]
    assert gen_options.check(parsed()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no base model"),
        (("--ckpt", "x"), "nothing to draw"),
        (("--ckpt", "x", "--prompt", "y", "--sampler", "magic"), "no sampler 'magic'"),
        (("--ckpt", "x", "--prompt", "y", "--mask_path", "m"), "--image_path"),
        (("--ckpt", "x", "--prompt", "y", "--network_module", "networks.lora"), "0 of --network_weights"),
        (("--ckpt", "x", "--prompt", "y", "--control_net_lllite_models", "a"), "--guide_image_path"),
        (("--ckpt", "gone.safetensors", "--prompt", "y"), "gone.safetensors"),
    ],
)
def test_what_does_not_fit_is_told_before_a_model_is_read(words, message):
    with pytest.raises(InputError, match=re.escape(message)):
        gen_run.run(parsed(*words))


def test_all_options_of_a_line():
    line = (
        "a cat, d 5 --n bad, worse --w 512 --h 768 --d 7,8 --s 20 --l 6.5 --ss k_euler_a --t 0.7 --nl 3 "
        "--am 0.5,1 --f cat.png --ow 640 --oh 480 --nw 1 --nh 2 --ct 3 --cl 4"
    )
    found = gen_lines.parse(line, Request())
    assert found.request == Request(
        "a cat, d 5", "bad, worse", 512, 768, None, 20, 6.5, "euler_a", strength=0.7, negative_scale=3.0,
        stated=StatedSizes(640, 480, 1, 2, 3, 4),
    )  # fmt: skip
    assert (found.seeds, found.multipliers, found.name) == ((7, 8), (0.5, 1.0), "cat.png")
    assert gen_lines.parse("x --nl none", Request(negative_scale=2)).request.negative_scale is None


@pytest.mark.parametrize(
    ("line", "words"),
    [("x --c y", "CLIP"), ("x --dsd1 3", "Deep Shrink"), ("x --glt 7", "Gradual"), ("x --zz 1", "not an option"),
     ("x --w wide", "cannot be read"), ("x --ss magic", "cannot be read")],
)  # fmt: skip
def test_what_a_line_cannot_have_is_left_out_with_a_note(line, words):
    (note,) = gen_lines.parse(line, Request()).request.notes
    assert words in note


class TestWildcards:
    def draw(self, prompt, seed=0):
        return list(wildcards.expanded(prompt, random.Random(seed)))

    def test_one_of_several(self):
        found = {self.draw("a {red|green|blue} cat", seed)[0] for seed in range(40)}
        assert found == {"a red cat", "a green cat", "a blue cat"}

    def test_several_of_several_in_words(self):
        for seed in range(20):
            (text,) = self.draw("{2-3$$ and $$a|b|c|d}", seed)
            words = text.split(" and ")
            assert len(words) in (2, 3) and len(set(words)) == len(words) and set(words) <= set("abcd")
        assert self.draw("{2$$a|b}") in (["a, b"], ["b, a"])

    def test_each_in_turn(self):
        assert self.draw("{e$$a|b} {E$$x|y}") == ["a x", "a y", "b x", "b y"]
        assert self.draw("{e$$2$$a|b|c}") == ["a, b", "a, c", "b, c"]
        assert len(self.draw("{e$$0|1|2|3|4|5|6|7|8|9}" * 4)) == wildcards.MOST

    def test_inside_each_other(self):
        assert {self.draw("{a {1|2}|b}", seed)[0] for seed in range(40)} == {"a 1", "a 2", "b"}

    @pytest.mark.parametrize("prompt", ["{alone}", r"\{a|b\}", "open { only", "close } only", "no braces"])
    def test_what_is_no_wildcard_stays(self, prompt):
        assert self.draw(prompt) == [prompt]
        assert self.draw(self.draw(prompt)[0]) == [prompt]

    def test_the_same_seed_takes_the_same_words(self):
        asked = [Request("{a|b|c|d|e|f}", seed=seed) for seed in (1, 2, 3, 4, 1)]
        found = [wildcards.settled(each)[0].prompt for each in asked]
        assert found[0] == found[-1] and len(set(found)) > 1


@pytest.fixture(scope="module")
def ready(tiny_sd15):
    """The words of a short run, and the model that they name, read once."""
    from backend import families

    return str(tiny_sd15), families.load(tiny_sd15)


@pytest.fixture
def gen(ready, tmp_path, monkeypatch, capsys):
    """Run the tool; gives its pictures by name, and what it said."""
    path, model = ready
    monkeypatch.setattr(gen_run, "_loaded", lambda options: model)
    model_state = {name: value.clone() for name, value in model.denoiser.state_dict().items()}

    def run(*words):
        out = tmp_path / "out"
        small = ("--ckpt", path, "--outdir", str(out), "--steps", "2", "--sampler", "k_euler")
        assert gen_run.run(parsed(*small, *words)) == 0
        return {file.name: Image.open(file) for file in sorted(out.glob("*"))}, capsys.readouterr().out

    yield run
    model.denoiser.load_state_dict(model_state)


def test_pictures_of_a_file_of_prompts(gen, tmp_path):
    prompts = tmp_path / "p.txt"
    prompts.write_text("# none\na cat --n blurry --w 64 --h 96 --d 3,4\n\na dog --w 64 --h 64 --f dog\n")
    found, said = gen(
        "--from_file", str(prompts), "--images_per_prompt", "2", "--sequential_file_name", "--seed", "1"
    )
    assert list(found) == ["dog-2.png", "dog.png", "im_000001.png", "im_000002.png"]
    texts = found["im_000002.png"].text
    assert found["im_000002.png"].size == (64, 96)
    assert (texts["prompt"], texts["seed"], texts["negative-prompt"]) == ("a cat", "4", "blurry")
    assert (
        texts["raw-prompt"].startswith("a cat --n blurry") and "Seed: 4, Size: 64x96" in texts["parameters"]
    )
    assert "im_000001.png" in said


def test_seeds_are_those_of_sd_scripts(gen):
    size = ("--W", "64", "--H", "64", "--prompt", "x")
    alone, _ = gen(*size, "--seed", "7")
    assert [re.search(r"_(\d+)\.png", name)[1] for name in alone] == ["7"]
    several, _ = gen(*size, "--seed", "7", "--images_per_prompt", "2", "--sequential_file_name")
    rng = random.Random(7)
    seeds = [several[f"im_00000{n}.png"].text["seed"] for n in (1, 2)]
    assert seeds == [str(rng.randint(0, 2**32 - 1)) for _ in range(2)]
    same, _ = gen(
        *size, "--n_iter", "2", "--images_per_prompt", "2", "--iter_same_seed", "--sequential_file_name"
    )
    found = [image.text["seed"] for name, image in same.items() if name.endswith("-2.png") or "00003" in name]
    assert len(found) == 3 and len(set(found)) == 2


def test_two_passes_and_their_pictures(gen):
    found, _ = gen("--prompt", "x", "--W", "128", "--H", "64", "--highres_fix_scale", "0.5",
                   "--highres_fix_steps", "1", "--highres_fix_save_1st", "--seed", "2")  # fmt: skip
    (first, small), (second, large) = found.items()
    assert (small.size, large.size) == ((64, 32), (128, 64)) or (small.size, large.size) == (
        (64, 64),
        (128, 64),
    )
    assert re.match(r"im_\d+_0000_2\.png", first) and re.match(r"im_\d+_1000_2\.png", second)


def test_networks_live_and_merged_are_alike_and_the_meta_is_shown(gen, ready, tmp_path):
    path = write_network(ready[1], tmp_path / "n.safetensors", prefix="unet_")
    size = ("--prompt", "x", "--W", "64", "--H", "64", "--seed", "3")
    network = ("--network_module", "networks.lora", "--network_weights", path, "--network_mul", "0.8")

    def picture(name, *words):
        found, said = gen(*size, *words)
        return np.asarray(found[name], dtype=float), said

    named = [f"{n}.png" for n in ("a", "b", "c")]
    plain, _ = picture(named[0], "--prompt", "x --f a")
    live, said = picture(named[1], "--prompt", "x --f b", *network)
    merged, told = picture(named[2], "--prompt", "x --f c", *network, "--network_merge")
    assert "loading n.safetensors" in said and "merged n.safetensors at 0.8" in told
    assert np.abs(live - merged).mean() < 0.05 < 0.3 < np.abs(live - plain).mean()


def test_from_pictures_of_a_folder(gen, tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    for name in ("one", "two"):
        Image.linear_gradient("L").resize((64, 64)).save(folder / f"{name}.png")
    found, _ = gen(
        "--prompt", "x", "--image_path", str(folder), "--strength", "0.5", "--use_original_file_name"
    )
    assert list(found) == ["one.png", "two.png"] and found["one.png"].size == (64, 64)
    assert "Denoising strength: 0.5" in found["one.png"].text["parameters"]


def test_prompts_are_asked_for_in_the_terminal(gen, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("a cat --w 64 --h 64 --f typed\n\nnever\n"))
    found, _ = gen("--interactive")
    assert list(found) == ["typed.png"]
