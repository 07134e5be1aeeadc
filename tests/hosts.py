"""Several hosts on one machine: each with its own network, its own name and its own sshd.

    this process ── veth ── namespace "hippo": 10.x.1.2, sshd, agents, workers
                 ├─ veth ── namespace "newt":  10.x.2.2, …

They share the files, the processes' numbers and the users of this machine. Root is needed for the
namespaces; everybody else gets servers on addresses of the loopback, without names of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NAMES = ("hippo", "newt", "python", "rhino")
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")

CONFIG = """\
Port {port}
ListenAddress {address}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
PidFile {folder}/pid
LogLevel ERROR
# A bash below another one: else it reads the user's .bashrc, and what that starts, cut off by our
# tests, may leave a lock behind for which each later login waits (as pyenv does).
SetEnv SHLVL=1
"""


def why_not() -> str | None:
    """Why there can be no hosts here at all; None: there can be."""
    if SSHD is None:
        return "needs sshd: apt-get install openssh-server"
    if shutil.which("ssh-keygen") is None:
        return "needs ssh-keygen: apt-get install openssh-client"
    return None


def why_no_namespaces() -> str | None:
    """Why there can be no hosts with networks and names of their own; None: there can be."""
    if os.getuid() != 0:
        return "needs root, for network namespaces"
    if shutil.which("ip") is None:
        return "needs ip: apt-get install iproute2"
    probe = f"slx-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode != 0:
        return "needs network namespaces, which this kernel or container does not allow"
    run("ip", "netns", "del", probe)
    return None


def why_no_loss() -> str | None:
    """Why no packets can be lost on purpose, where there can be namespaces; None: they can."""
    probe = f"slx-probe-{os.getpid()}"
    run("ip", "netns", "add", probe)
    try:
        for words in loss("lo", 1):
            inside = subprocess.run(["ip", "netns", "exec", probe, *words], capture_output=True)
            if inside.returncode != 0:
                return "named exception: needs a kernel with clsact and cls_bpf, to lose packets"
        return None
    finally:
        run("ip", "netns", "del", probe)


def loss(device: str, percent: float) -> list[list[str]]:
    """Commands after which a device loses so many of the packets that it is to send.

    netem is made for that, but not in every kernel. This is a program of four instructions for the
    classic packet filter: take a random number; if it is greater than some other, pass, else drop.
    """
    bound = int(percent / 100 * 2**32)
    program = f"4,32 0 0 4294963256,37 0 1 {bound},6 0 0 0,6 0 0 2"
    return [
        ["tc", "qdisc", "add", "dev", device, "clsact"],
        ["tc", "filter", "add", "dev", device, "egress", "bpf", "da", "bytecode", program],
    ]


def run(*words: str | Path) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


class Host:
    """One of them."""

    def __init__(self, name: str, number: int, folder: Path, *, real: bool) -> None:
        self.name, self.real = name, real
        self.folder = folder / name
        self.folder.mkdir()
        self.namespace = f"slx-{os.getpid()}-{name}"
        net = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 60 * 4 + number}"
        self.client_address = f"{net}.1"
        self.address = f"{net}.2" if real else f"127.0.0.{number + 2}"
        self._link = f"slx{os.getpid() % 100000}{number}"
        self.port = 22 if real else free_port()
        if real:
            self._make_network()
        self.rekey()
        (self.folder / "authorized").write_text((folder / "key.pub").read_text())
        text = CONFIG.format(port=self.port, address=self.address, folder=self.folder)
        if not real:
            text = text.replace("ListenAddress 127.0.0.1\n", "")
        (self.folder / "sshd_config").write_text(text)

    def _make_network(self) -> None:
        run("ip", "netns", "add", self.namespace)
        here, there = self._link + "a", self._link + "b"
        run("ip", "link", "add", here, "type", "veth", "peer", "name", there)
        run("ip", "link", "set", there, "netns", self.namespace)
        run("ip", "address", "add", f"{self.client_address}/30", "dev", here)
        run("ip", "link", "set", here, "up")
        self.inside("ip", "address", "add", f"{self.address}/30", "dev", there)
        self.inside("ip", "link", "set", there, "up")
        self.inside("ip", "link", "set", "lo", "up")

    def inside(self, *words: str) -> str:
        """Run a command over there."""
        return run("ip", "netns", "exec", self.namespace, *words)

    def start(self) -> None:
        """Start its sshd, and wait until it greets."""
        assert SSHD is not None
        words = [SSHD, "-E", str(self.folder / "log"), "-f", str(self.folder / "sshd_config")]
        if self.real:
            setup = 'hostname "$0" && mount -t tmpfs none /run && mkdir /run/sshd && exec "$@"'
            words = ["unshare", "--uts", "--mount", "sh", "-c", setup, self.name, *words]
            words = ["ip", "netns", "exec", self.namespace, *words]
        elif os.getuid() == 0:  # where it is not there, whoever starts it as a service makes it
            os.makedirs("/run/sshd", exist_ok=True)
        run(*words)  # it goes into the background by itself, so it is no child of ours
        deadline = time.monotonic() + 10
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection((self.address, self.port), 1) as sock,
            ):
                if sock.recv(3) == b"SSH":
                    return
            log_text = (self.folder / "log").read_text()
            assert time.monotonic() < deadline, f"the sshd of {self.name} is silent: {log_text}"
            time.sleep(0.02)

    def stop(self) -> None:
        """End its sshd and everything on it."""
        pids = self.pids()
        if not self.real and (self.folder / "pid").exists():
            pids.append(int((self.folder / "pid").read_text()))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Stop, and take the network away."""
        self.stop()
        if self.real:
            subprocess.run(["ip", "link", "del", self._link + "a"], capture_output=True)
            subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True)

    def pids(self) -> list[int]:
        """Its processes."""
        if not self.real:
            return []
        return [int(pid) for pid in run("ip", "netns", "pids", self.namespace).split()]

    def commands(self) -> dict[int, str]:
        """Its processes and their command lines."""
        found = {}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                data = Path(f"/proc/{pid}/cmdline").read_bytes()
                found[pid] = data.replace(b"\0", b" ").decode("utf-8", "replace")
        return found

    def received(self) -> int:
        """How many bytes its cable has brought it."""
        return int(Path(f"/sys/class/net/{self._link}a/statistics/tx_bytes").read_text())

    def rekey(self) -> None:
        """Give it a new host key; a running sshd has to be started anew."""
        for path in self.folder.glob("host_key*"):
            path.unlink()
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / "host_key")

    @property
    def host_key(self) -> str:
        """Its public host key, as a line of known hosts has it."""
        kind, data, *_ = (self.folder / "host_key.pub").read_text().split()
        return f"{kind} {data}"

    # ------------------------------------------------------------------ faults

    def drop_ssh(self) -> None:
        """Kill the sessions of its sshd, as a restart of the network would."""
        for pid, command in self.commands().items():
            if command.startswith("sshd: ") and "listener" not in command:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Nothing comes through in either direction, and nobody says so."""
        there = self._link + "b"
        self.inside("ip", "link", "set", there, "down")
        try:
            yield
        finally:
            self.inside("ip", "link", "set", there, "up")

    @contextlib.contextmanager
    def mute(self) -> Iterator[None]:
        """What is sent to it arrives, what it sends does not."""
        self.inside("ip", "route", "add", "blackhole", f"{self.client_address}/32")
        try:
            yield
        finally:
            self.inside("ip", "route", "del", "blackhole", f"{self.client_address}/32")

    @contextlib.contextmanager
    def lossy(self, percent: float) -> Iterator[None]:
        """So many of the packets are lost, in each direction."""
        here, there = self._link + "a", self._link + "b"
        for to_it, from_it in zip(loss(here, percent), loss(there, percent)):
            run(*to_it)
            self.inside(*from_it)
        try:
            yield
        finally:
            run("tc", "qdisc", "del", "dev", here, "clsact")
            self.inside("tc", "qdisc", "del", "dev", there, "clsact")

    def lost(self) -> int:
        """How many packets its cable has lost in both directions, while it is lossy."""
        here, there = self._link + "a", self._link + "b"
        show = ["tc", "-s", "-j", "qdisc", "show", "dev"]
        tables = run(*show, here), self.inside(*show, there)
        return sum(row["drops"] for table in tables for row in json.loads(table))

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """All its processes stand still; its kernel goes on."""
        pids = self.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


class Hosts:
    """All of them, and the configuration with which ssh knows them by name."""

    def __init__(self, *, real: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slx-hosts-"))
        self.real = real
        for name in ("key", "other_key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name)
        self._all: dict[str, Host] = {}
        try:
            for number, name in enumerate(NAMES):
                self._all[name] = Host(name, number, self.folder, real=real)
            for host in self._all.values():
                host.start()
            self.write_config()
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Host:
        return self._all[name]

    @property
    def config(self) -> Path:
        """The file that stands in place of ~/.ssh/config."""
        return self.folder / "config"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def write_config(self) -> None:
        """Make all hosts known, as they are now."""
        lines, known = [], []
        for host in self._all.values():
            lines += [f"Host {host.name}", f"    HostName {host.address}", f"    Port {host.port}"]
            shown = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
            known.append(f"{shown} {host.host_key}")
        hippo = self._all["hippo"]
        lines += ["Host inner", "    HostName 127.0.0.1", f"    Port {hippo.port}"]
        lines += ["    ProxyJump hippo", "    HostKeyAlias inner"]
        lines += ["Host innermost", "    HostName 127.0.0.1", f"    Port {hippo.port}"]
        lines += ["    ProxyJump inner", "    HostKeyAlias inner"]
        known.append(f"inner {hippo.host_key}")
        lines += ["Host *", f"    IdentityFile {self.folder}/key", "    IdentitiesOnly yes"]
        lines += [f"    UserKnownHostsFile {self.known_hosts}", "    GlobalKnownHostsFile none"]
        lines += ["    BatchMode yes"]
        self.config.write_text("\n".join(lines) + "\n")
        self.known_hosts.write_text("\n".join(known) + "\n")

    def close(self) -> None:
        for host in self._all.values():
            host.remove()
        shutil.rmtree(self.folder)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
