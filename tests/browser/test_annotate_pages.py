"""The Captioning and Tagging pages in a browser."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from playwright.sync_api import expect

from backend.demo.world import random_scene, render
from tests.annotate.onnx_kit import write_tagger

pytestmark = pytest.mark.browser


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "my pictures"
    place.mkdir()
    for number in range(3):
        render(random_scene(random.Random(number)), number, 64).save(place / f"{number}.png")
    (place / "0.txt").write_text("by hand")
    (place / "broken.png").write_bytes(b"")
    return place


@pytest.fixture
def tagger(tmp_path: Path) -> Path:
    """Sure of a hat by 0.8, of long hair by 0.3."""
    return write_tagger(tmp_path / "model", [("hat", 0), ("long_hair", 0)], [[0, 0]] * 3, [1.386, -0.847])


def test_thresholds_are_tried_live_then_a_folder_is_tagged_and_undone(
    page, server, folder: Path, tagger: Path
) -> None:
    page.goto(f"{server.url}/tagging")
    page.wait_for_selector("#an-repo_id", timeout=60_000)
    page.click(".an-go")
    page.wait_for_selector("[data-field=train_data_dir].an-wrong")
    page.fill("#an-train_data_dir", f'"{folder}"')
    page.select_option("#an-repo_id", "")
    page.locator("[data-field=repo_id] input[type=text]").fill(str(tagger))
    page.click(".an-try")
    page.wait_for_selector(".an-bars .an-passes", timeout=120_000)
    cards = page.locator(".an-card")
    expect(cards).to_have_count(4)
    expect(page.locator(".an-text.an-bad")).to_contain_text("0 bytes")
    for threshold, text in (("0.9", "(no text)"), ("0.2", "hat, long hair"), ("0.35", "hat")):
        page.locator("#an-thresh").fill(threshold)
        page.wait_for_function(f"document.querySelector('.an-text').textContent === '{text}'", timeout=60_000)
    expect(page.locator(".an-passes")).to_have_count(3)
    page.click(".an-command")
    page.wait_for_selector(".an-line:not([hidden])")
    expect(page.locator(".an-line")).to_contain_text("tools/tag_images_by_wd14_tagger.py")
    page.click(".an-go")
    page.wait_for_selector(".an-undo", timeout=120_000)
    said = page.inner_text(".an-result")
    assert "Wrote tags for 2 of 3 pictures" in said and "broken.png is empty" in said and "1 had text" in said
    assert (folder / "0.txt").read_text() == "by hand" and (folder / "1.txt").read_text() == "hat"
    page.click(".an-undo")
    page.wait_for_function(
        "document.querySelector('.an-result [role=status]').textContent !== ''", timeout=60_000
    )
    assert not (folder / "1.txt").exists() and (folder / "0.txt").read_text() == "by hand"


def test_texts_are_added_to_and_written_over_by_choice_and_taken_back(
    page, server, folder: Path, tagger: Path
) -> None:
    page.goto(f"{server.url}/tagging")
    page.fill("#an-train_data_dir", str(folder))
    page.select_option("#an-repo_id", "")
    page.locator("[data-field=repo_id] input[type=text]").fill(str(tagger))
    for existing, text in (("append", "by hand, hat"), ("replace", "hat")):
        page.select_option("#an-existing", existing)
        page.evaluate("document.querySelector('.an-undo')?.classList.add('earlier')")  # of a job before
        page.click(".an-go")
        page.wait_for_selector(".an-undo:not([disabled], .earlier)", timeout=120_000)
        assert (folder / "0.txt").read_text() == text and (folder / "2.txt").read_text() == "hat"
        page.click(".an-undo")
        page.wait_for_selector(".an-undo[disabled]:not(.earlier)", timeout=60_000)
        page.wait_for_function("document.querySelector('.an-result [role=status]').textContent !== ''")
        assert (folder / "0.txt").read_text() == "by hand" and not (folder / "2.txt").exists()


def test_rules_are_edited_and_texts_cleaned(page, server, folder: Path) -> None:
    page.goto(f"{server.url}/captioning")
    page.click("[data-kind=clean]")
    page.fill("#an-train_data_dir", str(folder))
    page.get_by_role("button", name="Add a rule").click()
    rule = page.locator(".an-rules li").last
    rule.locator("input.an-code").nth(0).fill("hand")
    rule.locator("input.an-code").nth(1).fill("<b>foot</b>")
    page.click(".an-try")
    page.wait_for_selector(".an-changes ins", timeout=60_000)
    expect(page.locator(".an-changes ins")).to_have_text("by <b>foot</b>")
    assert (folder / "0.txt").read_text() == "by hand"
    page.click(".an-go")
    page.wait_for_selector(".an-undo", timeout=60_000)
    assert (folder / "0.txt").read_text() == "by <b>foot</b>"
    page.reload()
    page.wait_for_selector(".an-undo", timeout=60_000)
    expect(page.locator(".an-rules li").last.locator("input.an-code").nth(0)).to_have_value("hand")


def test_a_captioner_that_is_not_here_says_so(page, server, folder: Path) -> None:
    page.goto(f"{server.url}/captioning")
    page.click("[data-kind=caption]")
    page.select_option("#an-caption_weights", "Salesforce/blip-image-captioning-base")
    page.wait_for_selector("#an-download")
    expect(page.locator(".an-model")).to_contain_text("about 990 MB")
    page.fill("#an-train_data_dir", str(folder))
    page.click(".an-go")
    page.wait_for_selector(".an-error", timeout=60_000)
    assert "models/captioners/Salesforce_blip-image-captioning-base" in page.inner_text(".an-error").replace(
        "\\", "/"
    )
    expect(page.locator("[data-field=caption_weights].an-wrong")).to_have_count(1)
