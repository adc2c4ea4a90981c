"""The server of the page: what it answers, and whom."""

import http.client
import shutil
import socket
import threading
from contextlib import contextmanager

import pytest
from records import small_case, write_medians

from dabench.base.errors import UsageError
from dabench.page import serve
from dabench.page.serve import Renewed, Server, is_loopback

CASE = small_case("a")


def write(folder):
    return write_medians(folder, {CASE: [1.0, 1.1]})


@pytest.fixture(autouse=True)
def no_vega(monkeypatch):
    """What draws takes seconds to put together, and is of no interest here."""
    monkeypatch.setattr("dabench.page.bundle.vega", lambda: "0")


@contextmanager
def served(renewed, token=""):
    with Server("127.0.0.1", 0, renewed, token) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write(folder / "run")
    return folder


@pytest.fixture(scope="module")
def renewed(root):
    """A page for all tests that change nothing: making it is most of their time."""
    return Renewed([root], "page")


def test_it_has_four_addresses(renewed):
    with served(renewed) as server:
        for path in ("/", "/version", "/shown", "/samples"):
            answer, body = ask(server, path)
            assert (answer.status, bool(body)) == (200, True)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
            answer, body = ask(server, path, "HEAD")
            assert (answer.status, body) == (200, b"")
            assert int(answer.headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "/../../etc/passwd", "//etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/run",
        "/run/run.json", "/results/", "/shown/", "/" + "x" * 5000,
    ],
)  # fmt: skip
def test_it_has_no_files(renewed, path):
    with served(renewed) as server:
        answer, body = ask(server, path)
        assert answer.status == 404
        assert body == b"not found\n"


def test_what_is_no_request_is_refused(renewed):
    with served(renewed) as server:
        with socket.create_connection(("127.0.0.1", server.server_address[1])) as line:
            line.sendall(b"GET http://[ HTTP/1.0\r\n\r\n")
            assert b" 400 " in line.recv(100)
        assert ask(server, "/", "POST")[0].status == 501
        assert ask(server, "/")[0].status == 200


@pytest.mark.parametrize("name", ["evil.example", "evil.example:80", "127.0.0.1", "localhost"])
def test_another_sites_name_leads_nowhere(renewed, name):
    with served(renewed) as server:
        port = server.server_address[1]
        assert ask(server, "/shown", Host=name)[0].status == 403
        assert ask(server, "/shown", Host=f"LocalHost:{port}")[0].status == 200


def test_browsers_leave_out_the_usual_port(renewed, monkeypatch):
    with served(renewed) as server:
        monkeypatch.setattr(serve, "_HTTP", server.server_address[1])
        assert ask(server, "/shown", Host="localhost")[0].status == 200


def test_a_token_is_asked_for_once(renewed):
    with served(renewed, token="secret") as server:
        assert server.url.endswith("/?token=secret")
        for path in ("/", "/shown", "/samples", "/version", "/nothing", "/?token=wrong"):
            assert ask(server, path)[0].status == 401
        answer, _ = ask(server, "/?token=secret", Host="name.of.this.machine")
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        pair = cookie.partition(";")[0]
        # Others' cookies may look like anything.
        for kept in (pair, f'theme={{"a":[1]}}; {pair}', f"{pair}; x=[y"):
            assert ask(server, "/shown", Cookie=kept)[0].status == 200
        for other in ("", pair + "x", pair.replace("secret", ""), "dabench=secret"):
            assert ask(server, "/shown", Cookie=other)[0].status == 401


def test_a_damaged_run_costs_no_other(root, tmp_path):
    shutil.copytree(root / "run", tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    page = Renewed([tmp_path], "page").page()
    assert [each["run_id"] for each in page.shown["runs"]] == ["good"]
    assert "bad" in page.shown["problem"]
    shutil.rmtree(tmp_path / "good")
    with pytest.raises(UsageError, match="no run can be read"):
        Renewed([tmp_path], "page")


def test_a_run_that_cannot_be_read_any_more_is_shown_as_it_was(root, tmp_path):
    shutil.copytree(root / "run", tmp_path / "run")
    now = [0.0]
    renewed = Renewed([tmp_path], "page", clock=lambda: now[0])
    (tmp_path / "run" / "run.json").write_text("{")
    now[0] += 1000.0
    page = renewed.page()
    assert [each["run_id"] for each in page.shown["runs"]] == ["run"]
    assert "no run can be read" in page.shown["problem"]
    # It is not read again before a file changes.
    version = renewed.shown_version()
    assert renewed.shown_version() == version


def test_a_browser_that_went_away_is_no_error(renewed, capsys):
    with served(renewed) as server:
        try:
            raise BrokenPipeError
        except BrokenPipeError:
            server.handle_error(None, ("127.0.0.1", 1))
        assert capsys.readouterr() == ("", "")
        try:
            raise ValueError("of our own")
        except ValueError:
            server.handle_error(None, ("127.0.0.1", 1))
        assert "of our own" in capsys.readouterr().err


def test_on_all_addresses_it_is_found_by_the_machines_name(renewed):
    with Server("0.0.0.0", 0, renewed, "secret") as server:
        assert server.url.startswith(f"http://{socket.gethostname()}:")


def test_it_is_made_anew_when_files_change_and_rests_in_between(root, tmp_path, monkeypatch):
    shutil.copytree(root / "run", tmp_path / "one")
    now = [0.0]

    def gathered(*arguments):
        now[0] += 2.0
        return real(*arguments)

    real = serve.gather
    monkeypatch.setattr(serve, "gather", gathered)
    renewed = Renewed([tmp_path], "page", clock=lambda: now[0])
    first = renewed.page()
    assert renewed.page() is first
    before = renewed.shown_version()
    shutil.copytree(root / "run", tmp_path / "two")
    # It took two seconds: the next is not made at once.
    assert renewed.page() is first
    assert renewed.shown_version() == before
    now[0] += serve.REST * 2.0
    assert len(renewed.page().shown["runs"]) == 2
    assert renewed.shown_version() != before


def test_it_listens_where_it_may(renewed):
    with Server("127.0.0.1", 0, renewed, "") as server:
        port = server.server_address[1]
        with pytest.raises(UsageError, match=f"--host, --port: cannot listen on 127.0.0.1:{port}"):
            Server("127.0.0.1", port, renewed, "")
    with pytest.raises(UsageError, match="--host"):
        Server("999.1.1.1", 0, renewed, "")
    assert [is_loopback(each) for each in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "a.b")] == [
        True, True, True, False, False
    ]  # fmt: skip
