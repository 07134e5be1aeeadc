"""Which keys a host may show, by the files that OpenSSH keeps.

paramiko reads such files too, but one line of another kind (`@cert-authority`) makes it refuse the
whole file, and it knows neither patterns nor revoked keys.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Known(NamedTuple):
    """What the files say about one host.

    Attributes:
        keys: Pairs of type and bytes; any of them is right.
        revoked: Bytes of keys that are never right.
        authorities: Whether there are host certificates for it, which only OpenSSH can check.
    """

    keys: list[tuple[str, bytes]]
    revoked: set[bytes]
    authorities: bool


def known(files: Iterable[Path], name: str) -> Known:
    """What these files say about a host: `name`, or `[name]:port` where the port is not 22."""
    found = Known([], set(), False)
    for path in files:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            found = _with_line(found, line.split(), name)
    return found


def _with_line(found: Known, words: list[str], name: str) -> Known:
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#") or not _matches(words[0], name):
        return found
    try:
        key = base64.b64decode(words[2], validate=True)
    except binascii.Error:
        return found
    if marker == "@revoked":
        found.revoked.add(key)
    elif marker == "@cert-authority":
        return found._replace(authorities=True)
    elif not marker:
        found.keys.append((words[1], key))
    return found


def _matches(patterns: str, name: str) -> bool:
    """Whether one of these, separated by commas, is meant; none of them with a ! before it."""
    if patterns.startswith("|1|"):
        try:
            _, _, salt, digest = patterns.split("|")[:4]
            made = hmac.digest(base64.b64decode(salt), name.encode(), "sha1")
            return hmac.compare_digest(made, base64.b64decode(digest))
        except ValueError:
            return False
    yes = False
    for pattern in patterns.lower().split(","):
        # In these files [ is no wildcard: it begins a name that has a port.
        if fnmatch.fnmatchcase(name.lower(), pattern.removeprefix("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            yes = True
    return yes


def fingerprint(key: bytes) -> str:
    """The fingerprint of a key, as `ssh-keygen -l` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
