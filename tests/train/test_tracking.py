"""Logs for other programs, against the real TensorBoard and a wandb that notes what it is told."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from backend.errors import AtelierError, EnvironmentFault, InputError
from backend.settings import Settings, trackers
from backend.train.tracking import check_trackers, log_folder, tracked, wanted

STEP = {
    "step": 3, "total": 9, "epoch": 1, "epochs": 1, "loss": 0.5, "average": 0.25, "lr": {"unet": 1e-4},
    "grad_norm": 2.0, "seconds": 1.0,
}  # fmt: skip


class Sink:
    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def emit(self, type: str, /, **fields: Any) -> None:
        self.said.append((type, fields))


class FakeRun:
    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.exit_code: int | None = None
        self.fault: Exception | None = None

    def log(self, values: dict[str, Any], step: int) -> None:
        if self.fault:
            raise self.fault
        self.logged.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of that name in place of the real one."""
    fake: Any = ModuleType("wandb")
    fake.__spec__ = SimpleNamespace(name="wandb")
    fake.run, fake.given = FakeRun(), {}

    def init(**given: Any) -> FakeRun:
        fake.given = given
        return fake.run

    fake.init = init
    fake.Image = lambda path, caption: (path, caption)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_MODE", "offline")
    return fake


def settings(**values: Any) -> Settings:
    return Settings.from_flat(values)


@pytest.fixture
def sample(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "samples").mkdir()
    Image.new("RGB", (16, 24), (255, 0, 0)).save(tmp_path / "samples" / "a.png")
    return {"step": 3, "epoch": None, "index": 1, "prompt": "a cat", "path": "samples/a.png", "seed": 5}


def read_log(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ({}, ()),
        ({"logging_dir": "/logs"}, ("tensorboard",)),
        ({"log_with": "tensorboard"}, ("tensorboard",)),
        ({"log_with": "wandb", "logging_dir": "/logs"}, ("wandb",)),
        ({"log_with": "all"}, ("tensorboard", "wandb")),
    ],
)
def test_which_programs_get_logs(values: dict[str, Any], kinds: tuple[str, ...]) -> None:
    assert wanted(settings(**values)) == kinds


def test_folders(tmp_path: Path) -> None:
    named = log_folder(settings(logging_dir=str(tmp_path / "logs"), log_prefix="cat-"), tmp_path)
    assert named.parent == tmp_path / "logs" and named.name.startswith("cat-20")
    assert log_folder(settings(log_with="all"), tmp_path).parent == tmp_path / "logs"


def test_tensorboard_gets_numbers_pictures_and_settings(tmp_path: Path, sample: dict[str, Any]) -> None:
    (tmp_path / "t.toml").write_text('[tensorboard]\nfilename_suffix = ".mine"\n')
    chosen = settings(
        log_with="tensorboard", log_tracker_name="cats", log_config=True, network_dim=12, output_name="kitty",
        vae="/home/someone/v.pt", log_tracker_config=str(tmp_path / "t.toml"),
    )  # fmt: skip
    sink = Sink()
    with tracked(chosen, tmp_path, sink) as events:  # type: ignore[arg-type]
        events.emit("step", **STEP)
        events.emit("validation", when="epoch", step=3, loss=0.75, divergence=0.5)
        events.emit("sample", **sample)
    assert [type for type, _ in sink.said] == ["step", "validation", "sample"]
    (file,) = (tmp_path / "logs").glob("*/cats/events*.mine")
    log = read_log(file.parent)
    scalars = {tag: log.Scalars(tag)[0] for tag in log.Tags()["scalars"]}
    assert {tag: (one.step, round(one.value, 6)) for tag, one in scalars.items()} == {
        "loss/current": (3, 0.5), "loss/average": (3, 0.25), "norm/gradient": (3, 2.0), "lr/unet": (3, 0.0001),
        "loss/validation/epoch_average": (3, 0.75), "loss/validation/epoch_divergence": (3, 0.5),
    }  # fmt: skip
    assert (log.Images("sample/1")[0].width, log.Images("sample/1")[0].height) == (16, 24)
    text = log.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| network_dim | 12 |" in text and "| vae | v.pt |" in text and "someone" not in text


def test_wandb_gets_the_same(tmp_path: Path, sample: dict[str, Any], wandb: Any) -> None:
    (tmp_path / "t.toml").write_text('[wandb]\ntags = ["a"]\nname = "from file"\n')
    chosen = settings(
        log_with="wandb", wandb_run_name="third try", log_config=True, network_dim=12,
        log_tracker_config=str(tmp_path / "t.toml"),
    )  # fmt: skip
    with tracked(chosen, tmp_path, Sink()) as events:  # type: ignore[arg-type]
        events.emit("step", **STEP)
        events.emit("sample", **sample)
    assert (wandb.given["project"], wandb.given["name"]) == ("network_train", "third try")
    assert wandb.given["tags"] == ["a"] and wandb.given["config"]["network_dim"] == 12
    (step, numbers), (_, picture) = wandb.run.logged
    assert step == 3 and numbers["loss/current"] == 0.5 and numbers["lr/unet"] == 1e-4
    assert picture == {"sample/1": (str(tmp_path / "samples" / "a.png"), "a cat")}
    assert wandb.run.exit_code == 0


def test_settings_are_only_logged_when_asked(tmp_path: Path, wandb: Any) -> None:
    with tracked(settings(log_with="wandb"), tmp_path, Sink()):  # type: ignore[arg-type]
        pass
    assert wandb.given["config"] is None and "name" not in wandb.given


def test_a_tracker_that_fails_never_ends_a_run(tmp_path: Path, wandb: Any) -> None:
    sink = Sink()
    with tracked(settings(log_with="all"), tmp_path, sink) as events:  # type: ignore[arg-type]
        wandb.run.fault = RuntimeError("connection lost")
        events.emit("step", **STEP)
        events.emit("step", **{**STEP, "step": 4})
    warnings = [fields["text"] for type, fields in sink.said if type == "warning"]
    assert warnings == ["Weights & Biases logs end here: connection lost"]
    (file,) = (tmp_path / "logs").glob("*/network_train/events*")
    assert [one.step for one in read_log(file.parent).Scalars("loss/current")] == [3, 4]


def test_one_that_cannot_be_opened_is_told(tmp_path: Path, wandb: Any) -> None:
    def refuse(**given: Any) -> None:
        raise ConnectionError("no route")

    wandb.init = refuse
    sink = Sink()
    with tracked(settings(log_with="wandb"), tmp_path, sink) as events:  # type: ignore[arg-type]
        events.emit("step", **STEP)
    assert "wandb logs cannot be written: no route" in sink.said[0][1]["text"]


def test_a_failed_run_is_told_to_the_tracker(tmp_path: Path, wandb: Any) -> None:
    with (
        pytest.raises(AtelierError),
        tracked(settings(log_with="wandb"), tmp_path, Sink()),  # type: ignore[arg-type]
    ):
        raise InputError("broken")
    assert wandb.run.exit_code == 1


def test_a_missing_library_is_an_environment_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "is_installed", lambda name: name != "wandb")
    with pytest.raises(EnvironmentFault, match=r"wandb is not installed[\s\S]*pip install wandb") as caught:
        check_trackers(settings(log_with="all"))
    assert caught.value.exit_code == 3 and caught.value.problems[0].key == "log_with"
    check_trackers(settings(log_with="tensorboard"))
    assert set(trackers.missing_trackers()) == {"wandb", "all"}, "the form greys them"


def test_wandb_never_stops_to_ask_for_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trackers, "is_installed", lambda name: True)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(EnvironmentFault, match="needs a key"):
        check_trackers(settings(log_with="wandb"))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    check_trackers(settings(log_with="wandb"))
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password 123")
    (tmp_path / ".netrc").chmod(0o600)
    check_trackers(settings(log_with="wandb"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("[wandb\n", "cannot be read"), ("project = 'x'\n", "no table of a tracker"), ("[aim]\n", "aim is no")],
)
def test_a_wrong_tracker_file_is_told_before_the_start(
    text: str, said: str, tmp_path: Path, wandb: Any
) -> None:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(InputError, match=said):
        check_trackers(settings(log_with="wandb", log_tracker_config=str(tmp_path / "t.toml")))


@pytest.mark.slow
def test_the_real_wandb_offline(
    tmp_path: Path, sample: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last run on 2026-11-21 with wandb 0.31.0."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with tracked(settings(log_with="wandb", log_config=True), tmp_path, sink := Sink()) as events:  # type: ignore[arg-type]
        events.emit("step", **STEP)
        events.emit("sample", **sample)
    assert [type for type, _ in sink.said] == ["step", "sample"]
    (log,) = (tmp_path / "logs").glob("*/wandb/offline-run-*/run-*.wandb")
    assert log.stat().st_size > 500
