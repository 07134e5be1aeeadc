"""From a URL to a connection: find the key, reach the server, show it that we hold the key."""

from __future__ import annotations

import socket
from urllib.parse import SplitResult, urlsplit

from sleighexec.address import Address, find, run_directory
from sleighexec.client import SocketConnection
from sleighexec.errors import ConnectError, ProtocolError
from sleighexec.messages import DEFAULT_PORT
from sleighexec.session import CLIENT, Handshake

CONNECT_SECONDS = 5.0  # for reaching a server and showing it the key


def connect(url: str) -> SocketConnection:
    """A connection to the workspace server of this user at `url` ("unix": its Unix socket).

    Raises:
        AuthenticationError: One side does not hold the other's key.
        ConnectError: Nobody listens there, or it hung up.
    """
    if url == "unix":
        url = f"sleigh+unix://{run_directory() / 'server.sock'}"
    parts = urlsplit(url)
    if parts.scheme not in ("sleigh", "sleigh+unix"):
        raise ValueError(f"a server's URL begins with sleigh:// or sleigh+unix://, not {url!r}")
    address = find(url)
    sock = socket.socket(_family(parts), socket.SOCK_STREAM)
    try:
        sock.settimeout(CONNECT_SECONDS)
        if parts.scheme == "sleigh+unix":
            sock.connect(parts.path)
        else:
            sock.connect((parts.hostname, parts.port or DEFAULT_PORT))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _shake_hands(sock, address, url)
    except (OSError, ProtocolError) as error:
        sock.close()
        if isinstance(error, ConnectError):
            raise
        raise ConnectError(
            f"no workspace server answers at {url} ({error}): start one with `sleighexec server`"
        ) from error
    except BaseException:
        sock.close()
        raise
    return SocketConnection(sock, url)


def _family(parts: SplitResult) -> int:
    if parts.scheme == "sleigh+unix":
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET


def _shake_hands(sock: socket.socket, address: Address, url: str) -> None:
    """Both sides show that they hold the key, before anything else is sent."""
    handshake = Handshake(address.key, address.binding, role=CLIENT)
    while not handshake.ready:
        data = sock.recv(4096)
        if not data:
            raise ConnectError(f"the server at {url} hung up during the handshake")
        answer = handshake.feed(data)
        if answer:
            sock.sendall(answer)
