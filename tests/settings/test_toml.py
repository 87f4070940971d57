"""Settings files: what is read, where a fault lies, and that writing never leaves half a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.errors import EnvironmentFault, InputError
from backend.settings import Settings, read_toml, read_toml_with_notes, to_toml, write_toml
from backend.settings.dialect import ABSENT, NEUTRAL
from backend.settings.tomlfile import MAX_BYTES


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.toml"


def fault(file: Path, text: str) -> str:
    """What is said of a file with this text."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_toml(file)
    assert caught.value.exit_code == 2
    return caught.value.text()


def test_flat_keys_and_headings_of_any_name(file: Path) -> None:
    file.write_text(
        'seed = 5\n[anything]\nnetwork_dim = 8\n[optimizer]\nlearning_rate = "1e-4"\n', encoding="utf-8"
    )
    assert read_toml(file).changed() == {"network_dim": 8, "learning_rate": 1e-4, "seed": 5}


def test_a_file_as_kohya_ss_writes_it(file: Path) -> None:
    file.write_text(
        'bucket_no_upscale = true\nbucket_reso_steps = 64\ncache_latents = true\ncaption_extension = ".txt"\n'
        'clip_skip = 1\ndynamo_backend = "no"\nenable_bucket = true\nepoch = 1\nhuber_c = 0.1\nhuber_schedule = "snr"\n'
        'loss_type = "l2"\nlr_scheduler = "cosine"\nlr_scheduler_args = []\nlr_scheduler_power = 1\n'
        'lr_warmup_steps = 0.1\nmax_bucket_reso = 2048\nmax_timestep = 1000\nnetwork_args = [ "conv_dim=4", "conv_alpha=1" ]\n'
        "noise_offset = 0\nmin_snr_gamma = 0\nsample_every_n_steps = 0\noptimizer_args = []\n"
        'optimizer_type = "AdamW8bit"\ntext_encoder_lr = [ 0.00005 ]\nunet_lr = 0.0001\nv2 = false\nxformers = true\n'
        "max_train_steps = 1600\n",
        encoding="utf-8",
    )
    settings, notes = read_toml_with_notes(file)
    assert settings.changed() == {
        "bucket_no_upscale": True,
        "cache_latents": True,
        "caption_extension": ".txt",
        "clip_skip": 1,
        "dynamo_backend": "no",
        "enable_bucket": True,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 0.1,
        "max_bucket_reso": 2048,
        "conv_dim": 4,
        "conv_alpha": 1.0,
        "noise_offset": 0.0,
        "optimizer_type": "AdamW8bit",
        "text_encoder_lr": 0.00005,
        "unet_lr": 0.0001,
        "xformers": True,
    }
    assert not [note for note in notes if note.key == "dynamo_backend"]
    assert [note.what for note in notes if note.key == "epoch"] == [
        "epoch needs nothing here: kohya_ss writes it for itself; the length of the run is given"
    ]
    assert settings.network.network_args == ()


def test_unknown_keys_by_line_with_the_nearest_name(file: Path) -> None:
    said = fault(file, "# a comment\n\n[training]\nlearing_rate = 1e-4\nsteps = 5\nzzz = 1\n")
    assert f"{file}, line 4: unknown key learing_rate" in said and "Did you mean learning_rate?" in said
    assert "line 5: unknown key steps" in said and "Did you mean max_train_steps?" in said
    assert "line 6: unknown key zzz" in said


def test_wrong_values_by_line_all_in_one_list(file: Path) -> None:
    said = fault(
        file,
        'max_train_steps = "many"\nseed = 1.5\n[x]\nnetwork_dim = 0\nsample_prompt_text = """\nseed = 3\n"""\n'
        "optimizer_args = [\n  # betas\n  'betas',\n]\ntrain_batch_size = true\nlearning_rate = nan\n",
    )
    assert "line 1: max_train_steps: expected a whole number, got text" in said
    assert "line 2: seed: expected a whole number, got 1.5" in said
    assert "line 4: network_dim: 0 is out of range; allowed: 1 to 1024" in said
    assert "line 8: optimizer_args: 'betas' is not of the form key=value" in said
    assert "line 12: train_batch_size: expected a whole number, got true" in said
    assert "line 13: learning_rate: nan" in said


def test_bad_toml_names_line_and_column_and_shows_the_line(file: Path) -> None:
    said = fault(file, "seed = 1\nnetwork_dim = 8\nsteps = 5 : 3\n")
    assert f"{file}, line 3, column 11" in said and "steps = 5 : 3" in said


def test_a_windows_path_in_double_quotes_gets_a_hint(file: Path) -> None:
    said = fault(file, 'vae = "C:\\models\\vae.safetensors"\n')
    assert "line 1, column" in said and "single quotes" in said


@pytest.mark.parametrize(
    "text",
    [
        "seed = 1\nnetwork_dim = 8\nseed = 2\n",
        "seed = 1\n[a]\nseed = 2\n",
        "[a]\nseed = 1\n[b]\n'seed' = 2\n",
    ],
)
def test_a_key_that_stands_twice(file: Path, text: str) -> None:
    lines = [number for number, line in enumerate(text.split("\n"), 1) if "seed" in line]
    assert f"seed stands twice, in line {lines[0]} and in line {lines[1]}" in fault(file, text)


def test_other_files_are_told_for_what_they_are(file: Path, tmp_path: Path) -> None:
    dataset = "[[datasets]]\nresolution = 512\n" + "[[datasets.subsets]]\nimage_dir = 'x'\nseed = 1\n" * 2
    assert "this looks like a dataset file: give it as dataset_config" in fault(file, dataset)
    assert "nested too deeply" in fault(file, "seed = " + "[" * 5000 + "]" * 5000)
    assert "a table inside a table" in fault(file, "[a.b]\nseed = 1\n")
    assert "bytes" in fault(file, "#" + "x" * MAX_BYTES)
    file.write_bytes("seed = 1\n# Größe".encode("latin-1"))
    with pytest.raises(InputError, match=r"line 2: the file is not written in UTF-8"):
        read_toml(file)
    with pytest.raises(InputError, match=r"not found.*rum.toml[\s\S]*Did you mean .*run.toml"):
        read_toml(tmp_path / "rum.toml")


def test_a_file_with_byte_order_mark_and_windows_line_ends(file: Path) -> None:
    file.write_bytes("\ufeffseed = 1\r\nnetwork_dim = 8\r\n".encode())
    assert read_toml(file).changed() == {"network_dim": 8, "seed": 1}


def test_options_of_sd_scripts_that_are_not_here_are_refused_unless_they_change_nothing(file: Path) -> None:
    file.write_text(
        'zero_terminal_snr = false\nmax_timestep = 1000\nloss_type = "l2"\ndebug_dataset = false\n',
        encoding="utf-8",
    )
    assert read_toml_with_notes(file) == (Settings(), [])
    absent = sorted(ABSENT - NEUTRAL.keys())[:3]
    said = fault(file, "".join(f"{key} = 500\n" for key in absent))
    for line, key in enumerate(absent, 1):
        assert f"line {line}: Atelier does not have --{key}" in said


def test_only_what_differs_is_written_with_its_help() -> None:
    text = to_toml(Settings.from_flat({"network_dim": 8, "learning_rate": 1e-4}))
    assert text.count("=") == 2 and "[network]" in text and "[optimizer]" in text
    assert "# Size of the LoRA" in text
    assert to_toml(Settings()) == ""


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toml(Settings.from_flat({"seed": 1}), file)
    before = file.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFault, match=r"cannot write to .*run.toml \(No space left on device\)"):
        write_toml(Settings.from_flat({"seed": 2}), file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_sampling_is_switched_off_by_any_number_below_one(file: Path) -> None:
    file.write_text("sample_every_n_steps = -1\nsample_every_n_epochs = 0\n", encoding="utf-8")
    settings, notes = read_toml_with_notes(file)
    assert settings.sampling.sample_every_n_steps is None and settings.sampling.sample_every_n_epochs is None
    assert [note.what for note in notes] == ["sample_every_n_steps -1 counts as not given"]
