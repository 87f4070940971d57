"""The docs inside the program: every link leads somewhere, and no name leads out of the folder."""

from __future__ import annotations

import html
import re

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from backend.settings import declarations
from ui.docs import library
from ui.docs.markdown import draw
from ui.docs.route import routes
from ui.header import PAGES
from ui.i18n import NAMES, catalogue, speaking
from ui.i18n.language import COOKIE, LanguageOfRequest
from ui.i18n.options import option_texts
from ui.tabs.start import _TASKS  # pyright: ignore[reportPrivateUsage]


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=routes(), middleware=[Middleware(LanguageOfRequest)]))


def anchors(page: str) -> set[str]:
    return set(re.findall(r' id="([^"]+)"', page))


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return {name: draw(path.read_text(encoding="utf-8")).body for name, path in library.pages().items()}


def test_every_link_of_a_page_leads_to_a_page_and_an_anchor(drawn: dict[str, str]):
    assert len(drawn) > 20
    lost: list[str] = []
    for name, body in drawn.items():
        for address in re.findall(r'<a href="([^"]+)"', body):
            page, _, anchor = html.unescape(address).removeprefix("./").partition("#")
            if address.startswith("https://"):
                continue
            known = drawn.get(page or name)
            if known is None or (anchor and anchor not in anchors(known)):
                lost.append(f"{name}: {address}")
    assert lost == []


def test_every_picture_is_there_and_ours(drawn: dict[str, str]):
    sources = [source for body in drawn.values() for source in re.findall(r'<img src="([^"]+)"', body)]
    assert len(sources) >= 2
    assert [one for one in sources if one.removeprefix("images/") not in library.pictures()] == []


def test_every_page_offered_exists_and_every_page_is_in_the_list():
    there = set(library.pages())
    assert {page for _, _, page in PAGES} | set(_TASKS) | {library.FIRST, library.REFERENCE} <= there
    assert {name for _, names in library.ORDER for name in names} <= there
    assert [name for _, names in library.groups() for name in names] == list(library.pages())


def test_every_option_has_an_anchor_in_the_page_of_all(drawn: dict[str, str]):
    assert set(declarations()) - anchors(drawn[library.REFERENCE]) == set()


def test_pages_that_explain_an_option_name_it_there(drawn: dict[str, str]):
    found = library.readings()
    assert len(found) > 120 and found["learning_rate"] == "optimizers#learning-rates"
    for key, place in found.items():
        name, _, anchor = place.partition("#")
        text = library.pages()[name].read_text(encoding="utf-8")
        assert key in text or declarations()[key].info.label in text, place
        assert not anchor or anchor in anchors(drawn[name]), place


def test_markup_of_a_source_does_not_get_through():
    body = draw("# a <b>b</b>\n\n<script>alert(1)</script>\n\n[x](javascript:alert(1)) <img src=x>\n").body
    assert "<script" not in body and "<b>" not in body and "<img" not in body
    assert "href" not in body


def test_headings_of_the_same_words_get_anchors_of_their_own():
    page = draw("## Use `it`, now!\n\n## Use it now\n\n| a | b |\n|---|---|\n| `seed` | 1 |\n| b | 2 |\n")
    assert [anchor for anchor, _ in page.headings] == ["use-it-now", "use-it-now-1"]
    assert page.body.count("<tr id=") == 1 and '<tr id="seed">' in page.body


@pytest.mark.parametrize(
    "address",
    [
        "/docs/README",
        "/docs/..%2fREADME",
        "/docs/%2e%2e%2fREADME.md",
        "/docs/options.md",
        "/docs/images/..%2foptions.md",
        "/docs/images/..%2f..%2frequirements.txt",
        "/docs/images/%2fetc%2fpasswd",
        "/docs/images/nothing.png",
    ],
)
def test_no_name_leads_out_of_the_folder(client: TestClient, address: str):
    answer = client.get(address)
    assert answer.status_code == 404
    assert "Apache" not in answer.text and "gradio==" not in answer.text


def test_a_page_loads_nothing_from_elsewhere(client: TestClient):
    answer = client.get("/docs/train-a-lora")
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]*"', answer.text) == []
    picture = re.findall(r'<img src="(images/[^"]+)"', answer.text)[0]
    assert client.get(f"/docs/{picture}").headers["content-type"] == "image/png"


def test_the_first_page_is_found_without_a_name(client: TestClient):
    answer = client.get("/docs", follow_redirects=False)
    assert answer.headers["location"] == f"docs/{library.FIRST}"


@pytest.mark.parametrize("language", [name for name in NAMES if name != "en"])
def test_the_frame_and_all_options_are_in_the_readers_language(client: TestClient, language: str):
    cookies = {"cookie": f"{COOKIE}={language}"}
    text = client.get("/docs/options", headers=cookies).text
    theirs = option_texts(language)
    stop = catalogue(language)["form.full_stop"]
    assert f"<strong>{theirs['option.noise_offset.label']}{stop}</strong>" in text
    assert catalogue(language)["docs.renamed"] in text and catalogue()["docs.refused"] not in text
    assert declarations()["noise_offset"].info.help not in text
    assert html.escape(theirs["group.dataset.title"]) in text
    english = client.get("/docs/runs", headers=cookies).text
    assert catalogue(language)["docs.in_english"] in english and '<main lang="en"' in english
    with speaking(language):
        assert html.escape(library.title("runs")) in english
    assert catalogue()["docs.in_english"] not in client.get("/docs/runs").text
