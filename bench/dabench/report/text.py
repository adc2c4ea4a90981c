"""Tables as Markdown or LaTeX, from frames whose cells are already text."""

from __future__ import annotations

import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from dabench.report.charts import Chart, save

_LATEX = str.maketrans(
    {
        "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
        "µ": r"$\mu$", "±": r"$\pm$",
    }
)  # fmt: skip


class Writer(Protocol):
    """Collects a document piece by piece."""

    def heading(self, text: str, level: int = 2) -> None:
        """A section's title."""

    def paragraph(self, text: str) -> None:
        """Running text."""

    def bullets(self, lines: Sequence[str]) -> None:
        """A list; nothing where there are no lines, since LaTeX refuses an empty one."""

    def table(self, frame: pd.DataFrame, caption: str) -> None:
        """A table of text cells; numbers go right."""

    def chart(self, chart: Chart, stem: Path, caption: str) -> None:
        """A chart; as a file it is named as the stem says, which lacks the end of the name."""

    def photo(self, source: Path, path: Path, caption: str) -> None:
        """A picture that is there, and where a copy of it goes, beside the document."""


class Document(ABC):
    """A document whose pictures are files beside it (`Writer` says what its methods do).

    Args:
        pictures: Format of charts, ``png`` or ``svg``.
    """

    suffix: str

    def __init__(self, pictures: str = "png") -> None:
        self._parts: list[str] = []
        self._pictures = pictures

    def chart(self, chart: Chart, stem: Path, caption: str) -> None:
        path = stem.with_name(f"{stem.name}.{self._pictures}")
        save(chart, path)
        self._picture(path.name, caption)

    def photo(self, source: Path, path: Path, caption: str) -> None:
        shutil.copyfile(source, path)
        self._picture(path.name, caption)

    @abstractmethod
    def heading(self, text: str, level: int = 2) -> None: ...

    @abstractmethod
    def paragraph(self, text: str) -> None: ...

    @abstractmethod
    def bullets(self, lines: Sequence[str]) -> None: ...

    @abstractmethod
    def table(self, frame: pd.DataFrame, caption: str) -> None: ...

    @abstractmethod
    def _picture(self, path: str, caption: str) -> None: ...

    def text(self) -> str:
        """The whole document."""
        return "\n\n".join(self._parts) + "\n"


class Markdown(Document):
    """GitHub-flavoured Markdown."""

    suffix = ".md"

    def heading(self, text: str, level: int = 2) -> None:
        self._parts.append(f"{'#' * level} {_no_html(text)}")

    def paragraph(self, text: str) -> None:
        self._parts.append(_no_html(text))

    def bullets(self, lines: Sequence[str]) -> None:
        if lines:
            self._parts.append("\n".join(f"- {_no_html(line)}" for line in lines))

    def table(self, frame: pd.DataFrame, caption: str) -> None:
        header = [_cell(name) for name in frame.columns]
        rule = [":--" if is_words(frame[name]) else "--:" for name in frame.columns]
        rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
        lines = ["| " + " | ".join(row) + " |" for row in (header, rule, *rows)]
        self._parts.append("\n".join([*lines, "", f"*{_no_html(caption)}*"]))

    def _picture(self, path: str, caption: str) -> None:
        self._parts.append(f"![{_no_html(caption)}]({path})")


class Latex(Document):
    """LaTeX with booktabs tables, to be input into a paper."""

    suffix = ".tex"

    def __init__(self, pictures: str = "png") -> None:
        super().__init__(pictures)
        self._parts.append("% needs \\usepackage{booktabs,graphicx}")

    def heading(self, text: str, level: int = 2) -> None:
        command = {1: "section", 2: "subsection"}.get(level, "subsubsection")
        self._parts.append(f"\\{command}*{{{_escape(text)}}}")

    def paragraph(self, text: str) -> None:
        self._parts.append(_escape(text))

    def bullets(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        items = "\n".join(f"\\item {_escape(line)}" for line in lines)
        self._parts.append(f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}")

    def table(self, frame: pd.DataFrame, caption: str) -> None:
        align = "".join("l" if is_words(frame[name]) else "r" for name in frame.columns)
        header = " & ".join(_escape(str(name)) for name in frame.columns)
        rows = [
            " & ".join(_escape(str(value)) for value in row) + r" \\"
            for row in frame.itertuples(index=False)
        ]
        body = "\n".join(rows)
        self._parts.append(
            f"\\begin{{table}}\n\\centering\n\\caption{{{_escape(caption)}}}\n"
            f"\\begin{{tabular}}{{{align}}}\n\\toprule\n{header} \\\\\n\\midrule\n{body}\n"
            "\\bottomrule\n\\end{tabular}\n\\end{table}"
        )

    def _picture(self, path: str, caption: str) -> None:
        self._parts.append(
            f"\\begin{{figure}}\n\\centering\n\\includegraphics[width=\\linewidth]{{{path}}}\n"
            f"\\caption{{{_escape(caption)}}}\n\\end{{figure}}"
        )


def _cell(value: object) -> str:
    return _no_html(str(value)).replace("|", "\\|").replace("\n", " ")


_CODE = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)")
"""A span that Markdown shows as it is: between as many backticks as begin it."""


def _no_html(text: str) -> str:
    """Markdown in which no name of others is a tag."""
    parts, end = [], 0
    for span in _CODE.finditer(text):
        parts += [text[end : span.start()].replace("<", "&lt;"), span[0]]
        end = span.end()
    return "".join([*parts, text[end:].replace("<", "&lt;")])


def _escape(text: str) -> str:
    return text.replace("**", "").replace("`", "").translate(_LATEX)


def is_words(column: pd.Series[Any]) -> bool:
    """Whether a column holds words rather than numbers with units."""
    shown = [str(value) for value in column if str(value) not in ("", "-")]
    return not all(text[0].isdigit() or text[0] in "-+" for text in shown)
