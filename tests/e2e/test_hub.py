"""A run that uploads, to a hub on this machine."""

from __future__ import annotations

import os

import pytest

from tests.e2e.conftest import World, events
from tests.train.fake_hub import serve

pytestmark = pytest.mark.e2e
TOKEN = "hf_" + "b2" * 17


def test_a_run_uploads_its_files_and_its_token_is_nowhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with serve(TOKEN) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        done = world.train(
            max_train_steps=2, save_every_n_steps=1, save_state_on_train_end=True, huggingface_repo_id="ann/cats",
            huggingface_token=TOKEN, huggingface_path_in_repo="try", save_state_to_huggingface=True,
            async_upload=True, log_with="tensorboard", log_config=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        again = world.train(
            max_train_steps=4, output_name="second", resume="ann/cats/try/result-state",
            resume_from_huggingface=True, huggingface_token=TOKEN,
        )  # fmt: skip
        assert again.returncode == 0, again.stdout + again.stderr
    assert set(hub.files["ann/cats"]) == {
        "try/result-step00000001.safetensors", "try/result.safetensors", "try/result-state/optimizer.pt",
        "try/result-state/state.json", "try/result-state/weights.safetensors",
    }  # fmt: skip
    result = (world.home / "out" / "result.safetensors").read_bytes()
    assert hub.files["ann/cats"]["try/result.safetensors"] == result
    assert [record["step"] for record in events(world.newest_run(), "step")] == [3, 4]
    written = [path for path in world.home.rglob("*") if path.is_file()]
    assert len(written) > 20
    secret, home = TOKEN.encode(), os.fsencode(world.home)
    assert not [path for path in written if secret in path.read_bytes()]
    assert TOKEN not in done.stdout + done.stderr + again.stdout
    assert not [name for name, data in hub.files["ann/cats"].items() if home in data or secret in data]
