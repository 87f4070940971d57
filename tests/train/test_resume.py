"""Going on: what differs and what that means, and the place to go on at."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backend.data.types import CaptionRules, Dataset, DatasetPlan, Geometry, Picture, Subset
from backend.errors import InputError
from backend.jobs.events import NoEvents
from backend.jobs.runs import create_run
from backend.settings import Settings
from backend.settings.length import run_length
from backend.train.checkpoints import Position, State, save_state
from backend.train.console import Console
from backend.train.differences import differences, identity
from backend.train.preflight import with_seed
from backend.train.resume import compare, find_state, place, restore


def plan(count: int = 4, repeats: int = 1, batch_size: int = 1, **subset: Any) -> DatasetPlan:
    rules = CaptionRules(shuffle_caption=bool(subset.pop("shuffle_caption", False)))
    folder = Subset(Path("/home/someone/cats"), num_repeats=repeats, captions=rules, **subset)
    geometry = Geometry((64, 64), (64, 64), (64, 64), (0, 0))
    pictures = [
        Picture(f"0/{i}.png", folder.image_dir / f"{i}.png", folder, "", None, geometry, repeats)
        for i in range(count)
    ]
    return DatasetPlan(
        (Dataset((64, 64), batch_size, tuple(pictures), False, 32, 128, 64, False, (folder,)),)
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "base.safetensors"
    path.write_bytes(bytes(1_200_000))
    return path


def known(
    base: Path, pictures: DatasetPlan | None = None, family: str = "sd1", **options: Any
) -> dict[str, Any]:
    chosen = pictures or plan()
    settings = Settings.from_flat({"seed": 1, **options})
    return identity(settings, chosen, chosen.batches_per_epoch(), family, base)


def effects(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    return {one.what: one.effect for one in differences(before, now)}


def test_what_a_changed_option_means_is_declared_beside_it(base: Path) -> None:
    before = known(base, network_dim=8, learning_rate=1e-4, save_every_n_epochs=1)
    now = known(
        base, network_dim=16, learning_rate=2e-4, output_name="other", optimizer_type="AdaFactor", seed=2
    )
    assert effects(before, now) == {
        "network_dim": "impossible",
        "optimizer_type": "impossible",
        "learning_rate": "changes",
        "seed": "changes",
        "save_every_n_epochs": "safe",
        "output_name": "safe",
    }
    rows = {one.what: (one.before, one.now) for one in differences(before, now)}
    assert rows["network_dim"] == ("8", "16") and rows["save_every_n_epochs"] == ("1", "(empty)")
    assert effects(before, before) == {}


def test_how_a_run_is_resumed_is_no_difference(base: Path) -> None:
    now = known(base, resume="/a/state", initial_step=4, skip_until_initial_step=True)
    assert effects(known(base), now) == {}


def test_secrets_and_folders_are_not_kept(base: Path) -> None:
    found = str(
        known(base, output_dir="/home/someone/out", train_data_dir="/home/someone/cats", vae="/home/x/v.pt")
    )
    assert "someone" not in found and "'vae': 'v.pt'" in found


def test_datasets_are_compared_whatever_they_come_from(base: Path) -> None:
    before = known(base, train_data_dir="/cats", train_batch_size=1)
    now = known(
        base, plan(batch_size=2, flip_aug=True, shuffle_caption=True), dataset_config="/run/dataset.toml"
    )
    assert effects(before, now) == {
        "batch_size": "changes",
        "subset 1: flip_aug": "changes",
        "subset 1: shuffle_caption": "changes",
    }


def test_another_base_model_is_refused_and_a_moved_one_is_not(base: Path, tmp_path: Path) -> None:
    moved, other = tmp_path / "moved.safetensors", tmp_path / "base.safetensors"
    moved.write_bytes(base.read_bytes())
    other.write_bytes(bytes(1_100_000) + b"\1" * 100_000)
    assert effects(known(base), known(moved)) == {}
    assert effects(known(base), known(other)) == {"the base model": "impossible"}
    assert effects(known(base), known(base, family="sdxl")) == {"the base model's family": "impossible"}


def test_a_model_with_other_weights_anywhere_is_another_one(base: Path, tmp_path: Path) -> None:
    """As large as before, and equal where the old short hash looks."""
    other, folder = tmp_path / "base.safetensors", tmp_path / "folder" / "unet"
    other.write_bytes(b"\1" * 70_000 + base.read_bytes()[70_000:])
    assert effects(known(base), known(other)) == {"the base model": "impossible"}
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(base.read_bytes())
    before = known(folder.parent)
    (folder / "model.safetensors").write_bytes(other.read_bytes())
    assert effects(before, known(folder.parent)) == {"the base model": "impossible"}


def test_restore_points_that_know_less_of_their_model_still_serve(base: Path) -> None:
    before = known(base)
    del before["base"]["content"]
    assert effects(before, known(base)) == {}


class Sink(NoEvents):
    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def emit(self, type: Any, /, **fields: Any) -> None:
        self.said.append((type, fields))


def state(facts: dict[str, Any], step: int = 6, epoch: int = 2, batch: int = 2) -> State:
    return State(Position(step, epoch, batch), {}, {}, facts)


def test_the_table_is_told_before_anything_is_refused(base: Path) -> None:
    sink = Sink()
    with pytest.raises(InputError, match="network_dim was 8 when the restore point was made and is 16 now"):
        compare(state(known(base, network_dim=8)), known(base, network_dim=16, learning_rate=1e-3), sink)
    (type, fields), *_ = sink.said
    assert type == "differences" and fields["step"] == 6
    assert [row["effect"] for row in fields["rows"]] == ["impossible", "changes"]
    compare(state(known(base)), known(base), quiet := Sink())
    assert quiet.said == []


def test_the_terminal_shows_a_table(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(
        state(known(base, learning_rate=1e-4)),
        known(base, learning_rate=2e-4, save_state=True),
        Console(NoEvents()),
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["changed", "since", "step", "6", "now"]
    assert lines[1].split(None, 3) == ["learning_rate", "0.0001", "0.0002", "changes the result"]
    assert lines[2].split(None, 3) == ["save_state", "off", "on", "no effect on the result"]


def test_other_pictures_are_refused_with_their_names(base: Path) -> None:
    with pytest.raises(
        InputError, match=r"2 added, 0 removed since step 6[\s\S]*added: 4.png, 5.png"
    ) as caught:
        compare(state(known(base)), known(base, plan(6)), Sink())
    assert caught.value.problems[0].key == "train_data_dir"
    with pytest.raises(InputError, match="4 added, 4 removed"):
        compare(state(known(base)), known(base, plan(repeats=2)), Sink())


def test_other_pictures_are_gone_on_with_when_that_is_asked_for(base: Path) -> None:
    sink = Sink()
    compare(state(known(base)), known(base, plan(6)), sink, other_pictures=True)
    (note,) = [fields["text"] for type, fields in sink.said if type == "note"]
    assert "2 added, 0 removed since step 6" in note and "4.png, 5.png" in note
    compare(state(known(base)), known(base), same := Sink(), other_pictures=True)
    assert same.said == []


def where(
    options: dict[str, Any], batches: int, found: State | None = None, own: bool = False
) -> tuple[int, Position]:
    settings = Settings.from_flat(options)
    length, position = place(settings, run_length(settings, batches), found, own)
    return length.steps, position


def facts(batches: int = 4, **settings: Any) -> dict[str, Any]:
    return {"batches_per_epoch": batches, "settings": settings}


@pytest.mark.parametrize(
    ("options", "batches", "found", "wanted"),
    [
        ({"max_train_steps": 10}, 4, None, (10, Position())),
        ({"max_train_steps": 10}, 4, state(facts()), (10, Position(6, 2, 2))),
        # half of an epoch stays half of it when its batches are fewer
        ({"max_train_steps": 10}, 2, state(facts()), (10, Position(6, 2, 1))),
        ({"max_train_epochs": 3}, 4, state(facts()), (12, Position(6, 2, 2))),
        # epochs that decide the length are counted on: 1.5 are left, of two steps each
        ({"max_train_epochs": 3}, 2, state(facts()), (9, Position(6, 2, 1))),
        ({"max_train_epochs": 3, "gradient_accumulation_steps": 2}, 4, state(facts()), (9, Position(6, 2, 2))),
        ({"max_train_steps": 9, "gradient_accumulation_steps": 2}, 4, state(facts(gradient_accumulation_steps=2)), (9, Position(6, 2, 2))),
        ({"max_train_steps": 10, "initial_step": 5}, 4, None, (10, Position(5, 2, 0))),
        ({"max_train_steps": 10, "initial_step": 5, "skip_until_initial_step": True}, 4, None, (10, Position(5, 2, 1))),
        ({"max_train_epochs": 3, "initial_epoch": 3}, 4, None, (12, Position(8, 3, 0))),
        ({"max_train_epochs": 9, "initial_epoch": 3, "initial_step": 1}, 4, None, (36, Position(1, 1, 0))),
        ({"max_train_steps": 10, "initial_step": 5, "skip_until_initial_step": True}, 4, state(facts()), (10, Position(5, 2, 1))),
        ({"max_train_steps": 20, "initial_step": 5, "gradient_accumulation_steps": 2, "skip_until_initial_step": True}, 4, None, (20, Position(5, 3, 2))),
    ],
)  # fmt: skip
def test_where_a_run_goes_on(
    options: dict[str, Any], batches: int, found: State | None, wanted: tuple[int, Position]
) -> None:
    assert where(options, batches, found) == wanted


def test_a_first_step_counts_once(base: Path) -> None:
    """A run with initial_step that is cut off goes on from its own restore point."""
    options = {"max_train_steps": 10, "initial_step": 5}
    assert where(options, 4, state(facts()), own=True)[1] == Position(6, 2, 2)


@pytest.mark.parametrize("options", [{"max_train_steps": 6}, {"max_train_epochs": 1}])
def test_a_complete_run_says_how_to_extend_it(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"complete at step 6[\s\S]*more than 6 as max_train_steps"):
        where(options, 4, state(facts()))
    with pytest.raises(InputError, match="complete at step 8"):
        where({"max_train_steps": 8, "initial_step": 8}, 4)


class Weights:
    def load(self, weights: Any) -> None:
        self.loaded = weights


def adam(decay: float, lr: float = 0.1, extra: int = 0) -> torch.optim.AdamW:
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "name": f"g{i}"} for i in range(1 + extra)]
    optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=decay)
    for group in groups:
        group["params"][0].grad = torch.ones(2)
    optimizer.step()
    return optimizer


def restored(
    optimizer: torch.optim.Optimizer, *arguments: str, before: tuple[str, ...] = ()
) -> torch.optim.Optimizer:
    saved = State(Position(1), {}, {"optimizer": adam(0.5).state_dict()}, facts(optimizer_args=list(before)))
    settings = Settings.from_flat({"optimizer_args": list(arguments)})
    restore(saved, Weights(), optimizer, SimpleNamespace(scaler=None), settings)  # type: ignore[arg-type]
    return optimizer


def test_optimizer_arguments_count_as_they_are_now() -> None:
    same = ("weight_decay=0.5",)
    assert restored(adam(0.5), *same, before=same).param_groups[0]["weight_decay"] == 0.5
    changed = restored(adam(0.25), "weight_decay=0.25", before=same)
    assert changed.param_groups[0]["weight_decay"] == 0.25
    assert int(changed.state[changed.param_groups[0]["params"][0]]["step"]) == 1, "its memory is kept"
    assert restored(adam(0.01), before=same).param_groups[0]["weight_decay"] == 0.01


def test_an_optimizer_with_other_groups_is_refused_in_words() -> None:
    with pytest.raises(InputError, match="the optimizer's memory in the restore point does not fit"):
        restored(adam(0.5, extra=1))


def test_a_run_whose_restore_points_are_all_damaged_does_not_begin_anew(tmp_path: Path) -> None:
    """That would write over the files of what was trained already."""
    run = create_run(tmp_path, "cat", "")
    sink = Sink()
    assert find_state(run, Settings(), True, sink) is None, "there is none yet"
    point = run.path / "state" / "recovery"
    save_state(point, State(Position(5), {"a": torch.ones(3)}, {"optimizer": {}}, {}))
    content = bytearray((point / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (point / "weights.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.safetensors does not match its checksum"):
        find_state(run, Settings(), True, sink)
    save_state(run.path / "state" / "older", State(Position(3), {"a": torch.ones(3)}, {"optimizer": {}}, {}))
    found = find_state(run, Settings(), True, sink)
    assert found is not None and found.position.step == 3
    assert "weights.safetensors" in sink.said[-2][1]["text"] and "older" in sink.said[-1][1]["text"]


def test_a_run_that_goes_on_has_the_seed_of_its_restore_point(tmp_path: Path) -> None:
    save_state(tmp_path / "s", State(Position(1), {}, {"optimizer": {}}, {"seed": 77}))
    settings = Settings.from_flat({"resume": str(tmp_path / "s")})
    assert with_seed(settings).schedule.seed == 77
    assert with_seed(settings.replace(seed=5)).schedule.seed == 5
    assert with_seed(Settings()).schedule.seed is not None
