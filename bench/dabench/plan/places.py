"""Where a run takes place: here, or on the machines of a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from dabench.base.errors import bad_value

HERE, PROTOCOL = "ray", "ray://"
DEFAULT_PORT = 10001
"""On which Ray's head listens for clients."""

MACHINES = ("all", "any")
"""``all``: every kind of machine measures every case. ``any``: one kind measures them all."""


@dataclass(frozen=True, slots=True)
class Place:
    """A Ray cluster.

    Attributes:
        host: Where its head is; None is the cluster that this machine is part of.
        port: On which that listens for clients.
    """

    host: str | None = None
    port: int = DEFAULT_PORT

    @classmethod
    def of(cls, text: str) -> Place:
        """Reads ``--on``: ``ray`` or ``ray://HOST:PORT``.

        Raises:
            UsageError: Neither of them.
        """
        if text == HERE:
            return cls()
        host, colon, port = text.removeprefix(PROTOCOL).rpartition(":")
        if not colon:
            host, port = port, str(DEFAULT_PORT)
        if not text.startswith(PROTOCOL) or not host or not port.isdecimal():
            raise bad_value("--on", text, "it takes 'ray' or 'ray://HOST:PORT'")
        return cls(host.strip("[]"), int(port))

    @property
    def address(self) -> str:
        """As Ray takes it."""
        if self.host is None:
            return "auto"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{PROTOCOL}{host}:{self.port}"

    def __str__(self) -> str:
        return "this machine's Ray cluster" if self.host is None else self.address
