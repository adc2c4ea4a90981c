"""One file of everything: markup, style, scripts, Vega, and the data, compressed."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from importlib import metadata, resources
from typing import Any

from dabench.base.files import cache_folder, finite, write_atomically
from dabench.page.gather import Page

_ASSETS = resources.files("dabench.page") / "assets"
_SCRIPTS = (
    "core.js", "state.js", "tables.js", "charts.js", "rows.js", "columns.js", "explorer.js",
    "cases.js", "sections.js", "main.js",
)  # fmt: skip
"""In the order in which they are put together; none imports another."""


_EXPOSED = "window.vegaEmbed = vegaEmbed;"


def bundled(page: Page, *, version: str = "") -> str:
    """The page as one HTML document.

    Args:
        page: What it shows.
        version: Of its data, if a server will renew it; then it may ask that server, and nobody
            else. A file may ask nobody.
    """
    scripts = {"vega": vega(), "scripts": _own_scripts()}
    filled = {
        "version": f' data-version="{html.escape(version)}"' if version else "",
        "policy": _policy(list(scripts.values()), served=bool(version)),
        "title": html.escape(page.title),
        # There before the scripts run: what comes later would move the rest.
        "made": html.escape(str(page.shown["made"])),
        "style": (_ASSETS / "page.css").read_text(encoding="utf-8"),
        "shown": base64.b64encode(packed(page.shown)).decode("ascii"),
        "samples": base64.b64encode(packed(page.samples)).decode("ascii"),
        **scripts,
    }
    # Cut once, so that nothing that is filled in is searched for more to fill in.
    first, *rest = (_ASSETS / "page.html").read_text(encoding="utf-8").split("{{")
    pieces = (part.split("}}", 1) for part in rest)
    return first + "".join(filled[name] + text for name, text in pieces)


def packed(document: Any) -> bytes:
    """A JSON document, compressed; the same document gives the same bytes."""
    text = json.dumps(finite(document), allow_nan=False, separators=(",", ":"))
    return gzip.compress(text.encode("ascii"), compresslevel=6, mtime=0)


def _own_scripts() -> str:
    return "\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in _SCRIPTS)


def _policy(scripts: list[str], *, served: bool) -> str:
    """Nothing is loaded from anywhere, and no script runs but the page's own."""
    known = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'"
        for each in scripts
    )
    rules = {
        "default-src": "'none'",
        "script-src": known,
        # Vega writes its marks' styles as attributes.
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "connect-src": "'self'" if served else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, of the version that draws the pictures.

    Putting them together takes seconds: they are kept in the user's cache.
    """
    import vl_convert

    version = metadata.version("vl-convert-python")
    path = cache_folder() / f"vega-{version}.js"
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        script = str(vl_convert.javascript_bundle(_EXPOSED)).replace("</script", "<\\/script")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, script)
    except OSError:
        pass  # the next page takes the seconds again
    return script
