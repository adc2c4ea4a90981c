"""The page as a document that reports write to: sections of blocks, as JSON."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from dabench.report.charts import Chart
from dabench.report.text import is_words

Block = dict[str, Any]

_QUALITY = 80
"""Of pictures, which the page compresses; reports have them as they are."""


class PageDocument:
    """Collects what `dabench.report` writes; the page's scripts show it.

    Attributes:
        sections: ``title``, ``level`` and ``blocks``, each with its ``kind``: text, list, table,
            chart or photo.
        runs: Names of those whose records the next blocks are made from.
    """

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.sections: list[dict[str, Any]] = []

    def heading(self, text: str, level: int = 2) -> None:
        self.sections.append({"title": text, "level": level, "blocks": []})

    def paragraph(self, text: str) -> None:
        self._add({"kind": "text", "text": text})

    def bullets(self, lines: Sequence[str]) -> None:
        if lines:
            self._add({"kind": "list", "items": list(lines)})

    def table(self, frame: pd.DataFrame, caption: str) -> None:
        self._add(
            {
                "kind": "table",
                "columns": [str(name) for name in frame.columns],
                "words": [is_words(frame[name]) for name in frame.columns],
                "rows": [[str(v) for v in row] for row in frame.itertuples(index=False)],
                "caption": caption,
                "runs": self.runs,
            }
        )

    def chart(self, chart: Chart, stem: Path, caption: str) -> None:
        self._add({"kind": "chart", "spec": chart.to_dict(), "caption": caption})

    def photo(self, source: Path, path: Path, caption: str) -> None:
        with Image.open(source) as opened:
            picture = opened.convert("RGB")
        compressed = io.BytesIO()
        picture.save(compressed, "WEBP", quality=_QUALITY, method=6)
        content = base64.b64encode(compressed.getvalue()).decode("ascii")
        width, height = picture.size
        self._add(
            {
                "kind": "photo",
                "source": f"data:image/webp;base64,{content}",
                "width": width,
                "height": height,
                "caption": caption,
            }
        )

    def _add(self, block: Block) -> None:
        if not self.sections:
            self.heading("Report")
        self.sections[-1]["blocks"].append(block)
