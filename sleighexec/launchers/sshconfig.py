"""How a host is to be reached, by the user's own OpenSSH configuration.

`ssh -G` tells where OpenSSH is installed, with `Include`, `Match` and all; elsewhere paramiko reads
the file, as far as it can. `$SLEIGHEXEC_SSH_CONFIG` names another file than `~/.ssh/config`.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from sleighexec.errors import HostError

SECONDS = 10.0  # for `ssh -G`
AGENT = "SSH_AUTH_SOCK"  # the variable that tells where the ssh agent is

# A reader of a configuration file, as paramiko has one: path and host to options.
Lookup = Callable[[Path, str], "dict[str, list[str]]"]


class Route(NamedTuple):
    """How to reach a host.

    Attributes:
        known_as: What the files of known hosts call it; empty: by its address.
        keys: Files of private keys, or of the public halves of those that the agent has.
        known_hosts: Files of known hosts.
        agent: Path of the ssh agent's socket; empty: it must not be asked, or there is none.
        only: Whether only such keys of the agent may be shown as `keys` names.
        jumps: Hosts to go through, in this order.
        proxy: A command to go through; empty: none.
    """

    address: str
    port: int
    user: str
    known_as: str
    keys: list[str]
    known_hosts: list[Path]
    agent: str
    only: bool
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
    config = os.path.expanduser(config or os.environ.get("SLEIGHEXEC_SSH_CONFIG") or "")
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
    known_as = one("hostkeyalias")
    tokens = {
        "d": str(Path.home()),
        "h": address,
        "i": str(os.getuid()),
        "k": known_as or host,
        "L": socket.gethostname().partition(".")[0],
        "l": socket.gethostname(),
        "n": host,
        "p": str(port),
        "r": user,
        "u": getpass.getuser(),
        "%": "%",
    }
    home = Path.home() / ".ssh"
    defaults = [str(home / f"id_{kind}") for kind in ("ed25519", "ecdsa", "rsa")]
    keys = [
        _expanded(os.path.expanduser(key), tokens, os.environ)
        for key in options.get("identityfile") or defaults
        if key != "none"
    ]
    lists = one("userknownhostsfile", f"{home}/known_hosts {home}/known_hosts2").split()
    lists += one("globalknownhostsfile", "/etc/ssh/ssh_known_hosts").split()
    return Route(
        address=address,
        port=port,
        user=user,
        known_as=known_as,
        keys=[key for key in keys if is_key(key)],
        known_hosts=[Path(os.path.expanduser(path)) for path in lists],
        agent=_agent(" ".join(options.get("identityagent", [AGENT]))),
        only=one("identitiesonly") == "yes",
        jumps=[jump for jump in one("proxyjump").split(",") if jump],
        proxy=_expanded(one("proxycommand"), tokens, {}),
    )


def is_key(path: str) -> bool:
    """Whether there is a key, or the public half of one that the agent may have."""
    return os.path.exists(path) or os.path.exists(f"{path}.pub")


def _agent(option: str) -> str:
    """The socket of the agent, by the option IdentityAgent."""
    if option.lower() == "none":
        return ""
    if option == AGENT:
        option = f"${AGENT}"
    if option.startswith("$") and not option.startswith("${"):
        return os.environ.get(option[1:], "")
    return os.path.expanduser(option)


def _expanded(text: str, tokens: Mapping[str, str], variables: Mapping[str, str]) -> str:
    """With words for the tokens, each a letter after a %, and for variables as `${NAME}`."""

    def word(found: re.Match[str]) -> str:
        token, variable = found.groups()
        return tokens.get(token, found[0]) if token else variables.get(variable, found[0])

    return re.sub(r"%(.)|\$\{(\w+)\}", word, text)


def _by_openssh(host: str, user: str | None, port: int | None, config: str) -> dict[str, list[str]]:
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
