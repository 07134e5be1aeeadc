"""Ways to a host that are told in the OpenSSH configuration; an sshd of our own is at their end."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleighexec import SSH, PoolBrokenError, SleighExecutor, WorkerLost, errors
from tests.conftest import alive, wait_for
from tests.hosts import Host, run, why_not

PATIENCE = 20
NUMBER = 60  # of the address: other tests have hosts of their own

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

# A proxy that says who it is, and carries bytes like `nc`.
PROXY = """\
import os, select, socket, sys
open(sys.argv[3], "a").write(f"{os.getpid()}\\n")
sock = socket.create_connection(sys.argv[1:3])
while True:
    for ready in select.select([0, sock], [], [])[0]:
        data = os.read(0, 65536) if ready == 0 else sock.recv(65536)
        if not data:
            sys.exit()
        sock.sendall(data) if ready == 0 else os.write(1, data)
"""


class Way:
    """A host, and what the configuration says of it."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.folder = host, folder
        self.key = folder / "key"
        self.known_hosts = folder / "known_hosts"
        self.config = folder / "config"

    def write(self, *lines: str, known: str | None = None, star: str | None = None) -> None:
        """Configure `hippo` so; `known`: lines of known hosts; `star`: of the login."""
        host = self.host
        login = f"IdentityFile {self.key}\nIdentitiesOnly yes" if star is None else star
        text = [f"Host hippo\nHostName {host.address}\nPort {host.port}", *lines]
        text += ["Host *", login, f"UserKnownHostsFile {self.known_hosts}"]
        text += ["GlobalKnownHostsFile none", "BatchMode yes"]
        self.config.write_text("\n".join(text) + "\n")
        self.known_hosts.write_text(f"{self.shown} {host.host_key}\n" if known is None else known)

    @property
    def shown(self) -> str:
        return f"[{self.host.address}]:{self.host.port}"

    def ssh_works(self) -> bool:
        """Whether OpenSSH lets us in; its word is the measure."""
        words = ["ssh", "-F", str(self.config), "hippo", "true"]
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0

    def works(self, **options: str) -> bool:
        """Whether a worker starts there."""
        with SleighExecutor(launcher=SSH("hippo", **options)) as executor:  # type: ignore[arg-type]
            return executor.submit(abs, -1).result(PATIENCE) == 1

    def refusal(self, **options: str) -> errors.HostError:
        """Why none does."""
        with SleighExecutor(launcher=SSH("hippo", **options)) as executor:  # type: ignore[arg-type]
            error = executor.submit(abs, -1).exception(PATIENCE)
        assert isinstance(error, PoolBrokenError)
        assert isinstance(error.__cause__, errors.HostError)
        return error.__cause__


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("ways")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key")
    host = Host("hippo", NUMBER, folder, real=False)
    for kind, bits in (
        ("rsa", "2048"),
        ("ecdsa", "256"),
    ):  # it has the former too, and had the latter
        file = host.folder / f"{kind}_key"
        run("ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-f", file)
    with (host.folder / "sshd_config").open("a") as config:
        config.write(f"HostKey {host.folder}/rsa_key\n")
    try:
        host.start()
        yield host
    finally:
        host.remove()


@pytest.fixture
def way(host: Host, monkeypatch: pytest.MonkeyPatch) -> Way:
    way = Way(host, host.folder.parent)
    monkeypatch.setenv("SLEIGHEXEC_SSH_CONFIG", str(way.config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    way.write()
    return way


# ---------------------------------------------------------------------- host keys


@pytest.mark.parametrize(
    ("known", "refused"),
    [
        ("{shown} {ed25519}\n{shown} {other}", ""),
        ("{shown} {other}\n{shown} {ed25519}", ""),
        ("{shown} {ecdsa}\n{shown} {rsa}", ""),
        ("{shown} {ecdsa}\n{shown} {other}", "has changed"),
        ("{address} {ed25519}", ""),
        ("{address} {other}", "is not known"),
        ("{shown} {other}\n{address} {ed25519}", "has changed"),
        ("@revoked {shown} {ed25519}\n{shown} {ed25519}\n{shown} {other}", "revoked"),
        ("@revoked {address} {ed25519}\n{address} {ed25519}", "revoked"),
    ],
)
def test_any_key_that_is_known_of_a_host_is_right_and_no_other(
    way: Way, known: str, refused: str
) -> None:
    keys = {
        kind: " ".join((way.host.folder / f"{kind}_key.pub").read_text().split()[:2])
        for kind in ("rsa", "ecdsa")
    }
    other = " ".join((way.folder / "key.pub").read_text().split()[:2])
    keys |= {"ed25519": way.host.host_key, "other": other}
    way.write(known=known.format(shown=way.shown, address=way.host.address, **keys) + "\n")
    assert way.ssh_works() is (not refused)
    if refused:
        error = way.refusal()
        assert isinstance(error, errors.HostKeyError)
        assert refused in str(error)
    else:
        assert way.works()


# ---------------------------------------------------------------------- keys and the agent


@pytest.fixture(scope="module")
def agent(host: Host) -> Iterator[Path]:
    """The socket of an ssh agent, which has a key with a passphrase that the host knows."""
    folder = host.folder.parent
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", folder / "locked")
    with (host.folder / "authorized").open("a") as authorized:
        authorized.write((folder / "locked.pub").read_text())
    (folder / "public.pub").write_text((folder / "locked.pub").read_text())
    (folder / "locked.pub").rename(folder / "locked.away")  # it can be seen without
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "stranger")
    (folder / "key_hippo").write_text((folder / "key").read_text())
    (folder / "key_hippo").chmod(0o600)
    (folder / "ask").write_text("#!/bin/sh\necho secret\n")
    (folder / "ask").chmod(0o700)
    socket = folder / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL) as it:
        wait_for(socket.exists, "the agent is there")
        asking = {"SSH_ASKPASS": str(folder / "ask"), "SSH_ASKPASS_REQUIRE": "force"}
        variables = os.environ | asking | {"SSH_AUTH_SOCK": str(socket), "DISPLAY": ":0"}
        add = ["ssh-add", "-q", str(folder / "locked")]
        done = subprocess.run(add, env=variables, capture_output=True, start_new_session=True)
        assert done.returncode == 0, done.stderr
        yield socket
        it.terminate()


@pytest.mark.parametrize(
    ("variables", "login", "works"),
    [
        ("", "IdentityFile {folder}/key_%n", True),
        ("KEYS", "IdentityFile ${{KEYS}}/key", True),
        ("SSH_AUTH_SOCK", "IdentityFile {folder}/locked\nIdentitiesOnly yes", True),
        ("SSH_AUTH_SOCK", "IdentityFile {folder}/public\nIdentitiesOnly yes", True),
        ("SSH_AUTH_SOCK", "IdentityFile {folder}/public.pub\nIdentitiesOnly yes", True),
        ("SSH_AUTH_SOCK", "IdentityFile {folder}/stranger", True),
        ("SSH_AUTH_SOCK", "IdentityFile {folder}/stranger\nIdentitiesOnly yes", False),
        ("SSH_AUTH_SOCK", "IdentityFile {folder}/locked\nIdentityAgent none", False),
        ("", "IdentityFile {folder}/locked\nIdentityAgent {folder}/agent", True),
        ("OTHER", "IdentityFile {folder}/locked\nIdentityAgent $OTHER", True),
        ("", "IdentityFile {folder}/locked", False),
    ],
)
def test_keys_and_agent_are_those_of_the_configuration(
    way: Way,
    agent: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: str,
    login: str,
    works: bool,
) -> None:
    if variables:
        monkeypatch.setenv(variables, str(way.folder if variables == "KEYS" else agent))
    way.write(star=login.format(folder=way.folder))
    assert way.ssh_works() is works
    if works:
        assert way.works()
    else:
        assert isinstance(way.refusal(), errors.LoginError)


def test_a_key_with_a_passphrase_is_taken_from_the_agent_and_no_other_one(
    way: Way, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    assert way.works(key=str(way.folder / "locked"))
    error = way.refusal(key=str(way.folder / "stranger"))
    assert isinstance(error, errors.LoginError)
    assert "of the ssh agent" not in str(error)


# ---------------------------------------------------------------------- ProxyCommand


@pytest.fixture
def proxies(way: Way, tmp_path: Path) -> Path:
    """Of each proxy that was started, its pid."""
    (tmp_path / "proxy.py").write_text(PROXY)
    proxies = tmp_path / "pids"
    way.write(f"ProxyCommand {sys.executable} {tmp_path}/proxy.py %h %p {proxies}")
    return proxies


def test_a_proxy_command_that_dies_is_noticed_by_its_end(proxies: Path) -> None:
    with SleighExecutor(nodes=["hippo"]) as executor:
        running = executor.submit(signal.pause)
        wait_for(running.running, "it runs")
        os.kill(int(proxies.read_text()), signal.SIGKILL)
        error = running.exception(PATIENCE)
        assert isinstance(error, WorkerLost)
        assert "no sign of life" not in error.reason
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_a_ctrl_c_in_the_terminal_is_not_for_a_proxy_command_and_it_is_reaped(
    proxies: Path,
) -> None:
    with SleighExecutor(nodes=["hippo"]) as executor:
        assert executor.submit(abs, -1).result(PATIENCE) == 1
        proxy = int(proxies.read_text())
        assert os.getpgid(proxy) != os.getpgid(0)
    wait_for(lambda: not alive(proxy), "it has ended")
    with pytest.raises(ProcessLookupError):
        os.kill(proxy, 0)


def test_a_proxy_command_is_a_line_of_shell_with_tokens(
    way: Way, proxies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/bin/sh")
    monkeypatch.setenv("PROXY", f"{sys.executable} {proxies.parent}/proxy.py")
    way.write(f"ProxyCommand $PROXY %h %p '{proxies}-%n-%r-%%h' 2>/dev/null")
    assert way.works()
    assert Path(f"{proxies}-hippo-{getpass.getuser()}-%h").exists()


def test_what_a_proxy_command_says_at_its_end_is_in_the_error(way: Way) -> None:
    way.write("ProxyCommand sh -c 'echo the gate is shut >&2; exit 1'")
    error = way.refusal()
    assert "the gate is shut" in error.stderr
    assert error.reason.endswith(("it hung up", "pipe", "peer", "within 5 s"))
