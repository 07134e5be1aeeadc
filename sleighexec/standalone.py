"""A workspace server that listens, for clients of the same user in other processes.

Binding rules: a Unix socket in a directory of mode 0700, whose peers must be of the same user; TCP
on a loopback address; any other address with TLS, always. All with the handshake of session.py.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from sleighexec.address import (
    LOOPBACK,
    TCP,
    TLS,
    Address,
    connection_file,
    run_directory,
    save,
)
from sleighexec.clerk import Clerk
from sleighexec.hints import Any
from sleighexec.limits import Account, Limits
from sleighexec.messages import DEFAULT_PORT
from sleighexec.roles import admit_by_role
from sleighexec.server import Server
from sleighexec.session import new_key
from sleighexec.space import Space
from sleighexec.store import SECOND, FileStore

MAX_PATH = 100  # bytes of a Unix socket's path that every system takes


class WorkspaceServer:
    """A workspace server that outlives its clients, until it is closed.

    Args:
        bind: "unix" (the default) for a Unix socket in the user's run directory, the path of a
            socket in a directory that only the user can enter, or "host:port"; port 0 takes a
            free one. A host that is not of the loopback is served with TLS.
        max_bytes: Of all values together; None: half of this machine's memory. A store that does
            not fit raises `WorkspaceFullError` at the client; nothing is dropped for it.
        max_connections: Of clients; None: 10 000, or what the limit of open files leaves room for.
        store: A file that keeps the persistent workspaces, for the next server that is given it.
            It is made if it is not there. None: nothing survives the server.
        sync: When what was written to the file is forced to the disk: "second", once a second;
            "always", before a client is told; "never": when the system likes. It goes by this
            what a loss of power can cost; the end of the server alone costs nothing.

    Attributes:
        url: What clients need to find it: `NwsServer(url=…)`.
        failure: The error of its own by which it has ended, if one has ended it.
        on_failure: Called then, by the thread that has served.

    Raises:
        OSError: The address is taken, or not of this machine; or the file cannot be used.
        ValueError: That is no address; or `max_bytes` or `max_connections` is not at least 1.
        DamagedStoreError: The file is damaged elsewhere than at its end.
        WorkspaceFullError: There is more in it than `max_bytes`.
    """

    def __init__(
        self,
        bind: str = "unix",
        *,
        max_bytes: int | None = None,
        max_connections: int | None = None,
        store: str | None = None,
        sync: str = SECOND,
    ) -> None:
        for name, most in (("max_bytes", max_bytes), ("max_connections", max_connections)):
            if most is not None and not most >= 1:
                raise ValueError(f"{name} must be at least 1, not {most}")
        self.failure: BaseException | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self._store = None if store is None else FileStore(store, sync)
        try:
            self._begin(bind, max_bytes, max_connections)
        except BaseException:
            if self._store is not None:
                self._store.close()
            raise

    def _begin(self, bind: str, max_bytes: int | None, max_connections: int | None) -> None:
        limits = Limits(
            value_bytes=_half_of_memory() if max_bytes is None else max_bytes,
            connections=_most_connections() if max_connections is None else max_connections,
        )
        gone = None if self._store is None else self._store.gone
        space = Space(choose=random.randrange, account=Account(limits, gone))
        if self._store is not None:
            self._store.fill(space)
        listener, self.url = bound(bind)
        fingerprint, context = b"", None
        if self.url.startswith(TLS):
            from sleighexec.tls import Certificate

            certificate = Certificate()
            fingerprint, context = certificate.fingerprint, certificate.context
        self._address = Address(self.url, new_key(), fingerprint)
        try:
            self._file = save(self._address)
        except BaseException:
            listener.close()
            raise
        self._server = Server(space)
        self._server.on_failure = self._fail
        self._server.shares_memory = listener.family == socket.AF_UNIX
        self._server.listen(
            listener,
            self._address.key,
            self._address.binding,
            limits,
            admit=admit_by_role(self._facts, Clerk(self._facts, self._store).serve),
            context=context,
        )
        self._server.start()

    def __enter__(self) -> WorkspaceServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<WorkspaceServer {self.url}>"

    def _fail(self, error: BaseException) -> None:
        """Nobody is served any more."""
        self.failure = error
        self.on_failure()

    def _facts(self) -> dict[str, Any]:
        """How it is, for monitors."""
        server = self._server
        facts = {"kind": "server", "url": self.url, "pid": os.getpid()}
        return facts | {"connections": server.connection_count} | server.space.counts()

    def close(self) -> None:
        """End: clients get ConnectionLostError. Twice is allowed.

        What is not in a persistent workspace of a server with a store is gone. Nothing happens in
        a forked child, whose parent's it is.
        """
        if self._server.forked:
            return
        self._server.close()
        if self._store is not None:
            self._store.close()
        for path in (self._file, self._file.with_suffix(".sock")):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _most_connections() -> int:
    """As many as there can be descriptors, but for some for ourselves."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return 10_000
    return min(10_000, max(files - 64, files // 2))


def bound(bind: str, *, tls: bool = False) -> tuple[socket.socket, str]:
    """A socket that listens there, and its URL; `tls`: also on the loopback.

    Raises:
        OSError, ValueError: There it cannot.
        TypeError: It is no text.
    """
    if not isinstance(bind, str):
        raise TypeError(f'an address to listen at is "host:port", not {bind!r}')
    if not tls and (bind == "unix" or "/" in bind):
        return _bind_unix(run_directory() / "server.sock" if bind == "unix" else Path(bind))
    host, _, port = bind.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not (port or "0").isdecimal():
        raise ValueError(f'an address to listen at is "host:port", not {bind!r}')
    if int(port or "0") > 65535:
        raise ValueError(f"a port is a number from 0 to 65535: {bind!r}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port or DEFAULT_PORT)))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise type(error)(error.errno, f"cannot listen at {bind!r}: {error.strerror}") from error
    except BaseException:
        listener.close()
        raise
    number = listener.getsockname()[1]
    if host in LOOPBACK:
        host = host if ":" in host else "127.0.0.1"
        scheme = TLS if tls else TCP
    else:
        scheme = TLS
        if host in ("0.0.0.0", "::"):  # it listens at all addresses: others know it by its name
            host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return listener, f"{scheme}://{shown}:{number}"


def _bind_unix(path: Path) -> tuple[socket.socket, str]:
    path = path.absolute().with_suffix(".sock")
    if len(os.fsencode(path)) > MAX_PATH:
        raise ValueError(f"the path of a Unix socket has at most {MAX_PATH} bytes: {path}")
    folder = path.parent.stat()
    if folder.st_uid != os.getuid() or folder.st_mode & 0o077:
        raise ValueError(
            f"the directory of the socket must be yours alone: `chmod go= {path.parent}`"
        )
    url = f"sleigh+unix://{path}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(str(path)) == 0:
                    raise OSError(f"a workspace server runs at {url} already")
            path.unlink()  # left behind by one that was killed
            with contextlib.suppress(FileNotFoundError):
                connection_file(url).unlink()
        listener.bind(str(path))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener, url
