"""The public halves of the user's keys, by which keys of the ssh agent and of files are paired."""

from __future__ import annotations

import base64
from pathlib import Path

MAGIC = b"openssh-key-v1\0"  # what a private key of OpenSSH begins with


def public(path: str) -> bytes | None:
    """The public half of the key of this file, as far as that can be had without a passphrase.

    The file may be the private key or the public one; that is also looked for in `path`.pub.
    """
    for file, read in ((path, _of_line), (path, _of_private), (f"{path}.pub", _of_line)):
        try:
            key = read(Path(file).read_text(errors="replace"))
        except (OSError, ValueError):
            continue
        if key:
            return key
    return None


def _of_line(text: str) -> bytes | None:
    """Of a line as `ssh-ed25519 AAAA… comment`."""
    kind, data = text.split()[:2] if len(text.split()) > 1 else ("", "")
    key = base64.b64decode(data)
    return key if kind and _first(key)[0] == kind.encode() else None


def _of_private(text: str) -> bytes | None:
    """Of a private key in the format of OpenSSH, where it is not encrypted."""
    data = base64.b64decode("".join(text.strip().splitlines()[1:-1]))
    if not data.startswith(MAGIC):
        return None
    rest = data[len(MAGIC) :]
    for _ in ("cipher", "kdf", "its options"):
        _, rest = _first(rest)
    return _first(rest[4:])[0]  # the number of keys is before it


def _first(data: bytes) -> tuple[bytes, bytes]:
    """A string with its length before it, and what follows."""
    end = 4 + int.from_bytes(data[:4], "big")
    return data[4:end], data[end:]
