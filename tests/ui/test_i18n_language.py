"""Which language a page is in, and that only its texts are sent."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ui.context import Context
from ui.drafts import Drafts
from ui.i18n import NAMES, catalogue, language, speaking
from ui.i18n.language import LanguageOfRequest, wanted
from ui.page import Pages, build


@pytest.mark.parametrize(
    ("cookies", "accepted", "answer"),
    [
        ("", "", "en"),
        ("", "ja,en-US;q=0.9,en;q=0.8", "ja"),
        ("", "zh-TW,zh;q=0.9", "zh"),
        ("", "de-DE,de;q=0.9,en;q=0.5", "en"),
        ("", "en;q=0.3, zh-CN;q=0.9", "zh"),
        ("", "ja;q=0, en", "en"),
        ("", "ja;q=much", "en"),
        ("atelier-language=zh", "ja", "zh"),
        ("other=1; atelier-language=en", "ja", "en"),
        ("atelier-language=xx", "ja", "ja"),
        ("atelier-language=\"<script>", "ja", "ja"),
    ],
)  # fmt: skip
def test_a_choice_goes_before_what_the_browser_asks_for(cookies: str, accepted: str, answer: str):
    assert wanted(cookies, accepted) == answer


def test_each_request_is_answered_in_its_own_language():
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        heard.append(language())

    async def ask(*headers: tuple[bytes, bytes]) -> None:
        await LanguageOfRequest(app)({"type": "http", "headers": list(headers)}, None, None)

    async def all_at_once() -> None:
        await asyncio.gather(
            ask((b"accept-language", b"ja")), ask((b"cookie", b"atelier-language=zh")), ask()
        )

    with ThreadPoolExecutor(1) as thread:  # a browser of another test may keep a loop in this one
        thread.submit(asyncio.run, all_at_once()).result()
    assert sorted(heard) == ["en", "ja", "zh"]
    assert language() == "en"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    home = tmp_path_factory.mktemp("home")
    return build(Context(home, home / "runs", Drafts(home / "drafts")))


def sent(pages: Pages, name: str) -> dict[str, Any]:
    with speaking(name):
        return pages.config


@pytest.mark.parametrize("name", [name for name in NAMES if name != "en"])
def test_pages_are_the_same_in_every_language_but_for_their_texts(pages: Pages, name: str):
    english, other = sent(pages, "en"), sent(pages, name)
    assert english["dependencies"] == other["dependencies"]
    assert english["layout"] == other["layout"]
    for ours, theirs in zip(english["components"], other["components"], strict=True):
        assert (ours["id"], ours["type"]) == (theirs["id"], theirs["type"])
        assert ours["props"].get("elem_id") == theirs["props"].get("elem_id")
        assert ours["props"].keys() == theirs["props"].keys()


@pytest.mark.parametrize("name", list(NAMES))
def test_only_the_chosen_language_is_sent(pages: Pages, name: str):
    text = json.dumps(sent(pages, name), default=str, ensure_ascii=False)
    for other in NAMES:
        assert (catalogue(other)["train.preset_hint"] in text) == (other == name)
    assert len(text.encode()) < 1_000_000


def test_a_search_finds_options_by_their_name_in_either_language(pages: Pages):
    with speaking("zh"):
        form = next(one for one in pages.config["components"] if one["props"].get("elem_id") == "train")
    schema = json.loads(form["props"]["props"]["schema"])
    rate = next(
        option
        for group in schema["groups"]
        for option in group["options"]
        if option["key"] == "learning_rate"
    )
    assert (rate["label"], rate["english"]) == ("学习率", "Learning rate")


def test_every_page_offers_every_language(pages: Pages):
    heads = [one for one in pages.config["components"] if one["props"].get("elem_id") == "head"]
    assert len(heads) == len(pages.config["pages"])
    for head in heads:
        assert all(own in head["props"]["html_template"] for own in NAMES.values())


def test_the_texts_of_places_are_kept_apart(tmp_path: Path):
    with speaking("ja"), speaking("zh"):
        assert language() == "zh"
    assert language() == "en"
