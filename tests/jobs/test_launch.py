"""Which command line starts a job, with one process or with several."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from backend.jobs import launch, process
from backend.jobs.runs import create_run
from backend.settings import Settings, to_toml


def words(**chosen: Any) -> str:
    return " ".join(launch.command("backend.train", ["run"], chosen)[1:])


def test_one_process_needs_no_launcher() -> None:
    assert words() == words(num_processes=1, num_machines=1, machine_rank=0) == "-m backend.train run"


def test_several_processes_are_accelerates_affair() -> None:
    line = words(num_processes=2)
    assert line.startswith("-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1")
    assert "--main_process_port 0" in line  # a free one, so that two trainings never meet
    assert line == words(num_processes=2, main_process_port=None, gpu_ids=None, main_process_ip="")
    assert "--cpu" not in line.split()  # which would start one process only
    assert line.endswith("-m backend.train run")


def test_every_choice_is_passed_on() -> None:
    line = words(
        num_processes=4, num_machines=2, machine_rank=1, main_process_ip="10.0.0.1", main_process_port=29500,
        gpu_ids="0,1", num_cpu_threads_per_process=2, extra_accelerate_launch_args="--rdzv_backend 'static one'",
    )  # fmt: skip
    for part in (
        "--num_machines 2", "--machine_rank 1", "--main_process_ip 10.0.0.1", "--main_process_port 29500",
        "--gpu_ids 0,1", "--num_cpu_threads_per_process 2", "--rdzv_backend static one",
    ):  # fmt: skip
        assert part in line


def test_accelerate_understands_it() -> None:
    from accelerate.commands.launch import launch_command_parser

    line = launch.command("backend.train", ["run", "--resume"], {"num_processes": 2, "gpu_ids": "0,1"})
    read = launch_command_parser().parse_args(line[3:])
    assert (read.num_processes, read.multi_gpu, read.gpu_ids, read.module) == (2, True, "0,1", True)
    assert (read.training_script, read.training_script_args) == ("backend.train", ["run", "--resume"])


def test_one_card_by_number_needs_the_launcher_as_well() -> None:
    line = words(gpu_ids="1")
    assert "--gpu_ids 1" in line and "--multi_gpu" not in line


def test_a_run_is_started_as_its_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(process, "_spawn", lambda run, command, secrets=None: started.append(command))
    for count in (1, 3):
        run = create_run(tmp_path, "cat", to_toml(Settings().replace(num_processes=count)))
        process.start(run)
    assert started[0][:3] == [sys.executable, "-m", "backend.train"]
    assert started[1][:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert started[1][started[1].index("--num_processes") + 1] == "3"


@pytest.mark.parametrize("text", ["", "[launch", "launch = 3", "[saving]\noutput_name = 'x'\n"])
def test_what_cannot_be_read_asks_for_nothing(text: str) -> None:
    assert launch.choices_in(text) == {}
