"""The Train page, driven by clicks and keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from PIL import Image
from playwright.sync_api import expect

from backend.settings import declarations
from backend.settings.declare import Declared
from backend.settings.optimizers import unavailable
from tests.browser.conftest import Server, open_train, watch

pytestmark = pytest.mark.browser


@pytest.fixture
def clean(page: Any, server: Server) -> Any:
    """The page with every field at its default."""
    page.goto("about:blank")
    page.wait_for_timeout(500)  # what the page just asked the server is answered, and its draft kept
    drafts = server.home / ".atelier" / "drafts"
    drafts.mkdir(parents=True, exist_ok=True)
    (drafts / "train.json").write_text('{"values": {}}', encoding="utf-8")
    open_train(page)
    return page


def shown_toml(page: Any) -> dict[str, Any]:
    """What "Show TOML" shows, flat."""
    page.click("#btn-toml")
    page.wait_for_selector("#dlg-text[open]")
    found = tomlkit.parse(page.inner_text("#toml-text")).unwrap()
    page.click("#dlg-text .at-close")
    return {key: value for table in found.values() for key, value in table.items()}


def other_value(option: Declared) -> tuple[str, Any]:
    """Something to type that differs from the default, and what the file then says of it."""
    if option.kind == "bool":
        return "", not option.default
    if option.kind == "choice":
        lacking = unavailable() if option.key == "optimizer_type" else {}
        chosen = next(one for one in option.choices if one != option.default and one not in lacking)
        return str(chosen), chosen
    if option.kind in ("int", "float", "steps"):
        low, high = option.bounds.low or 0, option.bounds.high or 1e9
        for number in (3, 2, 0.5, 0.25, 96):
            fits = number in option.bounds and low <= number <= high and number != option.default
            if fits and (option.kind == "float" or number == int(number)):
                return str(number), number
    if option.key == "face_crop_aug_range":
        return "2,4.5", "2,4.5"
    if option.key == "lr_scheduler_type":
        return "StepLR", "StepLR"
    if option.key == "network_args":
        return "conv_dim=4", None
    if option.key in ("block_lr", "emb_dims", "train_block_indices"):
        text = {"block_lr": "1e-5", "emb_dims": "2,3,4,5,0,7", "train_block_indices": "0-3,7"}[option.key]
        return text, text
    return {
        "resolution": ("640", "640,640"),
        "textlist": ("weight_decay=0.02", ["weight_decay=0.02"]),
        "text": ("other/place", "other/place") if option.info.path else ("abc", "abc"),
    }[option.kind]


def set_field(page: Any, option: Declared, typed: str) -> None:
    field = f"#opt-{option.key}"
    if option.kind == "bool":
        page.click(field)
    elif option.kind == "choice":
        page.select_option(field, typed)
    else:
        page.fill(field, typed)
        page.press(field, "Tab")


def needed(option: Declared) -> list[tuple[Declared, Any]]:
    """What must be set, in this order, for a field to be shown."""
    found: list[tuple[Declared, Any]] = []
    for key, allowed in option.info.show_if:
        other = declarations()[key]
        if other.default not in allowed:
            found += [*needed(other), (other, allowed[0])]
    if option.methods and "network" not in option.methods:
        found.append((declarations()["training_method"], option.methods[0]))
    if option.key == "lr_scheduler_args":  # the schedule by default takes none
        found.append((declarations()["lr_scheduler_type"], "StepLR"))
    return found


def test_every_field_changes_exactly_its_own_key(clean: Any) -> None:
    page = clean
    page.click(".at-tools [data-view=all]")
    for option in declarations().values():
        if option.choices == (option.default,):
            continue  # there is nothing else to choose
        if option.info.secret:
            continue  # never written into a file
        needs = list({other.key: (other, value) for other, value in needed(option)}.values())
        for other, value in needs:
            set_field(page, other, str(value))
        typed, expected = other_value(option)
        set_field(page, option, typed)
        changed = {other.key for other, _ in needs}
        found = {key: value for key, value in shown_toml(page).items() if key not in changed}
        # Arguments in the old spelling become the options they stand for.
        wanted = {"conv_dim": 4} if option.key == "network_args" else {option.key: expected}
        assert found == wanted, option.key
        for one in (option, *(other for other, _ in reversed(needs))):
            page.click(f'[data-key="{one.key}"] .at-reset')
    assert shown_toml(page) == {}


def test_an_optimizer_that_is_not_installed_is_grey_and_any_other_can_be_typed(clean: Any) -> None:
    page = clean
    page.click(".at-tools [data-view=all]")
    field = "#opt-optimizer_type"
    options = page.locator(f"{field} option")
    grey = {text.partition(" (")[0]: text for text in options.locator(":scope:disabled").all_inner_texts()}
    assert {name: f"{name} ({why})" for name, why in unavailable().items()} == grey
    page.select_option(field, label="Other: type its name")
    page.fill(field, "no_such_library.Class")
    page.press(field, "Tab")
    page.wait_for_selector('[data-key="optimizer_type"] .at-problem:not([hidden])')
    expect(page.locator('[data-key="optimizer_type"] .at-problem')).to_contain_text(
        "pip install no_such_library"
    )
    assert shown_toml(page) == {"optimizer_type": "no_such_library.Class"}
    page.fill(field, "")
    page.press(field, "Tab")
    expect(page.locator(f"select{field}")).to_have_value("AdamW")
    assert shown_toml(page) == {}


def test_zero_and_empty_are_not_the_same(clean: Any) -> None:
    page = clean
    page.click(".at-tools [data-view=all]")
    page.fill("#opt-unet_lr", "0")
    page.fill("#opt-max_grad_norm", "0")
    assert shown_toml(page) == {"unet_lr": 0.0, "max_grad_norm": 0.0}
    page.fill("#opt-unet_lr", "")
    page.fill("#opt-max_grad_norm", "")
    assert shown_toml(page) == {}


def test_wrong_numbers_are_said_at_the_field_at_once(clean: Any) -> None:
    page = clean
    page.fill("#opt-network_dim", "many")
    page.press("#opt-network_dim", "Tab")
    expect(page.locator("#opt-network_dim-problem")).to_contain_text("“many” is not a number")
    expect(page.locator("#opt-network_dim")).to_have_attribute("aria-invalid", "true")
    page.fill("#opt-network_dim", "5000")
    page.press("#opt-network_dim", "Tab")
    expect(page.locator("#opt-network_dim-problem")).to_contain_text("from 1 to 1024")
    page.fill("#opt-network_dim", "8")
    page.wait_for_selector("#opt-network_dim-problem", state="hidden")


def test_start_without_a_model_says_so_at_the_field(clean: Any, server: Server) -> None:
    page = clean
    page.click("#btn-start")
    page.wait_for_selector(".at-needs.at-loud")
    field = "#opt-pretrained_model_name_or_path"
    expect(page.locator(f"{field}-problem")).to_contain_text("base model", ignore_case=True)
    page.wait_for_function("(id) => document.activeElement.id === id", arg=field[1:])
    assert not list((server.home / "runs").glob("*/config.toml"))
    page.click(".at-needs li:nth-child(2) button")
    page.wait_for_function("(id) => document.activeElement.id === id", arg="opt-train_data_dir")


def test_a_model_that_is_not_there_is_named_with_the_path_tried(clean: Any) -> None:
    page = clean
    page.fill("#opt-pretrained_model_name_or_path", "  /no/such/model.safetensors  ")
    page.press("#opt-pretrained_model_name_or_path", "Tab")
    page.click("#btn-start")
    page.wait_for_selector(".at-needs.at-loud")
    expect(page.locator("#opt-pretrained_model_name_or_path")).to_have_value("/no/such/model.safetensors")
    expect(page.locator(".at-needs")).to_contain_text("/no/such/model.safetensors")


def test_what_was_found_tells_pictures_and_steps(clean: Any, tmp_path: Path) -> None:
    page = clean
    folder = tmp_path / "bilder ü 日本 [x] 100% #1" / "5_sks dog"
    folder.mkdir(parents=True)
    for index in range(4):
        Image.new("RGB", (64 * (1 + index % 2), 64)).save(folder / f"{index}.png")
    (folder / "0.txt").write_text("a dog", encoding="utf-8")
    page.fill("#opt-train_data_dir", str(folder.parent))
    page.fill("#opt-max_train_epochs", "3")
    page.press("#opt-max_train_epochs", "Tab")
    page.wait_for_function("document.querySelector('.at-facts').innerText.includes('4 pictures')")
    facts = page.inner_text(".at-facts")
    assert "1 with a caption file" in facts
    assert "20 seen in an epoch" in facts
    assert "60 steps" in facts
    assert "3 epochs of 20 steps" in facts


def test_search_finds_by_name_label_and_help(clean: Any) -> None:
    page = clean

    def found(words: str) -> set[str]:
        page.fill("#form-search", words)
        rows = page.query_selector_all(".at-field:not([hidden])")
        return {row.get_attribute("data-key") for row in rows if row.is_visible()}

    assert "min_snr_gamma" in found("min_snr")
    assert "min_snr_gamma" in found("balances noise")
    assert found("convolution rank") >= {"conv_dim"}
    assert found("qqqq") == set()
    expect(page.locator(".at-nothing")).to_be_visible()


def test_fields_that_do_not_apply_are_hidden(clean: Any) -> None:
    page = clean
    page.click(".at-tools [data-view=all]")
    expect(page.locator("#opt-bucket_reso_steps")).to_be_hidden()
    page.click("#opt-enable_bucket")
    page.wait_for_selector("#opt-bucket_reso_steps", state="visible")


def test_basic_view_is_short_and_help_tells_the_real_name(clean: Any) -> None:
    page = clean
    rows = [row for row in page.query_selector_all(".at-field") if row.is_visible()]
    assert 8 <= len(rows) <= 10
    page.click('[data-key="learning_rate"] .at-about')
    expect(page.locator(".at-card-about")).to_contain_text("learning_rate")
    page.keyboard.press("Escape")
    expect(page.locator(".at-card-about")).to_be_hidden()


def test_every_input_has_a_label_and_a_name(clean: Any) -> None:
    unnamed = clean.evaluate(
        """() => [...document.querySelectorAll('#train input, #train select, #train textarea')]
             .filter((i) => !i.labels?.length && !i.getAttribute('aria-label')).map((i) => i.id)"""
    )
    assert unnamed == []


def test_reload_keeps_the_form(clean: Any) -> None:
    page = clean
    page.fill("#opt-output_name", "<b>née & 猫</b>")
    page.fill("#opt-sample_prompt_text", "one\ntwo --n bad")
    page.wait_for_function("document.querySelector('.at-plan.at-stale') === null")
    page.wait_for_timeout(800)
    open_train(page)
    expect(page.locator("#opt-output_name")).to_have_value("<b>née & 猫</b>")
    expect(page.locator("#opt-sample_prompt_text")).to_have_value("one\ntwo --n bad")


def test_presets_load_save_and_undo(clean: Any, server: Server) -> None:
    page = clean
    page.fill("#opt-output_name", "mine")
    page.select_option("#preset-choice", "sd15/style")
    expect(page.locator(".at-preset-about")).to_have_text(re.compile(".{20}"))
    page.click("#btn-load-preset")
    page.wait_for_function("document.querySelector('#opt-network_dim').value === '32'")
    expect(page.locator("#opt-output_name")).to_have_value("mine")
    page.click(".at-toast button")
    expect(page.locator("#opt-network_dim")).to_have_value("")
    page.fill("#opt-network_dim", "24")
    page.click("#btn-save-preset")
    page.fill("#preset-name", "My own")
    page.fill("#preset-about", "For tests")
    page.click("#btn-save-preset-ok")
    page.wait_for_selector("#dlg-save", state="hidden")
    saved = tomlkit.parse(
        (server.home / "presets" / "own" / "my-own.toml").read_text(encoding="utf-8")
    ).unwrap()
    assert saved["network"] == {"network_dim": 24}
    assert "saving" not in saved
    page.fill("#opt-network_dim", "1")
    open_train(page)
    page.select_option("#preset-choice", "own/my-own")
    page.click("#btn-load-preset")
    page.wait_for_function("document.querySelector('#opt-network_dim').value === '24'")
    page.click("#btn-save-preset")
    page.fill("#preset-name", "My own")
    page.click("#btn-save-preset-ok")
    page.wait_for_selector("#btn-preset-replace", state="visible")
    page.click("#btn-preset-replace")
    page.wait_for_selector("#dlg-save", state="hidden")


def test_command_line_is_shown(clean: Any) -> None:
    page = clean
    page.fill("#opt-output_name", "two words")
    page.click("#btn-command")
    page.wait_for_selector("#dlg-text[open]")
    expect(page.locator("#command-text")).to_have_text(
        "python tools/train_network.py --output_name='two words'"
    )


def test_each_page_opens_without_an_error(browser: Any, server: Server) -> None:
    for path, heading in (("/", "Train"), ("/generate", ""), ("/runs", "Runs")):
        window = browser.new_page(base_url=server.url)
        watched = watch(window)
        window.goto(path)
        window.wait_for_selector(".at-head [aria-current]")
        window.wait_for_timeout(1000)
        assert re.search(heading, window.inner_text("body"))
        window.close()
        assert watched.errors == [], path
        assert watched.outside == [], path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_nothing_is_wider_than_the_window_and_text_has_contrast(
    browser: Any, server: Server, width: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, base_url=server.url
    )
    window = context.new_page()
    open_train(window)
    window.click(".at-tools [data-view=all]")
    assert window.evaluate("document.documentElement.scrollWidth") <= width
    poor = window.evaluate(CONTRAST)
    context.close()
    assert poor == []


CONTRAST = """() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const c = parse(getComputedStyle(node).backgroundColor);
      if (c.length < 4 || c[3] > 0.99) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll('#train :is(label, p, h1, h2, button, strong, span, dt, a, input:not([type=checkbox]))')) {
    if (!node.offsetParent || node.disabled || !(node.textContent.trim() || node.value)) continue;
    const a = light(parse(getComputedStyle(node).color)), b = light(ground(node));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([node.className || node.tagName, node.textContent.slice(0, 20), ratio.toFixed(2)].join(' '));
  }
  return [...new Set(poor)];
}"""


def test_what_is_typed_while_the_page_opens_stays(page: Any, server: Server) -> None:
    page.goto(server.url, wait_until="commit")
    page.wait_for_selector("#opt-pretrained_model_name_or_path")
    page.fill("#opt-pretrained_model_name_or_path", "/early/model.safetensors")
    page.wait_for_selector('.at-train[data-ready="true"]')
    expect(page.locator("#opt-pretrained_model_name_or_path")).to_have_value("/early/model.safetensors")
