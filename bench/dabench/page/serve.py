"""The page over HTTP, renewed as rows come in.

Four addresses and no more: nothing that is asked for is looked up among files, so there is no
folder to list and no path to leave.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dabench.base.errors import DabenchError, UsageError
from dabench.findings.tables import find_runs
from dabench.page.bundle import bundled, packed
from dabench.page.gather import Page, gather
from dabench.page.known import Known
from dabench.records.folder import has_run

_HTTP = 80
"""The port that browsers leave out."""

REST = 4
"""A page is made anew after so many times as long as the last one took: whoever measures on this
machine has most of it."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def runs_below(roots: Sequence[Path]) -> list[Path]:
    """The runs that folders are or hold.

    Raises:
        UsageError: One holds none.
    """
    found = [run for root in roots for run in ([root] if has_run(root) else find_runs(root))]
    return list(dict.fromkeys(found))


class Renewed:
    """A page that is made anew when a file of its runs changed.

    Args:
        roots: Folders of runs; runs may be added to them at any time.
        title: Of the page.
        clock: In seconds.

    Raises:
        UsageError: No run there, or none that can be read.
    """

    def __init__(
        self, roots: Sequence[Path], title: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._roots = roots
        self._title = title
        self._lock = threading.Lock()
        self._clock = clock
        self._not_before = 0.0
        self._version = ""
        self._known = Known(version_of)
        self._page = Page(title, {}, {})
        self.page()

    def shown_version(self) -> str:
        """Of the page that is there: it follows the files at some distance."""
        self.page()
        return self._version

    def version(self) -> str:
        """Differs whenever a file of the runs does."""
        every = "".join(map(version_of, runs_below(self._roots)))
        return hashlib.sha256(every.encode()).hexdigest()[:16]

    def page(self) -> Page:
        """The newest there is; while records cannot be read, the last that could be."""
        with self._lock:
            version = self.version()
            begun = self._clock()
            if version != self._version and begun >= self._not_before:
                try:
                    self._page = self._made()
                except DabenchError as error:
                    if not self._version:
                        raise
                    # The last that could be read, and why there is no newer one.
                    shown = {**self._page.shown, "problem": str(error)}
                    self._page = Page(self._title, shown, self._page.samples)
                self._version = version
                now = self._clock()
                self._not_before = now + REST * (now - begun)
            return self._page

    def _made(self) -> Page:
        """From all runs; where one cannot be read, from the others, and why."""
        runs = runs_below(self._roots)
        try:
            page = gather(runs, self._title, self._known)
        except DabenchError as error:
            problem = str(error)
        else:
            self._known.forget()
            return page
        sound = [run for run in runs if _is_sound(run)]
        if not sound:
            raise UsageError(f"no run can be read: {problem}")
        page = gather(sound, self._title, self._known)
        self._known.forget()
        return Page(self._title, {**page.shown, "problem": problem}, page.samples)


def version_of(run: Path) -> str:
    """Differs whenever a file of a run does."""
    digest = hashlib.sha256()
    for path in _files(run):
        try:
            facts = path.stat()
        except OSError:
            continue  # it was renamed or deleted just now
        digest.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _files(run: Path) -> list[Path]:
    try:
        return sorted(run.rglob("*"))
    except OSError:
        return []  # a run that is being deleted


def _is_sound(run: Path) -> bool:
    try:
        gather([run], "")
    except DabenchError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


class Server(ThreadingHTTPServer):
    """Serves one page.

    Args:
        host: Address to listen on.
        port: 0 takes a free one.
        renewed: The page.
        token: That requests must know; empty where none is needed.

    Raises:
        UsageError: It cannot listen there.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, renewed: Renewed, token: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.renewed = renewed
        self.token = token
        self.host = host
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            said = getattr(error, "strerror", None) or error
            raise UsageError(f"--host, --port: cannot listen on {host}:{port}: {said}") from None

    @property
    def url(self) -> str:
        """Where to look, with the token."""
        # On all addresses there is none of its own; the machine's name is one.
        name = socket.gethostname() if _is_any(self.host) else self.host
        host = f"[{name}]" if ":" in name else name
        asked = f"?token={self.token}" if self.token else ""
        return f"http://{host}:{self.server_address[1]}/{asked}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away while it was answered is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def known_names(self) -> frozenset[str]:
        """What a browser may call a server that is reached from this machine alone."""
        port = self.server_address[1]
        own = f"[{self.host}]" if ":" in self.host else self.host.lower()
        names = {"localhost", "127.0.0.1", "[::1]", own}
        usual = names if port == _HTTP else set()
        return frozenset({f"{name}:{port}" for name in names} | usual)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = "dabench"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        try:
            asked = urlsplit(self.path)
        except ValueError:
            self._send(HTTPStatus.BAD_REQUEST, "text/plain", b"no such address\n", body=body)
            return
        answers: dict[str, Callable[[], tuple[str, bytes]]] = {
            "/": self._document,
            "/version": lambda: ("text/plain", self.server.renewed.shown_version().encode()),
            "/shown": lambda: self._packed(self.server.renewed.page().shown),
            "/samples": lambda: self._packed(self.server.renewed.page().samples),
        }
        token = (parse_qs(asked.query).get("token") or [""])[0]
        if not self._is_known_name():
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"unknown host name\n", body=body)
        elif asked.path == "/" and token and self._is_token(token):
            # The address that people pass on is without it.
            self._send(HTTPStatus.SEE_OTHER, "text/plain", b"", body=body, cookie=token)
        elif self.server.token and not self._is_token(self._cookie()):
            self._send(HTTPStatus.UNAUTHORIZED, "text/plain", b"a token is needed\n", body=body)
        elif asked.path not in answers:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n", body=body)
        else:
            try:
                kind, content = answers[asked.path]()
            except DabenchError as error:
                kind, content = "text/plain", f"{error}\n".encode()
                self._send(HTTPStatus.SERVICE_UNAVAILABLE, kind, content, body=body)
            else:
                self._send(HTTPStatus.OK, kind, content, body=body)

    def _document(self) -> tuple[str, bytes]:
        version = self.server.renewed.shown_version()
        return "text/html", bundled(self.server.renewed.page(), version=version).encode()

    @staticmethod
    def _packed(document: Any) -> tuple[str, bytes]:
        # The page's scripts unpack it, as they do what a file embeds.
        return "application/gzip", packed(document)

    def _is_known_name(self) -> bool:
        """Without a token another site's page, whose name leads here, must not read the answers."""
        host = self.headers.get("Host", "").lower()
        return bool(self.server.token) or host in self.server.known_names()

    def _is_token(self, said: str) -> bool:
        return hmac.compare_digest(said.encode(), self.server.token.encode())

    @property
    def _cookie_name(self) -> str:
        # Cookies are of a host, whatever the port.
        return f"dabench-{self.server.server_address[1]}"

    def _cookie(self) -> str:
        """Ours among all that a browser has for this host, which may look like anything."""
        pairs = (each.strip().partition("=") for each in self.headers.get("Cookie", "").split(";"))
        return next((value for name, _, value in pairs if name == self._cookie_name), "")

    def _send(
        self, status: HTTPStatus, kind: str, content: bytes, *, body: bool, cookie: str = ""
    ) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        charset = "; charset=utf-8" if kind.startswith("text/") else ""
        self.send_header("Content-Type", kind + charset)
        self.send_header("Content-Length", str(len(content)))
        if cookie:
            self.send_header("Location", "/")
            self.send_header(
                "Set-Cookie", f"{self._cookie_name}={cookie}; HttpOnly; SameSite=Lax; Path=/"
            )
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Says nothing: what is asked for is not worth a line."""
