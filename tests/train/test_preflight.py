"""What is found before anything heavy is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend import families
from backend.errors import InputError
from backend.system.headers import read_header
from backend.system.identify import identify
from backend.train.plan_card import plan_card
from backend.train.preflight import prepare
from tests.train.small import draw_pictures, settings_of


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("lr_scheduler_type", "nowhere_at_all.Schedule", "cannot be imported"),
        ("lr_scheduler_type", "torch.optim.swa_utils.SWALR2", "has no schedule SWALR2"),
        ("optimizer_type", "torch.optim.adamw.AdamX", "has no AdamX"),
    ],
)
def test_classes_that_are_not_there_are_told_before_a_model_is_looked_for(
    tmp_path: Path, option: str, value: str, word: str
) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(InputError) as caught:
        prepare(settings_of(draw_pictures(tmp_path / "1_sks dog", 2).parent, **options))
    found = {problem.key: problem for problem in caught.value.problems}
    assert word in found[option].why
    assert "pretrained_model_name_or_path" in found, "all is told in one list"


def found(pictures: Path, **options: Any) -> dict[str | None, str]:
    """Key of each problem -> its text."""
    with pytest.raises(InputError) as caught:
        prepare(settings_of(pictures, **options))
    return {problem.key: problem.text() for problem in caught.value.problems}


def test_results_among_pictures_of_a_dataset_file_are_refused(tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "pictures", 2)
    config = tmp_path / "set.toml"
    config.write_text(f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{pictures.as_posix()}"\n')
    (tmp_path / "link").symlink_to(pictures)
    for folder, word in (
        (pictures, "is the picture folder"),
        (tmp_path, "contains"),
        (tmp_path / "link", "is"),
    ):
        told = found(pictures, dataset_config=str(config), output_dir=str(folder))
        assert word in told["output_dir"] and str(pictures.resolve()) in told["output_dir"]


@pytest.mark.parametrize("wrong", ["gone", "a.txt"])
def test_a_wrong_picture_folder_is_told_once(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError) as caught:
        prepare(
            settings_of(tmp_path / wrong, pretrained_model_name_or_path=str(tmp_path / "none.safetensors"))
        )
    keys = [problem.key for problem in caught.value.problems]
    assert sorted(map(str, keys)) == ["pretrained_model_name_or_path", "train_data_dir"]


def test_start_weights_that_are_a_model_are_told_among_all(tmp_path: Path, tiny_sd15: Path) -> None:
    pictures = draw_pictures(tmp_path / "1_sks dog", 2).parent
    told = found(
        pictures,
        pretrained_model_name_or_path=str(tiny_sd15),
        network_weights=str(tiny_sd15),
        output_name="n" * 250,
    )
    assert "this is SD 1.5, not a LoRA" in told["network_weights"]
    assert "too long" in told["output_name"], "before a run is made, and not when it is saved"


def test_a_lora_in_place_of_a_vae_is_told_before_anything_is_loaded(tmp_path: Path, tiny_sd15: Path) -> None:
    pictures = draw_pictures(tmp_path / "1_sks dog", 2).parent
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    save_file(
        {f"{name}.lora_down.weight": torch.ones(2, 8), f"{name}.lora_up.weight": torch.ones(8, 2)},
        tmp_path / "a.safetensors",
    )
    told = found(
        pictures, pretrained_model_name_or_path=str(tiny_sd15), vae=str(tmp_path / "a.safetensors"), seed=1
    )
    assert "not a VAE" in told["vae"] and "LoRA" in told["vae"]


def test_a_start_that_is_another_kind_of_network_is_named_with_its_file(
    tmp_path: Path, tiny_sd15: Path
) -> None:
    """Known from shapes alone, without a weight of the model."""
    pictures = draw_pictures(tmp_path / "1_sks dog", 2).parent
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    width = families.load(tiny_sd15).denoiser.get_parameter(
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    ).shape[0]  # fmt: skip
    start = tmp_path / "dora.safetensors"
    parts = {
        "lora_down.weight": (2, width),
        "lora_up.weight": (width, 2),
        "alpha": (),
        "dora_scale": (1, width),
    }
    save_file({f"{name}.{part}": torch.ones(shape) for part, shape in parts.items()}, start)
    options: dict[str, Any] = {"network_weights": str(start), "pretrained_model_name_or_path": str(tiny_sd15)}
    with pytest.raises(InputError, match="which this kind of network does not know") as caught:
        plan_card(settings_of(pictures, **options))
    (problem,) = caught.value.problems
    assert (problem.where, problem.key) == (str(start), "network_weights") and problem.next


def cut_down(whole: Path, target: Path, *without: str, **more: torch.Tensor) -> str:
    """A copy of a model without the tensors whose names start so, and with some more."""
    kept = {name: tensor for name, tensor in load_file(whole).items() if not name.startswith(without)}
    save_file(kept | more, target, dict(read_header(whole).metadata))
    return str(target)


def test_parts_that_a_model_lacks_are_told_among_all(tmp_path: Path, tiny_sd15: Path) -> None:
    pictures = draw_pictures(tmp_path / "1_sks dog", 2).parent
    bare = cut_down(tiny_sd15, tmp_path / "bare.safetensors", "first_stage_model.", "cond_stage_model.")
    told = found(pictures, pretrained_model_name_or_path=bare, network_weights="/nowhere/a.safetensors")
    assert "no VAE inside; choose one" in told["vae"] and bare in told["vae"]
    assert "no text encoder inside" in told["pretrained_model_name_or_path"]
    assert "network_weights" in told, "with everything else that is wrong, before anything is loaded"
    no_vae = cut_down(tiny_sd15, tmp_path / "no_vae.safetensors", "first_stage_model.")
    own = prepare(settings_of(pictures, pretrained_model_name_or_path=no_vae, vae=str(tiny_sd15)))
    assert own.base.details["lacks"] == "VAE"


def test_what_a_model_predicts_goes_by_its_file_unless_told_otherwise(
    tmp_path: Path, tiny_sd15: Path
) -> None:
    pictures = draw_pictures(tmp_path / "1_sks dog", 2).parent
    empty = torch.empty(0)
    marked = cut_down(tiny_sd15, tmp_path / "v.safetensors", "nothing", v_pred=empty, ztsnr=empty.clone())

    def notes(model: str | Path, **options: Any) -> str:
        prepared = prepare(settings_of(pictures, pretrained_model_name_or_path=str(model), **options))
        return "\n".join(note.text() for note in prepared.notes)

    assert identify(marked).title == "SD 1.5 v-prediction with zero terminal SNR"
    assert "taken as one" not in notes(marked) + notes(marked, v_parameterization=True) + notes(tiny_sd15)
    overridden = notes(marked, prediction_type="epsilon")
    assert "one that predicts noise (epsilon), as prediction_type says" in overridden
    assert "its file says that it predicts v" in overridden
    assert "one that predicts v, as v_parameterization says" in notes(tiny_sd15, v_parameterization=True)

    model = families.load(marked)
    assert model.prediction == "v" and float(model.alphas_cumprod()[-1]) == 0.0
    assert float(families.load(tiny_sd15).alphas_cumprod()[-1]) > 0.0
