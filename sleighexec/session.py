"""How two strangers become a connection: three messages of fixed size, before anything is parsed.

    server ─▶ HELLO 40 B   magic, versions, nonce
    client ─▶ AUTH  88 B   magic, version, role, nonce, key id, mac
    server ─▶ FINI  40 B   magic, code, mac

    mac = HMAC-SHA256(role key, label ‖ 0 ‖ SHA256(binding) ‖ HELLO ‖ AUTH without its mac)

Nothing that has a length of its own is believed before both sides have shown that they hold the
key. Each direction has its own label, so nothing can be reflected; both nonces are in, so nothing
can be replayed; the role is in, so a worker's key makes no client; the binding says over which
channel, so nothing can be relayed. Bytes in, bytes out: no sockets here.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from enum import Enum

from sleighexec.errors import AuthenticationError, ConnectError, ProtocolError

MAGIC = b"slx1"
VERSION = 1
CLIENT, WORKER, MONITOR = 1, 2, 3  # roles: what the holder of the key may do
ROLE_NAMES = {CLIENT: "client", WORKER: "worker", MONITOR: "monitor"}

_HELLO = struct.Struct("!4sBBH32s")
_AUTH = struct.Struct("!4sBBH32s16s32s")
_FINI = struct.Struct("!4sB3x32s")
_MAC = 32
OK, REFUSED = 0, 1
FULL = 1  # flag of a HELLO: there is no room for another connection


class State(Enum):
    EXPECT_HELLO = "waiting for the server's hello"
    EXPECT_AUTH = "waiting for the client's answer"
    EXPECT_FINI = "waiting for the server's verdict"
    READY = "ready"


_SIZES = {State.EXPECT_HELLO: _HELLO.size, State.EXPECT_AUTH: _AUTH.size, State.EXPECT_FINI: 40}


def new_key() -> bytes:
    """A key for one run: 32 random bytes."""
    return secrets.token_bytes(32)


def role_key(key: bytes, role: int) -> bytes:
    """The key that proves this role and no other."""
    return hmac.digest(key, f"role {ROLE_NAMES[role]}".encode(), "sha256")


def _key_id(key: bytes) -> bytes:
    return hmac.digest(key, b"key id", "sha256")[:16]


def _mac(key: bytes, label: bytes, binding: bytes, hello: bytes, auth: bytes) -> bytes:
    channel = hashlib.sha256(binding).digest()
    text = b"sleighexec/1 " + label + b"\0" + channel + hello + auth
    return hmac.digest(key, text, "sha256")


def full_hello() -> bytes:
    """What a stranger is told when there is no room for it."""
    return _HELLO.pack(MAGIC, VERSION, VERSION, FULL, bytes(32))


class Handshake:
    """One side's half of the handshake: feed it bytes, send what it gives back.

    Attributes:
        state: What it waits for; `State.READY` when both sides are known to each other.
        role: The client's role, once it is ready.
        rest: Bytes that came behind the last message of the handshake.
    """

    def __init__(
        self, key: bytes, binding: bytes, *, role: int | None = None, only_role: bool = False
    ) -> None:
        """`role` is the client's; a server has none of its own and learns it.

        `only_role`: the key is that of the client's role already, all that it has.
        """
        self._key, self._binding, self._only_role = key, binding, only_role
        self._server = role is None
        self.role = role
        self.state = State.EXPECT_AUTH if self._server else State.EXPECT_HELLO
        self.rest = b""
        self._data = b""
        self._hello = self._auth = b""

    @property
    def ready(self) -> bool:
        """Whether both sides know each other."""
        return self.state is State.READY

    def start(self) -> bytes:
        """The first bytes to send; a client has none."""
        if not self._server:
            return b""
        self._hello = _HELLO.pack(MAGIC, VERSION, VERSION, 0, secrets.token_bytes(32))
        return self._hello

    def feed(self, data: bytes) -> bytes:
        """Take what came, give back what is to be sent now.

        Raises:
            ProtocolError: The other side speaks something else, or another version.
            ConnectError: The server is full.
            AuthenticationError: It does not hold the same key. If bytes are to be sent before
                closing they are in the error's `farewell`.
        """
        self._data += data
        answer = b""
        while self.state is not State.READY:
            size = _SIZES[self.state]
            if self._data[:4] != MAGIC[: len(self._data[:4])]:
                raise ProtocolError("the other side is not sleighexec")
            if len(self._data) < size:
                return answer
            message, self._data = self._data[:size], self._data[size:]
            answer += _STEPS[self.state](self, message)
        self.rest, self._data = self._data, b""
        return answer

    def _answer(self, hello: bytes) -> bytes:
        _, low, high, flags, _ = _HELLO.unpack(hello)
        if flags & FULL:
            raise ConnectError(
                "the server has no room for another connection: close some, or start it with a "
                "higher --max-connections, or raise its `ulimit -n`"
            )
        if not low <= VERSION <= high:
            raise ProtocolError(
                f"the server speaks protocol versions {low} to {high}, this side {VERSION}: "
                "use the same release of sleighexec on both sides"
            )
        assert self.role is not None
        key = self._own_key(self.role)
        nonce = secrets.token_bytes(32)
        auth = _AUTH.pack(MAGIC, VERSION, self.role, 0, nonce, _key_id(key), b"")[:-_MAC]
        self._hello, self._auth = hello, auth
        self.state = State.EXPECT_FINI
        return auth + _mac(key, b"client", self._binding, hello, auth)

    def _own_key(self, role: int) -> bytes:
        return self._key if self._only_role else role_key(self._key, role)

    def _judge(self, message: bytes) -> bytes:
        _, version, role, _, _, key_id, mac = _AUTH.unpack(message)
        auth = message[:-_MAC]
        # An unknown role or key id takes the same steps as a wrong mac, and the same time.
        key = role_key(self._key, role if role in ROLE_NAMES else CLIENT)
        expected = _mac(key, b"client", self._binding, self._hello, auth)
        good = hmac.compare_digest(mac, expected) & hmac.compare_digest(key_id, _key_id(key))
        if not good or role not in ROLE_NAMES or version != VERSION:
            error = AuthenticationError("a client that does not hold this server's key was refused")
            error.farewell = _FINI.pack(MAGIC, REFUSED, b"")  # type: ignore[attr-defined]
            raise error
        self.role = role
        self.state = State.READY
        return _FINI.pack(MAGIC, OK, _mac(key, b"server", self._binding, self._hello, auth))

    def _verdict(self, message: bytes) -> bytes:
        _, code, mac = _FINI.unpack(message)
        if code != OK:
            raise AuthenticationError(
                "the server refused this key: use the key (connection file) of this very server"
            )
        assert self.role is not None
        key = self._own_key(self.role)
        expected = _mac(key, b"server", self._binding, self._hello, self._auth)
        if not hmac.compare_digest(mac, expected):
            raise AuthenticationError("the server does not hold the key; nothing was sent to it")
        self.state = State.READY
        return b""


_STEPS = {
    State.EXPECT_HELLO: Handshake._answer,
    State.EXPECT_AUTH: Handshake._judge,
    State.EXPECT_FINI: Handshake._verdict,
}
