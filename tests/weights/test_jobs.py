"""Jobs as plain data, in a process of their own, and the command lines."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from backend.errors import InputError
from backend.jobs.events import read_events
from backend.weights import streaming
from backend.weights.__main__ import main
from backend.weights.jobs import KINDS, read_job
from tests.weights.weights_kit import left_behind, make_lora, tensors_of


def do(folder, **values):
    (folder / "weights.json").write_text(json.dumps(values), encoding="utf-8")
    code = main([str(folder)])
    records, _ = read_events(folder / "events.jsonl")
    return code, records


def test_a_job_tells_what_it_does_and_what_came_of_it(tmp_path):
    source, out = make_lora(tmp_path / "a.safetensors"), tmp_path / "r.safetensors"
    code, records = do(tmp_path, kind="resize", model=str(source), save_to=str(out), new_rank=2, device=None)
    assert code == 0 and out.exists()
    kinds = [record["type"] for record in records]
    assert kinds[0] == "state" and kinds[-2:] == ["result", "state"] and "progress" in kinds
    assert records[-2]["facts"]["kept"][0]["rank"] == 2 and records[-2]["path"] == str(out)
    assert records[-1]["state"] == "finished"


def test_a_job_that_fails_says_why_and_leaves_nothing(tmp_path):
    out = tmp_path / "r.safetensors"
    code, records = do(tmp_path, kind="resize", model=str(tmp_path / "none.safetensors"), save_to=str(out))
    assert code == 2 and not out.exists()
    assert [record["type"] for record in records[-2:]] == ["error", "state"]
    assert "none.safetensors" in records[-2]["problems"][0]["what"]


def test_looking_and_comparing_are_jobs_too(tmp_path):
    a, b = make_lora(tmp_path / "a.safetensors", seed=1), make_lora(tmp_path / "b.safetensors", seed=2)
    _, records = do(tmp_path, kind="inspect", model=str(a))
    assert records[-2]["facts"]["title"] == "LoRA for SD 1.5" and len(records[-2]["facts"]["layers"]) == 4
    _, records = do(tmp_path, kind="compare", model=str(a), other=str(b))
    assert records[-2]["facts"]["shared"] == 4


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({}, "unknown job"),
        ({"kind": "resize", "model": "a"}, "save_to is missing"),
        ({"kind": "resize", "model": "a", "save_to": "b", "rank": 4}, "no field rank"),
        ({"kind": "resize", "model": "a", "save_to": "b", "new_rank": "4"}, "expected a whole number"),
        ({"kind": "resize", "model": "a", "save_to": "b", "dynamic_method": "best"}, "none of sv_ratio"),
        (
            {"kind": "merge_into", "sd_model": "a", "models": "b", "ratios": [1], "save_to": "c"},
            "models: expected",
        ),
        ({"kind": "inspect", "model": "a", "full_hash": 1}, "true or false"),
    ],
)
def test_jobs_that_cannot_be_read_are_told(values, word):
    with pytest.raises(InputError, match=word):
        read_job(values)


def test_every_kind_can_be_asked_for():
    assert len(KINDS) == 11
    for kind, (shape, _) in KINDS.items():
        paths = {"models": ["a", "b"], "ratios": [0.5, 1]}
        needed = {
            name: paths.get(name, 4 if name == "unit" else "x")
            for name, field in shape.__dataclass_fields__.items()
            if field.default is field.default_factory
        }
        found, job = read_job({"kind": kind, **needed})
        assert found == kind and isinstance(job, shape)


def tool(root, monkeypatch, capsys, name, *arguments):
    """Run a command line in this process: (exit code, what it printed)."""
    spec = importlib.util.spec_from_file_location(f"tool_{name}", root / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    spec.loader.exec_module(module)
    code = module.run_main(module.main)
    said = capsys.readouterr()
    return code, said.out + said.err


def test_the_command_lines_that_people_type_run(root, monkeypatch, capsys, tiny_sd15, tmp_path):
    a, b = make_lora(tmp_path / "a.safetensors", 4, seed=1), make_lora(tmp_path / "b.safetensors", 8, seed=2)

    def run(name, *arguments):
        code, said = tool(root, monkeypatch, capsys, name, *arguments)
        assert code == 0, said
        return said

    merged, ab, svd = (
        tmp_path / "merged.safetensors",
        tmp_path / "ab.safetensors",
        tmp_path / "svd.safetensors",
    )
    run("merge_lora", "--sd_model", tiny_sd15, "--save_to", merged, "--models", a, b, "--ratios", 0.8, 0.5)
    said = run("merge_lora", "--save_to", ab, "--models", a, b, "--ratios", 0.6, 0.4, "--concat", "--shuffle",
               "--report", tmp_path / "r.json")  # fmt: skip
    assert "4 parts kept" in said and json.loads((tmp_path / "r.json").read_text())["kept"][0]["rank"] == 12
    run(
        "svd_merge_lora",
        "--save_to",
        svd,
        "--models",
        a,
        b,
        "--ratios",
        0.6,
        0.4,
        "--new_rank",
        3,
        "--device",
        "cpu",
    )
    assert (
        tensors_of(svd)["lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"].shape[0] == 3
    )
    run("extract_lora_from_models", "--model_org", tiny_sd15, "--model_tuned", merged,
        "--save_to", tmp_path / "lora.safetensors", "--dim", 4)  # fmt: skip
    run("extract_lora_from_dylora", "--model", b, "--save_to", tmp_path / "split.safetensors", "--unit", 4)
    assert (tmp_path / "split-0004.safetensors").exists()
    said = run("resize_lora", "--model", b, "--save_to", tmp_path / "small.safetensors", "--new_rank", 6,
               "--dynamic_method", "sv_fro", "--dynamic_param", 0.95, "--verbose")  # fmt: skip
    assert "fro retained" in said
    run(
        "merge_models",
        "--models",
        tiny_sd15,
        merged,
        "--output",
        tmp_path / "mm.safetensors",
        "--show_skipped",
    )
    assert "rank" in run("check_lora_weights", a, "-s")
    run("merge_lycoris", tiny_sd15, a, tmp_path / "ly.safetensors", "--weight", 0.5, "--dtype", "float16")
    said = run("lycoris_locon_extract", tiny_sd15, merged, tmp_path / "locon.safetensors", "--mode", "quantile",
               "--linear_quantile", 0.9, "--conv_quantile", 0.9)  # fmt: skip
    assert "4 parts kept" in said
    assert run("show_metadata", "--model", ab).startswith("{")


def test_command_lines_refuse_what_belongs_to_another_family(root, monkeypatch, capsys, tiny_sd15, tmp_path):
    a = make_lora(tmp_path / "a.safetensors")
    for name, *more in (("sdxl_merge_lora",), ("sd3_merge_lora",), ("merge_lora", "--v2")):
        code, said = tool(root, monkeypatch, capsys, name, "--sd_model", tiny_sd15, "--models", a, "--ratios", 1,
                          "--save_to", tmp_path / "m.safetensors", *more)  # fmt: skip
        assert code == 2 and "SD 1.5" in said
    code, said = tool(root, monkeypatch, capsys, "merge_lora", "--models", a, "--ratios", 1)
    assert code == 2 and "--save_to is missing" in said


def test_a_job_that_is_stopped_clears_away_what_it_began(tiny_sd15, tmp_path, monkeypatch):
    lora, out = make_lora(tmp_path / "a.safetensors"), tmp_path / "m.safetensors"
    real = streaming.raw_bytes
    written = []

    def stop_after_ten(tensor):
        written.append(1)
        if len(written) > 10:
            raise KeyboardInterrupt  # what a request to end becomes
        return real(tensor)

    monkeypatch.setattr(streaming, "raw_bytes", stop_after_ten)
    values = {"sd_model": str(tiny_sd15), "models": [str(lora)], "ratios": [1.0], "save_to": str(out)}
    code, records = do(tmp_path, kind="merge_into", **values)
    assert code == 130 and records[-1]["state"] == "stopped"
    assert len(written) == 11 and not out.exists() and not left_behind(tmp_path)
