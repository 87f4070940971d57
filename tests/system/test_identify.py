"""Kind, family and variant are read from names and shapes."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.system.identify import ModelFile, identify, require_base

CLIP = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
OPEN_CLIP = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
UNET = "model.diffusion_model."
VAE = "first_stage_model.decoder.conv_in.weight"


def unet(
    channels: int = 4, projection: tuple[int, ...] = (32, 32, 1, 1), **more: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    names = {
        "input_blocks.0.0.weight": (32, channels, 3, 3),
        "input_blocks.1.1.proj_in.weight": projection,
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (32, 48),
        **more,
    }
    return {f"{UNET}{name}": shape for name, shape in names.items()}


SD1 = {**unet(), CLIP: (8, 8), VAE: (8, 4, 3, 3)}
SD2 = {**unet(projection=(32, 32)), OPEN_CLIP: (8, 8), VAE: (8, 4, 3, 3)}
XL_PARTS = {
    "conditioner.embedders.0.transformer.a": (1,),
    "conditioner.embedders.1.model.a": (1,),
    VAE: (8, 4, 3, 3),
}
SDXL = {**unet(projection=(32, 32), **{"label_emb.0.0.weight": (8, 8)}), **XL_PARTS}
REFINER = {
    **unet(projection=(32, 32), **{"label_emb.0.0.weight": (8, 8)}),
    "conditioner.embedders.0.model.a": (1,),
}


@pytest.fixture
def found(tmp_path: Path):
    """Identify a file with tensors of these names and shapes."""

    def found(shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> ModelFile:
        path = tmp_path / "x.safetensors"
        write(path, shapes, metadata)
        return identify(path)

    return found


def write(path: Path, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> None:
    """A file whose tensors have these shapes; their bytes are a hole in the file."""
    table: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        start, size = end, 2
        for side in shape:
            size *= side
        end = start + size
        table[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    raw = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    with path.open("r+b") as file:
        file.truncate(8 + len(raw) + end)


@pytest.mark.parametrize(
    ("shapes", "family", "variant", "prediction", "title"),
    [
        (SD1, "sd1", "", "epsilon", "SD 1.5"),
        ({**SD1, **unet(9)}, "sd1", "inpainting", "epsilon", "SD 1.5 inpainting"),
        ({**SD1, **unet(8)}, "sd1", "instruct-pix2pix", "epsilon", "SD 1.5 instruct-pix2pix"),
        (SD2, "sd2", "", None, "SD 2.x"),
        ({**SD2, **unet(5, (32, 32))}, "sd2", "depth", None, "SD 2.x depth"),
        (SDXL, "sdxl", "", "epsilon", "SDXL"),
        ({**SDXL, **unet(9)}, "sdxl", "inpainting", "epsilon", "SDXL inpainting"),
        (
            {**SDXL, "v_pred": (0,), "ztsnr": (0,)},
            "sdxl",
            "",
            "v",
            "SDXL v-prediction with zero terminal SNR",
        ),
        (REFINER, "sdxl", "refiner", "epsilon", "SDXL refiner"),
        ({f"{UNET}joint_blocks.0.x_block.attn.qkv.weight": (8, 8)}, "sd3", "", "flow", "SD 3 medium"),
        (
            {
                f"{UNET}joint_blocks.0.x_block.attn.qkv.weight": (8, 8),
                f"{UNET}joint_blocks.0.x_block.attn.ln_q.weight": (8,),
            },
            "sd3",
            "",
            "flow",
            "SD 3.5 large",
        ),
        ({f"{UNET}joint_blocks.0.x_block.attn2.qkv.weight": (8, 8)}, "sd3", "", "flow", "SD 3.5 medium"),
        ({f"{UNET}double_blocks.0.img_attn.qkv.weight": (8, 8)}, "flux", "", "flow", "Flux"),
        ({"double_blocks.0.img_attn.qkv.weight": (8, 8)}, "flux", "", "flow", "Flux"),
    ],
)
def test_base_models(found, shapes, family: str, variant: str, prediction: str | None, title: str) -> None:
    file = found(shapes)
    assert (file.kind, file.family, file.variant, file.prediction, file.title) == (
        "base",
        family,
        variant,
        prediction,
        title,
    )
    assert file.supported == (family != "flux" and not variant)
    assert bool(file.why_not) != file.supported


def test_without_text_encoder_the_unet_tells(found) -> None:
    assert found(unet()).family == "sd1"
    assert found(unet(projection=(32, 32))).family == "sd2"
    assert found(unet(**{"label_emb.0.0.weight": (8, 8)})).family == "sdxl"
    assert found(unet()).details["lacks"] == "text encoder, VAE"
    assert found({**SD1}).details.get("lacks") is None


@pytest.mark.parametrize(
    "mark", [{"modelspec.prediction_type": "v"}, {"modelspec.architecture": "stable-diffusion-v2-768-v"}]
)
def test_v_prediction_by_metadata(found, mark: dict[str, str]) -> None:
    assert found(SD2, mark).prediction == "v"


def lora(module: str, rank: int = 4, width: int = 768) -> dict[str, tuple[int, ...]]:
    return {
        f"{module}.lora_down.weight": (rank, width),
        f"{module}.lora_up.weight": (8, rank),
        f"{module}.alpha": (),
    }


TO_K = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.mark.parametrize(
    ("shapes", "family", "title"),
    [
        (lora(TO_K), "sd1", "LoRA for SD 1.5"),
        (lora(TO_K, width=48), "sd1", "LoRA for SD 1.5"),
        (lora(TO_K, width=1024), "sd2", "LoRA for SD 2.x"),
        (lora("lora_te_text_model_encoder_layers_22_mlp_fc1"), "sd2", "LoRA for SD 2.x"),
        (lora("lora_te_text_model_encoder_layers_11_mlp_fc1"), "sd1", "LoRA for SD 1.5"),
        (lora("lora_te2_text_model_encoder_layers_0_mlp_fc1"), "sdxl", "LoRA for SDXL"),
        (lora("lora_unet_input_blocks_4_1_proj_in"), "sdxl", "LoRA for SDXL"),
        (
            lora("lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn1_to_q"),
            "sdxl",
            "LoRA for SDXL",
        ),
        (lora("lora_unet_joint_blocks_0_x_block_attn_qkv"), "sd3", "LoRA for SD 3"),
        (lora("lora_unet_double_blocks_0_img_attn_qkv"), "flux", "LoRA for Flux"),
        (
            {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 768)},
            "sd1",
            "LoRA for SD 1.5",
        ),
        (
            {"text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight": (4, 768)},
            "sdxl",
            "LoRA for SDXL",
        ),
        ({**lora(TO_K), f"{TO_K}.dora_scale": (8, 1)}, "sd1", "DoRA for SD 1.5"),
        ({f"{TO_K}.hada_w1_a": (8, 4), f"{TO_K}.hada_w1_b": (4, 768)}, "sd1", "LoHa for SD 1.5"),
        ({f"{TO_K}.lokr_w1": (8, 8)}, "sd1", "LoKr for SD 1.5"),
        ({"oft_unet_input_blocks_4_1_proj_in.oft_blocks": (4, 8, 8)}, "sdxl", "OFT for SDXL"),
    ],
)
def test_loras(found, shapes, family: str, title: str) -> None:
    file = found(shapes)
    assert (file.kind, file.family, file.title) == ("lora", family, title)
    assert file.details["modules"] == "1"


def test_lora_details(found) -> None:
    shapes = {**lora(TO_K, 8), **lora("lora_te_a", 8), **lora("lora_te_b", 4)}
    file = found(
        shapes,
        {"ss_network_alpha": "4.0", "ss_network_module": "networks.dylora", "ss_base_model_version": "sd_v2"},
    )
    assert file.details == {"network": "DyLoRA", "modules": "3", "rank": "8", "ranks": "4, 8", "alpha": "4.0"}
    assert file.family == "sd2", "what the file says goes before what its names suggest"


@pytest.mark.parametrize(
    ("shapes", "kind", "family"),
    [
        ({"encoder.conv_in.weight": (8, 3, 3, 3), "decoder.conv_in.weight": (8, 4, 3, 3)}, "vae", "unknown"),
        ({VAE: (8, 4, 3, 3), "first_stage_model.encoder.conv_in.weight": (8, 3, 3, 3)}, "vae", "unknown"),
        ({"emb_params": (4, 768)}, "embedding", "sd1"),
        ({"emb_params": (4, 1024)}, "embedding", "sd2"),
        ({"<cat>": (1, 768)}, "embedding", "sd1"),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "embedding", "sdxl"),
        ({"control_model.input_hint_block.0.weight": (8, 3, 3, 3)}, "controlnet", "sd1"),
        (
            {"lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.down.0.weight": (8, 8)},
            "lllite",
            "sdxl",
        ),
        ({"text_model.encoder.layers.0.self_attn.q_proj.weight": (8, 8)}, "text_encoder", "unknown"),
        ({"encoder.block.0.layer.0.SelfAttention.q.weight": (8, 8)}, "text_encoder", "sd3"),
        ({"something.else.weight": (8, 8)}, "unknown", "unknown"),
        ({}, "unknown", "unknown"),
    ],
)
def test_other_kinds(found, shapes, kind: str, family: str) -> None:
    file = found(shapes)
    assert (file.kind, file.family) == (kind, family)


def test_old_embedding_pickle(tmp_path: Path) -> None:
    import torch

    torch.save({"string_to_param": {"*": torch.zeros(2, 768)}, "name": "x"}, tmp_path / "e.pt")
    file = identify(tmp_path / "e.pt")
    assert (file.kind, file.family, file.details["vectors"]) == ("embedding", "sd1", "2")


class TestRequireBase:
    def refusal(self, tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> str:
        write(tmp_path / "x.safetensors", shapes)
        with pytest.raises(InputError) as caught:
            require_base(tmp_path / "x.safetensors", ("sd1",))
        return caught.value.text()

    def test_a_lora(self, tmp_path: Path) -> None:
        assert "this is a LoRA for SD 1.5, not a base model" in self.refusal(tmp_path, lora(TO_K))

    def test_a_vae(self, tmp_path: Path) -> None:
        shapes = {"encoder.conv_in.weight": (8, 3, 3, 3), "decoder.conv_in.weight": (8, 4, 3, 3)}
        assert "this is a VAE, not a base model" in self.refusal(tmp_path, shapes)

    def test_an_embedding(self, tmp_path: Path) -> None:
        text = self.refusal(tmp_path, {"emb_params": (4, 768)})
        assert "this is a textual inversion embedding for SD 1.5, not a base model" in text

    @pytest.mark.parametrize(
        ("shapes", "named"),
        [
            ({**SDXL, **unet(9)}, "SDXL inpainting"),
            ({**SD1, **unet(9)}, "SD 1.5 inpainting"),
            (REFINER, "SDXL refiner"),
            (SD2, "SD 2.x"),
        ],
    )
    def test_another_family_or_variant(self, tmp_path: Path, shapes, named: str) -> None:
        assert f"this is {named}; supported: SD 1.x" in self.refusal(tmp_path, shapes)

    def test_the_right_one(self, tmp_path: Path) -> None:
        write(tmp_path / "x.safetensors", SD1)
        assert require_base(tmp_path / "x.safetensors", ("sd1",)).family == "sd1"


class TestFolders:
    def folder(
        self, path: Path, unet: dict[str, object], pipeline: str = "StableDiffusionPipeline", **scheduler
    ) -> ModelFile:
        for part in ("unet", "vae", "text_encoder", "scheduler"):
            (path / part).mkdir()
        (path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
        (path / "unet" / "config.json").write_text(json.dumps(unet))
        (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
        return identify(path)

    @pytest.mark.parametrize(
        ("unet", "pipeline", "family", "variant"),
        [
            ({"attention_head_dim": 8, "cross_attention_dim": 768}, "StableDiffusionPipeline", "sd1", ""),
            (
                {"attention_head_dim": 8, "cross_attention_dim": 48, "in_channels": 9},
                "StableDiffusionInpaintPipeline",
                "sd1",
                "inpainting",
            ),
            ({"attention_head_dim": [5, 10, 20, 20]}, "StableDiffusionPipeline", "sd2", ""),
            ({"addition_embed_type": "text_time"}, "", "sdxl", ""),
            (
                {"projection_class_embeddings_input_dim": 2560},
                "StableDiffusionXLImg2ImgPipeline",
                "sdxl",
                "refiner",
            ),
        ],
    )
    def test_family(
        self, tmp_path: Path, unet: dict[str, object], pipeline: str, family: str, variant: str
    ) -> None:
        file = self.folder(tmp_path, unet, pipeline)
        assert (file.kind, file.family, file.variant) == ("base", family, variant)
        assert file.details["layout"] == "diffusers"

    def test_v_prediction(self, tmp_path: Path) -> None:
        assert (
            self.folder(tmp_path, {"use_linear_projection": True}, prediction_type="v_prediction").prediction
            == "v"
        )

    def test_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no diffusers model"):
            identify(tmp_path)

    def test_broken_json(self, tmp_path: Path) -> None:
        (tmp_path / "model_index.json").write_text("{")
        with pytest.raises(InputError, match=r"model_index\.json"):
            identify(tmp_path)


def test_golden_files(golden_dir: Path) -> None:
    names = {path.stem: identify(path).title for path in (golden_dir / "in").glob("*.safetensors")}
    assert names == {
        "tiny_sd15_fp16": "SD 1.5",
        "tiny_sdxl_small": "SDXL",
        "lora_a": "LoRA for SD 1.5",
        "lora_b": "LoRA for SD 1.5",
        "lora_c": "LoRA for SD 1.5",
        "xl_lora": "LoRA for SDXL",
    }


@pytest.mark.parametrize(
    ("file", "family"),
    [
        ("full_sd15_lora", "sd1"),
        ("full_sd15_lora_conv", "sd1"),
        ("full_sd2_lora", "sd2"),
        ("full_sdxl_lora", "sdxl"),
        ("sd3_medium_lora_base", "sd3"),
        ("sd35_large_lora_base", "sd3"),
        ("tiny-dylora", "sd1"),
        ("tiny-lyc_lokr", "sd1"),
    ],
)
def test_names_of_real_loras(golden_dir: Path, found, file: str, family: str) -> None:
    tensors = json.loads((golden_dir / "keys" / f"{file}.json").read_text())["tensors"]
    shapes = {
        name: tuple(shape[0] if shape and isinstance(shape[0], list) else shape)
        for name, shape in tensors.items()
    }
    assert (found(shapes).kind, found(shapes).family) == ("lora", family)


def test_only_the_header_is_read(golden_dir: Path, tmp_path: Path) -> None:
    """The tensors of a copy are holes, which reading would not notice; the file is named all the same."""
    source = golden_dir / "in" / "tiny_sdxl_small.safetensors"
    whole = source.read_bytes()
    header = whole[: 8 + int.from_bytes(whole[:8], "little")]
    path = tmp_path / "hollow.safetensors"
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(whole))
    assert identify(path) == replace(identify(source), path=path)


def test_supported_families_are_those_that_can_be_loaded() -> None:
    from backend.families import FAMILIES
    from backend.system.identify import FAMILY_FACTS

    assert {name for name, facts in FAMILY_FACTS.items() if facts.supported} == set(FAMILIES)
    assert {FAMILY_FACTS[name].line for name in FAMILIES} == {family.title for family in FAMILIES.values()}
