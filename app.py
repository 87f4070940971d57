"""Atelier's page. ``python app.py --help`` tells the flags."""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from pathlib import Path

from backend.errors import run_main


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="app.py", description="Start Atelier's page.")
    parser.add_argument(
        "--port", type=int, default=7860, help="port to listen on; the next free one is taken"
    )
    parser.add_argument(
        "--listen",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; another than 127.0.0.1 demands a password",
    )
    parser.add_argument(
        "--password", help="password of the page; one is made and printed if it is needed and missing"
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="a further name by which browsers may ask for the page, such as that of a proxy",
    )  # fmt: skip
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="folder of runs")
    parser.add_argument(
        "--mcp", action="store_true", help="offer what only looks as tools for assistants; needs gradio[mcp]"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.runs:
        os.environ["ATELIER_RUNS"] = str(options.runs.expanduser().resolve())
    from ui import server

    password, made_up = server.password_for(options.listen, options.password)
    port, note = server.free_port(options.listen, options.port)
    if note:
        print(f"note: {note}", flush=True)

    with server.collecting_later():
        from ui.context import open_context
        from ui.page import build, launch_options

        server.require_mcp(options.mcp)
        local = server.is_local(options.listen)
        context = open_context(local=local, safe_tools=options.mcp)
        page = build(context)
        page.launch(
            server_name=options.listen,
            server_port=port,
            auth=server.password_check(password) if password else None,
            inbrowser=False,
            mcp_server=options.mcp,
            **launch_options(context, local, options.allow_host),
        )
    context.queue.start()
    shown = "127.0.0.1" if local else options.listen
    print(f"Atelier is at http://{shown}:{port}", flush=True)
    if not options.no_browser:
        webbrowser.open(f"http://{shown}:{port}/start")
    if made_up:
        print(f"password: {password} (any user name; shown only now)", flush=True)
    page.block_thread()


if __name__ == "__main__":
    sys.exit(run_main(main))
