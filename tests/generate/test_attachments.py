"""What is put to a loaded model and taken away again: networks, embeddings, guides, another VAE."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from backend import families, keyed, networks
from backend.demo.tiny import build_tiny_sd15, build_tiny_sdxl
from backend.errors import InputError
from backend.generate import engine, sampling
from backend.generate.attachments import Attachments
from backend.generate.request import Guide, LoraUse, Request
from backend.generate.warm import Warm
from backend.networks import lllite
from backend.weights.safefile import write_safetensors
from tests.networks.kinds import KINDS

ASKED = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2, "seed": 5, "sampler": "euler"}


KINDS_USED = ("lora", "lora dora", "oft", "locon tucker", "loha", "lokr", "norm")


def write_network(model, path, kind="lora", seed=1, prefix=""):
    """A network file with random weights on all of a model's modules, or those whose names begin so."""
    sites = [*model.adapter_modules(), *model.further_modules()]
    module, spec = KINDS[kind]
    network = networks.create(module, [site for site in sites if site.name.startswith(prefix)], spec)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            drawn = torch.randn(parameter.shape, generator=keyed.generator(seed, "weight", name))
            parameter.add_(drawn * 0.05)
    write_safetensors(path, network.file_weights(), {})
    return str(path)


@contextmanager
def merged(model, path):
    """The model with a network in its own weights meanwhile."""
    kept = [
        {name: tensor.clone() for name, tensor in part.state_dict().items()}
        for part in model.parts().values()
    ]
    weights, _ = networks.read_lora(path)
    networks.from_weights(weights, [*model.adapter_modules(), *model.further_modules()]).merge()
    yield
    for part, state in zip(model.parts().values(), kept, strict=True):
        part.load_state_dict(state)


@pytest.fixture(scope="module")
def model(tiny_sd15):
    return families.load(tiny_sd15)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    path = tmp_path_factory.mktemp("sdxl") / "tiny.safetensors"
    build_tiny_sdxl(path)
    return families.load(path)


@pytest.fixture(scope="module")
def loras(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("loras")
    write_network(model, folder / "Style.safetensors")
    write_network(model, folder / "text.safetensors", seed=2, prefix="te_")
    return folder


@pytest.fixture
def attached(model):
    made = Attachments(model)
    yield made
    made.clear()


def latents(model, attached, **more) -> torch.Tensor:
    pictures = engine.resolve(model, Request(**{**ASKED, **more}))
    return sampling.sample(model, pictures, passing=attached.use(pictures)).final


def far(a, b) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("kind", KINDS_USED)
def test_live_at_full_strength_is_merged(model, tmp_path, attached, kind):
    path = write_network(model, tmp_path / "n.safetensors", kind)
    without, live = latents(model, attached), latents(model, attached, loras=(LoraUse(path),))
    attached.use([Request(**ASKED)])
    with merged(model, tmp_path / "n.safetensors"):
        whole = latents(model, attached)
    assert far(whole, live) < 1e-3 < far(live, without)


def test_strengths_of_text_and_denoiser_are_their_own(model, loras, attached):
    both, text = str(loras / "Style.safetensors"), str(loras / "text.safetensors")
    without = latents(model, attached)
    off = latents(model, attached, loras=(LoraUse(text, 1.0, 0.0),))
    assert far(off, without) < 1e-5, "the file changes text alone, which is off"
    assert far(latents(model, attached, loras=(LoraUse(text, 0.0, 1.0),)), without) > 1e-4
    unet = latents(model, attached, loras=(LoraUse(both, 1.0, 0.0),))
    full = latents(model, attached, loras=(LoraUse(both, 1.0),))
    assert far(unet, without) > 1e-4 and far(unet, full) > 1e-4


def test_half_of_a_network_lies_between_nothing_and_all(model, loras, attached):
    found = [
        latents(model, attached, loras=(LoraUse(str(loras / "Style.safetensors"), s),)) for s in (0, 0.5, 1)
    ]
    assert torch.allclose(found[0], latents(model, attached), atol=1e-5)
    half, full = ((each - found[0]).norm() for each in found[1:])
    assert 0.1 * full < half < full


def test_networks_are_named_in_the_prompt_and_found_in_a_folder(model, loras, attached):
    named = latents(model, attached, prompt="a cat <lora:style:0.5>", lora_folder=str(loras))
    path = str(loras / "Style.safetensors")
    assert torch.equal(named, latents(model, attached, loras=(LoraUse(path, 0.5),)))
    with pytest.raises(InputError, match="gone"):
        latents(model, attached, prompt="a cat <lora:gone:1>", lora_folder=str(loras))


def test_the_same_file_twice_counts_as_the_sum(model, loras, attached):
    path = str(loras / "Style.safetensors")
    twice = latents(model, attached, loras=(LoraUse(path, 0.3), LoraUse(path, 0.5)))
    assert far(latents(model, attached, loras=(LoraUse(path, 0.8),)), twice) < 1e-5


def test_files_are_read_once_and_the_model_is_as_before_afterwards(model, loras):
    said = []
    attached = Attachments(model, lambda **facts: said.append(facts))
    without = latents(model, attached)
    paths = [str(loras / name) for name in ("Style.safetensors", "text.safetensors")]
    for uses in (paths, paths[::-1], paths[:1], [], paths):
        latents(model, attached, loras=tuple(LoraUse(path) for path in uses))
    assert [fact["path"] for fact in said] == ["Style.safetensors", "text.safetensors"]
    assert torch.equal(latents(model, attached), without)
    assert not any("forward" in module.__dict__ for module in model.denoiser.modules())


def test_a_file_that_was_written_anew_is_read_anew(model, attached, tmp_path):
    path = write_network(model, tmp_path / "n.safetensors")
    first = latents(model, attached, loras=(LoraUse(path),))
    (tmp_path / "n.safetensors").unlink()
    write_network(model, tmp_path / "n.safetensors", seed=7)
    assert far(latents(model, attached, loras=(LoraUse(path),)), first) > 1e-3


def test_a_file_for_another_model_is_named_and_nothing_stays_attached(model, sdxl, loras, attached, tmp_path):
    path = write_network(sdxl, tmp_path / "xl.safetensors", prefix="unet_input_blocks_4")
    without = latents(model, attached)
    with pytest.raises(InputError, match=r"xl\.safetensors[\s\S]*SDXL"):
        latents(model, attached, loras=(LoraUse(str(loras / "Style.safetensors")), LoraUse(path)))
    assert torch.equal(latents(model, attached), without)


def test_words_of_a_folder_are_read_where_a_prompt_names_them(model, attached, tmp_path):
    vectors = torch.randn(3, 48, generator=torch.Generator().manual_seed(0)) * 0.05
    width = model.word_tables()[0].module.embedding_dim
    save_file({"emb_params": vectors[:, :width].contiguous()}, tmp_path / "mycat.safetensors")
    texts = ("a mycat on a mat", "a cat on a mat")
    found = {text: latents(model, attached, prompt=text, embeddings=str(tmp_path)) for text in texts}
    plain = {text: latents(model, attached, prompt=text) for text in texts}
    assert far(found[texts[0]], plain[texts[0]]) > 1e-4
    assert torch.equal(found[texts[1]], plain[texts[1]])
    assert not model.words.ids


def test_another_vae_decodes_and_the_own_comes_back(model, attached, tmp_path):
    build_tiny_sd15(tmp_path / "other.safetensors", seed=5)
    request = Request(**ASKED)

    def picture(asked):
        (made,) = engine.draw(model, [asked], attachments=attached)
        return np.asarray(made.image, dtype=int)

    own = picture(request)
    other = picture(Request(**ASKED, vae=str(tmp_path / "other.safetensors")))
    assert np.abs(own - other).mean() > 5
    assert np.array_equal(picture(request), own)


def test_a_model_that_comes_without_a_vae_takes_the_one_that_is_named(tiny_sd15, tmp_path):
    weights = {
        name: each for name, each in load_file(tiny_sd15).items() if not name.startswith("first_stage")
    }
    with safe_open(tiny_sd15, "pt") as file:
        save_file(weights, tmp_path / "bare.safetensors", file.metadata())
    made, said = Warm(torch.device("cpu")), []
    with pytest.raises(InputError, match="VAE"):
        made.use(tmp_path / "bare.safetensors", lambda **facts: said.append(facts))
    model, attached = made.use(
        tmp_path / "bare.safetensors", lambda **facts: said.append(facts), vae=str(tiny_sd15)
    )
    (drawn,) = engine.draw(model, [Request(**ASKED, vae=str(tiny_sd15))], attachments=attached)
    assert drawn.image.size == (64, 64)


def test_a_vae_of_another_kind_of_model_is_refused(model, attached, tmp_path):
    from tests.families import sd3_kit

    path = sd3_kit.build(tmp_path / "sd3.safetensors")
    with pytest.raises(
        InputError, match=r"16 channels[\s\S]*sd3\.safetensors|sd3\.safetensors[\s\S]*16 channels"
    ):
        latents(model, attached, vae=str(path))


@pytest.fixture
def guide(sdxl, tmp_path):
    network = lllite.create(sdxl.adapter_modules(), cond_dim=8, dim=4)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=keyed.generator(3, "guide", name)) * 0.2)
    write_safetensors(tmp_path / "lines.safetensors", network.file_weights(), {})
    Image.linear_gradient("L").resize((64, 64)).save(tmp_path / "lines.png")
    Image.new("L", (64, 64), 200).save(tmp_path / "grey.png")
    return tmp_path


def test_a_guide_steers_by_its_picture_strength_and_share_of_the_steps(sdxl, guide):
    attached = Attachments(sdxl)

    def found(image="lines.png", strength=1.0, ratio=1.0):
        use = Guide(str(guide / "lines.safetensors"), str(guide / image), strength, ratio)
        return latents(sdxl, attached, guides=(use,), steps=4)

    without, full = latents(sdxl, attached, steps=4), found()
    assert far(full, without) > 1e-4 and far(found("grey.png"), full) > 1e-5
    assert torch.equal(found(strength=0.0), without) and torch.equal(found(ratio=0.0), without)
    half = found(ratio=0.5)
    assert float((half - without).norm()) > 0 and far(half, full) > 1e-6
    attached.clear()
    assert torch.equal(latents(sdxl, attached, steps=4), without)


def test_a_guide_without_its_file_or_picture_is_asked_for(sdxl, guide):
    for use in (Guide("", "x.png"), Guide(str(guide / "lines.safetensors"), "")):
        with pytest.raises(InputError, match="was chosen"):
            latents(sdxl, Attachments(sdxl), guides=(use,))


def test_a_picture_does_not_depend_on_what_is_drawn_beside_it(model):
    prompts = ["a cat", "a cat BREAK a dog", "a cat, " + "red " * 80, "a dog"]
    asked = [Request(**{**ASKED, "prompt": each, "batch": 4, "max_token_length": 0}) for each in prompts]
    together = [np.asarray(image).astype(int) for image in engine.generate(model, asked)]
    alone = [np.asarray(engine.generate(model, [each])[0]).astype(int) for each in asked]
    for left, right in zip(together, alone, strict=True):
        assert np.abs(left - right).max() <= 1
    assert not np.array_equal(alone[0], alone[1])
