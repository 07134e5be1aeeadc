"""Where a server is, and with which key: URLs and connection files.

    sleigh://127.0.0.1:8765          loopback TCP
    sleigh+unix:///run/…/server.sock a Unix socket in a directory of the user's own
    sleigh+tls://hippo:8765          TCP with TLS

A server writes a connection file that only its user can read (mode 0600, in a directory of mode
0700); clients of the same user find the key there by the URL. Users of another machine copy it, or
name a copy in place of the URL. The key is in no argument list, no environment variable, no log
and no repr.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from sleighexec.errors import AuthenticationError, ConnectError
from sleighexec.hints import Any
from sleighexec.messages import DEFAULT_PORT
from sleighexec.session import ROLE_NAMES, WORKER, Handshake, role_key

LOOPBACK = ("127.0.0.1", "::1", "localhost")
UNIX, TCP, TLS = "sleigh+unix", "sleigh", "sleigh+tls"  # schemes


@dataclass(frozen=True)
class Address:
    """A server's URL and key.

    Attributes:
        fingerprint: The SHA-256 of its certificate; empty where there is no TLS.
        role: The only one that the key is for; None: it is the server's own, for all of them.
    """

    url: str
    key: bytes = field(repr=False)
    fingerprint: bytes = b""
    role: int | None = None

    @property
    def binding(self) -> bytes:
        """What the handshake is bound to, so that it cannot be relayed over another channel."""
        parts = urlsplit(self.url)
        if parts.scheme == TLS:
            return b"tls " + self.fingerprint
        return b"unix" if parts.scheme == UNIX else f"tcp {parts.port}".encode()

    def parts(self) -> tuple[str, bytes, bytes, int | None]:
        """Of what it is to be made again in another process."""
        return self.url, self.key, self.fingerprint, self.role

    def handshake(self, role: int) -> Handshake:
        """The half of one who wants to have this role."""
        if self.role not in (role, None):
            raise AuthenticationError(f"this key of {self.url} is not for a {ROLE_NAMES[role]}")
        only_role = self.role is not None
        return Handshake(self.key, self.binding, role=role, only_role=only_role)

    def only_for(self, role: int) -> Address:
        """The same server, for those who are to have this role and no other."""
        if self.role is not None:
            return self
        return Address(self.url, role_key(self.key, role), self.fingerprint, role)


_known: dict[str, Address | Path] = {}  # by URL: what this process was told, and where it reads


def remember(address: Address, file: Path | None = None) -> None:
    """Have `find` know this address, which is not in the run directory; or read it in this file.

    A file is read each time: the server may have been started again since, with other keys.
    """
    _known[address.url] = file or address


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


def parts_of(url: str) -> SplitResult:
    """What the URL of a server consists of.

    Raises:
        ValueError: It is none.
    """
    try:
        parts = urlsplit(url)
        if parts.port == 0:
            raise ValueError("Port out of range 1-65535")
    except ValueError as error:
        raise ValueError(f"{url!r} is not the URL of a server: {error}") from None
    if parts.scheme not in (UNIX, TCP, TLS):
        raise ValueError(f"a server's URL begins with {TCP}://, {UNIX}:// or {TLS}://, not {url!r}")
    return parts


def connection_file(url: str) -> Path:
    """Where the connection file of the server with this URL is, or is to be."""
    parts = parts_of(url)
    if parts.scheme == UNIX:
        return Path(parts.path).with_suffix(".json")
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    return run_directory() / f"{host}_{parts.port or DEFAULT_PORT}.json"


def save(address: Address, roles: tuple[int, ...] = ()) -> Path:
    """Write the connection file of a server, readable by its user only; its path.

    `roles`: those whose keys are in it; none: the key for all of them.
    """
    path = connection_file(address.url)
    content: dict[str, Any] = {"url": address.url, "pid": os.getpid()}
    if address.fingerprint:
        content["certificate"] = address.fingerprint.hex()
    if roles:
        content["keys"] = {ROLE_NAMES[r]: role_key(address.key, r).hex() for r in roles}
    else:
        content["key"] = address.key.hex()
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
    return path


def find(url: str, role: int | None = None) -> Address:
    """The address of a running server of this user, by its URL or connection file.

    Raises:
        ValueError: That is no URL of a server.
        ConnectError: There is no connection file, so there is no such server.
        AuthenticationError: Others can read the connection file; or it has no key for this role.
    """
    known = _known.get(url)
    if isinstance(known, Address):
        return known
    named = "://" not in url
    path = Path(url) if named else _newer(connection_file(url), known)
    try:
        _only_ours(path, "connection file")
        text = path.read_text()
    except FileNotFoundError:
        missing = path if named else path.name
        raise nobody(role, url, f"of this user at {url} (there is no {missing})") from None
    return parse(text, str(path), None if named else url, role)


def nobody(role: int | None, url: str, where: str) -> ConnectError:
    """The error of one with this role who finds nobody; `where`: in words, and why."""
    if role == WORKER:
        return ConnectError(
            f"no listening executor {where}: see that its program runs and has called "
            "`executor.listen()`, and that you have the connection file of that call"
        )
    command = "sleighexec server"
    if "://" in url and (parts := parts_of(url)).scheme != UNIX:
        command += f" --bind {parts.hostname}:{parts.port or DEFAULT_PORT}"
    return ConnectError(f"no workspace server {where}: start one with `{command}`")


def _newer(usual: Path, told: Path | None) -> Path:
    """Of two files about one server: one of them may be left from before it was started again."""
    if told is None or not told.exists():
        return usual
    if not usual.exists():
        return told
    return max(usual, told, key=lambda path: path.stat().st_mtime)


def parse(text: str, name: str, url: str | None = None, role: int | None = None) -> Address:
    """The address in the text of a connection file.

    Args:
        name: What messages call it.
        url: Its server's, if that is known.
        role: See `find`.
    """
    try:
        content: Mapping[str, Any] = json.loads(text)
        fingerprint = bytes.fromhex(content.get("certificate", ""))
        if url is None or fingerprint:  # who named host and port does not know of TLS
            url = str(content["url"])
        if "key" in content:
            return Address(url, bytes.fromhex(content["key"]), fingerprint)
        keys = {known: bytes.fromhex(key) for known, key in content["keys"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConnectError(f"{name} is no connection file: {error}") from None
    wanted = ROLE_NAMES.get(role or 0, "client")
    if role is None or wanted not in keys:
        raise AuthenticationError(
            f"{name} has keys for these only: {', '.join(keys)}; not for a {wanted}"
        )
    return Address(url, keys[wanted], fingerprint, role)


def _only_ours(path: Path, what: str) -> None:
    found = path.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise AuthenticationError(
            f"the {what} {path} belongs to somebody else or can be read by others: "
            f"`chmod go= {path}` if it is yours"
        )
