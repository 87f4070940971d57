"""The real worker process with the tiny SD 1.5 of the reference files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from backend.errors import RunFault
from backend.generate import pictures
from backend.jobs.worker import Worker

COMMAND = [sys.executable, "-m", "backend.generate.worker"]
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def worker(out):
    client = Worker(COMMAND, out / "worker.log", "picture worker")
    yield client
    client.stop()


@pytest.fixture
def order(golden_dir, out):
    def make(id_: str, loras=(), **request) -> dict:
        stack = [{"path": str(golden_dir / "in" / name), "strength": strength} for name, strength in loras]
        wanted = {
            "prompt": "a cat",
            "width": 64,
            "height": 64,
            "steps": 2,
            "seed": 1,
            "loras": stack,
            **request,
        }
        return {
            "id": id_,
            "op": "generate",
            "model": str(golden_dir / "in" / "tiny_sd15_fp16.safetensors"),
            "request": wanted,
            "out": str(out),
        }

    return make


def pixels(done: dict) -> np.ndarray:
    return np.asarray(Image.open(done["pictures"][0])).astype(int)


def test_pictures_networks_and_warmth(worker, order):
    began = time.perf_counter()
    plain = worker.ask(order("1"))
    cold = time.perf_counter() - began
    full = worker.ask(order("2", [("lora_a.safetensors", 1.0)]))
    zero = worker.ask(order("3", [("lora_a.safetensors", 0.0)]))
    swapped = list(worker.request(order("4", [("lora_b.safetensors", 1.0)])))
    assert np.abs(pixels(zero) - pixels(plain)).max() <= 1
    assert np.abs(pixels(full) - pixels(plain)).max() > 8
    assert np.abs(pixels(swapped[-1]) - pixels(full)).max() > 8
    assert [e["path"] for e in swapped if e["type"] == "loading"] == ["lora_b.safetensors"]
    assert all(done["seconds"] < cold for done in (full, zero, swapped[-1]))
    assert "<lora:lora_b:1>" in pictures.parameters_of(Path(swapped[-1]["pictures"][0]))


def test_errors_name_the_file_and_the_worker_lives_on(worker, order, golden_dir, tmp_path):
    pid = worker.pid
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"<html>no model</html>")
    for path in (broken, tmp_path / "gone.safetensors", golden_dir / "in" / "lora_a.safetensors"):
        error = worker.ask({**order("5"), "model": str(path)})
        assert error["type"] == "error" and path.name in str(error["problems"])
    xl = worker.ask(order("6", [("xl_lora.safetensors", 1.0)]))
    assert xl["type"] == "error" and "SDXL" in str(xl["problems"])
    assert worker.ask(order("7"))["type"] == "done"
    assert worker.pid == pid


def test_stop_from_another_thread(worker, order):
    found, began = [], []

    def listen() -> None:
        for event in worker.request(order("8", steps=900)):
            found.append(event)
            if event["type"] == "progress" and not began:
                began.append(time.perf_counter())

    thread = threading.Thread(target=listen)
    thread.start()
    while not began:
        time.sleep(0.01)
    assert worker.tell({"id": "stop", "op": "stop"})
    thread.join(10)
    assert found[-1]["type"] == "done" and found[-1]["id"] == "8" and found[-1]["stopped"] is True
    assert found[-1]["pictures"] == []


def test_a_killed_worker_is_said_and_starts_anew(worker, order):
    worker.ask(order("9"))
    events = worker.request(order("10", steps=900))
    assert next(events)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(RunFault, match="picture worker"):
        list(events)
    assert worker.ask(order("11"))["type"] == "done"


def test_output_is_json_only_and_the_end_of_input_ends_it(order):
    code = (
        "import sys, os; sys.argv = ['worker']; from backend.generate import worker; "
        "prepare = worker.Worker._prepare; "
        "worker.Worker._prepare = lambda self: (print('noise'), os.write(1, b'more noise'), prepare(self)); "
        "sys.exit(worker.main([]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate('{"id": "p", "op": "ping"}\n', timeout=60)
    assert process.returncode == 0
    assert '"ready"' in out and '"pong"' in out and "noise" not in out
    assert "more noise" in err


@pytest.mark.skipif(sys.platform == "win32", reason="there the closing input alone ends a worker")
def test_the_worker_ends_when_its_parent_is_killed(tmp_path):
    # The grandparent keeps the worker's input open, so only the parent's end can end it.
    read, write = os.pipe()
    code = (
        "import subprocess, sys, time; "
        f"p = subprocess.Popen({COMMAND!r}, stdin={read}, stdout=subprocess.DEVNULL); "
        "print(p.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], pass_fds=[read], stdout=subprocess.PIPE, text=True
    )
    child = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    try:
        child.wait(30)
    except psutil.TimeoutExpired:
        child.kill()
        pytest.fail("the worker outlived its parent")
    finally:
        os.close(read), os.close(write)
        parent.stdout.close()
