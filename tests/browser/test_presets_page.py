"""Presets, imports, the file chooser and the System page, by clicks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Server, open_train

pytestmark = pytest.mark.browser
DROP = """([name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name));
  for (const kind of ['dragenter', 'dragover', 'drop'])
    document.querySelector('.at-train').dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


def menu(page: Any, id: str) -> None:
    page.click(".at-presets .at-menu summary")
    page.click(id)


def toast(page: Any) -> str:
    page.wait_for_selector(".at-toast:not([hidden])")
    return str(page.inner_text(".at-toast"))


def test_a_preset_is_compared_loaded_marked_and_taken_back(page: Any) -> None:
    page.select_option("#preset-choice", "sd15/style")
    menu(page, "#btn-compare-preset")
    page.wait_for_selector("#dlg-changes[open]")
    expect(page.locator("#dlg-changes")).to_contain_text("network_dim")
    page.click("#dlg-changes .at-primary")
    page.wait_for_function("document.querySelector('#opt-network_dim').value === '32'")
    row = '[data-key="network_dim"]'
    expect(page.locator(f"{row} .at-back")).to_be_hidden()
    page.fill("#opt-network_dim", "20")
    page.wait_for_selector(f"{row}.at-moved .at-back", state="visible")
    page.click(f"{row} .at-back")
    expect(page.locator("#opt-network_dim")).to_have_value("32")
    expect(page.locator(f"{row} .at-back")).to_be_hidden()
    expect(page.locator(f"{row} .at-reset")).to_be_visible()


def test_own_presets_are_renamed_deleted_and_brought_back(page: Any, server: Server) -> None:
    page.click("#btn-save-preset")
    page.fill("#preset-name", "Cats")
    page.click("#btn-save-preset-ok")
    page.wait_for_selector("#dlg-save", state="hidden")
    menu(page, "#btn-rename-preset")
    page.fill("#preset-name", "Dogs")
    page.click("#btn-save-preset-ok")
    page.wait_for_selector("#dlg-save", state="hidden")
    own = server.home / "presets" / "own"
    assert [path.name for path in own.glob("*.toml")] == ["dogs.toml"]
    expect(page.locator("#preset-choice")).to_have_value("own/dogs")
    menu(page, "#btn-delete-preset")
    page.wait_for_function("document.querySelector('.at-toast').textContent.includes('trash')")
    assert not list(own.glob("*.toml"))
    page.click(".at-toast button")
    page.wait_for_function(
        "[...document.querySelectorAll('#preset-choice option')].some((o) => o.value === 'own/dogs')"
    )
    assert (own / "dogs.toml").is_file()


def test_a_form_of_kohya_ss_is_dropped_reported_and_used(page: Any) -> None:
    form = {"LoRA_type": "LyCORIS/LoHa", "network_dim": 24, "epoch": 7, "flux1_checkbox": True, "no_such": 1}
    page.fill("#opt-output_name", "mine")
    page.evaluate(DROP, ["old.json", json.dumps(form)])
    page.wait_for_selector("#dlg-report[open]")
    assert {"flux1_checkbox", "no_such"} <= set(page.locator("#dlg-report td code").all_inner_texts())
    page.click("#dlg-report [data-fate=changed]")
    expect(page.locator("#dlg-report table")).to_contain_text("LoRA_type")
    page.click("#dlg-report .at-primary")
    page.wait_for_function("document.querySelector('#opt-network_dim').value === '24'")
    expect(page.locator("#opt-max_train_epochs")).to_have_value("7")
    expect(page.locator("#opt-output_name")).to_have_value("mine")
    assert "settings taken" in toast(page)
    page.click(".at-toast button")
    page.wait_for_function("document.querySelector('#opt-network_dim').value !== '24'")


def test_a_file_is_chosen_on_the_server(page: Any, server: Server) -> None:
    folder = server.home / "models"
    folder.mkdir(exist_ok=True)
    (folder / "tiny.safetensors").write_bytes(b"no model")
    page.fill("#opt-pretrained_model_name_or_path", str(folder))
    page.click('[data-key="pretrained_model_name_or_path"] [data-do=browse]')
    page.wait_for_selector(".at-files[open] .at-file")
    page.dblclick(".at-files .at-file")
    page.wait_for_selector(".at-files", state="hidden")
    expect(page.locator("#opt-pretrained_model_name_or_path")).to_have_value(str(folder / "tiny.safetensors"))
    page.click('[data-key="train_data_dir"] [data-do=browse]')
    page.wait_for_selector(".at-files[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector(".at-files", state="hidden")


def test_the_system_page_tells_health_and_folders(page: Any, server: Server) -> None:
    page.goto("/system")
    page.wait_for_selector("#system .at-findings tr", timeout=120_000)
    expect(page.locator("#system .at-findings")).to_contain_text("PyTorch")
    expect(page.locator("#system .at-folders")).to_contain_text(str(Path(server.home) / "runs"))
    page.select_option("#sys-theme", "dark")
    page.wait_for_function("document.body.classList.contains('dark')")
    open_train(page)
    page.wait_for_function("document.body.classList.contains('dark')")
