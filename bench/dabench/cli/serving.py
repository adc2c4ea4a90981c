"""``dabench serve``."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from dabench.base.errors import bad_value
from dabench.cli.options import option
from dabench.cli.output import error_line, print_line


def serve(
    roots: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FOLDER...",
            help="Runs, or folders of runs. Default: results.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, option("--host", "Address to listen on. Default 127.0.0.1; others need a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, option("--port", "Port to listen on; 0 takes a free one. Default 8571.")
    ] = 8571,
    token: Annotated[
        str | None,
        option("--token", "What those who look must know; made up where --host needs one."),
    ] = None,
) -> None:
    """Show runs as a page in the browser, renewed as rows come in.

    It is the page that 'dabench report --html' writes. Ends with Ctrl-C.
    """
    if not 0 <= port <= 65535:
        raise bad_value("--port", port, "it takes 0 to 65535")
    if token is not None and not (token.isascii() and token.replace("-", "").isalnum()):
        raise bad_value("--token", token, "it takes letters, digits and '-'")
    from dabench.page.serve import Renewed, Server, is_loopback

    if token is None and not is_loopback(host):
        token = secrets.token_hex(16)
    renewed = Renewed(roots or [Path("results")], "dabench")
    with Server(host, port, renewed, token or "") as server, suppress(KeyboardInterrupt):
        print_line(server.url)
        if not is_loopback(host):
            error_line("whoever has this address can read the runs; it is not encrypted")
        server.serve_forever()
