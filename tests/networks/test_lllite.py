from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from backend import families
from backend.demo import tiny
from backend.errors import InputError
from backend.networks import lllite
from backend.system.identify import identify
from backend.weights.safefile import write_safetensors

NAME = "lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    path = tmp_path_factory.mktemp("sdxl") / "tiny.safetensors"
    tiny.build_tiny_sdxl(path)
    return families.load(path, dtype=torch.float32)


def made(model, **sizes):
    """A network whose last layers are not zero, so that it does something."""
    network = lllite.create(model.adapter_modules(), **{"cond_dim": 8, "dim": 4, "seed": 3, **sizes})
    draw = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if ".up." in name:
            parameter.data = torch.randn(parameter.shape, generator=draw)
    return network.requires_grad_(False)


def predicted(model, height=64, width=96, batch=1):
    draw = torch.Generator().manual_seed(1)
    noisy = torch.randn(batch, 4, height // 8, width // 8, generator=draw)
    conditioning = {"hidden": torch.zeros(batch, 77, 40), "pooled": torch.zeros(batch, 24)}
    with torch.no_grad():
        return model.predict(noisy, torch.full((batch,), 400), conditioning)


def guide(height=64, width=96, batch=1, seed=2):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_full_sdxl_has_the_136_modules_of_sd_scripts_with_their_names_and_shapes():
    with torch.device("meta"):
        modules = list(families.hollow("sdxl").adapter_modules())
        chosen = [site.name for site in modules if lllite._depth(site.name)]
        parts = {
            name: [tuple(t.shape) for t in lllite.LLLite(site.module, lllite._depth(site.name), 32, 64).state_dict().values()]
            for site in modules
            if (name := site.name) in (NAME.removeprefix("lllite_"), "unet_middle_block_1_transformer_blocks_9_attn2_to_q")
        }  # fmt: skip
    assert len(chosen) == len(set(chosen)) == 136
    assert {name.split("_1_transformer")[0] for name in chosen} == {
        "unet_input_blocks_4", "unet_input_blocks_5", "unet_input_blocks_7", "unet_input_blocks_8", "unet_middle_block",
    }  # fmt: skip
    half, whole = (16, 3, 4, 4), (32, 16, 4, 4)
    linear = [(64, 640), (64,), (64, 96), (64,), (640, 64), (640,)]
    assert parts[NAME.removeprefix("lllite_")] == [half, (16,), whole, (32,), *linear]
    deep = [half, (16,), (16, 16, 4, 4), (16,), (32, 16, 2, 2), (32,)]
    linear = [(64, 1280), (64,), (64, 96), (64,), (1280, 64), (1280,)]
    assert parts["unet_middle_block_1_transformer_blocks_9_attn2_to_q"] == [*deep, *linear]


def test_a_fresh_network_changes_nothing_and_is_drawn_by_key(sdxl):
    before = predicted(sdxl)
    network = lllite.create(sdxl.adapter_modules(), cond_dim=8, dim=4, seed=3)
    again = lllite.create(sdxl.adapter_modules(), cond_dim=8, dim=4, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert len({p.flatten()[0].item() for n, p in network.named_parameters() if "down.0.weight" in n}) > 10
    network.attach()
    network.show(guide())
    assert torch.equal(predicted(sdxl), before)
    network.detach()


def test_one_layer_is_what_the_formula_says(sdxl):
    """Input plus up(mid(guide on the layer's grid beside down(input))), then the layer itself."""
    network = made(sdxl)
    adapter = network.adapters()[NAME]
    w = adapter.state_dict()
    layer = {site.name: site.module for site in sdxl.adapter_modules()}[NAME.removeprefix("lllite_")]
    x, picture = torch.randn(1, 4 * 6, layer.in_features), guide()
    adapter.show(picture)
    cond = F.relu(F.conv2d(picture, w["conditioning1.0.weight"], w["conditioning1.0.bias"], stride=4))
    cond = F.conv2d(cond, w["conditioning1.2.weight"], w["conditioning1.2.bias"], stride=4)
    cond = cond.permute(0, 2, 3, 1).reshape(1, 24, 8)
    lean = F.relu(x @ w["down.0.weight"].T + w["down.0.bias"])
    hidden = F.relu(torch.cat([cond, lean], -1) @ w["mid.0.weight"].T + w["mid.0.bias"])
    added = hidden @ w["up.0.weight"].T + w["up.0.bias"]
    torch.testing.assert_close(adapter(x, layer.forward), layer(x + added))
    adapter.show(None)
    assert torch.equal(adapter(x, layer.forward), layer(x))


def test_the_picture_steers_strength_scales_and_nothing_is_left(sdxl):
    before, network = predicted(sdxl, batch=2), made(sdxl)
    network.attach()
    assert torch.equal(predicted(sdxl, batch=2), before)
    network.show(guide())
    one, other = predicted(sdxl, batch=2), None
    network.show(guide(seed=9))
    other = predicted(sdxl, batch=2)
    assert not torch.allclose(one, before) and not torch.allclose(one, other)
    network.strength = 0.0
    assert torch.equal(predicted(sdxl, batch=2), before)
    network.detach()
    assert torch.equal(predicted(sdxl, batch=2), before)


def test_one_picture_guides_both_halves_of_guidance(sdxl):
    network = made(sdxl)
    network.attach()
    network.show(guide(batch=2))
    single = predicted(sdxl, batch=2)
    network.show(torch.cat([guide(batch=2)] * 2))
    draw = torch.Generator().manual_seed(1)
    noisy = torch.randn(2, 4, 8, 12, generator=draw).repeat(2, 1, 1, 1)
    text = {"hidden": torch.zeros(4, 77, 40), "pooled": torch.zeros(4, 24)}
    with torch.no_grad():
        four = sdxl.predict(noisy, torch.full((4,), 400), text)
        network.show(guide(batch=2))
        repeated = sdxl.predict(noisy, torch.full((4,), 400), text)
    network.detach()
    torch.testing.assert_close(four, repeated)
    torch.testing.assert_close(repeated[:2], single)


@pytest.mark.parametrize("sides", [(72, 104), (40, 64)])
def test_sides_that_are_no_multiple_of_the_grid_work(sdxl, sides):
    network = made(sdxl)
    network.attach()
    network.show(guide(*sides))
    assert torch.isfinite(predicted(sdxl, *sides)).all()
    network.detach()


def test_gradients_reach_all_of_it_also_with_checkpointing(sdxl):
    found = []
    for checkpointing in (False, True):
        network = made(sdxl).requires_grad_(True)
        network.attach()
        sdxl.enable_gradient_checkpointing(checkpointing)
        network.show(guide())
        draw = torch.Generator().manual_seed(1)
        noisy = torch.randn(1, 4, 8, 12, generator=draw)
        text = {"hidden": torch.randn(1, 77, 40, generator=draw), "pooled": torch.zeros(1, 24)}
        sdxl.predict(noisy, torch.tensor([400]), text).square().mean().backward()
        network.detach()
        found.append({name: parameter.grad for name, parameter in network.named_parameters()})
    sdxl.enable_gradient_checkpointing(False)
    untouched = [name for name, gradient in found[0].items() if gradient is None or not gradient.any()]
    assert not untouched
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_file_gives_the_network_back(sdxl, tmp_path):
    network, path = made(sdxl), tmp_path / "lines.safetensors"
    weights = network.file_weights()
    assert f"{NAME}.conditioning1.0.weight" in weights and f"{NAME}.up.0.bias" in weights
    assert lllite.sizes_of(weights) == (8, 4)
    write_safetensors(path, weights)
    assert (identify(path).kind, identify(path).family) == ("lllite", "sdxl")
    again = lllite.from_weights(weights, sdxl.adapter_modules())
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in weights.items())


def test_what_is_no_lllite_or_for_another_model_is_refused(sdxl):
    weights = made(sdxl).file_weights()
    with pytest.raises(InputError, match="no ControlNet-LLLite"):
        lllite.from_weights({"lora_unet_x.lora_up.weight": torch.ones(1)}, sdxl.adapter_modules())
    with pytest.raises(InputError, match="does not fit"):
        renamed = {name.replace("blocks_4_1", "blocks_9_1"): tensor for name, tensor in weights.items()}
        lllite.from_weights(renamed, sdxl.adapter_modules())
    with pytest.raises(InputError, match="lacks"):
        cut = {name: tensor for name, tensor in weights.items() if name != f"{NAME}.mid.0.weight"}
        lllite.from_weights(cut, sdxl.adapter_modules())
