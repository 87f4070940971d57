"""Presets and imports as the page asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.errors import InputError
from backend.settings import Settings, read_preset
from ui.preset_calls import PresetCalls
from ui.presets import PresetShelf


@pytest.fixture
def calls(tmp_path: Path) -> PresetCalls:
    shelf = PresetShelf(tmp_path / "own")
    shelf.save("My dog", "for dogs", Settings.from_flat({"network_dim": 5}))
    return PresetCalls(shelf)


def titles(reply: dict[str, Any]) -> list[str]:
    return [one["title"] for one in reply["presets"] if one["own"]]


def test_a_preset_gets_another_name_and_keeps_its_settings(calls: PresetCalls):
    reply = calls.rename_preset({"id": "own/my-dog", "name": "Your cat", "about": "for cats"})
    assert (reply["id"], titles(reply)) == ("own/your-cat", ["Your cat"])
    found = read_preset(calls.presets.own / "your-cat.toml")
    assert (found.values, found.description) == ({"network_dim": 5}, "for cats")
    assert not (calls.presets.own / "my-dog.toml").exists()
    again = calls.rename_preset({"id": "own/your-cat", "name": "Your CAT", "about": ""})
    assert titles(again) == ["Your CAT"]


def test_no_name_is_taken_from_another_preset(calls: PresetCalls):
    calls.presets.save("Other", "", Settings())
    with pytest.raises(InputError, match="already"):
        calls.rename_preset({"id": "own/my-dog", "name": "Other"})
    assert calls.presets.read("own/my-dog") == {"network_dim": 5}


def test_what_is_deleted_comes_back(calls: PresetCalls):
    gone = calls.delete_preset({"id": "own/my-dog"})
    assert titles(gone) == []
    back = calls.restore_preset({"trashed": gone["trashed"]})
    assert (back["id"], titles(back)) == ("own/my-dog", ["My dog"])
    with pytest.raises(InputError, match="trash"):
        calls.restore_preset({"trashed": "../../my-dog.toml"})


@pytest.mark.parametrize("call", ["rename_preset", "delete_preset"])
def test_bundled_presets_stay(calls: PresetCalls, call: str):
    with pytest.raises(InputError, match="comes with Atelier"):
        getattr(calls, call)({"id": "sd15/style", "name": "x"})


def test_presets_and_forms_are_written_out_without_secrets(calls: PresetCalls):
    own = calls.export_preset({"id": "own/my-dog"})
    assert own["name"] == "my-dog.toml" and "network_dim = 5" in own["text"]
    form = calls.export_preset({"values": {"network_dim": 7, "huggingface_token": "hf_1"}})
    assert "network_dim = 7" in form["text"] and "hf_1" not in form["text"]
    back = calls.import_settings({"name": "a.toml", "text": form["text"]})
    assert back["values"] == {"network_dim": 7}


def test_an_import_tells_what_becomes_of_every_key(calls: PresetCalls):
    reply = calls.import_settings(
        {"name": "a.json", "text": '{"LoRA_type": "Standard", "epoch": 3, "gronk": 1}'}
    )
    assert reply["counts"] == {"changed": 2, "unsupported": 1}
    assert [entry["key"] for entry in reply["entries"]] == ["LoRA_type", "epoch", "gronk"]
    assert reply["values"] == {"max_train_epochs": 3}
    trained = calls.import_settings({"name": "a.safetensors", "metadata": {"ss_network_dim": "4"}})
    assert trained["source"] == "metadata" and trained["values"] == {"network_dim": 4}
