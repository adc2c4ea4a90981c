"""The command line: parses, validates and prints. It holds no logic of its own."""

from dabench.cli.app import main

__all__ = ["main"]
