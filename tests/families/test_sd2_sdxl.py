"""SD 2.x and SDXL: names, shapes, loading, saving, and what their parts compute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from backend import families
from backend.demo.tiny import TINY_SD2, TINY_SDXL, build_tiny_sd2, build_tiny_sdxl
from backend.errors import InputError
from backend.families.base import DiffusionModel, Sizes
from backend.families.parts.clip import ClipTextModel
from backend.families.parts.latent import LatentDiffusion
from backend.families.parts.skeleton import skeleton
from backend.families.parts.unet import UNet
from backend.families.sd2 import layout as sd2
from backend.families.sd2.load import seems_to_predict_v
from backend.families.sd2.model import StableDiffusion2
from backend.families.sdxl import layout as sdxl
from backend.families.sdxl.model import StableDiffusionXL
from backend.system.identify import identify
from tests.families.reference import reference_text, reference_unet, sample

CAPTIONS = ["a photo of a cat", "sks, red hat, " * 30]


@pytest.fixture(scope="module")
def sd2_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny_sd2.safetensors"
    build_tiny_sd2(path, metadata={"modelspec.prediction_type": "epsilon"})
    return path


@pytest.fixture(scope="module")
def sdxl_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny_sdxl.safetensors"
    build_tiny_sdxl(path)
    return path


@pytest.fixture(scope="module")
def small_sd2(sd2_file: Path) -> StableDiffusion2:
    model = families.load(sd2_file)
    assert isinstance(model, StableDiffusion2)
    return model


@pytest.fixture(scope="module")
def small_sdxl(sdxl_file: Path) -> StableDiffusionXL:
    model = families.load(sdxl_file)
    assert isinstance(model, StableDiffusionXL)
    return model


def rewritten(path: Path, target: Path, add: Mapping[str, torch.Tensor], drop: tuple[str, ...] = ()) -> Path:
    """A copy of a file with tensors added and (by prefix) left out."""
    tensors = {name: value for name, value in load_file(path).items() if not name.startswith(drop or ("?",))}
    with safe_open(path, "pt") as file:
        save_file({**tensors, **add}, target, file.metadata())
    return target


def full(kind: type[LatentDiffusion], shapes: Mapping[str, object], unet: object) -> LatentDiffusion:
    model = object.__new__(kind)
    model.denoiser = skeleton(lambda: UNet(unet))
    model.text_encoders = {key: skeleton(lambda s=shape: ClipTextModel(s)) for key, shape in shapes.items()}
    return model


FULL = {
    "sd2": lambda: full(StableDiffusion2, {"te": sd2.FULL_TEXT}, sd2.FULL_UNET),
    "sdxl": lambda: full(StableDiffusionXL, {"te1": sdxl.FULL_TEXT, "te2": sdxl.FULL_TEXT_2}, sdxl.FULL_UNET),
}


class TestFullWidth:
    @pytest.mark.parametrize(
        ("family", "file", "count"),
        [
            ("sd2", "full_sd2_lora", 330),
            ("sdxl", "full_sdxl_lora", 986),
            ("sdxl", "full_sdxl_lora_conv", 1052),
        ],
    )
    def test_modules_are_those_of_the_reference(
        self, golden_dir: Path, family: str, file: str, count: int
    ) -> None:
        from backend import networks
        from backend.networks.base import NetworkSpec

        wanted = json.loads((golden_dir / "keys" / f"{file}.json").read_text())
        conv = {"conv_dim": 4, "conv_alpha": 1.0} if "conv_dim" in wanted["network_args"] else {}
        spec = NetworkSpec(dim=4, alpha=2.0, **conv)
        modules = list(FULL[family]().adapter_modules())
        network = networks.create("networks.lora", modules, spec, seed=0)
        found = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        assert found == wanted["tensors"]
        assert len(network.adapters()) == count

    def test_unet_of_sdxl(self, golden_dir: Path) -> None:
        wanted = json.loads((golden_dir / "keys" / "full_sdxl_unet_state_dict.json").read_text())
        shapes = sdxl.original_shapes(sdxl.FULL_UNET, sdxl.FULL_TEXT, sdxl.FULL_TEXT_2, sdxl.FULL_VAE)
        found = {name.removeprefix("model.diffusion_model."): list(s) for name, s in shapes.items()}
        assert {name: found[name] for name in wanted} == wanted
        assert len(shapes) == 2514, "2515 with the constant position_ids that some files have"

    def test_whole_sdxl_has_the_names_of_the_reference(self, golden_dir: Path) -> None:
        shapes = sdxl.original_shapes(sdxl.FULL_UNET, sdxl.FULL_TEXT, sdxl.FULL_TEXT_2, sdxl.FULL_VAE)
        with safe_open(golden_dir / "in" / "tiny_sdxl_small.safetensors", "pt") as file:
            names = set(file.keys())
        assert {name for name in names if not name.endswith("position_ids")} == set(shapes)
        assert shapes["conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight"] == (
            3840,
            1280,
        )

    def test_whole_sd2(self) -> None:
        shapes = sd2.original_shapes(sd2.FULL_UNET, sd2.FULL_TEXT, sd2.FULL_VAE)
        assert shapes["cond_stage_model.model.transformer.resblocks.23.mlp.c_fc.weight"] == (4096, 1024)
        assert shapes["model.diffusion_model.input_blocks.1.1.proj_in.weight"] == (320, 320)
        assert len([name for name in shapes if name.startswith("cond_stage_model.")]) == 24 * 12 + 6

    @pytest.mark.parametrize("family", ["sd2", "sdxl"])
    def test_the_rule_gives_the_full_dimensions(self, family: str) -> None:
        module = {"sd2": sd2, "sdxl": sdxl}[family]
        tiny = {"sd2": TINY_SD2, "sdxl": TINY_SDXL}[family]
        texts = {"text_encoder": module.FULL_TEXT}
        if family == "sdxl":
            texts["text_encoder_2"] = sdxl.FULL_TEXT_2
        whole = replace(tiny, unet=module.FULL_UNET, texts=texts, vae=module.FULL_VAE)
        assert whole.by_rule(module.RULE) == whole
        assert tiny.by_rule(module.RULE) != tiny


class TestFiles:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    @pytest.mark.parametrize("family", ["sd2", "sdxl"])
    def test_round_trip_gives_the_same_tensors(
        self, family: str, dtype: torch.dtype, sd2_file: Path, sdxl_file: Path, tmp_path: Path
    ) -> None:
        source = rewritten(
            {"sd2": sd2_file, "sdxl": sdxl_file}[family], tmp_path / "in.safetensors", {"odd": torch.ones(2)}
        )
        families.load(source, dtype=dtype).save(tmp_path / "out.safetensors", torch.float16)
        before, after = load_file(source), load_file(tmp_path / "out.safetensors")
        assert set(before) == set(after)
        for name, tensor in before.items():
            assert torch.equal(after[name], tensor.half()), name
        again = families.load(tmp_path / "out.safetensors", dtype=dtype)
        assert isinstance(again, LatentDiffusion)
        assert again.shapes() == {"sd2": TINY_SD2, "sdxl": TINY_SDXL}[family]

    def test_golden_sdxl_round_trip(self, golden_dir: Path, tmp_path: Path) -> None:
        path = golden_dir / "in" / "tiny_sdxl_small.safetensors"
        families.load(path, dtype=torch.float16).save(tmp_path / "out.safetensors", torch.float16)
        before, after = load_file(path), load_file(tmp_path / "out.safetensors")
        assert set(before) == set(after)
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())

    def test_a_ckpt_loads(self, sdxl_file: Path, tmp_path: Path) -> None:
        torch.save({"state_dict": load_file(sdxl_file)}, tmp_path / "model.ckpt")
        # A .ckpt has no metadata: the narrow model's heads follow the rule, and do not fit its widths.
        with pytest.raises(InputError, match="norm groups"):
            families.load(tmp_path / "model.ckpt")

    @pytest.mark.parametrize("family", ["sd2", "sdxl"])
    def test_a_diffusers_folder(
        self, family: str, small_sd2: StableDiffusion2, small_sdxl: StableDiffusionXL, tmp_path: Path,
        sd2_file: Path, sdxl_file: Path,
    ) -> None:  # fmt: skip
        from diffusers import AutoencoderKL

        model: LatentDiffusion = {"sd2": small_sd2, "sdxl": small_sdxl}[family]
        reference_unet(model).save_pretrained(tmp_path / "unet")
        shape = model.autoencoder.shape
        vae = AutoencoderKL(
            block_out_channels=shape.widths, down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=2, norm_num_groups=shape.norm_groups,
            scaling_factor=shape.scaling_factor,
        )  # fmt: skip
        vae.load_state_dict(model.vae.state_dict())
        vae.save_pretrained(tmp_path / "vae")
        for key, part in model.text_parts.items():
            reference_text(model.text(key)).save_pretrained(tmp_path / part)
        pipeline = "StableDiffusionXLPipeline" if family == "sdxl" else "StableDiffusionPipeline"
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
        (tmp_path / "scheduler").mkdir()
        scheduler = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
        (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))

        loaded = families.load(tmp_path)
        assert isinstance(loaded, type(model))
        assert loaded.prediction == "v"
        assert loaded.shapes() == model.shapes()
        for (name, ours), theirs in zip(model.state().items(), loaded.state().values(), strict=True):
            assert torch.equal(ours, theirs), name
        loaded.save(tmp_path / "out.safetensors", torch.float16)
        saved, source = (
            load_file(tmp_path / "out.safetensors"),
            load_file({"sd2": sd2_file, "sdxl": sdxl_file}[family]),
        )
        assert {name: value.shape for name, value in saved.items()} == {
            name: value.shape for name, value in source.items()
        }
        made = "cond_stage_model.model.transformer.resblocks.3", "cond_stage_model.model.text_projection"
        for name, value in source.items():
            if not name.startswith(made) and not name.endswith("logit_scale"):
                assert torch.equal(saved[name], value), name


class TestKinds:
    def test_sdxl_that_predicts_v_without_terminal_signal(self, sdxl_file: Path, tmp_path: Path) -> None:
        marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
        path = rewritten(sdxl_file, tmp_path / "noob.safetensors", marks)
        found = identify(path)
        assert (found.title, found.prediction) == ("SDXL v-prediction with zero terminal SNR", "v")
        model = families.load(path)
        assert model.prediction == "v"
        assert model.alphas_cumprod()[-1] == 0
        assert model.alphas_cumprod()[0] == families.load(sdxl_file).alphas_cumprod()[0]
        model.save(tmp_path / "out.safetensors", torch.float16)
        assert families.load(tmp_path / "out.safetensors").alphas_cumprod()[-1] == 0, "the marks stay"

    def test_refiner_and_inpainting_are_refused_with_a_reason(self, sdxl_file: Path, tmp_path: Path) -> None:
        name = "model.diffusion_model.input_blocks.0.0.weight"
        wide = {name: torch.zeros(16, 9, 3, 3, dtype=torch.float16)}
        with pytest.raises(InputError, match=r"(?s)SDXL inpainting.*mask"):
            families.load(rewritten(sdxl_file, tmp_path / "a.safetensors", wide))
        second = {
            name.replace("embedders.1", "embedders.0"): value
            for name, value in load_file(sdxl_file).items()
            if name.startswith("conditioner.embedders.1.")
        }
        with pytest.raises(InputError, match=r"(?s)SDXL refiner.*base model began"):
            families.load(rewritten(sdxl_file, tmp_path / "b.safetensors", second, ("conditioner.",)))

    def test_what_an_sd2_file_predicts(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        build_tiny_sd2(path)
        assert identify(path).prediction is None
        model = families.load(path)
        assert model.prediction == "epsilon"
        assert "does not say what it predicts" in model.notes[0]
        (tmp_path / "model.yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
        assert identify(path).prediction == "v"
        model = families.load(path)
        assert (model.prediction, model.default_resolution, model.notes) == ("v", 768, ())
        assert families.default_resolution(identify(path)) == 768
        assert families.load(path, v_prediction=False).prediction == "epsilon"
        assert families.default_resolution(identify(path), False) == 512
        (tmp_path / "model.yaml").write_text("model:\n  params:\n    image_size: 64\n")
        assert identify(path).prediction == "epsilon"
        assert families.load(path, v_prediction=True).prediction == "v"

    def test_trial_of_an_sd2_model(self, sd2_file: Path) -> None:
        model = families.load(sd2_file)
        assert isinstance(model, StableDiffusion2)
        outputs = {False: 0.5, True: -2.0}
        for wanted, value in outputs.items():
            model.unet.conv_out.weight.data.zero_()
            model.unet.conv_out.bias.data.fill_(value)
            assert seems_to_predict_v(model) is wanted

    def test_missing_parts_are_named(self, sdxl_file: Path, tmp_path: Path) -> None:
        path = rewritten(sdxl_file, tmp_path / "a.safetensors", {}, ("conditioner.embedders.1.",))
        with pytest.raises(InputError, match="no second text encoder inside"):
            families.load(path)


class TestOutputs:
    @pytest.mark.parametrize(("height", "width"), [(16, 16), (15, 17)])
    def test_unets_equal_diffusers(
        self, small_sd2: StableDiffusion2, small_sdxl: StableDiffusionXL, height: int, width: int
    ) -> None:
        noisy, times = sample(1, 2, 4, height, width), torch.tensor([3, 977])
        sizes = Sizes(
            torch.tensor([[600, 800], [128, 128]]),
            torch.tensor([[0, 16], [8, 0]]),
            torch.tensor([[120, 136], [128, 128]]),
        )
        for model in (small_sd2, small_sdxl):
            context = sample(2, 2, 77, model.unet.shape.context_width)
            pooled = sample(3, 2, 24)
            numbers = torch.cat([sizes.original, sizes.crop, sizes.target], dim=1)
            added = {"text_embeds": pooled, "time_ids": numbers} if model is small_sdxl else None
            with torch.no_grad():
                ours = model.predict(noisy, times, {"hidden": context, "pooled": pooled}, sizes)
                theirs = reference_unet(model)(noisy, times, context, added_cond_kwargs=added).sample
            assert theirs.std() > 0.05
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)

    def test_sizes_default_to_the_picture_that_is_drawn(self, small_sdxl: StableDiffusionXL) -> None:
        noisy, time = sample(1, 1, 4, 8, 12), torch.tensor([500])
        text = {"hidden": sample(2, 1, 77, 40), "pooled": sample(3, 1, 24)}
        whole = Sizes(torch.tensor([[64, 96]]), torch.tensor([[0, 0]]), torch.tensor([[64, 96]]))
        cut = replace(whole, crop=torch.tensor([[0, 32]]))
        with torch.no_grad():
            plain = small_sdxl.predict(noisy, time, text)
            assert torch.equal(plain, small_sdxl.predict(noisy, time, text, whole))
            assert not torch.allclose(plain, small_sdxl.predict(noisy, time, text, cut), atol=1e-4)

    def test_text_equals_transformers(
        self, small_sd2: StableDiffusion2, small_sdxl: StableDiffusionXL
    ) -> None:
        with torch.no_grad():
            tokens = small_sd2.tokenize(CAPTIONS)
            assert tokens["te"][0, 0, -1] == 0, "padded with zeros"
            reference = reference_text(small_sd2.text("te"))
            for skip in (None, 2):
                states = reference(tokens["te"][:, 0], output_hidden_states=True)
                wanted = states.hidden_states[-(skip or 1)]
                wanted = reference.final_layer_norm(wanted)
                ours = small_sd2.encode_text(tokens, skip)["hidden"]
                torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)

            tokens = small_sdxl.tokenize(CAPTIONS)
            found = small_sdxl.encode_text(tokens)
            first = reference_text(small_sdxl.text("te1"))(tokens["te1"][:, 0], output_hidden_states=True)
            second = reference_text(small_sdxl.text("te2"))(tokens["te2"][:, 0], output_hidden_states=True)
            wanted = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
            torch.testing.assert_close(found["hidden"], wanted, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(found["pooled"], second.text_embeds, atol=1e-5, rtol=1e-5)

    def test_long_captions(self, small_sdxl: StableDiffusionXL) -> None:
        tokens = small_sdxl.tokenize(CAPTIONS, 225)
        assert tokens["te2"].shape == (2, 3, 77)
        with torch.no_grad():
            found = small_sdxl.encode_text(tokens)
            chunks = [
                small_sdxl.encode_text({k: v[:, i : i + 1] for k, v in tokens.items()}) for i in range(3)
            ]
        assert found["hidden"].shape == (2, 227, 40)
        torch.testing.assert_close(found["pooled"], chunks[0]["pooled"])
        torch.testing.assert_close(found["hidden"][:, 76:151], chunks[1]["hidden"][:, 1:76])

    def test_checkpointing_gives_the_same_gradients(self, sdxl_file: Path) -> None:
        def gradients(checkpointing: bool) -> list[torch.Tensor]:
            model = families.load(sdxl_file)
            model.enable_gradient_checkpointing(checkpointing)
            weights = [module.module.weight.requires_grad_() for module in model.adapter_modules()]
            text = model.encode_text(model.tokenize(["a cat"]))
            model.predict(sample(1, 1, 4, 8, 8), torch.tensor([500]), text).square().mean().backward()
            return [weight.grad for weight in weights if weight.grad is not None]

        plain, checkpointed = gradients(False), gradients(True)
        assert len(plain) > 100
        assert all(torch.equal(a, b) for a, b in zip(plain, checkpointed, strict=True))

    def test_the_comparison_with_sd_scripts_changes_the_pooled_text_alone(self, sdxl_file: Path) -> None:
        model: DiffusionModel = families.load(sdxl_file)
        tokens = model.tokenize(["a cat"])
        before = model.encode_text(tokens)
        model.compute_as_sd_scripts()
        after = model.encode_text(tokens)
        assert torch.equal(before["hidden"], after["hidden"])
        assert not torch.allclose(before["pooled"], after["pooled"], atol=1e-3)
