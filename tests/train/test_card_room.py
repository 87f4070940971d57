"""A card that is too full: told before a run with what would help, and who holds its memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.settings import Settings
from backend.system import devices
from backend.system.devices import Card, Holder, TorchBuild
from backend.train import card_room, memory
from backend.train.card_room import CardMemory, shortage
from backend.train.entry import train_from_line
from backend.train.environment import on_processor
from backend.train.plan_card import needed, plan_card, warn_of_shortage
from backend.train.preflight import prepare
from tests.train.small import Events, draw_pictures, start

GB = 10**9
CARD = Card("RTX 4070", 12 * 2**30, 12 * 2**30, "580.95", (8, 9))
OLD = Card("RTX 3060", 12 * 2**30, 12 * 2**30, "400.1", (8, 6))
OTHERS = (Holder(4711, "python", 20 * GB), Holder(12, "game.exe", None))
FULL = CardMemory(int(2.6 * GB), 24 * GB, OTHERS)


def sizes(*gigabytes: float | None) -> Callable[[Settings], int | None]:
    """Counts that come out so, one after the other."""
    left = list(gigabytes)
    return lambda _: None if (found := left.pop(0)) is None else int(found * GB)


def test_a_full_card_is_told_with_need_holders_and_what_helps() -> None:
    problem = shortage(FULL, 9 * GB, Settings(), sizes(8.5, 2.1))
    assert problem is not None
    assert problem.what == "a step needs about 9.0 GB of GPU memory; 2.6 GB are free"
    assert problem.why == "21.4 GB of 24.0 GB are in use by python (pid 4711), game.exe (pid 12)"
    assert problem.next == "turn on cache_latents and gradient_checkpointing: about 2.1 GB"


def test_what_fits_or_is_not_known_is_not_spoken_of() -> None:
    assert shortage(FULL, int(2.6 * GB), Settings(), sizes()) is None
    assert shortage(FULL, None, Settings(), sizes()) is None
    assert shortage(None, 9 * GB, Settings(), sizes()) is None


def test_where_nothing_helps_enough_that_is_said() -> None:
    problem = shortage(CardMemory(GB, 8 * GB), 9 * GB, Settings(), sizes(8, 7, 6))
    assert problem is not None and "even with" in problem.next and "about 6.0 GB are needed" in problem.next
    assert "other programs" in problem.why, "nobody is named where the driver names nobody"
    spared = Settings().replace(cache_latents=True, gradient_checkpointing=True, mixed_precision="bf16")
    problem = shortage(CardMemory(GB, GB), 9 * GB, spared, sizes())
    assert problem is not None and "smaller resolution" in problem.next and not problem.why


def test_programs_are_named_by_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver's own tool, put first on the path."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\n"
        'test "$1" = --query-compute-apps=pid,process_name,used_memory || exit 1\n'
        "echo '12, C:\\Games\\a, b\\game.exe, [N/A]'\n"
        "echo '4711, /usr/bin/python, 20480'\n"
        "echo 'No running processes found'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert devices.holders() == (Holder(4711, "python", 20480 * 2**20), Holder(12, "game.exe", None))
    monkeypatch.setattr(devices.os, "getpid", lambda: 4711)
    assert [one.pid for one in devices.holders()] == [12], "this program does not accuse itself"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert devices.holders() == ()
    monkeypatch.setenv("PATH", "")
    assert devices.holders() == ()


def test_out_of_memory_names_who_else_holds_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "card_memory", lambda: FULL)
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")
    why = memory.problem_of(error, Settings()).why
    assert "20.00 GiB" in why and "in use by python (pid 4711)" in why
    monkeypatch.setattr(memory, "card_memory", lambda: CardMemory(0, 24 * GB))
    assert "in use" not in memory.problem_of(error, Settings()).why, "it is this run that holds it"


@pytest.fixture
def options(tiny_sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    return {
        "pretrained_model_name_or_path": str(tiny_sd15),
        "train_data_dir": str(draw_pictures(tmp_path / "2_sks dog", 4).parent),
        "resolution": "64",
        "train_batch_size": 4,
        "network_dim": 4,
        "learning_rate": 1e-3,
        "max_train_steps": 2,
        "seed": 1,
    }


def test_a_dry_run_counts_what_the_switches_save(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings.from_flat({**options, "resolution": 64})
    prepared = prepare(settings)
    least = needed(prepared, settings.replace(cache_latents=True, gradient_checkpointing=True))
    whole = needed(prepared, settings)
    assert least is not None and whole is not None and least < whole
    small = needed(prepared, settings.replace(train_batch_size=1))
    assert small is not None and small < whole

    tight = CardMemory(least, 8 * GB, OTHERS)
    monkeypatch.setattr("backend.train.plan_card.card_memory", lambda: tight)
    line = [f"--{key}={value}" for key, value in options.items()]
    assert train_from_line([*line, "--dry_run", "--json"], "x") == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["what"].startswith("a step needs about") and "(pid 4711)" in problem["why"]
    assert problem["next"].startswith("turn on cache_latents and gradient_checkpointing: about")

    warn_of_shortage(prepared, events := Events())
    (warning,) = events.of("warning")
    assert warning["problem"]["what"] == problem["what"], "a run says it before it loads anything"


def test_without_a_card_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert card_room.card_memory() is None


@pytest.mark.parametrize(
    ("cards", "build", "what", "why"),
    [
        ((), TorchBuild("2.13.0", "12.6"), "No GPU found (driver: none): training uses the processor", ""),
        ((CARD,), TorchBuild("2.13.0+cpu", None), "was built for the processor only", "PyTorch sees no card"),
        ((OLD,), TorchBuild("2.13.0", "12.6"), "is too old; CUDA 12.6 needs 525.60", "PyTorch sees no card"),
    ],
)
def test_a_run_without_a_card_says_so_and_what_it_costs(
    monkeypatch: pytest.MonkeyPatch, cards: tuple[Card, ...], build: TorchBuild, what: str, why: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "cards", lambda: cards)
    monkeypatch.setattr(devices, "torch_build", lambda: build)
    (note,) = on_processor()
    assert what in note.what and note.why.startswith(why) and "minutes a step" in note.next
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert on_processor() == []


def test_a_run_on_the_processor_begins_with_it(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "cards", lambda: ())
    notes = [note["what"] for note in plan_card(Settings.from_flat({**options, "resolution": 64}))["notes"]]
    assert notes[-1].startswith("No GPU found")
    folder = Path(options["train_data_dir"])
    _, _, events, _ = start(folder / "2_sks dog", folder.parent / "home")
    assert any("No GPU found" in note["text"] for note in events.of("note"))
