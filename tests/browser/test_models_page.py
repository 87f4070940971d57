"""The Models page in a browser: look into a file, and merge."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.weights.weights_kit import make_lora, tensors_of

pytestmark = pytest.mark.browser


def test_a_lora_is_inspected_and_resized(page, server, tmp_path):
    source, out = make_lora(tmp_path / "a.safetensors"), tmp_path / "r.safetensors"
    page.goto(f"{server.url}/models")
    page.fill("#mo-model", str(source))
    page.click(".mo-go")
    page.wait_for_selector(".mo-chart", timeout=60_000)
    expect(page.locator(".mo-result h2")).to_contain_text("LoRA for SD 1.5")
    page.click("[data-kind=resize]")
    page.fill("#mo-model", str(source))
    page.fill("#mo-new_rank", "2")
    page.click(".mo-go")
    page.wait_for_selector(".mo-error", timeout=60_000)
    expect(page.locator("[data-field=save_to].mo-wrong")).to_have_count(1)
    page.fill("#mo-save_to", str(out))
    page.click(".mo-command")
    page.wait_for_selector(".mo-line:not([hidden])")
    expect(page.locator(".mo-line")).to_contain_text("tools/resize_lora.py")
    page.click(".mo-go")
    page.wait_for_selector(".mo-done", timeout=60_000)
    assert {t.shape[0] for name, t in tensors_of(out).items() if name.endswith("lora_down.weight")} == {2}
