"""From a URL to a connection: find the key, reach the server, show it that we hold the key."""

from __future__ import annotations

import os
import socket
import time
import weakref
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from sleighexec.address import TLS, UNIX, Address, find, nobody, remember, run_directory
from sleighexec.client import SocketConnection
from sleighexec.errors import ConnectError, ProtocolError
from sleighexec.hints import Any
from sleighexec.messages import DEFAULT_PORT, Offer
from sleighexec.session import CLIENT, MONITOR

CONNECT_SECONDS = 5.0  # for reaching a server and showing it the key


def connect(url: str | os.PathLike[str], role: int = CLIENT) -> SocketConnection:
    """A connection to the server of this user at `url`, or with this connection file.

    "unix" is that at the Unix socket of this user.

    Raises:
        AuthenticationError: One side does not hold the other's key.
        ConnectError: Nobody listens there, or it hung up.
        ValueError: That is no URL of a server.
        TypeError: It is neither a text nor a path.
    """
    url = os.fspath(url)
    if url == "unix":
        url = f"{UNIX}://{run_directory() / 'server.sock'}"
    address = find(url, role)
    sock, _ = reach(address, address.role or role)
    if "://" not in url and role == CLIENT:
        # Found again by its URL, as by what is unpickled here.
        remember(address, Path(url).absolute())
    connection = SocketConnection(sock, address.url)
    connection.on_message = partial(_heard, weakref.ref(connection))  # it goes when we let it go
    if role != MONITOR:
        connection.identify()
    return connection


def _heard(whose: weakref.ref[SocketConnection], message: Any) -> None:
    """The server says something unasked."""
    connection = whose()
    if connection is not None and type(message) is Offer:
        from sleighexec.borrowing import accept  # those on other machines get no offer

        accept(connection, message)


def reach(address: Address, role: int) -> tuple[Any, bytes]:
    """A socket to a server that knows that we may have this role, and what it said after that.

    Raises:
        AuthenticationError: One side does not hold the other's key.
        ConnectError: Nobody listens there, or it hung up.
    """
    url, parts = address.url, urlsplit(address.url)
    deadline = time.monotonic() + CONNECT_SECONDS
    sock: Any = None
    try:
        if parts.scheme == UNIX:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(CONNECT_SECONDS)
            sock.connect(parts.path)
        else:
            where = parts.hostname, parts.port or DEFAULT_PORT
            sock = socket.create_connection(where, CONNECT_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == TLS:
            from sleighexec import tls

            tls.notice_silence(sock)
            sock = tls.reach(sock, address.fingerprint, CONNECT_SECONDS)
        sock.settimeout(max(0.1, deadline - time.monotonic()))
        return sock, _shake_hands(sock, address, url, role)
    except (OSError, ProtocolError) as error:
        if sock is not None:
            sock.close()
        if isinstance(error, ConnectError):
            raise
        raise nobody(role, url, f"answers at {url} ({error})") from error
    except BaseException:
        if sock is not None:
            sock.close()
        raise


def _shake_hands(sock: Any, address: Address, url: str, role: int = CLIENT) -> bytes:
    """Both sides show that they hold the key, before anything else is sent."""
    handshake = address.handshake(role)
    while not handshake.ready:
        data = sock.recv(4096)
        if not data:
            raise ConnectError(f"the server at {url} hung up during the handshake")
        answer = handshake.feed(data)
        if answer:
            sock.sendall(answer)
    return handshake.rest
