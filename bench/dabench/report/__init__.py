"""Reports from tables: Markdown, LaTeX, CSV and pictures. Never edited by hand."""

from dabench.report.write import write_report

__all__ = ["write_report"]
