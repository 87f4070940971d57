"""Writes ``docs/api.md``, the list of all endpoints, from what the pages offer.

python -m ui.docs.endpoints
"""

from __future__ import annotations

from collections.abc import Mapping

from backend.system.paths import REPOSITORY
from backend.wholefile import write_text
from ui.calls import Call
from ui.context import open_context
from ui.offers import SAFE
from ui.page import build

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
    context = open_context()
    build(context)
    write_text(REPOSITORY / "docs" / "api.md", document(context.offers))


if __name__ == "__main__":
    main()
