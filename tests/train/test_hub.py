"""Uploads with the real client to a hub on this machine, and a restore point fetched from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from backend.errors import InputError
from backend.settings import Settings
from backend.train.checkpoints import Position, State, load_state, save_state
from backend.train.hub import fetch_state, uploading, with_local_state
from backend.train.preflight import with_seed
from tests.train.fake_hub import FakeHub, serve

TOKEN = "hf_" + "a1" * 17


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    for key, value in (
        ("HF_TOKEN", TOKEN),
        ("ATELIER_HOME", str(tmp_path / "home")),
        ("HF_HUB_OFFLINE", "1"),
    ):
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with serve(TOKEN) as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        yield found


class Sink:
    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def emit(self, type: str, /, **fields: Any) -> None:
        self.said.append((type, fields))

    def texts(self, kind: str) -> list[str]:
        return [fields["text"] for type, fields in self.said if type == kind]


def settings(**more: Any) -> Settings:
    return Settings.from_flat({"huggingface_repo_id": "ann/cats", **more})


def saved(events: Any, path: Path, kind: str = "epoch") -> None:
    if kind != "state" and not path.exists():
        path.write_text(f"weights of {path.name}")
    events.emit("saved", step=1, epoch=1, kind=kind, path=str(path))


def state(folder: Path) -> Path:
    save_state(folder, State(Position(6, 2, 1), {"a": torch.ones(2)}, {"optimizer": {}}, {"seed": 77}))
    return folder


def run(sink: Sink, tmp_path: Path, *kinds: str, **options: Any) -> None:
    with uploading(settings(**options), sink) as events:  # type: ignore[arg-type]
        for index, kind in enumerate(kinds):
            saved(events, tmp_path / f"cat-{index}.safetensors", kind)


def test_files_go_up_as_they_are_saved(hub: FakeHub, tmp_path: Path) -> None:
    run(sink := Sink(), tmp_path, "epoch", "step", "recovery", "result", huggingface_path_in_repo="third/try")
    assert {name: data.decode() for name, data in hub.files["ann/cats"].items()} == {
        f"third/try/cat-{index}.safetensors": f"weights of cat-{index}.safetensors" for index in (0, 1, 3)
    }
    assert hub.private == {"ann/cats": True}
    assert sink.texts("note")[0] == "uploaded third/try/cat-0.safetensors to ann/cats"
    assert not sink.texts("warning")


def test_a_repository_is_public_only_when_that_is_said(hub: FakeHub, tmp_path: Path) -> None:
    run(Sink(), tmp_path, huggingface_repo_visibility="public")
    assert not hub.private["ann/cats"]


def test_nothing_happens_without_a_repository(hub: FakeHub, tmp_path: Path) -> None:
    run(Sink(), tmp_path, "result", huggingface_repo_id=None)
    assert hub.files == {}


@pytest.mark.parametrize("wanted", [True, False])
def test_restore_points_go_up_when_asked(hub: FakeHub, tmp_path: Path, wanted: bool) -> None:
    with uploading(settings(save_state_to_huggingface=wanted), Sink()) as events:  # type: ignore[arg-type]
        saved(events, state(tmp_path / "cat-state"), "state")
    names = {f"cat-state/{name}" for name in ("optimizer.pt", "state.json", "weights.safetensors")}
    assert set(hub.files["ann/cats"]) == (names if wanted else set())


def test_a_failed_upload_is_told_and_tried_again_at_the_end(hub: FakeHub, tmp_path: Path) -> None:
    hub.failing = 1
    run(sink := Sink(), tmp_path, "epoch", "result")
    (warning,) = sink.texts("warning")
    assert "cat-0.safetensors could not be uploaded to ann/cats" in warning and "tried again" in warning
    assert TOKEN not in warning and "***" in warning
    assert set(hub.files["ann/cats"]) == {"cat-0.safetensors", "cat-1.safetensors"}
    hub.failing = 9
    run(sink := Sink(), tmp_path, "epoch")
    assert len(sink.texts("warning")) == 2 and "still on the disk" in sink.texts("warning")[1]


def test_a_file_that_was_pruned_meanwhile_is_no_fault(hub: FakeHub, tmp_path: Path) -> None:
    hub.failing = 1
    with uploading(settings(), sink := Sink()) as events:  # type: ignore[arg-type]
        saved(events, tmp_path / "a.safetensors")
        (tmp_path / "a.safetensors").unlink()
    assert sink.texts("note") == ["a.safetensors was removed before it was uploaded"]


def test_uploads_beside_training_are_waited_for_at_the_end(hub: FakeHub, tmp_path: Path) -> None:
    hub.failing = 1
    run(sink := Sink(), tmp_path, "epoch", "step", "result", async_upload=True)
    assert len(hub.files["ann/cats"]) == 3 and len(sink.texts("warning")) == 1


def test_uploads_are_finished_when_a_run_fails(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="broken"), uploading(settings(async_upload=True), Sink()) as events:  # type: ignore[arg-type]
        saved(events, tmp_path / "a.safetensors")
        raise InputError("broken")
    assert set(hub.files["ann/cats"]) == {"a.safetensors"}


def test_a_refused_token_is_told_before_training(hub: FakeHub, tmp_path: Path) -> None:
    hub.token = "another"
    with pytest.raises(InputError, match="refuses the repository ann/cats") as caught:
        run(Sink(), tmp_path, "epoch")
    assert TOKEN not in caught.value.text()


def test_a_missing_token_is_told_before_training(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(InputError, match="needs a token"):
        run(Sink(), tmp_path, "epoch")


def test_a_hub_that_is_away_does_not_stop_the_run(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    run(sink := Sink(), tmp_path)
    assert "Hugging Face cannot be reached now" in sink.texts("warning")[0]


def test_a_run_goes_on_from_a_restore_point_on_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    with uploading(
        settings(save_state_to_huggingface=True, huggingface_path_in_repo="runs"),
        Sink(),  # type: ignore[arg-type]
    ) as events:
        saved(events, state(tmp_path / "cat-state"), "state")
    asked = Settings.from_flat(
        {"resume": "ann/cats/runs/cat-state:main:model", "resume_from_huggingface": True}
    )
    here = with_local_state(asked)
    assert not here.hub.resume_from_huggingface and here.saving.resume
    assert load_state(Path(here.saving.resume)).position == Position(6, 2, 1)
    assert with_seed(here).schedule.seed == 77


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cats/cat-state", "not of the form user/repository/path"),
        ("ann/dogs/cat-state", "cannot be fetched"),
        ("ann/cats/elsewhere", "no folder elsewhere in ann/cats"),
    ],
)
def test_wrong_places_of_restore_points(hub: FakeHub, name: str, said: str) -> None:
    hub.files["ann/cats"] = {"cat-state/state.json": b"{}"}
    with pytest.raises(InputError, match=said):
        fetch_state(name)
