"""The page: everything that was measured, in one file, or served and renewed as it grows."""

from dabench.page.write import write_page

__all__ = ["write_page"]
