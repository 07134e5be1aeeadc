"""Workers on another machine by ssh, through paramiko.

    SSH.launch ─▶ Link thread: route ─▶ jump ─▶ jump ─▶ host ─▶ login ─▶ `sh` in a session
    thread "sleigh-ssh-in"      session's stdout ─▶ socket ─▶ relay
    thread "sleigh-ssh-out"     relay ─▶ socket ─▶ session's stdin
    thread "sleigh-ssh-errors"  session's stderr ─▶ ours; its end is kept

Host keys are always checked: a host that is not known, or shows another key, is refused before
anything is sent to it, and the error says what to do. Nothing is ever asked on the terminal, and a
login that fails is not tried again: servers lock out those who try.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

from sleighexec.errors import HostError, LoginError
from sleighexec.hints import Any
from sleighexec.launchers import boot, sshconfig
from sleighexec.launchers.base import Handle
from sleighexec.launchers.knownhosts import Strict, fingerprint
from sleighexec.launchers.link import TAIL, Link
from sleighexec.launchers.process import Proxy, pass_on
from sleighexec.launchers.publickeys import public
from sleighexec.launchers.sshconfig import Route
from sleighexec.resources import needs_of
from sleighexec.streams import Pipes

CONNECT_SECONDS = 5.0  # to reach a host; paramiko's own patience is 72 s without a cable
BANNER_SECONDS = 5.0  # for its greeting
LOGIN_SECONDS = 10.0
SESSION_SECONDS = 5.0  # to open a session once logged in
END_SECONDS = 0.3  # for the exit status when the session's output has ended
AT_ONCE = 8  # hosts that are being connected: a jump host takes no more strangers at a time
MOST_HOPS = 16  # hosts on the way to one; who needs more goes in a circle
PIECE = 64 * 1024  # bytes read at a time

LOG = "sleighexec.ssh"  # the logger of paramiko's own messages; our errors say what matters
logging.getLogger(LOG).addHandler(logging.NullHandler())


class Turns:
    """So many links may connect at the same time; the others wait, as long as they live."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._changed = threading.Condition()  # guards _connecting
        self._connecting: set[Link] = set()

    @contextlib.contextmanager
    def turn(self, link: Link) -> Iterator[None]:
        """Raises HostError if the link is killed before its turn."""
        link.on_kill(lambda: self._give_back(link))  # whose thread may never come back
        with self._changed:
            self._changed.wait_for(
                lambda: link.killed.is_set() or len(self._connecting) < self._at_once
            )
            link.check()
            self._connecting.add(link)
        try:
            yield
        finally:
            self._give_back(link)

    def _give_back(self, link: Link) -> None:
        with self._changed:
            self._connecting.discard(link)
            self._changed.notify_all()


_turns = Turns(AT_ONCE)


def _in_child() -> None:
    global _turns
    _turns = Turns(AT_ONCE)  # threads that have a turn are the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


@dataclass(frozen=True)
class SSH:
    """Workers on another machine, started through ssh.

    `SSH("hippo")`, `SSH("me@newt:2222", workers=8, python="/opt/python3.11/bin/python3")`. The
    user's OpenSSH configuration counts: host names, users, ports, keys, agent, ProxyJump. Nothing
    need be installed on the host but Python of this version.

    Attributes:
        host: Its name, as `ssh` would take it, or `user@host:port`.
        workers: How many workers.
        user, port: They count more than the configuration.
        python: The interpreter there; None: the path of this one, else its version, else python3.
        env: Environment variables of the agent and its workers.
        prelude: Lines of shell before anything else, such as `module load python/3.11`.
        cwd: The folder to work in, in which `~` is the home there; None: the home.
        ship: Which modules of the caller workers may have that lack them: "auto", those outside
            of site-packages; or names of packages; or none.
        key: A file with the only key to log in with, which may be in the ssh agent, as one with a
            passphrase must be; None: those of the configuration.
        config: A file to be read in place of `~/.ssh/config`.
        resources: What each of these workers has, such as `{"gpu": 1}`.
    """

    host: str
    workers: int = 1
    user: str | None = None
    port: int | None = None
    python: str | None = None
    env: Mapping[str, str] | None = field(default=None, hash=False)
    prelude: str = ""
    cwd: str | None = None
    ship: str | tuple[str, ...] = "auto"
    key: str | None = None
    config: str | None = None
    resources: Mapping[str, int] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        needs_of(self.resources)
        sshconfig.split(self.host)
        boot.opening(self)

    def launch(
        self,
        command: list[str],
        environ: dict[str, str],
        *,
        timeout: float = 60,
        delay: float = 0,
    ) -> Handle:
        """Connect, `delay` seconds from now; `command`, made for this machine, has no use."""
        return Link(self.host, self._connect, boot.opening(self), timeout=timeout, delay=delay)

    def _connect(self, link: Link) -> SSHStreams:
        with _turns.turn(link), contextlib.ExitStack() as opened:
            hops = self._hops()
            transports: list[paramiko.Transport] = []
            proxy = Proxy(hops[0][1].proxy, hops[0][0]) if hops[0][1].proxy else None
            try:
                sock: Any = proxy.sock if proxy else _socket(*hops[0])
                for name, through in hops:
                    if transports:
                        sock = _tunnel(transports[-1], through, name)
                    transports.append(_transport(link, name, through, sock, opened))
                streams = SSHStreams(transports, self.host, proxy)
            except BaseException as error:
                said = proxy.close() if proxy else ""
                if not said or not isinstance(error, HostError):
                    raise
                raise type(error)(error.host, error.reason, said) from error
            opened.pop_all()
        return streams

    def _hops(self) -> list[tuple[str, Route]]:
        """The hosts to log in to, one through the other, and how each is reached."""
        user, host, port = sshconfig.split(self.host)
        route = _route(host, self.user or user, self.port or port, self.config)
        if self.key is not None:
            key = os.path.expanduser(self.key)
            if not sshconfig.is_key(key):
                raise LoginError(self.host, f"there is no key file {key}")
            route = route._replace(keys=[key], only=True)
        hops = [(self.host, route)]
        # The way to the first jump is told in the configuration too, that to the others is not:
        # it leads through the jump before. So it is with OpenSSH.
        while jumps := hops[0][1].jumps:
            hops[:0] = [(jump, _route(*_jump(jump), self.config)) for jump in jumps]
            if len(hops) > MOST_HOPS:
                names = ", ".join(name for name, _ in hops)
                text = f"its ProxyJump leads in a circle, or through too many hosts: {names}"
                raise HostError(self.host, f"{text}: mend the ssh configuration")
        return hops


def _jump(name: str) -> tuple[str, str | None, int | None]:
    user, host, port = sshconfig.split(name.removeprefix("ssh://"))
    return host, user, port


def _route(host: str, user: str | None, port: int | None, config: str | None) -> Route:
    def lookup(path: Path, name: str) -> dict[str, list[str]]:
        found = paramiko.SSHConfig.from_path(str(path)).lookup(name)
        return {k: [v] if isinstance(v, str) else list(v) for k, v in found.items()}

    return sshconfig.route(host, user, port, config, lookup)


def _tunnel(transport: paramiko.Transport, route: Route, name: str) -> Any:
    """A channel through a jump host to the next one."""
    try:
        target = route.address, route.port
        return transport.open_channel(
            "direct-tcpip", target, ("127.0.0.1", 0), timeout=CONNECT_SECONDS
        )
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise HostError(name, f"the jump host cannot reach it: {error}") from error


def _transport(
    link: Link,
    name: str,
    route: Route,
    sock: Any,
    opened: contextlib.ExitStack,
) -> paramiko.Transport:
    """A connection to a host that has let us in.

    Raises:
        HostError: It has not; the class says whose fault it is.
    """
    opened.callback(sock.close)
    link.on_kill(lambda: _shut(sock))
    strict = Strict(name, route)
    transport = paramiko.Transport(sock)
    opened.callback(transport.close)
    transport.set_log_channel(LOG)
    transport.banner_timeout = BANNER_SECONDS
    transport.auth_timeout = LOGIN_SECONDS
    transport.channel_timeout = SESSION_SECONDS
    security = transport.get_security_options()
    security.key_types = strict.in_order(security.key_types)
    try:
        transport.start_client(timeout=LOGIN_SECONDS)
        shown = transport.get_remote_server_key()
        strict.check(shown.get_name(), shown.asbytes())
        _log_in(transport, name, route)
    except (paramiko.SSHException, OSError, EOFError) as error:
        where = f"{route.address} port {route.port}"
        if "banner" in str(error):
            text = f"nobody greets as an ssh server at {where} within {BANNER_SECONDS:.0f} s"
            raise HostError(name, text) from error
        raise HostError(
            name, f"no ssh connection to {where}: {str(error) or 'it hung up'}"
        ) from error
    return transport


class _Agent(paramiko.agent.AgentSSH):
    """The ssh agent at a socket; paramiko's own class finds no other one than $SSH_AUTH_SOCK."""

    def __init__(self, path: str, opened: contextlib.ExitStack) -> None:
        super().__init__()
        sock = opened.enter_context(socket.socket(socket.AF_UNIX))
        sock.settimeout(LOGIN_SECONDS)
        sock.connect(path)
        self._connect(sock)  # type: ignore[attr-defined]


def _log_in(transport: paramiko.Transport, name: str, route: Route) -> None:
    """Show a host our keys, one after the other, until it lets us in.

    Raises:
        LoginError: It does not let us in.
    """
    failure: Exception | None = None
    tried = []
    with contextlib.ExitStack() as opened:
        for file, held in _keys(route, opened):
            try:
                key = held or _private(file)
            except FileNotFoundError:
                continue  # there is only the public half, and the agent does not have the key
            except (paramiko.SSHException, OSError, ValueError) as error:
                tried.append(f"{file}: {error}")
                continue
            tried.append(file)
            try:
                transport.auth_publickey(route.user, key)
            except paramiko.SSHException as error:
                failure = error
            if transport.is_authenticated():
                return
            if not transport.is_active():
                break  # it has had enough
    why = f" ({failure})" if failure else ""
    raise LoginError(
        name,
        f"it does not let {route.user} in with {', '.join(tried) or 'no key'}{why}: see that "
        f"`ssh -o BatchMode=yes {name} true` works. A key with a passphrase must be in the agent",
    ) from failure


def _keys(route: Route, opened: contextlib.ExitStack) -> Iterator[tuple[str, paramiko.PKey | None]]:
    """The file of a key, or the key and what to call it if the agent has it; as OpenSSH does it.

    First keys of the agent that are named in the configuration, then its other ones, then keys of
    files: a server may have enough after six.
    """
    files = {path: public(path) for path in route.keys}
    held: list[paramiko.PKey] = []
    with contextlib.suppress(OSError, paramiko.SSHException):
        held = list(_Agent(route.agent, opened).get_keys()) if route.agent else []
    named = [key for key in held if key.asbytes() in files.values()]
    others = [] if route.only else [key for key in held if key not in named]
    for key in named + others:
        yield f"{fingerprint(key.asbytes())} of the ssh agent", key
    shown = [key.asbytes() for key in named]
    for path, blob in files.items():
        if blob not in shown:
            yield path, None


def _private(path: str) -> paramiko.PKey:
    """The key in a file, with its certificate if there is one."""
    failure: Exception | None = None
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            key: paramiko.PKey = kind.from_private_key_file(path)
        except paramiko.PasswordRequiredException:
            raise
        except (paramiko.SSHException, ValueError) as error:
            failure = error
        else:
            if os.path.isfile(f"{path}-cert.pub"):
                key.load_certificate(f"{path}-cert.pub")
            return key
    raise paramiko.SSHException("no private key that paramiko can read") from failure


def _socket(name: str, route: Route) -> socket.socket:
    """A connection to the host by TCP."""
    try:
        sock = socket.create_connection((route.address, route.port), CONNECT_SECONDS)
    except OSError as error:
        where = f"{route.address} port {route.port}"
        raise HostError(name, f"it cannot be reached at {where}: {error}") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _shut(sock: Any) -> None:
    """Wake whoever waits for a socket of any kind."""
    if isinstance(sock, socket.socket):
        sock.shutdown(socket.SHUT_RDWR)
    else:
        sock.close()


class SSHStreams(Pipes):
    """A shell in a session of ssh. See `sleighexec.launchers.link.FarEnd`.

    paramiko's channels are no descriptors, so threads carry their bytes to and from a socket pair.
    """

    def __init__(
        self, transports: list[paramiko.Transport], name: str, proxy: Proxy | None
    ) -> None:
        self._transports, self._proxy = transports, proxy
        try:
            self._channel = self._transports[-1].open_session(timeout=SESSION_SECONDS)
            self._channel.exec_command("exec sh")
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise HostError(name, f"no command can be run on it: {error}") from error
        self._tail = bytearray()
        self._killed = False
        self._ours, self._theirs = socket.socketpair()
        super().__init__(self._ours.fileno(), self._ours.fileno())
        self._threads = [
            threading.Thread(target=work, name=f"sleigh-ssh-{way}-{name}", daemon=True)
            for way, work in (
                ("in", self._carry_in),
                ("errors", self._carry_errors),
                ("out", self._carry_out),
            )
        ]
        for thread in self._threads:
            thread.start()

    def _carry_in(self) -> None:
        """Thread: what the session writes, to the relay."""
        with contextlib.suppress(OSError, EOFError):
            while data := self._channel.recv(PIECE):
                self._theirs.sendall(data)
        with contextlib.suppress(OSError):
            self._theirs.shutdown(socket.SHUT_WR)

    def _carry_errors(self) -> None:
        """Thread: keep the end of what the session writes to stderr, and pass it on to ours."""
        with contextlib.suppress(OSError, EOFError):
            while data := self._channel.recv_stderr(PIECE):
                self._tail += data
                del self._tail[:-TAIL]
                pass_on(data)

    def _carry_out(self) -> None:
        """Thread: what the relay writes, to the session."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while data := self._theirs.recv(PIECE):
                self._channel.sendall(data)
            self._channel.shutdown_write()

    def kill(self) -> None:
        self._killed = True
        if self._proxy is not None:
            self._proxy.kill()
        for transport in reversed(self._transports):
            transport.close()
        with contextlib.suppress(OSError):
            self._theirs.shutdown(socket.SHUT_RDWR)

    def close(self) -> tuple[int | None, str]:
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_WR)  # the other side is to end, if it has not
        channel = self._channel
        if not self._killed:
            channel.status_event.wait(END_SECONDS)
        status = channel.exit_status if channel.exit_status_ready() else None
        self.kill()
        for thread in self._threads:
            thread.join()
        for transport in self._transports:
            transport.join(1)
        self._ours.close()
        self._theirs.close()
        known_status = None if status in (None, -1) else status
        said = self._tail.decode("utf-8", "replace")
        if self._proxy is not None:
            said += self._proxy.close()
        return known_status, said

    def forget(self) -> None:
        for sock in (self._ours, self._theirs):
            sock.close()
        for transport in self._transports:
            with contextlib.suppress(Exception):
                transport.sock.close()
        if self._proxy is not None:
            self._proxy.forget()
