"""Runs in the formats of other tools, and from them."""
