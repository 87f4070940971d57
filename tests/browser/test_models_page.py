"""The Models page in a browser: look into a file, and merge."""

from __future__ import annotations

import pytest

from tests.weights.weights_kit import make_lora, tensors_of

pytestmark = pytest.mark.browser


def test_a_lora_is_inspected_and_resized(page, server, tmp_path):
    source, out = make_lora(tmp_path / "a.safetensors"), tmp_path / "r.safetensors"
    page.goto(f"{server.url}/models")
    page.fill("#mo-model", str(source))
    page.click(".mo-go")
    page.wait_for_selector(".mo-chart", timeout=60_000)
    assert "LoRA for SD 1.5" in page.inner_text(".mo-result h2")
    page.click("[data-kind=resize]")
    page.fill("#mo-model", str(source))
    page.fill("#mo-new_rank", "2")
    page.click(".mo-go")
    page.wait_for_selector(".mo-error", timeout=60_000)
    assert page.locator("[data-field=save_to].mo-wrong").count() == 1
    page.fill("#mo-save_to", str(out))
    page.click(".mo-command")
    page.wait_for_selector(".mo-line:not([hidden])")
    assert "tools/resize_lora.py" in page.inner_text(".mo-line")
    page.click(".mo-go")
    page.wait_for_selector(".mo-done", timeout=60_000)
    assert {t.shape[0] for name, t in tensors_of(out).items() if name.endswith("lora_down.weight")} == {2}
