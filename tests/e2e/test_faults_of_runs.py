"""What may befall a run from outside: a kill in the middle of a write, a second run, no network at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.e2e.conftest import ROOT, World, events

pytestmark = pytest.mark.e2e

KILLED_IN_A_WRITE = """
import os, runpy, signal, sys
from backend import wholefile

settle, written = wholefile.NewFile.settle, set()

def half(self):
    written.update([self.path] if self.path.parent.name == "out" else [])
    if len(written) == 2:
        self.file.flush()
        self.file.truncate(self.file.tell() // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    settle(self)

wholefile.NewFile.settle = half
sys.argv = ["tools/train_network.py", *sys.argv[1:]]
runpy.run_path("tools/train_network.py", run_name="__main__")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_kill_in_the_middle_of_a_write_leaves_no_torn_file(world: World) -> None:
    options = world.options(max_train_steps=3, save_every_n_steps=1, save_state=True, output_name="torn")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_IN_A_WRITE, *options],
        cwd=ROOT, env={**world.environment, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=300,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    out = world.home / "out"
    whole = [path for path in out.glob("*.safetensors") if not path.name.startswith(".")]
    assert [path.name for path in whole] == ["torn-step00000001.safetensors"]
    assert len(load_file(whole[0])) > 100, "the earlier one is intact"
    assert list(out.glob(".*.partial")), "the torn one has no name of its own"

    resumed = world.python("-m", "backend.train", world.newest_run(), "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "going on from torn-step00000001-state" in resumed.stdout
    assert [record["step"] for record in events(world.newest_run(), "step")] == [1, 2, 2, 3], "redone"
    assert load_file(out / "torn.safetensors").keys() == load_file(whole[0]).keys()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_second_training_is_refused_by_name_and_a_stop_ends_the_first_soon(world: World) -> None:
    options = world.options(max_train_steps=100_000, output_name="first")
    first = subprocess.Popen(
        [sys.executable, "tools/train_network.py", *options],
        cwd=ROOT, env=world.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        runs = world.home / "runs"
        while not (runs.is_dir() and any(events(run, "step") for run in runs.glob("*/"))):
            assert first.poll() is None and time.monotonic() < deadline, "the first run did not begin"
            time.sleep(0.1)
        second = world.train(output_name="second", max_train_steps=1)
        assert second.returncode == 2
        assert f"'first' is already training (process {first.pid})" in second.stderr
        assert len(list(runs.glob("*/"))) == 1 and not (world.home / "out" / "second.safetensors").exists()
        asked = time.monotonic()
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0 and time.monotonic() - asked < 30
    finally:
        first.kill()
        first.wait()
    assert events(world.newest_run(), "state")[-1]["state"] == "stopped"
    (kept,) = (world.home / "out").glob("first-step*.safetensors")
    assert load_file(kept)


PAGE_WITHOUT_NETWORK = """
import fcntl, os, socket, struct, subprocess, sys, urllib.request

with socket.socket() as probe:  # this machine's own address is there, and nothing else
    fcntl.ioctl(probe, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
page = subprocess.Popen(
    [sys.executable, "app.py", "--port", "7860", "--no-browser"], stdout=subprocess.PIPE, text=True
)
while "Atelier is at" not in (line := page.stdout.readline()):
    assert line, "the page did not start"
for path in ("/start", "/config", "/docs/options"):
    assert urllib.request.urlopen("http://127.0.0.1:7860" + path).status == 200
page.terminate()
page.wait()
"""


def alone() -> list[str]:
    """What a command line begins with to have no network; skips where that is not possible."""
    program = shutil.which("unshare")
    if program is None or subprocess.run([program, "-rn", "true"], capture_output=True).returncode:
        pytest.skip("networks cannot be taken away here (unshare -rn)")
    return [program, "-rn", sys.executable]


def test_without_any_network_everything_works(world: World, tmp_path: Path) -> None:
    python = alone()
    empty = {**world.environment, "HF_HOME": str(tmp_path / "hub"), "HOME": str(tmp_path)}
    empty.pop("HF_HUB_OFFLINE", None)

    def run(*arguments: object) -> str:
        line = [*python, *map(str, arguments)]
        done = subprocess.run(line, cwd=ROOT, env=empty, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    options = world.options(
        max_train_steps=1, sample_prompt_text="a cat --w 64 --h 64 --s 1", sample_at_first=True
    )
    assert "sample: " in run("tools/train_network.py", *options)
    result = world.home / "out" / "result.safetensors"
    assert "result" in run("tools/show_metadata.py", "--model", result)
    run("-c", PAGE_WITHOUT_NETWORK)
    assert not (tmp_path / "hub").exists() or not os.listdir(tmp_path / "hub")  # noqa: PTH208
