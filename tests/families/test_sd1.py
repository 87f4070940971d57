"""SD 1.x: loading, saving, names, text chunks, switches."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from backend import families
from backend.errors import EnvironmentFault, InputError
from backend.families.parts.clip import ClipShape, ClipTextModel
from backend.families.parts.skeleton import skeleton
from backend.families.parts.unet import UNet, UNetShape
from backend.families.parts.vae import Vae, VaeShape
from backend.families.sd1 import keys
from backend.families.sd1.layout import original_shapes
from backend.families.sd1.model import StableDiffusion1


def load(path: Path, **options) -> StableDiffusion1:
    model = families.load(path, **options)
    assert isinstance(model, StableDiffusion1)
    return model


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def all_weights(model: StableDiffusion1) -> dict[str, torch.Tensor]:
    parts = {**model.parts(), "vae": model.vae}
    return {
        f"{part}.{name}": value
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }


@pytest.fixture
def changed(tiny_sd15: Path, tmp_path: Path):
    """Write a variation of the narrow checkpoint: ``changed(lambda tensors: ...)``."""

    def write(change, metadata=None) -> Path:
        tensors = load_file(tiny_sd15)
        change(tensors)
        path = tmp_path / "changed.safetensors"
        save_file(tensors, path, metadata_of(tiny_sd15) if metadata is None else metadata)
        return path

    return write


def drop(prefix: str):
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(prefix)]:
            del tensors[name]

    return change


class TestNames:
    @pytest.mark.parametrize("layers", [1, 2, 3])
    @pytest.mark.parametrize("levels", [2, 4])
    def test_round_trip_at_any_depth(self, layers: int, levels: int) -> None:
        depths = (1,) * (levels - 1) + (0,)
        shapes = original_shapes(
            UNetShape(widths=(32,) * levels, depths=depths, layers=layers, context_width=8),
            ClipShape(width=8, inner=8, layers=2, heads=1),
            VaeShape(widths=(32,) * levels, layers=layers),
        )
        forth = keys.to_diffusers(shapes)
        back = keys.to_original(list(forth.values()))
        assert set(forth) == set(shapes)
        assert all(back[forth[name]] == name for name in shapes)

    def test_full_width_has_1130_names(self) -> None:
        shapes = original_shapes(UNetShape(), ClipShape(), VaeShape())
        assert len(shapes) == 1130
        assert shapes["model.diffusion_model.output_blocks.5.2.conv.weight"] == (1280, 1280, 3, 3)
        assert shapes["first_stage_model.decoder.mid.attn_1.q.weight"] == (512, 512, 1, 1)
        assert shapes["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"] == (
            49408,
            768,
        )

    def test_names_and_values_of_a_converted_checkpoint(self, golden_dir: Path, tiny_golden: Path) -> None:
        wanted = json.loads((golden_dir / "out" / "convert.json").read_text())["to_diffusers"]
        weights = all_weights(load(tiny_golden))
        files = {
            "unet": "unet/diffusion_pytorch_model",
            "vae": "vae/diffusion_pytorch_model",
            "te": "text_encoder/model",
        }
        for part, file in files.items():
            for name, (shape, _, digest) in wanted[f"{file}.safetensors"]["tensors"].items():
                tensor = weights[f"{part}.{name}"]
                assert list(tensor.shape) == shape
                assert hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16] == digest, name

    def test_full_width_unet_has_the_reference_shapes(self, golden_dir: Path) -> None:
        wanted = json.loads((golden_dir / "keys" / "full_sd15_unet_state_dict.json").read_text())
        unet = skeleton(lambda: UNet(UNetShape()))
        assert {name: list(value.shape) for name, value in unet.state_dict().items()} == wanted

    def test_adapter_modules(self, root: Path, tiny: StableDiffusion1) -> None:
        wanted = json.loads((root / "tests" / "golden" / "sd15_lora_modules.json").read_text())
        found = {adapter.name: adapter for adapter in tiny.adapter_modules()}
        plain = {name for name, adapter in found.items() if adapter.container in ("text", "attention")}
        assert plain == set(wanted["plain"])
        assert set(found) - plain == set(wanted["conv"])
        assert {adapter.part for adapter in found.values()} == {"te", "unet"}
        assert sum(adapter.part == "te" for adapter in found.values()) == 72
        assert {found[name].container for name in found if re.search("samplers", name)} == {"sampler"}

    def test_adapter_shapes_at_full_width(self, golden_dir: Path, tiny: StableDiffusion1) -> None:
        wanted = json.loads((golden_dir / "keys" / "full_sd15_lora_conv.json").read_text())["tensors"]
        model = object.__new__(StableDiffusion1)
        model.denoiser = skeleton(lambda: UNet(UNetShape()))
        model.text_encoders = {"te": skeleton(lambda: ClipTextModel(ClipShape()))}
        for adapter in model.adapter_modules():
            down = wanted[f"lora_{adapter.name}.lora_down.weight"]
            assert list(adapter.module.weight.shape[1:]) == down[1:], adapter.name


class TestLoad:
    def test_same_type_stays_in_the_file(self, tiny_sd15: Path) -> None:
        model = load(tiny_sd15, dtype=torch.float16)
        pointers = sorted(tensor.data_ptr() for tensor in model.unet.state_dict().values())
        assert pointers[-1] - pointers[0] < tiny_sd15.stat().st_size, "views of one mapping"
        assert {tensor.dtype for tensor in all_weights(model).values()} == {torch.float16}

    def test_changing_weights_does_not_change_the_file(self, tiny_sd15: Path) -> None:
        before = hashlib.sha256(tiny_sd15.read_bytes()).digest()
        load(tiny_sd15, dtype=torch.float16).unet.conv_in.weight.data.fill_(7)
        assert hashlib.sha256(tiny_sd15.read_bytes()).digest() == before

    @pytest.mark.parametrize("zipped", [True, False])
    def test_ckpt(self, tiny_sd15: Path, tiny: StableDiffusion1, tmp_path: Path, zipped: bool) -> None:
        path = tmp_path / "model.ckpt"
        content = {"state_dict": load_file(tiny_sd15), "epoch": 3, "global_step": 10}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        # A .ckpt has no metadata, so the narrow model's heads follow the rule; weights are the same.
        with pytest.raises(InputError, match="do not divide"):
            load(path)
        shapes = original_shapes(
            UNetShape(widths=(32, 32), depths=(1, 0), layers=1, context_width=64),
            ClipShape(width=64, inner=64, layers=1, heads=1),
            VaeShape(widths=(32, 32), layers=1),
        )
        state = {name: torch.full(shape, 0.01) for name, shape in shapes.items()}
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=zipped)
        assert torch.equal(load(path).unet.conv_in.weight, torch.full((32, 4, 3, 3), 0.01))

    def test_ckpt_that_names_a_trainer_class(self, tmp_path: Path) -> None:
        import types

        from backend.families.store import open_tensors

        module = types.ModuleType("pytorch_lightning.callbacks")
        parent = types.ModuleType("pytorch_lightning")
        callback = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks"})
        module.ModelCheckpoint = callback
        sys.modules.update({"pytorch_lightning": parent, "pytorch_lightning.callbacks": module})
        try:
            torch.save(
                {"state_dict": {"a": torch.ones(2)}, "callbacks": {callback: {"best": 1}}},
                tmp_path / "a.ckpt",
            )
        finally:
            del sys.modules["pytorch_lightning"], sys.modules["pytorch_lightning.callbacks"]
        source = open_tensors(tmp_path / "a.ckpt")
        assert list(source.header.tensors) == ["a"]
        assert torch.equal(source.read("a"), torch.ones(2))

    def test_missing_vae(self, changed) -> None:
        with pytest.raises(InputError, match="no VAE inside; choose one"):
            load(changed(drop("first_stage_model.")))

    def test_missing_text_encoder(self, changed) -> None:
        with pytest.raises(InputError, match="no text encoder inside"):
            load(changed(drop("cond_stage_model.")))

    def test_missing_tensor_is_named(self, changed) -> None:
        with pytest.raises(InputError, match=r"1 tensors are missing.*mid_block.resnets.0.conv1.weight"):
            load(changed(drop("model.diffusion_model.middle_block.0.in_layers.2.weight")))

    def test_wrong_shape_is_named(self, changed) -> None:
        name = "model.diffusion_model.out.2.weight"

        def change(tensors: dict[str, torch.Tensor]) -> None:
            tensors[name] = tensors[name][:, :8].clone()

        with pytest.raises(InputError, match=re.escape(name)):
            load(changed(change))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_nonfinite_values_are_counted_and_named(self, changed, dtype: torch.dtype, value: float) -> None:
        name = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"

        def change(tensors: dict[str, torch.Tensor]) -> None:
            tensors[name].view(-1)[5:8] = value

        with pytest.raises(InputError, match=rf"3 non-finite values in {re.escape(name)}"):
            load(changed(change), dtype=dtype)

    def test_v_prediction(self, changed, tiny_sd15: Path) -> None:
        assert load(tiny_sd15).prediction == "epsilon"
        assert load(tiny_sd15, v_prediction=True).prediction == "v"
        marked = {**metadata_of(tiny_sd15), "modelspec.prediction_type": "v"}
        assert load(changed(lambda _: None, marked)).prediction == "v"

    @pytest.mark.parametrize("layout", ["whole model", "original", "diffusers"])
    def test_vae_of_its_own_file(self, changed, tiny_sd15: Path, tmp_path: Path, layout: str) -> None:
        tensors = load_file(tiny_sd15)
        vae = {name: value for name, value in tensors.items() if name.startswith(keys.VAE)}
        vae[f"{keys.VAE}quant_conv.bias"] = torch.arange(8).half()
        metadata = metadata_of(tiny_sd15)
        if layout == "whole model":
            vae |= {name: value for name, value in tensors.items() if not name.startswith(keys.VAE)}
        elif layout == "original":
            vae = {name.removeprefix(keys.VAE): value for name, value in vae.items()}
        else:
            renamed = keys.to_diffusers(vae)
            vae = {renamed[name].removeprefix("vae."): value for name, value in vae.items()}
        save_file(vae, tmp_path / "vae.safetensors", metadata)
        model = load(changed(drop("first_stage_model.")), vae=tmp_path / "vae.safetensors")
        assert torch.equal(model.autoencoder.quant_conv.bias, torch.arange(8.0))
        model.save(tmp_path / "out.safetensors", torch.float16)
        saved = load_file(tmp_path / "out.safetensors")
        assert {name: value.shape for name, value in saved.items()} == {
            name: value.shape for name, value in tensors.items()
        }
        assert torch.equal(saved[f"{keys.VAE}quant_conv.bias"], torch.arange(8).half())

    def test_a_lora_is_no_vae(self, tiny_sd15: Path, tmp_path: Path) -> None:
        save_file(
            {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(4, 768)},
            tmp_path / "l.safetensors",
        )
        with pytest.raises(InputError, match=r"LoRA for SD 1.5, not a VAE"):
            load(tiny_sd15, vae=tmp_path / "l.safetensors")

    def test_loading_imports_no_heavy_library(self, root: Path, tiny_sd15: Path) -> None:
        code = (
            "import sys; from backend import families; families.load(sys.argv[1]); "
            "print([m for m in ('diffusers', 'transformers', 'torch._dynamo', 'sympy') if m in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, tiny_sd15], cwd=root, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"

    def test_the_table_of_families_needs_no_torch(self, root: Path) -> None:
        code = "import sys, backend.families; print('torch' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "False"


class TestSave:
    def test_fp16_round_trip_is_equal_to_the_bit(
        self, golden_dir: Path, tiny_golden: Path, tmp_path: Path
    ) -> None:
        load(tiny_golden, dtype=torch.float16).save(tmp_path / "a.safetensors", torch.float16)
        self.check_hashes(tmp_path / "a.safetensors", golden_dir, "back_to_ckpt_fp16")
        assert metadata_of(tmp_path / "a.safetensors") == metadata_of(tiny_golden)

    def test_bf16(self, golden_dir: Path, tiny_golden: Path, tmp_path: Path) -> None:
        load(tiny_golden).save(tmp_path / "a.safetensors", torch.bfloat16)
        self.check_hashes(tmp_path / "a.safetensors", golden_dir, "ckpt_to_ckpt_bf16")

    @staticmethod
    def check_hashes(path: Path, golden_dir: Path, case: str) -> None:
        wanted = json.loads((golden_dir / "out" / "convert.json").read_text())[case]["tensors"]
        saved = load_file(path)
        assert set(saved) == set(wanted)
        for name, (shape, dtype, digest) in wanted.items():
            raw = saved[name].reshape(-1).view(torch.uint8).numpy().tobytes()
            found = (
                list(saved[name].shape),
                str(saved[name].dtype).removeprefix("torch."),
                hashlib.sha256(raw).hexdigest()[:16],
            )
            assert found == (shape, dtype, digest), name

    def test_unknown_tensors_and_metadata_survive(self, changed, tiny_sd15: Path, tmp_path: Path) -> None:
        ids = "cond_stage_model.transformer.text_model.embeddings.position_ids"

        def change(tensors: dict[str, torch.Tensor]) -> None:
            tensors[ids] = torch.arange(77).view(1, -1)
            tensors["model_ema.decay"] = torch.tensor(0.5)
            tensors["odd"] = torch.ones(3, dtype=torch.float16)

        metadata = {**metadata_of(tiny_sd15), "modelspec.title": "mine", "modelspec.hash_sha256": "0xabc"}
        model = load(changed(change, metadata))
        model.save(tmp_path / "out.safetensors", torch.float16, {"ss_steps": "3"})
        saved = load_file(tmp_path / "out.safetensors")
        assert torch.equal(saved[ids], torch.arange(77).view(1, -1))
        assert saved["model_ema.decay"].item() == 0.5
        assert len(saved) == 1133
        found = metadata_of(tmp_path / "out.safetensors")
        assert found["modelspec.title"] == "mine"
        assert found["ss_steps"] == "3"
        assert "modelspec.hash_sha256" not in found, "the hash was of other weights"
        assert "atelier.components" in found

    def test_changed_weights_are_written(self, tiny_sd15: Path, tmp_path: Path) -> None:
        model = load(tiny_sd15)
        model.unet.conv_in.weight.data.fill_(2)
        model.save(tmp_path / "out.safetensors", None)
        saved = load_file(tmp_path / "out.safetensors")["model.diffusion_model.input_blocks.0.0.weight"]
        assert saved.dtype == torch.float32
        assert saved.unique().tolist() == [2.0]

    def test_nothing_is_left_after_a_failure(
        self, tiny: StableDiffusion1, tmp_path: Path, monkeypatch
    ) -> None:
        from backend.errors import RunFault

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("backend.wholefile.os.fsync", full)
        (tmp_path / "out.safetensors").write_bytes(b"old")
        with pytest.raises(RunFault, match="no space left"):
            tiny.save(tmp_path / "out.safetensors", torch.float16)
        assert [file.name for file in tmp_path.iterdir()] == ["out.safetensors"]
        assert (tmp_path / "out.safetensors").read_bytes() == b"old"


class TestUse:
    def test_long_captions_are_encoded_in_chunks(self, tiny: StableDiffusion1) -> None:
        caption = "a cat on a mat, " * 30
        tokens = tiny.tokenize([caption, "a dog"], 225)
        assert tokens["te"].shape == (2, 3, 77)
        with torch.no_grad():
            hidden = tiny.encode_text(tokens)["hidden"]
            chunks = [tiny.text_encoder(tokens["te"][:, index]) for index in range(3)]
        assert hidden.shape == (2, 227, 48)
        torch.testing.assert_close(hidden[:, :76], chunks[0][:, :76])
        torch.testing.assert_close(hidden[:, 76:151], chunks[1][:, 1:76])
        torch.testing.assert_close(hidden[:, 151:], chunks[2][:, 1:])

    def test_token_count(self, tiny: StableDiffusion1) -> None:
        assert tiny.token_count("") == 0
        assert tiny.token_count("a photo of a cat") == 5
        assert tiny.token_count("cat " * 300) == 300

    def test_half_precision_prediction_keeps_the_type_of_the_input(self, tiny_sd15: Path) -> None:
        model = load(tiny_sd15, dtype=torch.bfloat16)
        with torch.no_grad():
            hidden = model.encode_text(model.tokenize(["a cat"]))["hidden"]
            out = model.predict(torch.randn(1, 4, 8, 8), torch.tensor([10]), {"hidden": hidden.float()})
            latents = model.encode_images(torch.zeros(1, 3, 64, 64), torch.zeros(1, 4, 8, 8))
        assert (out.dtype, latents.dtype) == (torch.float32, torch.float32)
        assert torch.isfinite(out).all()

    def test_posterior_noise_is_the_callers(self, tiny: StableDiffusion1) -> None:
        pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.no_grad():
            mean = tiny.encode_images(pixels, torch.zeros(1, 4, 8, 8))
            up = tiny.encode_images(pixels, torch.ones(1, 4, 8, 8))
            down = tiny.encode_images(pixels, -torch.ones(1, 4, 8, 8))
        torch.testing.assert_close((up + down) / 2, mean, atol=1e-5, rtol=1e-5)
        assert (up - mean).min() > 0

    def test_gradient_checkpointing_gives_the_same_gradients(self, tiny_sd15: Path) -> None:
        def gradients(checkpointing: bool) -> list[torch.Tensor]:
            model = load(tiny_sd15)
            if checkpointing:
                model.enable_gradient_checkpointing()
            wanted = [adapter.module.weight.requires_grad_() for adapter in model.adapter_modules()]
            calls = []
            for name, module in model.unet.named_modules():
                if name.endswith("resnets.0"):
                    module.register_forward_pre_hook(lambda *_: calls.append(1))
            hidden = model.encode_text(model.tokenize(["a cat"]))["hidden"]
            noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
            model.predict(noisy, torch.tensor([500]), {"hidden": hidden}).square().mean().backward()
            assert len(calls) == (18 if checkpointing else 9), "blocks are run twice with checkpointing only"
            return [weight.grad for weight in wanted]

        plain, checkpointed = gradients(False), gradients(True)
        assert all(torch.equal(a, b) for a, b in zip(plain, checkpointed, strict=True))
        assert max(gradient.abs().max() for gradient in plain) > 0

    def test_weights_are_frozen_and_in_eval_mode(self, tiny: StableDiffusion1) -> None:
        for module in [*tiny.parts().values(), tiny.vae]:
            assert not module.training
            assert not any(parameter.requires_grad for parameter in module.parameters())

    def test_xformers_where_it_cannot_work(self, tiny: StableDiffusion1) -> None:
        if torch.cuda.is_available():
            pytest.skip("this machine has a card")
        with pytest.raises(EnvironmentFault, match="xformers"):
            tiny.set_attention("xformers")
        tiny.set_attention("sdpa")


class TestTinyModel:
    def test_same_seed_same_file(self, tiny_sd15: Path, tmp_path: Path) -> None:
        from backend.demo.tiny import build_tiny_sd15

        build_tiny_sd15(tmp_path / "again.safetensors")
        build_tiny_sd15(tmp_path / "other.safetensors", seed=1)
        assert (tmp_path / "again.safetensors").read_bytes() == tiny_sd15.read_bytes()
        assert (tmp_path / "other.safetensors").read_bytes() != tiny_sd15.read_bytes()

    def test_size_and_topology(self, tiny_sd15: Path) -> None:
        full = original_shapes(UNetShape(), ClipShape(), VaeShape())
        assert set(load_file(tiny_sd15)) == set(full)
        assert tiny_sd15.stat().st_size < 16e6

    def test_pictures_are_finite_and_have_contrast(self, tiny: StableDiffusion1) -> None:
        latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            picture = tiny.decode_latents(latents)
            hidden = tiny.encode_text(tiny.tokenize(["a cat", "a red square"]))["hidden"]
            out = tiny.predict(latents.repeat(2, 1, 1, 1), torch.tensor([500, 500]), {"hidden": hidden})
        assert picture.shape == (1, 3, 128, 128)
        assert 0.05 < picture.std() < 1
        assert torch.isfinite(out).all()
        assert not torch.equal(out[0], out[1]), "the text matters"


def test_module_shapes_are_read_from_the_weights(tiny: StableDiffusion1) -> None:
    assert tiny.unet.shape.widths == (32, 64, 80, 80)
    assert tiny.unet.shape.depths == (1, 1, 1, 0)
    assert tiny.text_encoder.shape == ClipShape(width=48, inner=96, heads=6)
    assert isinstance(tiny.vae, Vae)
