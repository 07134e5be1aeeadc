"""Where a workspace server is, and with which key: URLs and connection files.

    sleigh://127.0.0.1:8765          loopback TCP
    sleigh+unix:///run/…/server.sock a Unix socket in a directory of the user's own

A server writes a connection file that only its user can read (mode 0600, in a directory of mode
0700); clients of the same user find the key there by the URL. The key is in no argument list, no
environment variable, no log and no repr.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from sleighexec.errors import AuthenticationError, ConnectError
from sleighexec.messages import DEFAULT_PORT

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Address:
    """A server's URL and key."""

    url: str
    key: bytes = field(repr=False)

    @property
    def binding(self) -> bytes:
        """What the handshake is bound to, so that it cannot be relayed over another channel."""
        parts = urlsplit(self.url)
        return b"unix" if parts.scheme == "sleigh+unix" else f"tcp {parts.port}".encode()


def run_directory() -> Path:
    """The user's own directory for sockets and connection files, made when it is not there.

    `$SLEIGHEXEC_RUN_DIR`, or `sleighexec` below `$XDG_RUNTIME_DIR`, or `~/.sleighexec`.

    Raises:
        AuthenticationError: Somebody else owns it or may look into it.
    """
    if "SLEIGHEXEC_RUN_DIR" in os.environ:
        path = Path(os.environ["SLEIGHEXEC_RUN_DIR"])
    elif "XDG_RUNTIME_DIR" in os.environ:
        path = Path(os.environ["XDG_RUNTIME_DIR"], "sleighexec")
    else:
        path = Path.home() / ".sleighexec"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _only_ours(path, "directory")
    return path


def connection_file(url: str) -> Path:
    """Where the connection file of the server with this URL is, or is to be."""
    parts = urlsplit(url)
    if parts.scheme == "sleigh+unix":
        return Path(parts.path).with_suffix(".json")
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    return run_directory() / f"{host}_{parts.port or DEFAULT_PORT}.json"


def save(address: Address) -> Path:
    """Write the connection file of a server, readable by its user only; its path."""
    path = connection_file(address.url)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"url": address.url, "key": address.key.hex(), "pid": os.getpid()}, file)
    return path


def find(url: str) -> Address:
    """The address of a running server of this user.

    Raises:
        ConnectError: There is no connection file, so there is no such server.
        AuthenticationError: Others can read the connection file.
    """
    path = connection_file(url)
    try:
        _only_ours(path, "connection file")
        content = json.loads(path.read_text())
        return Address(url, bytes.fromhex(content["key"]))
    except FileNotFoundError:
        raise ConnectError(
            f"no workspace server of this user at {url} (there is no {path.name}): "
            "start one with `sleighexec server`"
        ) from None
    except (ValueError, KeyError) as error:
        raise ConnectError(f"{path} is no connection file: {error}") from None


def _only_ours(path: Path, what: str) -> None:
    found = path.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise AuthenticationError(
            f"the {what} {path} belongs to somebody else or can be read by others: "
            f"`chmod go= {path}` if it is yours"
        )
