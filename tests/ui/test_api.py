"""Endpoints for programs: named, documented, and the same as what the page calls."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from backend.errors import EnvironmentFault
from ui import offers, server
from ui.context import Context
from ui.docs.endpoints import document
from ui.drafts import Drafts
from ui.page import build
from ui.tabs.train import TrainPage, methods_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    home = tmp_path_factory.mktemp("home")
    (home / "runs").mkdir()
    return Context(home, home / "runs", Drafts(home / "drafts"), roots=(home,))


@pytest.fixture(scope="module")
def client(context: Context) -> Iterator[Any]:
    from gradio_client import Client

    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML(value="", server_functions=offers.offered(context, "train", methods_of(TrainPage(context))))
        offers.build(context)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    blocks.launch(server_port=port, prevent_thread_lock=True, quiet=True, ssr_mode=False)
    yield Client(f"http://127.0.0.1:{port}", verbose=False, download_files=False)
    blocks.close()


def test_a_program_gets_what_the_page_gets(client: Any, context: Context):
    found = client.predict({"values": {"network_dim": 7}}, api_name="/train_texts")
    assert "network_dim = 7" in found["toml"] and "--network_dim=7" in found["command"]
    assert context.drafts.load("train") is None
    refused = client.predict({"values": {}}, api_name="/train_start")
    assert {problem["key"] for problem in refused["problems"]} >= {"pretrained_model_name_or_path"}
    assert list(context.runs.iterdir()) == []
    imported = client.predict(
        {"text": '{"LoRA_type": "Standard", "epoch": 2}'}, api_name="/train_import_settings"
    )
    assert imported["values"] == {"max_train_epochs": 2}
    assert client.predict({}, api_name="/train_browse")["path"] == str(context.home)


def test_only_what_looks_becomes_a_tool(context: Context):
    with gr.Blocks(analytics_enabled=False) as blocks:
        offers.build(context, safe_tools=True)
    seen = {fn.api_name: fn.api_visibility for fn in blocks.fns.values()}
    assert {name for name, visible in seen.items() if visible == "public"} == offers.SAFE & seen.keys()
    assert seen["train_start"] == seen["train_delete_preset"] == "undocumented"


def test_tools_need_their_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    server.require_mcp(False)
    with pytest.raises(EnvironmentFault, match="mcp"):
        server.require_mcp(True)


def test_everything_that_a_page_can_do_is_documented(tmp_path: Path):
    (tmp_path / "runs").mkdir()
    whole = Context(tmp_path, tmp_path / "runs", Drafts(tmp_path / "drafts"))
    build(whole)
    assert set(whole.offers) >= offers.SAFE
    assert all(call.__doc__ for call in whole.offers.values())
    written = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert written == document(whole.offers), "run python -m ui.docs.endpoints"
