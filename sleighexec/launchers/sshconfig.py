"""How a host is to be reached, by the user's own OpenSSH configuration.

`ssh -G` tells where OpenSSH is installed, with `Include`, `Match` and all; elsewhere paramiko reads
the file, as far as it can. `$SLEIGHEXEC_SSH_CONFIG` names another file than `~/.ssh/config`.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sleighexec.errors import HostError

SECONDS = 10.0  # for `ssh -G`

# A reader of a configuration file, as paramiko has one: path and host to options.
Lookup = Callable[[Path, str], "dict[str, list[str]]"]


class Route(NamedTuple):
    """How to reach a host.

    Attributes:
        known_as: What the files of known hosts call it; empty: by its address.
        keys: Files of private keys that exist.
        known_hosts: Files of known hosts.
        agent: Whether the ssh agent may be asked for keys.
        jumps: Hosts to go through, in this order.
        proxy: A command to go through; empty: none.
    """

    address: str
    port: int
    user: str
    known_as: str
    keys: list[str]
    known_hosts: list[Path]
    agent: bool
    jumps: list[str]
    proxy: str


def checked_host(host: str) -> str:
    """A name that is surely one.

    Raises:
        ValueError: It could be read as something else, such as an option of ssh.
    """
    if not host or host.startswith("-") or any(c.isspace() or not c.isprintable() for c in host):
        raise ValueError(f"this is no name of a host: {host!r}")
    return host


def split(name: str) -> tuple[str | None, str, int | None]:
    """User, host and port of `user@host:port`; the first and the last may be missing.

    Raises:
        ValueError: It is none of these.
    """
    user, _, rest = name.rpartition("@")
    host, colon, port = rest.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):  # an IPv6 address by itself
        host, port = rest, ""
    if port and not port.isdecimal():
        raise ValueError(f"a port is a number: {name!r}")
    return user or None, checked_host(host.strip("[]")), int(port) if port else None


def route(
    host: str, user: str | None, port: int | None, config: str | None, lookup: Lookup
) -> Route:
    """How to reach `host`; `user` and `port`, if given, count more than the configuration.

    Raises:
        HostError: The configuration cannot be read.
    """
    config = config or os.environ.get("SLEIGHEXEC_SSH_CONFIG")
    if shutil.which("ssh"):
        options = _by_openssh(host, user, port, config)
    else:
        path = Path(config) if config else Path.home() / ".ssh" / "config"
        options = lookup(path, host) if path.exists() else {}

    def one(name: str, default: str = "") -> str:
        value = " ".join(options.get(name, []))
        return default if value.lower() in ("", "none") else value

    address = one("hostname", host)
    port = port or int(one("port", "22"))
    user = user or one("user") or getpass.getuser()
    tokens = {"h": address, "n": host, "p": str(port), "r": user}
    home = Path.home() / ".ssh"
    defaults = [str(home / f"id_{kind}") for kind in ("ed25519", "ecdsa", "rsa")]
    keys = map(os.path.expanduser, options.get("identityfile") or defaults)
    lists = one("userknownhostsfile", f"{home}/known_hosts {home}/known_hosts2").split()
    lists += one("globalknownhostsfile", "/etc/ssh/ssh_known_hosts").split()
    return Route(
        address=address,
        port=port,
        user=user,
        known_as=one("hostkeyalias"),
        keys=[key for key in keys if os.path.exists(key)],
        known_hosts=[Path(os.path.expanduser(path)) for path in lists],
        agent=one("identitiesonly", "no") != "yes" and one("identityagent", "yes") != "no",
        jumps=[jump for jump in one("proxyjump").split(",") if jump],
        proxy=_expanded(one("proxycommand"), tokens),
    )


def _expanded(text: str, tokens: dict[str, str]) -> str:
    """With words for the tokens, each a letter after a %; `%%` is one %."""
    return re.sub("%(.)", lambda found: (tokens | {"%": "%"}).get(found[1], found[0]), text)


def _by_openssh(
    host: str, user: str | None, port: int | None, config: str | None
) -> dict[str, list[str]]:
    words = ["ssh", "-G"]
    words += ["-F", config] if config else []
    words += ["-l", user] if user else []
    words += ["-p", str(port)] if port else []
    try:
        run = subprocess.run(
            [*words, "--", host],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise HostError(host, "`ssh -G` does not end: look at the ssh configuration") from None
    if run.returncode != 0:
        raise HostError(host, "the ssh configuration cannot be read", run.stderr)
    options: dict[str, list[str]] = {}
    for line in run.stdout.splitlines():
        name, _, value = line.partition(" ")
        if name == "identityfile":
            options.setdefault(name, []).append(value)
        else:
            options[name] = [value]
    return options
