"""The command line, as a person or a script uses it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sleighexec import NetWorkSpace, NwsServer, Sleigh, SleighExecutor, WorkspaceServer, errors


def sleighexec(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sleighexec", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def server(run_directory: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "sleighexec", "server", "--bind", "127.0.0.1:0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_values_stored_by_one_command_are_there_for_the_next(server: str) -> None:
    ws = "ws", "--url", server
    assert sleighexec(*ws, "store", "room", "x", "[1, 'two']").returncode == 0
    assert sleighexec(*ws, "find", "room", "x").stdout == "[1, 'two']\n"
    assert sleighexec(*ws, "vars", "room").stdout == "x\t1\t0\t0\tfifo\n"
    listed = json.loads(sleighexec("ws", "--url", server, "--json", "list").stdout)
    assert listed["room"][5] == ["x"]
    assert sleighexec(*ws, "fetch", "room", "x").stdout == "[1, 'two']\n"
    late = sleighexec(*ws, "fetch", "room", "x", "--timeout", "0.1")
    assert (late.returncode, late.stdout) == (1, "")
    assert "no value came into 'x'" in late.stderr
    assert sleighexec(*ws, "delete", "room").returncode == 0
    assert "no workspace 'room'" in sleighexec(*ws, "vars", "room").stderr


def test_what_is_no_literal_is_stored_as_text(server: str) -> None:
    with NwsServer(url=server) as client:
        for text in ("{{1}}", "{[]: 1}", "1 +"):
            stored = sleighexec("ws", "--url", server, "store", "room", "x", text)
            assert (stored.returncode, stored.stderr) == (0, "")
            assert client.useWs("room").fetch("x", timeout=0) == text


def test_what_cannot_be_written_is_not_taken(server: str) -> None:
    ws = "ws", "--url", server
    sleighexec(*ws, "store", "room", "x", "1")
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "sleighexec", *ws, "fetch", "room", "x"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "No space left" in ended.stderr
    assert sleighexec(*ws, "fetch", "room", "x").stdout == "1\n"


def test_an_output_that_has_not_all_letters_shows_what_it_can(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    ws = "ws", "--url", server
    sleighexec(*ws, "store", "room", "Länge", "€")
    assert sleighexec(*ws, "vars", "room").stdout == "L\\xe4nge\t1\t0\t0\tfifo\n"
    assert sleighexec(*ws, "fetch", "room", "Länge").stdout == "'\\u20ac'\n"


def test_without_a_server_the_error_names_the_remedy(run_directory: Path) -> None:
    done = sleighexec("ws", "list")
    assert done.returncode == 1
    assert "start one with `sleighexec server`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "reach", [lambda: NwsServer("localhost"), lambda: Sleigh(nwsHost="localhost")]
)
def test_the_remedy_is_a_server_where_it_was_looked_for(run_directory: Path, reach: Any) -> None:
    remedy = "`sleighexec server --bind localhost:8765`"
    # The server that there is, at a Unix socket, is another one.
    with WorkspaceServer(), pytest.raises(errors.ConnectError, match=remedy):
        reach()


def test_the_connection_file_is_the_users_alone(run_directory: Path) -> None:
    with WorkspaceServer() as server:
        [file] = run_directory.glob("*.json")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert server.url.startswith("sleigh+unix://")
        with NetWorkSpace("x", server=NwsServer(url="unix")) as ws:
            ws.store("y", 1)
        with pytest.raises(OSError, match="runs at"):
            WorkspaceServer()
        file.chmod(0o644)
        with pytest.raises(errors.AuthenticationError, match="chmod"):
            NwsServer(url="unix")
    assert list(run_directory.iterdir()) == []


def test_a_server_listens_where_it_can_and_is_meant_to(run_directory: Path) -> None:
    with pytest.raises(ValueError, match="host:port"):
        WorkspaceServer("hippo")
    with pytest.raises(OSError):  # noqa: PT011 - not an address of this machine
        WorkspaceServer("192.0.2.1:0")
    with WorkspaceServer("0.0.0.0:0") as server:
        assert server.url.startswith(f"sleigh+tls://{socket.gethostname()}:")
    os.chmod(run_directory, 0o755)
    with pytest.raises(ValueError, match="chmod"):
        WorkspaceServer(str(run_directory / "s.sock"))


def test_a_wrong_key_is_refused_on_both_sides(run_directory: Path) -> None:
    with WorkspaceServer("127.0.0.1:0") as server:
        [file] = run_directory.glob("*.json")
        content = json.loads(file.read_text())
        content["key"] = "00" * 32
        file.write_text(json.dumps(content))
        with pytest.raises(errors.AuthenticationError, match="refused this key"):
            NwsServer(url=server.url)


def test_a_server_that_was_killed_leaves_nothing_in_the_way(run_directory: Path) -> None:
    command = [sys.executable, "-m", "sleighexec", "server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    with pytest.raises(errors.ConnectError, match="no workspace server answers"):
        NwsServer(url="unix")
    with WorkspaceServer(), NwsServer(url="unix") as client:
        assert client.listWss() == ""


def test_a_server_that_can_serve_nobody_does_not_stay(run_directory: Path) -> None:
    program = (
        "import sys; from sleighexec import cli, server\n"
        "def fail(self, timeout): raise LookupError('a bug')\n"
        "server.Server._prepare = fail\n"
        "sys.exit(cli.main(['server']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith("ended by an error: LookupError('a bug')")
    assert not list(run_directory.iterdir())


def test_the_doctor_finds_this_machine_well(run_directory: Path) -> None:
    run = sleighexec("doctor")
    assert run.returncode == 0, run.stdout
    lines = run.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    version = ".".join(map(str, sys.version_info[:3]))
    assert sum(f"Python {version}" in line for line in lines) == 2  # here, and in a worker


def test_the_doctor_says_what_is_wrong_with_a_host(run_directory: Path) -> None:
    with socket.socket() as nobody:  # it is bound, so that nobody else listens there
        nobody.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{nobody.getsockname()[1]}"
        run = sleighexec("doctor", "--json", host)
    assert run.returncode == 1
    *others, last = json.loads(run.stdout)
    assert all(finding["well"] for finding in others)
    assert last["check"] == f"a worker on {host}"
    assert not last["well"]
    assert "refused" in last["text"]


def test_the_doctor_sees_a_run_directory_that_others_may_read(run_directory: Path) -> None:
    run_directory.chmod(0o755)
    run = sleighexec("doctor")
    assert run.returncode == 1
    assert [line for line in run.stdout.splitlines() if line.startswith("FAIL run directory: ")]


WRONG = {  # what is asked for, and what the one line about it says
    "server --bind 127.0.0.1:99999": "a port is a number from 0 to 65535: '127.0.0.1:99999'",
    "server --bind 127.0.0.1:²": "an address to listen at is \"host:port\", not '127.0.0.1:²'",
    "server --bind nobody.invalid:0": "cannot listen at 'nobody.invalid:0': ",
    "server --max-bytes -1": "max_bytes must be at least 1, not -1",
    "server --max-bytes 0": "max_bytes must be at least 1, not 0",
    "server --max-connections 0": "max_connections must be at least 1, not 0",
    "worker sleigh+tls://host:99999": "'sleigh+tls://host:99999' is not the URL of a server: ",
    "worker http://host:1": "a server's URL begins with ",
    "status sleigh://127.0.0.1:99999": "'sleigh://127.0.0.1:99999' is not the URL of a server: ",
    "status sleigh://[::1:5": "'sleigh://[::1:5' is not the URL of a server: ",
    "monitor sleigh://127.0.0.1:0": "'sleigh://127.0.0.1:0' is not the URL of a server: ",
    "ws --url sleigh://127.0.0.1:x list": "'sleigh://127.0.0.1:x' is not the URL of a server: ",
}


@pytest.mark.parametrize("command", WRONG)
def test_what_cannot_be_is_refused_in_one_line(run_directory: Path, command: str) -> None:
    ended = sleighexec(*command.split())
    assert ended.returncode == 1
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert line.startswith("sleighexec: ")
    assert WRONG[command] in line
    assert not list(run_directory.iterdir())


def test_a_port_that_cannot_be_is_a_value_error(run_directory: Path) -> None:
    for port in (99999, 0, -1):
        with pytest.raises(ValueError, match=f"'sleigh://localhost:{port}' is not the URL"):
            NwsServer(port=port)
    with pytest.raises(ValueError, match="from 0 to 65535"):
        WorkspaceServer("127.0.0.1:99999")
    with SleighExecutor(1) as executor, pytest.raises(ValueError, match="from 0 to 65535"):
        executor.listen("127.0.0.1:99999")


@pytest.mark.parametrize("name", ["max_bytes", "max_connections"])
@pytest.mark.parametrize("most", [0, -1])
def test_a_limit_that_lets_nothing_in_is_refused(
    run_directory: Path, tmp_path: Path, name: str, most: int
) -> None:
    file = tmp_path / "store"
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not {most}"):
        WorkspaceServer(store=str(file), **{name: most})  # type: ignore[arg-type]
    assert not file.exists()


def test_what_is_no_address_is_a_type_error_and_a_path_is_one(run_directory: Path) -> None:
    with pytest.raises(TypeError, match='"host:port", not 7'):
        WorkspaceServer(7)  # type: ignore[arg-type]
    with SleighExecutor(1) as executor, pytest.raises(TypeError, match='"host:port", not 7'):
        executor.listen(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int"):
        NwsServer(url=7)  # type: ignore[arg-type]
    with WorkspaceServer("127.0.0.1:0"):
        [file] = run_directory.glob("*.json")
        with NwsServer(url=file) as server:
            assert server.listWss() == ""
