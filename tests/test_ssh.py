"""What is read before a host is reached: names, the user's configuration, known hosts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import queue
import shutil
import stat
import threading
from pathlib import Path

import pytest

from sleighexec import SSH, errors
from sleighexec.launchers import ssh as launcher
from sleighexec.launchers.knownhosts import fingerprint, known
from sleighexec.launchers.link import Link
from sleighexec.launchers.publickeys import public
from sleighexec.launchers.ssh import SSHStreams
from sleighexec.launchers.sshconfig import split

PATIENCE = 20
KEY, OTHER = b"a key", b"another"


def line(names: str, key: bytes = KEY, marker: str = "") -> str:
    return f"{marker} {names} ssh-ed25519 {base64.b64encode(key).decode()}".strip()


def hashed(name: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.digest(salt, name.encode(), hashlib.sha1)
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("names", "name", "meant"),
    [
        ("hippo", "hippo", True),
        ("HIPPO", "hippo", True),
        ("hippo", "hippo2", False),
        ("newt,hippo", "hippo", True),
        ("*.zoo", "hippo.zoo", True),
        ("h?ppo", "hippo", True),
        ("!hippo.zoo,*.zoo", "hippo.zoo", False),
        ("*.zoo,!hippo.zoo", "hippo.zoo", False),
        ("[hippo]:2222", "[hippo]:2222", True),
        ("[hippo]:2222", "hippo", False),
        ("hippo", "[hippo]:2222", False),
        (hashed("hippo"), "hippo", True),
        (hashed("hippo"), "newt", False),
        ("|1|rubbish", "hippo", False),
        ("|1|!!|!!", "hippo", False),
    ],
)
def test_which_hosts_a_line_of_known_hosts_means(
    tmp_path: Path, names: str, name: str, meant: bool
) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(line(names) + "\n")
    assert known([path, tmp_path / "none"], name).keys == ([("ssh-ed25519", KEY)] if meant else [])


def test_marked_lines_of_known_hosts(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    rubbish = "\n# hippo ssh-ed25519 AAAA\nhippo ssh-ed25519 ???\nhippo\n@revoked\n"
    marked = [line("*", OTHER, "@revoked"), line("hippo", OTHER, "@cert-authority")]
    path.write_text("\n".join([line("hippo"), *marked, line("hippo", OTHER, "@new"), rubbish]))
    found = known([path], "hippo")
    assert found == ([("ssh-ed25519", KEY)], {OTHER}, True)
    assert not known([path], "newt").authorities


def test_fingerprints_are_those_of_ssh_keygen() -> None:
    assert fingerprint(b"") == "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hippo", (None, "hippo", None)),
        ("me@hippo:2222", ("me", "hippo", 2222)),
        ("a@b@hippo", ("a@b", "hippo", None)),
        ("::1", (None, "::1", None)),
        ("me@[::1]:22", ("me", "::1", 22)),
    ],
)
def test_names_of_hosts(name: str, parts: tuple[str | None, str, int | None]) -> None:
    assert split(name) == parts
    assert SSH(name).workers == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-rsa",
        "ssh-rsa AAAA",
        "ssh-rsa A",
        "ssh-ed25519 AAAAB3NzaC1yc2EAAAADAQAB",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
        "\udcff\udcff\n\udcff\n",
    ],
)
def test_what_is_no_key_has_no_public_half(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text, errors="surrogateescape")
    assert not public(str(tmp_path / "key"))
    kind = b"\0\0\0\x0bssh-ed25519"
    (tmp_path / "key.pub").write_text(f"ssh-ed25519 {base64.b64encode(kind).decode()} me@here")
    assert public(str(tmp_path / "key")) == kind


CONFIG = """\
Host zoo
    HostName hippo.example
    User keeper
    Port 2200
    HostKeyAlias the-zoo
    IdentityFile {folder}/key
    IdentityFile {folder}/none
    UserKnownHostsFile {folder}/one {folder}/two
    ProxyJump gate,me@fence:2201
Host alone
    IdentitiesOnly yes
    ProxyCommand nc %h %p
"""


@pytest.fixture(params=["ssh", "paramiko"])
def config(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration, read by OpenSSH and where there is none."""
    if request.param == "ssh" and shutil.which("ssh") is None:
        pytest.skip("needs ssh: apt-get install openssh-client")
    if request.param == "paramiko":
        monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "config"
    path.write_text(CONFIG.format(folder=tmp_path))
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    (tmp_path / "key").touch()
    return str(path)


def test_the_configuration_of_the_user_counts(config: str, tmp_path: Path) -> None:
    route = launcher._route("zoo", None, None, config)
    assert route.address == "hippo.example"
    assert (route.user, route.port, route.known_as) == ("keeper", 2200, "the-zoo")
    assert route.keys == [str(tmp_path / "key")]
    assert route.known_hosts[:2] == [tmp_path / "one", tmp_path / "two"]
    assert route.jumps == ["gate", "me@fence:2201"]
    assert not route.only
    assert not route.proxy
    alone = launcher._route("alone", None, None, config)
    assert alone.only
    assert alone.proxy.startswith("nc ")


def test_a_configuration_in_the_home_is_found(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert launcher._route("zoo", None, None, "~/config").address == "hippo.example"
    monkeypatch.setenv("SLEIGHEXEC_SSH_CONFIG", "~/config")
    assert launcher._route("zoo", None, None, None).address == "hippo.example"


def test_what_is_said_here_counts_more(config: str) -> None:
    route = launcher._route("zoo", "me", 22, config)
    assert (route.user, route.port) == ("me", 22)


def test_a_host_without_an_entry_is_reached_by_its_name(config: str) -> None:
    route = launcher._route("newt", None, None, config)
    assert (route.address, route.port, route.jumps) == ("newt", 22, [])
    assert route.user
    assert any(str(path).endswith("known_hosts") for path in route.known_hosts)


JUMPS = """\
Host zoo
    ProxyJump fence,gate
Host fence
    ProxyJump me@street:2200
Host gate
    ProxyJump nowhere
Host street
    ProxyCommand nc %h %p
Host left
    ProxyJump right
Host right
    ProxyJump left
"""


def test_the_first_jump_has_jumps_of_its_own(config: str) -> None:
    Path(config).write_text(JUMPS)
    hops = SSH("zoo", config=config)._hops()
    assert [name for name, _ in hops] == ["me@street:2200", "fence", "gate", "zoo"]
    assert hops[0][1].proxy.startswith("nc street ")
    assert hops[0][1].user == "me"


def test_jumps_that_lead_in_a_circle_are_refused(config: str) -> None:
    Path(config).write_text(JUMPS)
    with pytest.raises(errors.HostError, match=r"circle.*left, right, left"):
        SSH("left", config=config)._hops()


def test_a_password_that_would_be_asked_for_is_never_asked_for(tmp_path: Path) -> None:
    """No part of a launcher reads the terminal."""
    for path in Path(launcher.__file__).parent.glob("*.py"):
        assert "getpass(" not in path.read_text()
        assert "input(" not in path.read_text()


def test_a_link_that_is_killed_keeps_no_turn_and_waits_for_none() -> None:
    # Its thread may hang for good, as where an ssh agent does not answer.
    turns, hang = launcher.Turns(1), threading.Event()
    holding: queue.Queue[str] = queue.Queue()

    def connect(link: Link) -> SSHStreams:
        with turns.turn(link):
            holding.put(link.host)
            hang.wait(PATIENCE)
        raise OSError("too late")

    links = [Link("hippo", connect, b"", timeout=PATIENCE)]
    try:
        assert holding.get(timeout=PATIENCE) == "hippo"
        links += [Link(name, connect, b"", timeout=PATIENCE) for name in ("newt", "rhino")]
        links[1].kill()
        links[1].wait(PATIENCE)
        assert not links[2].settled.is_set()
        links[0].kill()
        assert holding.get(timeout=PATIENCE) == "rhino"
    finally:
        hang.set()
        for link in links:
            link.wait(PATIENCE)
            link.stream.close()
