"""Making the demo's model: each stage learns, resumes and leaves what the next one needs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from backend import families, keyed
from backend.demo.make import latents, muon, pictures, score, snapshots, stages, text, unet, vae
from backend.demo.make.course import Course, Moment, Pace
from backend.demo.make.shapes import DEMO, Shapes
from backend.demo.make.stages import Making
from backend.demo.reading import TAGGER
from backend.errors import InputError
from backend.families.parts.clip import ClipShape
from backend.families.parts.tokenizer import ClipTokenizer
from backend.families.parts.unet import UNetShape
from backend.families.parts.vae import VaeShape

TOY = Shapes(
    unet=UNetShape(widths=(8, 8, 8, 8), context_width=16, heads=2, norm_groups=2),
    text=ClipShape(width=16, inner=16, heads=2),
    vae=VaeShape(widths=(12, 12, 12, 12), norm_groups=1),
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Making:
    """A toy model that has been through every stage, two steps each."""
    folder = tmp_path_factory.mktemp("make")
    making = Making(
        folder / "work", folder / "toy.safetensors", shapes=TOY, pool=8, plain=20, mixed=20, shown=32, described=32, fresh=6,
        prompts=2, steps=2, lesson=unet.Lesson(0.5),
    )  # fmt: skip
    shutil.copytree(TAGGER, making.beside("tagger"))  # test_readers.py makes readers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latents, "SHARD", 20)
        stages.run(making, [stage for stage in stages.STAGES if stage not in ("tagger", "captioner")], 5)
    return making


def shown_pictures(seed: int, count: int) -> torch.Tensor:
    found = [pictures.world_picture(seed, index, 0.3)[1] for index in range(count)]
    return pictures.pixels_of(np.stack(found))


def newest(making: Making, stage: str) -> dict[str, object]:
    state = snapshots.load(making.work, stage)
    assert state is not None
    return state


def test_the_file_draws_what_the_model_in_memory_draws(made: Making) -> None:
    net = unet.fresh(TOY.unet, made.seed)
    stages._averaged(net, newest(made, "unet"))
    words = text.widened(stages.finished_reader(made), TOY.text, made.seed)
    coder = stages.finished_vae(made)
    loaded = families.load(made.out)
    for part in (net, words, coder):
        part.half().float()

    tokens = loaded.tokenize(["a red star on a blue background", "sks"])
    hidden = words(tokens["te"][:, 0])
    noisy = torch.randn(2, 4, 16, 16, generator=keyed.generator(1, "test"))
    times = torch.tensor([20, 900])
    assert torch.equal(loaded.encode_text(tokens)["hidden"], hidden)
    assert torch.equal(loaded.predict(noisy, times, {"hidden": hidden}), net(noisy, times, hidden))
    assert torch.equal(loaded.decode_latents(noisy), coder.decode(noisy / 0.18215))


def test_the_file_says_how_it_was_made(made: Making) -> None:
    metadata = families.load(made.out).source.metadata
    record = json.loads(metadata["atelier.made"])
    assert record["seed"] == made.seed
    assert {stage: record["stages"][stage]["steps"] for stage in ("vae", "text", "unet")} == {
        "vae": 2, "text": 2, "unet": 2,
    }  # fmt: skip
    assert list(made.work.glob("sheet-000002.png"))


@pytest.mark.parametrize("stage", ["text", "unet"])
def test_a_stage_goes_on_from_its_snapshot(
    made: Making, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "SHARD", 20)
    going = replace(made, work=tmp_path / "work")
    shutil.copytree(made.work, going.work)
    before = newest(going, stage)
    stages.run(going, [stage], 5)
    after = newest(going, stage)
    assert (before["step"], after["step"]) == (2, 4)
    name = next(name for name in before["module"] if name.endswith("weight"))  # type: ignore[union-attr]
    assert not torch.equal(before["module"][name], after["module"][name])  # type: ignore[index]


def test_the_vae_goes_on_with_the_decoder_once_latents_depend_on_it(made: Making, tmp_path: Path) -> None:
    going = replace(made, work=tmp_path / "work")
    shutil.copytree(made.work, going.work)
    before = stages.finished_vae(going).state_dict()
    stages.run(going, ["vae"], 5)
    after = stages.finished_vae(going).state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "post_quant_conv"}
    assert newest(going, "vae")["step"] == 2


def test_a_vae_trained_on_details_takes_effect_when_it_is_swapped_in(made: Making, tmp_path: Path) -> None:
    going = replace(made, work=tmp_path / "work")
    shutil.copytree(made.work, going.work)
    stages.run(going, ["vae", "detail"], 5)
    before = stages.finished_vae(going)
    wanted = stages._detailed_vae(going).state_dict()
    assert not torch.equal(wanted["encoder.conv_in.weight"], before.encoder.conv_in.weight)
    stages.run(going, ["swap"], 5)
    after = stages.finished_vae(going).state_dict()
    assert all(torch.equal(after[name], wanted[name]) for name in wanted)
    assert not list((going.work / "latents").iterdir())
    assert set(stages.history(going)["stages"]) == {"vae", "decoder", "detail", "text", "unet"}


def test_an_unfolded_vae_codes_like_the_folded_one() -> None:
    whole = vae.Vae(TOY.vae)
    shown = shown_pictures(4, 2)
    coder = vae.unfolded(whole).eval()
    with torch.no_grad():
        latents_of = coder.encode(shown)
        assert torch.allclose(latents_of, whole.posterior(shown)[0] * 0.18215, atol=1e-6)
        assert torch.allclose(coder.decode(latents_of), whole.decode(latents_of / 0.18215), atol=1e-5)


def test_details_weigh_more_than_even_ground() -> None:
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, :, 15:17, 15:17] = 1.0
    weights = vae.detail_weights(pixels)
    assert weights[0, 0, 0, 0] == 1.0
    assert weights[0, 0, 16, 16] > 2.0


def test_an_interrupted_course_leaves_a_snapshot(tmp_path: Path) -> None:
    course = Course(tmp_path, "line", torch.nn.Linear(2, 2), Pace(1, 0.01))

    def loss_of(moment: Moment) -> torch.Tensor:
        if moment.step == 3:
            raise KeyboardInterrupt
        return course.module(torch.ones(1, 2)).sum()

    with pytest.raises(KeyboardInterrupt):
        course.run(loss_of)
    assert newest_step(tmp_path) == 3


def newest_step(work: Path) -> int:
    state = snapshots.load(work, "line")
    assert state is not None
    return state["step"]


def test_a_stage_without_its_forerunner_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--stage vae"):
        stages.run(Making(tmp_path, tmp_path / "x.safetensors", shapes=TOY), ["latents"], 1)


def test_a_course_keeps_weights_momenta_and_average(tmp_path: Path) -> None:
    def line() -> torch.nn.Linear:
        torch.manual_seed(1)
        return torch.nn.Linear(4, 3)

    def loss_of(course: Course) -> None:
        course.run(lambda _: course.module(torch.ones(2, 4)).square().mean())

    first = Course(tmp_path, "line", line(), Pace(1, 0.01, steps=3))
    loss_of(first)
    second = Course(tmp_path, "line", line(), Pace(1, 0.01, steps=3))
    assert second.step == 3
    assert torch.equal(second.module.weight, first.module.weight)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(first.average, second.average, strict=True))
    momenta = zip(first.optimizer.momenta.values(), second.optimizer.momenta.values(), strict=True)
    assert all(torch.equal(a, b) and a.abs().sum() > 0 for a, b in momenta)
    loss_of(second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["line-00000003.pt", "line-00000006.pt"]


def test_a_damaged_snapshot_is_passed_over(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        snapshots.save(tmp_path, "line", step, {"step": step})
    assert len(list(tmp_path.iterdir())) == 2
    path = tmp_path / "line-00000003.pt"
    path.write_bytes(path.read_bytes()[:100])
    assert snapshots.load(tmp_path, "line") == {"step": 2}
    assert snapshots.load(tmp_path, "other") is None


@pytest.mark.parametrize("shape", [(2, 8, 20), (2, 20, 8), (1, 6, 6)])
def test_muon_evens_out_singular_values(shape: tuple[int, int, int]) -> None:
    stack = torch.randn(shape, generator=keyed.generator(1, "muon"))
    values = torch.linalg.svdvals(muon.orthogonal(stack))
    assert values.min() > 0.5 and values.max() < 1.3


def test_the_first_vae_hands_colours_on_before_any_training() -> None:
    coder = vae.Coder(vae.fresh(DEMO.vae, 0)).eval()
    shown = shown_pictures(3, 8)
    vae.calibrate(coder, shown)
    with torch.no_grad():
        returned = coder.decode(coder.encode(shown))
    assert (returned - shown).abs().mean() < 0.15


def test_a_folded_vae_codes_alike_with_latents_of_unit_variance() -> None:
    coder = vae.Coder(vae.fresh(TOY.vae, 0)).eval()
    vae.calibrate(coder, shown_pictures(3, 6))
    torch.nn.init.normal_(coder.vae.post_quant_conv.weight)
    shown = shown_pictures(4, 6)
    done = vae.folded(coder, shown)
    with torch.no_grad():
        mean, deviation = done.posterior(shown)
        wanted = coder.decode(coder.encode(shown))
        assert torch.allclose(done.decode(mean), wanted, atol=1e-4)
    scaled = mean * 0.18215
    assert scaled.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    assert (scaled.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-3
    assert torch.allclose(deviation * 0.18215, torch.tensor(vae.POSTERIOR), rtol=1e-4)


def test_the_first_unet_predicts_its_input_as_noise() -> None:
    net = unet.fresh(DEMO.unet, 0).eval()
    noise = torch.randn(2, 4, 16, 16, generator=keyed.generator(1, "noise"))
    with torch.no_grad():
        found = net(noise, torch.tensor([999, 900]), torch.zeros(2, 77, DEMO.text.width))
    assert (found - noise).square().mean() < 0.01


def test_loss_weights_are_bounded_signal_to_noise_ratios() -> None:
    alphas = unet.alphas_cumprod()
    weights = unet.loss_weights(alphas)
    snr = alphas / (1 - alphas)
    assert torch.allclose(alphas[[0, 999]], torch.tensor([0.99915, 0.00466]), rtol=1e-3)
    assert torch.allclose(weights[snr > 4], (4 / snr)[snr > 4])
    assert torch.allclose(weights[snr < 0.25], (0.25 / snr)[snr < 0.25])
    assert torch.all(weights[(snr > 0.26) & (snr < 3.9)] == 1)


def test_words_of_the_world_are_known_and_others_are_noise() -> None:
    words = text.words()
    known = words.ids(["a small pink dotted flower with a smiling face at night under stars"])
    assert known.shape == (1, 77) and known.max() < len(words.known)
    assert known[0, 0] == 0 and (known[0] == 1).any()
    strange = words.ids(["a helicopter"])
    assert (strange >= len(words.known)).any() and strange.max() < words.rows


def test_the_widened_text_encoder_reads_the_world_alike() -> None:
    torch.manual_seed(0)
    reader = text.Reader(TOY.text).eval().requires_grad_(False)
    wide = text.widened(reader, TOY.text, 1)
    caption = "a red star and a small teal ring in the snow"
    ids = ClipTokenizer().chunks([caption])[:, 0]
    small = reader.encoder(text.words().ids([caption]))
    assert torch.equal(wide(ids), small)
    assert torch.isfinite(wide(ClipTokenizer().chunks(["sks creature"])[:, 0])).all()


def test_latents_are_made_once(made: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "SHARD", 20)
    found = latents.read(made.work, "plain")
    assert found.shape == (20, 4, 16, 16) and found.dtype == torch.float16
    times = [path.stat().st_mtime_ns for path in sorted((made.work / "latents").iterdir())]
    latents.fill(made.work, stages.finished_vae(made), "plain", 20, made.seed)
    assert times == [path.stat().st_mtime_ns for path in sorted((made.work / "latents").iterdir())]


def test_pictures_come_from_their_numbers(tmp_path: Path) -> None:
    pool = pictures.pool(tmp_path / "pool.npy", 6, 4)
    again = pictures.pool(tmp_path / "pool.npy", 6, 4)
    assert np.array_equal(pool, again) and pool.shape == (6, 128, 128, 3)
    assert np.array_equal(pool[2], pictures.wide_picture(keyed.python(4, "wide", 2)))
    assert np.array_equal(pool[3], pictures.world_picture(4, 3, 0.3)[1])
    assert len({picture.tobytes() for picture in pool}) == 6


def test_the_prompts_that_are_scored_are_fixed() -> None:
    captions = [scene.caption() for scene in score.plain_prompts(100)]
    assert len(captions) == 100 and len(set(captions)) > 90
    assert captions[:2] == [scene.caption() for scene in score.plain_prompts(2)]
    assert not any(word in " ".join(captions) for word in ("small", "striped", "smiling", " and "))


def test_a_finished_file_can_be_trained_on_without_its_snapshots(made: Making, tmp_path: Path) -> None:
    going = replace(made, work=tmp_path / "work")
    shutil.copy2(made.out, tmp_path / "again.safetensors")
    going = replace(going, out=tmp_path / "again.safetensors")
    stages.run(going, ["start", "export"], 5)
    first, again = load_file(made.out), load_file(going.out)
    name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    known = torch.tensor(text.words().known)
    assert torch.equal(first.pop(name)[known], again.pop(name)[known])
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert stages.history(going)["stages"] == stages.history(made)["stages"]
    assert newest(going, "unet")["step"] == 2


def test_newer_snapshots_are_not_replaced_by_those_of_a_file(made: Making) -> None:
    with pytest.raises(InputError, match="newer snapshots"):
        stages.run(made, ["start"], 5)
