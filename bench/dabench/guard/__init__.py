"""A guard against regressions: a plugin of pytest, built on pytest-benchmark."""
