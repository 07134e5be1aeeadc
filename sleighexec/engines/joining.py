"""Machines that join a pool by themselves: who comes in, and what the engine sees of it.

    machine ── TLS, handshake as a worker ─▶ Reception ── introduction ─▶ Joined ─▶ engine.take_in
    agent, workers ◀═ outpost ◀═ relay frames over TLS ═▶ relay ◀═ Link ◀── launch ──┘

From there on it is as with a machine that we have started an agent on, but for its end: one that
has come by itself is not fetched back.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Mapping

from sleighexec import introduction
from sleighexec.address import Address, save
from sleighexec.connections import Connection
from sleighexec.errors import ConnectError, HostError
from sleighexec.hints import Any
from sleighexec.importer import MINOR
from sleighexec.launchers.base import Handle
from sleighexec.launchers.link import FarEnd, Link
from sleighexec.resources import needs_of
from sleighexec.roles import monitor, refused
from sleighexec.server import Server
from sleighexec.session import MONITOR, WORKER, new_key
from sleighexec.standalone import bound
from sleighexec.tls import Certificate, TlsSocket
from sleighexec.tlsstream import TlsStream
from sleighexec.version import __version__

MOST_WORKERS = 10_000  # of one machine

log = logging.getLogger("sleighexec")


class Joined:
    """The launcher of a machine that has come by itself: its agent is there already."""

    ship: str | tuple[str, ...] = "auto"
    by_itself = True

    def __init__(
        self,
        host: str,
        workers: int,
        resources: Mapping[str, int],
        begin: Callable[[], FarEnd],
    ) -> None:
        """`begin`: called once, when it is taken in."""
        self.host, self.workers, self.resources = host, workers, resources
        self._begin = begin

    def launch(
        self,
        command: list[str],
        environ: dict[str, str],
        *,
        timeout: float = 60,
        delay: float = 0,
    ) -> Handle:
        """A link to the agent that is there; an engine asks once."""
        return Link(self.host, lambda link: self._begin(), b"", timeout=timeout)


class Reception:
    """A door of an engine for workers and monitors, with TLS always.

    Attributes:
        url: Where it is. Its connection file has the keys for these two roles only.
    """

    def __init__(
        self,
        server: Server,
        bind: str,
        take_in: Callable[[Joined], None],
        facts: Callable[[], dict[str, Any]],
    ) -> None:
        """`take_in`: raises what the machine is refused with. `facts`: for monitors."""
        self._server, self._take_in = server, take_in
        listener, self.url = bound(bind, tls=True)
        certificate = Certificate()
        address = Address(self.url, new_key(), certificate.fingerprint)
        try:
            self._file = save(address, (WORKER, MONITOR))
        except BaseException:
            listener.close()
            raise
        self._monitor = monitor(lambda: {"url": self.url} | facts())
        server.listen(
            listener,
            address.key,
            address.binding,
            admit=self._admit,
            context=certificate.context,
        )

    def close(self) -> None:
        """Take the connection file away; the server closes the rest."""
        with contextlib.suppress(FileNotFoundError):
            self._file.unlink()

    def _admit(self, connection: Connection, role: int) -> None:
        if role == MONITOR:
            connection.handler = self._monitor
        elif role == WORKER:
            unsent = b"".join(connection.waiting_out)
            sock = self._server.release(connection)
            arguments = sock, connection.rest, unsent
            threading.Thread(
                target=self._receive, args=arguments, name="sleigh-join", daemon=True
            ).start()
        else:
            raise refused(role)

    def _receive(self, sock: TlsSocket, rest: bytes, unsent: bytes) -> None:
        """Thread: hear who it is, and take it in or say why not."""
        try:
            sock.settimeout(introduction.SECONDS)
            sock.sendall(unsent)
            facts, rest = introduction.hear(sock, rest)
            try:
                launcher = self._introduced(facts, sock, rest)
                self._take_in(launcher)
            except Exception as error:
                introduction.say(sock, {"refused": f"{type(error).__name__}: {error}"})
                raise
        except Exception as error:
            log.warning("sleighexec: a machine could not join: %s", error)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            sock.close()

    def _introduced(self, facts: dict[str, Any], sock: TlsSocket, rest: bytes) -> Joined:
        """The launcher of a machine that says this of itself."""
        host, workers = facts.get("host"), facts.get("workers")
        if not isinstance(host, str) or not isinstance(workers, int):
            raise ConnectError("it does not say who it is")
        if not 1 <= workers <= MOST_WORKERS:
            raise ConnectError(f"it cannot have {workers} workers")
        if facts.get("release") != __version__:
            raise HostError(host, f"it has sleighexec {facts.get('release')}, not {__version__}")
        if facts.get("python") != MINOR:
            raise HostError(
                host,
                f"its Python is {facts.get('python')}, and functions travel only between equal "
                f"minor versions: run `sleighexec worker` with Python {MINOR} there",
            )
        resources = dict(needs_of(facts.get("resources")))

        def begin() -> TlsStream:
            introduction.say(sock, {"welcome": True})
            return TlsStream(sock, rest)

        return Joined(host, workers, resources, begin)
