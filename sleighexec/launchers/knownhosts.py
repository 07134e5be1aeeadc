"""Which keys a host may show, by the files that OpenSSH keeps.

paramiko reads such files too, but one line of another kind (`@cert-authority`) makes it refuse the
whole file, it knows neither patterns nor revoked keys, and of each type no key but the last.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sleighexec.errors import HostKeyError
from sleighexec.launchers.sshconfig import Route


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


class Strict:
    """Refuses every key of one host that the files of known hosts do not have."""

    def __init__(self, name: str, route: Route) -> None:
        """`name`: what messages call the host."""
        self._name, self._route = name, route
        known_as = route.known_as or route.address
        with_port = route.port != 22 and not route.known_as
        self._shown = f"[{known_as}]:{route.port}" if with_port else known_as
        self._known = known(route.known_hosts, self._shown)
        self._bare = known(route.known_hosts, known_as) if with_port else self._known

    def in_order(self, algorithms: Sequence[str]) -> list[str]:
        """Names of algorithms for host keys, those first of which a key is known.

        A host shows one of its keys: the first of these that it has.
        """
        kinds = {kind for kind, _ in self._known.keys or self._bare.keys}

        def is_unknown(algorithm: str) -> bool:
            # What signs with an RSA key is called otherwise than the key.
            return ("ssh-rsa" if algorithm.startswith("rsa-") else algorithm) not in kinds

        return sorted(algorithms, key=is_unknown)

    def check(self, kind: str, key: bytes) -> None:
        """See that the key which the host shows is right.

        Raises:
            HostKeyError: It is not known, or has changed, or must not be trusted.
        """
        if key in self._known.revoked | self._bare.revoked:
            text = f"its host key {fingerprint(key)} is marked as revoked in the known hosts"
            raise HostKeyError(self._name, text)
        # Without its port a host is looked for where nothing is known of it with the port, as
        # OpenSSH does it.
        if key in {known for _, known in self._known.keys or self._bare.keys}:
            return
        if self._known.keys:
            raise self._changed(kind, key)
        raise self._not_known(kind, key)

    def _not_known(self, kind: str, key: bytes) -> HostKeyError:
        route = self._route
        file = route.known_hosts[0] if route.known_hosts else "~/.ssh/known_hosts"
        scan = f"ssh-keyscan -p {route.port} {route.address} >> {file}"
        if route.known_as:
            scan = f"ssh {self._name}"
        text = (
            f"its host key is not known: {fingerprint(key)} ({kind}). If that is its key, make it "
            f"known: `{scan}`"
        )
        if self._known.authorities:
            text += (
                ". It is known by a host certificate, which only OpenSSH can check: use "
                f'Command("ssh -T -o BatchMode=yes {self._name} {{agent}}")'
            )
        return HostKeyError(self._name, text)

    def _changed(self, kind: str, key: bytes) -> HostKeyError:
        keys = [each for each in self._known.keys if each[0] == kind] or self._known.keys
        expected = " or ".join(fingerprint(data) for _, data in keys)
        return HostKeyError(
            self._name,
            f"its host key has changed: it is {fingerprint(key)}, and {expected} is known. "
            "Somebody may be in between. If it was installed anew, forget the old key: "
            f'`ssh-keygen -R "{self._shown}"`',
        )


def fingerprint(key: bytes) -> str:
    """The fingerprint of a key, as `ssh-keygen -l` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
