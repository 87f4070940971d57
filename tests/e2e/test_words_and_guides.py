"""What trainings of words and of ControlNet-LLLite have in common: resume, control, plan, faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from backend.errors import InputError
from backend.jobs.control import send
from backend.jobs.runs import open_run
from backend.system.identify import identify
from backend.train import run as train_run
from backend.train.entry import train_from_line
from tests.e2e.conftest import events
from tests.e2e.workshop import LLLITE, TOOLS, WORD, XL_WORD, Workshop, same, typed

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("own_signals", "a_process_of_its_own")]


@pytest.mark.parametrize("tool", [WORD, LLLITE])
def test_a_resumed_run_equals_a_straight_one_to_the_bit(shop: Workshop, tool: str) -> None:
    out = shop.home / tool
    more: dict[str, Any] = {"flip_aug": True, "cache_latents": None, "output_dir": out}
    more |= {"shuffle_caption": True} if tool == WORD else {"network_dropout": 0.1}
    assert shop.train(tool, output_name="straight", max_train_steps=4, **more) == 0
    assert shop.train(tool, output_name="half", max_train_steps=2, save_state_on_train_end=True, **more) == 0
    more |= {"max_train_steps": 4, "resume": out / "half-state"}
    assert shop.train(tool, output_name="whole", **{**more, "seed": None}) == 0
    straight, half, whole = (out / f"{name}.safetensors" for name in ("straight", "half", "whole"))
    assert same(straight, whole) and not same(half, whole)
    changed = {"num_vectors_per_token": 2} if tool == WORD else {"cond_emb_dim": 16}
    assert shop.train(tool, output_name="other", **more, **changed) == 2


def controlled(root: Path, known: set[Path], commands: Callable[[Path], None]) -> threading.Thread:
    """Gives commands to the run that is made next."""

    def work() -> None:
        while not (found := [path for path in set(root.glob("*/")) - known if events(path, "phase")]):
            time.sleep(0.01)
        commands(found[0])

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("tool", [XL_WORD, LLLITE])
def test_it_saves_pauses_and_stops_when_told_and_goes_on(shop: Workshop, tool: str) -> None:
    def states(run: Path) -> list[str]:
        return [record["state"] for record in events(run, "state")]

    def commands(run: Path) -> None:
        send(open_run(run), "save")
        send(open_run(run), "pause")
        while "paused" not in states(run):
            time.sleep(0.02)
        send(open_run(run), "resume")
        send(open_run(run), "stop")

    thread = controlled(shop.home / "runs", set((shop.home / "runs").glob("*/")), commands)
    name = f"told-{tool.split('_')[1]}-{tool[-9:-3]}"
    assert shop.train(tool, output_name=name, max_train_steps=4) == 0
    thread.join(10)
    run = shop.runs()[-1]
    assert states(run)[-1] == "stopped" and "paused" in states(run)
    saved = [Path(record["path"]) for record in events(run, "saved") if record["kind"] == "step"]
    assert saved and all(identify(path).kind in ("embedding", "lllite") for path in saved)
    open_run(run).control.unlink()  # commands count from when a process begins, and this one is the same
    assert train_run.train_folder(run, resume=True) == 0
    assert states(run)[-1] == "finished" and shop.out(f"{name}.safetensors").is_file()
    assert [record["step"] for record in events(run, "step")] == [1, 2, 3, 4]


def test_the_plan_is_told_without_weights(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for tool, what in ((XL_WORD, "Textual inversion 'sks', 1 vector"), (LLLITE, "ControlNet-LLLite")):
        assert typed(monkeypatch, tool, [*shop.line(tool), "--dry_run"]) == 0
        told = capsys.readouterr().out
        assert what in told and "memory: about" in told, told
        assert ("modules" in told) == (tool == LLLITE), "vectors of a word are no layers"


def test_faults_are_known_before_anything_is_loaded(
    shop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(tool: str, **more: Any) -> str:
        families, method = TOOLS[tool]
        with pytest.raises(InputError) as caught:
            code = train_from_line(shop.line(tool, **more), tool, families, method)
            assert code == 2, "it was not refused"
            raise InputError("in the run")
        assert "Loading" not in capsys.readouterr().out
        return caught.value.text()

    assert "no word to teach" in refused(WORD, token_string=None)
    assert "stands in no caption" in refused(WORD, token_string="mycat")
    assert "exclude each other" in refused(WORD, use_object_template=True, use_style_template=True)
    assert "has no use where a word (textual inversion) is trained" in refused(
        WORD, cache_text_encoder_outputs=True
    )
    assert "sdxl_train_textual_inversion.py" in refused(WORD, pretrained_model_name_or_path=shop.sdxl)
    assert "caption_dropout_rate has no use" in refused(WORD, caption_dropout_rate=0.1)
    assert "no guide pictures" in refused(LLLITE, conditioning_data_dir=None)
    empty = shop.home / "empty"
    empty.mkdir()
    assert "4 pictures without a conditioning picture" in refused(LLLITE, conditioning_data_dir=empty)
    assert "no-such-guides" in refused(LLLITE, conditioning_data_dir=shop.home / "no-such-guides")
    assert "no use where a ControlNet-LLLite is trained" in refused(LLLITE, network_alpha=4)
    word = shop.home / "word.safetensors"
    save_file({"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}, word)
    assert "textual inversion embedding" in refused(LLLITE, network_weights=word)
