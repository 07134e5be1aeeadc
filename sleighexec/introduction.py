"""What a machine that joins says first, and what it is told: JSON behind a length, once each way.

newcomer ─▶ release, python, host, workers, resources
newcomer ◀─ {"welcome": true}, or {"refused": why}
… then the frames of a link (relay.py)
"""

from __future__ import annotations

import json
import struct

from sleighexec.errors import ConnectError
from sleighexec.hints import Any

LENGTH = struct.Struct("!I")
MOST = 64 * 1024  # bytes
SECONDS = 5.0  # for all of it


def say(sock: Any, facts: dict[str, Any]) -> None:
    """Send this to the other side."""
    data = json.dumps(facts).encode()
    sock.sendall(LENGTH.pack(len(data)) + data)


def hear(sock: Any, rest: bytes) -> tuple[dict[str, Any], bytes]:
    """What the other side says, and what it has sent behind that.

    Args:
        rest: What has been read of it already.

    Raises:
        ConnectError: It says nothing that makes sense, or hangs up.
    """
    data = _enough(sock, rest, LENGTH.size)
    (size,) = LENGTH.unpack_from(data)
    if size > MOST:
        raise ConnectError(f"the other side introduces itself with {size} bytes")
    data = _enough(sock, data, LENGTH.size + size)
    end = LENGTH.size + size
    try:
        facts = json.loads(data[LENGTH.size : end])
    except (ValueError, RecursionError) as error:
        raise ConnectError(f"the other side does not introduce itself: {error}") from None
    if not isinstance(facts, dict):
        raise ConnectError("the other side does not introduce itself")
    return facts, data[end:]


def _enough(sock: Any, data: bytes, size: int) -> bytes:
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectError("the other side hung up")
        data += more
    return data
