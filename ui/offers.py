"""What the pages can do, under names that programs call: each is a Gradio endpoint besides (``docs/api.md``).

A page offers its methods while it is drawn. Where the pages are drawn in several languages, those drawn
first do the work, for people and programs alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gradio.events import api

from ui.calls import Call, callable_from_page
from ui.live import live_log, view

if TYPE_CHECKING:
    from ui.context import Context

SAFE = frozenset(
    (
        "train_look", "train_status", "train_plan", "train_texts", "train_read_preset", "train_open_page",
        "train_import_settings", "train_export_preset", "train_sample_prompts", "train_browse", "run_shown",
        "run_log", "runs_list_all", "runs_card", "runs_compare", "system_health", "system_places",
        "start_newest", "models_look", "models_command", "dataset_examined",
    )
)  # fmt: skip
"""Endpoints that look and change nothing but drafts: what an assistant may call on its own."""


def offered(context: Context, page: str, methods: Iterable[Call]) -> list[Call]:
    """Functions for a page's script, which are endpoints ``<page>_<name>`` as well."""
    calls: list[Call] = []
    for method in methods:
        call = callable_from_page(method)
        context.offers.setdefault(f"{page}_{call.__name__}", call)
        calls.append(call)
    return calls


def shown(data: dict[str, Any]) -> dict[str, Any]:
    """A run as the live panel shows it: ``run`` is its id; without one, the current run."""
    id = data.get("run")
    return view(id if isinstance(id, str) else None)


def log(data: dict[str, Any]) -> dict[str, Any]:
    """The newest lines of the log of ``run``, from the line numbered ``first`` on."""
    return live_log([data.get("run"), data.get("first") or 0])


def build(context: Context, safe_tools: bool = False) -> None:
    """Make an endpoint of everything that was offered. Draw it last, on a page that is seldom opened.

    Args:
        safe_tools: an assistant's tools are made of the public endpoints, so that only those in
            :data:`SAFE` are public; the others can still be called by programs.
    """
    offered(context, "run", (shown, log))
    for name, call in sorted(context.offers.items()):
        public = safe_tools and name in SAFE
        api(
            _endpoint(call),
            api_name=name,
            api_description=call.__doc__,
            api_visibility="public" if public else "undocumented",
        )


def _endpoint(call: Call) -> Call:
    """With the types that Gradio reads; the page's own functions are called without them."""

    def endpoint(data: dict[str, Any]) -> dict[str, Any]:
        return call(data)

    endpoint.__name__ = call.__name__
    endpoint.__doc__ = call.__doc__
    return endpoint


_HEAD = """# Calling Atelier from programs

Everything that a page can do is an endpoint of the same server: the page's scripts call these functions too.
Each takes one JSON object and answers with one. `problems` in the answer is empty when all went
well; else it is a list of `{what, where, why, next, key}`, and nothing was done.

```python
from gradio_client import Client

atelier = Client("http://127.0.0.1:7860", download_files=False)
look = atelier.predict({"values": {"train_data_dir": "/pictures/my-dog"}}, api_name="/train_look")
run = atelier.predict({"values": {...}}, api_name="/train_start")["run"]
print(atelier.predict({"run": run}, api_name="/run_shown")["figures"])
```

`values` is `{option: value}` of what differs from the defaults, by the names in [the reference](options.md);
`run` is a run's id, the name of its folder. A page that demands a password wants it from `Client` as well:
`auth=("any", password)`. Without `download_files=False` the client takes every path in an answer for a file
to fetch. The [command line](command-line.md) does the same without a server.

With `--mcp`, `app.py` offers the endpoints marked with * as tools for assistants. They only look; nothing is
started, changed or deleted. This needs `pip install "gradio[mcp]"`.

The text beside a name is the first thing that the function says of itself; the rest is in `ui/tabs/`.
"""


def document(offers: Mapping[str, Call]) -> str:
    """``docs/api.md``: every endpoint and what it does, page by page."""
    lines = [_HEAD]
    page = ""
    for name, call in sorted(offers.items()):
        if name.partition("_")[0] != page:
            page = name.partition("_")[0]
            lines += [f"## {page.capitalize()}", "", "| Endpoint | What it does |", "|---|---|"]
        mark = " *" if name in SAFE else ""
        lines.append(f"| `/{name}`{mark} | {(call.__doc__ or '').replace('|', '/')} |")
        if name == max(one for one in offers if one.partition("_")[0] == page):
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write ``docs/api.md`` anew."""
    from backend.system.paths import REPOSITORY
    from backend.wholefile import write_text
    from ui.context import open_context
    from ui.page import build as build_pages

    context = open_context()
    build_pages(context)
    write_text(REPOSITORY / "docs" / "api.md", document(context.offers))


if __name__ == "__main__":
    main()
