"""Training the model itself: what is trained, how it is kept, what its file holds, and going on."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backend import families
from backend.data.types import DatasetPlan
from backend.demo.tiny import build_tiny_sd15, build_tiny_sdxl
from backend.errors import InputError, RunFault
from backend.families.base import DiffusionModel
from backend.families.store import Entry
from backend.jobs.control import send
from backend.settings import Settings, check
from backend.settings.imports.metadata import settings_of as read_back
from backend.settings.sections_whole import read_block_lr
from backend.system.headers import read_header
from backend.system.identify import identify
from backend.train.loop import Ending, train
from backend.train.machine import weights_dtype
from backend.train.methods import make_method
from backend.train.methods.base import Adjustable, HoldsModel, Method
from backend.train.methods.regions import xl_block
from backend.train.provenance import TrainingFacts
from backend.train.verify import result_fault
from tests.families import sd3_kit
from tests.train.small import SmallModel, draw_pictures, same, start

FACTS = TrainingFacts(
    session_id=1, started_at=0.0, family="sd1", base_model=Path("base.safetensors"), seed=1,
    optimizer="torch.optim.adamw.AdamW", max_train_steps=4, num_epochs=1, batches_per_epoch=4, steps=4, epoch=1,
)  # fmt: skip


def settings_of(method: str, **options: Any) -> Settings:
    return Settings.from_flat(
        {"training_method": method, "learning_rate": 1e-3, "output_name": "r", **options}
    )


def made(path: Path, settings: Settings, **loading: Any) -> tuple[Method, DiffusionModel]:
    model = families.load(path, dtype=weights_dtype(settings), **loading)
    method = make_method(settings, DatasetPlan(()), model, seed=1)
    method.start()
    return method, model


def shift(method: Method, by: float = 0.01) -> None:
    """Move what is trained, as a training would."""
    with torch.no_grad():
        for parameter in method.trainable.parameters():
            if parameter.requires_grad:
                parameter.add_(by)


@pytest.fixture(scope="module")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sdxl") / "tiny_sdxl.safetensors"
    build_tiny_sdxl(path)
    return path


# ---- what is trained ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "parts"),
    [
        ("dreambooth", {}, {"unet", "te"}),
        ("dreambooth", {"stop_text_encoder_training": -1}, {"unet"}),
        ("dreambooth", {"learning_rate": 0, "text_encoder_lr": 1e-3}, {"te"}),
        ("finetune", {}, {"unet"}),
        ("finetune", {"train_text_encoder": True}, {"unet", "te"}),
        ("finetune", {"train_text_encoder": True, "text_encoder_lr": 0}, {"unet"}),
    ],
)
def test_the_method_says_which_parts_learn(
    tiny_sd15: Path, method: str, options: dict[str, Any], parts: set[str]
) -> None:
    found, model = made(tiny_sd15, settings_of(method, **options))
    assert {group["name"] for group in found.parameter_groups()} == parts
    assert found.trains_text == ("te" in parts)
    for name, part in model.parts().items():
        assert all(parameter.requires_grad == (name in parts) for parameter in part.parameters())
    assert not any(parameter.requires_grad for parameter in model.vae.parameters())
    assert isinstance(found, HoldsModel) and not isinstance(found, Adjustable)
    everything = sum(
        tensor.numel() for part in (*model.parts().values(), model.vae) for tensor in part.parameters()
    )
    assert found.numbers_beside() == everything - sum(w.numel() for w in found.weights().values())


def test_rates_of_the_text_encoders_are_their_own(tiny_sdxl: Path) -> None:
    options = {"train_text_encoder": True, "text_encoder_lr1": 0.0, "text_encoder_lr2": 5e-4}
    found, _ = made(tiny_sdxl, settings_of("finetune", **options))
    rates = {group["name"]: group["lr"] for group in found.parameter_groups()}
    assert rates == {"unet": 1e-3, "te2": 5e-4}


def test_trained_weights_are_whole_and_the_others_small(tiny_sd15: Path) -> None:
    _, model = made(tiny_sd15, settings_of("finetune", mixed_precision="bf16"))
    assert {p.dtype for p in model.denoiser.parameters()} == {torch.float32}
    frozen = [*model.text_encoders["te"].parameters(), *model.vae.parameters()]
    assert {p.dtype for p in frozen} == {torch.bfloat16}
    _, model = made(tiny_sd15, settings_of("finetune", mixed_precision="bf16", full_bf16=True))
    assert {p.dtype for p in model.denoiser.parameters()} == {torch.bfloat16}


def test_nothing_to_train_is_refused(tiny_sd15: Path) -> None:
    with pytest.raises(InputError, match="nothing would be trained"):
        made(tiny_sd15, settings_of("finetune", learning_rate=0))


# ---- blocks ---------------------------------------------------------------------------------------


def test_blocks_of_sdxl_have_their_own_rates_and_a_zero_leaves_one_as_it_is(tiny_sdxl: Path) -> None:
    rates = [1e-3 * (index + 1) for index in range(23)]
    rates[4] = rates[22] = 0.0
    found, model = made(tiny_sdxl, settings_of("finetune", block_lr=",".join(map(str, rates))))
    groups = {group["name"]: group for group in found.parameter_groups()}
    assert {name: group["lr"] for name, group in groups.items()} == pytest.approx(
        {f"unet_block{index:02d}": rate for index, rate in enumerate(rates) if rate}
    )
    own = dict(model.denoiser.named_parameters())
    first = {id(w) for w in groups["unet_block00"]["params"]}
    assert first == {id(w) for n, w in own.items() if n.startswith(("time_embedding", "add_embedding"))}
    assert not own["conv_out.weight"].requires_grad and own["conv_in.weight"].requires_grad
    trained = sum(len(group["params"]) for group in groups.values())
    assert trained == len(found.weights()) == sum(w.requires_grad for w in own.values()) < len(own)
    middle = {id(w) for i in (10, 11, 12) for w in groups[f"unet_block{i}"]["params"]}
    assert middle == {id(w) for n, w in own.items() if n.startswith("mid_block")}


def test_block_numbers_follow_the_original_layout() -> None:
    expected = {
        "time_embed.0.weight": 0, "label_emb.0.2.bias": 0, "input_blocks.0.0.weight": 1,
        "input_blocks.8.1.proj_in.weight": 9, "middle_block.0.in_layers.0.weight": 10,
        "middle_block.2.out_layers.3.bias": 12, "output_blocks.0.0.in_layers.0.bias": 13,
        "output_blocks.8.0.skip_connection.weight": 21, "out.0.weight": 22,
    }  # fmt: skip
    assert {name: xl_block(f"model.diffusion_model.{name}") for name in expected} == expected


def test_rates_by_block_are_read_in_every_spelling() -> None:
    assert read_block_lr([1e-4] * 23) == ",".join(["0.0001"] * 23)
    assert read_block_lr(" 1e-4 ") == "1e-4" and read_block_lr("") is None
    for wrong in ("1e-4,1e-4", "a", ",".join(["-1"] * 23)):
        with pytest.raises(ValueError, match="1 or 23"):
            read_block_lr(wrong)


def test_last_blocks_of_sd3_can_stay(tmp_path: Path) -> None:
    path = tmp_path / "sd3.safetensors"
    sd3_kit.build(path, sd3_kit.MEDIUM)
    found, model = made(path, settings_of("finetune", num_last_block_to_freeze=3))
    blocks = {
        name: w.requires_grad for name, w in model.denoiser.named_parameters() if "joint_blocks" in name
    }
    assert blocks and all(grad == name.startswith("joint_blocks.0.") for name, grad in blocks.items())
    assert model.denoiser.get_parameter("final_layer.linear.weight").requires_grad
    assert "as they are" in found.start()[0].what
    with pytest.raises(InputError, match="this model has 4 blocks"):
        made(path, settings_of("finetune", num_last_block_to_freeze=5))
    shift(found)
    found.save(tmp_path / "r.safetensors", FACTS)
    again = families.load(tmp_path / "r.safetensors", dtype=torch.float32)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.denoiser.parameters(), again.denoiser.parameters(), strict=True)
    )


# ---- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["safetensors", "ckpt", "diffusers", "diffusers_safetensors"])
def test_every_kind_of_file_holds_what_was_trained_and_the_rest_as_it_was(
    tiny_sd15: Path, tmp_path: Path, kind: str
) -> None:
    settings = settings_of("finetune", save_model_as=kind, mixed_precision="bf16")
    method, model = made(tiny_sd15, settings)
    shift(method)
    path = tmp_path / f"r{method.suffix()}"
    for _ in range(1 if kind == "ckpt" else 2):  # also in place of an older one
        method.save(path, FACTS)
    found = identify(path)
    assert (found.kind, found.family) == ("base", "sd1")
    assert result_fault(path) is None
    if kind == "ckpt":  # it cannot tell what shapes do not
        held = torch.load(path, weights_only=True)
        assert (held["epoch"], held["global_step"]) == (1, 4)
        path = tmp_path / "again.safetensors"
        save_file(held["state_dict"], path, model.file_metadata())
    base, again = families.load(tiny_sd15), families.load(path)
    for name, tensor in again.denoiser.state_dict().items():
        assert torch.equal(tensor, model.denoiser.state_dict()[name]), name
    for own, other in ((base.vae, again.vae), (base.text_encoders["te"], again.text_encoders["te"])):
        kept = other.state_dict()
        assert all(torch.equal(tensor, kept[name]) for name, tensor in own.state_dict().items())
    if kind.startswith("diffusers"):
        ending = "bin" if kind == "diffusers" else "safetensors"
        assert {file.suffix for file in path.rglob("*") if file.parent.name in ("unet", "vae")} == {
            ".json",
            f".{ending}",
        }


def test_the_file_has_the_precision_asked_for_and_says_how_it_was_made(
    tiny_sd15: Path, tmp_path: Path
) -> None:
    method, model = made(tiny_sd15, settings_of("dreambooth", save_precision="fp16", training_comment="mine"))
    shift(method)
    method.save(tmp_path / "r.safetensors", FACTS)
    header = read_header(tmp_path / "r.safetensors")
    assert {info.dtype for info in header.tensors.values()} <= {"F16", "I64"}
    again = families.load(tmp_path / "r.safetensors")
    assert torch.equal(again.denoiser.conv_in.weight, model.denoiser.conv_in.weight.half().float())
    said = header.metadata
    assert said["ss_training_comment"] == "mine" and said["ss_steps"] == "4"
    assert said["atelier.training_method"] == "dreambooth" and "atelier.components" in said
    assert said["modelspec.architecture"] == "stable-diffusion-v1"
    assert not [key for key in said if "network" in key]
    again = read_back(said)
    assert (
        again.settings.model.training_method == "dreambooth"
        and not check(again.settings, complete=False).errors
    )


def test_another_vae_is_in_the_result_as_its_file_has_it(tiny_sd15: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    build_tiny_sd15(other, seed=9)
    method, _ = made(tiny_sd15, settings_of("finetune", mixed_precision="bf16", vae=str(other)), vae=other)
    method.save(tmp_path / "r.safetensors", FACTS)
    theirs, ours = load_file(other), load_file(tmp_path / "r.safetensors")
    vae = [name for name in theirs if name.startswith("first_stage_model.")]
    assert vae and all(torch.equal(theirs[name], ours[name]) for name in vae)


def test_copies_of_untrained_weights_are_left_out(tiny_sd15: Path, tmp_path: Path) -> None:
    header = read_header(tiny_sd15)
    tensors = load_file(tiny_sd15)
    tensors["model_ema.decay"] = torch.ones(1)
    save_file(tensors, tmp_path / "base.safetensors", dict(header.metadata))
    method, _ = made(tmp_path / "base.safetensors", settings_of("finetune"))
    method.save(tmp_path / "r.safetensors", FACTS)
    assert set(read_header(tmp_path / "r.safetensors").tensors) == set(header.tensors)


def test_weights_that_ran_away_are_not_saved(tiny_sd15: Path, tmp_path: Path) -> None:
    method, model = made(tiny_sd15, settings_of("finetune", save_precision="fp16"))
    with torch.no_grad():
        model.denoiser.get_parameter("conv_in.weight")[0, 0, 0, 0] = 1e6
    with pytest.raises(RunFault, match="too large for float16"):
        method.save(tmp_path / "r.safetensors", FACTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["diffusers", "diffusers_safetensors"])
@pytest.mark.parametrize("learns", ["unet", "te"])
def test_sd3_is_written_as_a_folder_too(tmp_path: Path, kind: str, learns: str) -> None:
    """With what was trained, and the rest as it was, though it is in half the precision meanwhile."""
    path, out = tmp_path / "sd3.safetensors", tmp_path / "r"
    sd3_kit.build(path, sd3_kit.MEDIUM35, dtype=torch.float32)
    rates = {"unet": {}, "te": {"learning_rate": 0, "text_encoder_lr": 1e-3, "train_text_encoder": True}}
    settings = settings_of("finetune", save_model_as=kind, mixed_precision="bf16", **rates[learns])
    method, model = made(path, settings)
    shift(method)
    for _ in range(2):  # also in place of an older one
        method.save(out, FACTS)
    found, fault = identify(out), result_fault(out)
    assert (found.kind, found.family, fault) == ("base", "sd3", None)
    base, again = families.load(path), families.load(out)
    trained = {
        name for name, part in model.parts().items() if any(w.requires_grad for w in part.parameters())
    }
    assert trained == ({"unet"} if learns == "unet" else {"te1", "te2"})  # T5 has to be asked for
    for name, part in again.parts().items():
        state = (model if name in trained else base).parts()[name].state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in part.state_dict().items()), name
    vae = base.vae.state_dict()
    assert all(torch.equal(tensor, vae[key]) for key, tensor in again.vae.state_dict().items())


# ---- runs -----------------------------------------------------------------------------------------


class Written(SmallModel):
    """A small model that can be written."""

    def entries(self, dtype: torch.dtype | None, kept: Collection[str] = ()) -> list[Entry]:
        modules: dict[str, nn.Module] = {**self.parts(), "vae": self.vae}
        return [
            Entry(f"{part}.{name}", tuple(tensor.shape), dtype or tensor.dtype, lambda tensor=tensor: tensor)
            for part, module in modules.items()
            for name, tensor in module.state_dict().items()
        ]

    def file_metadata(self) -> dict[str, str]:
        return {"format": "pt"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures") / "3_sks dog")


def begin(folder: Path, home: Path, **options: Any) -> Any:
    values = {"network_dim": None, "network_alpha": 1.0, "learning_rate": 0.01, **options}
    return start(folder.parent, home, model=Written(), **values)


WAYS: dict[str, dict[str, Any]] = {
    "dreambooth": {"training_method": "dreambooth", "stop_text_encoder_training": 3},
    "finetune": {"training_method": "finetune", "train_text_encoder": True, "text_encoder_lr": 0.02},
    "bf16": {"training_method": "finetune", "mixed_precision": "bf16", "full_bf16": True},
    "groups": {"training_method": "finetune", "fused_optimizer_groups": 2},
    "adafactor": {
        "training_method": "dreambooth", "optimizer_type": "AdaFactor", "fused_backward_pass": True,
        "mixed_precision": "bf16", "full_bf16": True, "optimizer_args": ["relative_step=False", "scale_parameter=False"],
    },
    "ema": {"training_method": "finetune", "ema_decay": 0.9},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_gives_the_same_weights_to_the_bit(pictures: Path, tmp_path: Path, way: str) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision otherwise
    options = {**WAYS[way], "max_train_steps": 6, "recovery_minutes": 1000.0}
    session, position, events, _ = begin(pictures, tmp_path / "whole", **options)
    assert train(session, position)[0] is Ending.FINISHED
    whole = {name: tensor.clone() for name, tensor in session.method.weights().items()}
    assert any(record["loss"] for record in events.of("step"))

    session, position, _, run = begin(pictures, tmp_path / "parts", **options)
    before = session.method.before_step

    def stop_after_four(at: int) -> None:
        before(at)
        if at == 3:
            send(run, "stop")

    session.method.before_step = stop_after_four
    ending, position = train(session, position)
    assert ending is Ending.STOPPED and position.step == 4
    session.saver.recovery(session, position)
    session, position, _, _ = begin(pictures, tmp_path / "parts", run=run, **options)
    assert position.step == 4
    assert train(session, position)[0] is Ending.FINISHED
    assert same(whole, session.method.weights())
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_text_encoder_stops_learning_after_its_steps(pictures: Path, tmp_path: Path) -> None:
    session, position, _, _ = begin(pictures, tmp_path, **WAYS["dreambooth"], max_train_steps=5)
    seen: list[Tensor] = []
    step = session.method.before_step

    def look(at: int) -> None:
        step(at)
        seen.append(session.method.weights()["te.layer.weight"].clone())

    session.method.before_step = look
    train(session, position)
    seen.append(session.method.weights()["te.layer.weight"])
    moved = [not torch.equal(before, after) for before, after in pairwise(seen)]
    assert moved == [True, True, True, False, False]


def test_pictures_count_by_their_weight(pictures: Path, tmp_path: Path) -> None:
    reg = draw_pictures(tmp_path / "reg" / "3_dog", captions=[f"dog {i}" for i in range(6)])
    weights: dict[float, dict[str, Tensor]] = {}
    for share in (0.0, 1.0):
        options = {"reg_data_dir": str(reg.parent), "prior_loss_weight": share, "training_method": "finetune"}
        session, position, _, _ = begin(pictures, tmp_path / str(share), **options, train_batch_size=4)
        train(session, position)
        weights[share] = session.method.weights()
    assert not same(weights[0.0], weights[1.0])


def test_a_whole_model_is_saved_as_often_as_a_lora_and_old_folders_go(pictures: Path, tmp_path: Path) -> None:
    options = {
        "training_method": "finetune",
        "save_every_n_steps": 1,
        "save_last_n_step_files": 1,
        "max_train_steps": 3,
    }
    session, position, _, run = begin(pictures, tmp_path, **options)
    train(session, position)
    path = session.saver.finish(session, position)
    files = sorted(file.name for file in (run.path / "checkpoints").iterdir())
    assert path.name == "result.safetensors" and files == [
        "result-step00000002.safetensors",
        "result.safetensors",
    ]
    assert torch.equal(load_file(path)["unet.text.weight"], session.method.weights()["unet.text.weight"])
