"""A server that listens, under hostile peers: an honest client beside them is served.

Most of them meet a server in a process of its own, whose memory can be measured.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import sleighexec.server
import sleighexec.standalone
from sleighexec import NetWorkSpace, NwsServer, WorkspaceServer, dial, errors, messages, wire
from sleighexec.address import find
from sleighexec.limits import Limits
from sleighexec.session import CLIENT, Handshake
from tests.conftest import wait_for

pytestmark = pytest.mark.once


@pytest.fixture
def server(run_directory: Path) -> Iterator[WorkspaceServer]:
    with WorkspaceServer("127.0.0.1:0") as server:
        yield server


@pytest.fixture
def honest(server: WorkspaceServer) -> Iterator[NetWorkSpace]:
    """Counts to a hundred while others misbehave, and once more at the end."""
    with NetWorkSpace("honest", server=NwsServer(url=server.url)) as ws:
        count(ws)
        yield ws
        count(ws)
        with NwsServer(url=server.url) as late:  # a new one gets in too
            late.openWs("late").store("x", 1)


def count(ws: NetWorkSpace) -> None:
    for number in range(100):
        ws.store("n", number)
        assert ws.fetch("n", timeout=10) == number


def stranger(server: WorkspaceServer | Daemon) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


HOSTILE = {
    "garbage": b"\xff" * 500,
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 300,
    "pickle": b"\x80\x05\x95" + b"\x00" * 300,
    "a frame": b"".join(map(bytes, wire.encode(1, messages.ListWorkspaces()))) * 10,
    "a wrong answer": b"slx1\x01\x01" + b"\x00" * 200,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_stranger_with_rubbish_is_cut_off(
    server: WorkspaceServer, honest: NetWorkSpace, data: bytes
) -> None:
    with stranger(server) as sock:
        assert len(sock.recv(40)) == 40
        sock.sendall(data)
        got = b""
        while True:
            try:
                more = sock.recv(4096)
            except ConnectionError:
                break
            if not more:
                break
            got += more
        assert len(got) <= 40  # a refusal, never anything of the space


def test_silent_strangers_keep_nobody_out(server: WorkspaceServer, honest: NetWorkSpace) -> None:
    strangers = [stranger(server) for _ in range(100)]
    try:
        count(honest)
        with NwsServer(url=server.url) as other:
            assert "honest" in other.listWss()
    finally:
        for sock in strangers:
            sock.close()


def raw_client(server: WorkspaceServer | Daemon) -> socket.socket:
    """A socket that has passed the handshake and may say anything now."""
    sock = stranger(server)
    dial._shake_hands(sock, find(server.url), server.url)
    return sock


def test_a_peer_that_announces_too_much_is_cut_off_and_costs_no_memory(
    server: WorkspaceServer, honest: NetWorkSpace
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with raw_client(server) as sock:
        header = wire.HEADER.pack(2, 0, 1, 0, 1, 1, 0)
        sock.sendall(header + struct.pack("!Q", 2**63))
        assert sock.recv(100) == b""
    with raw_client(server) as sock:
        sock.sendall(wire.HEADER.pack(2, 0, 1, 0, 1, 1, 0) + struct.pack("!Q", 2**30))
        sock.sendall(b"x" * 1000)
        count(honest)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 50_000, f"grew by {grown} KiB"


def test_requests_with_wrong_fields_harm_only_their_sender(
    server: WorkspaceServer, honest: NetWorkSpace
) -> None:
    wrong = [
        messages.Open(5),  # type: ignore[arg-type]
        messages.Fetch(1, "text", count="many"),  # type: ignore[arg-type]
        messages.Fetch(1, (["list"],), 1),  # type: ignore[arg-type]
        messages.Find(1, ("x",), after=(1,)),  # type: ignore[arg-type]
        messages.Declare(1, 3, None),  # type: ignore[arg-type]
        messages.MakeTemporary(None),  # type: ignore[arg-type]
        messages.Results((messages.Payload(b"x"),)),
        messages.StopAgent(),
    ]
    for message in wrong:
        with raw_client(server) as sock:
            try:
                frame = b"".join(map(bytes, wire.encode(1, message)))
            except Exception:
                continue
            sock.sendall(frame)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
        count(honest)


def test_a_value_cut_short_is_not_stored(server: WorkspaceServer, honest: NetWorkSpace) -> None:
    store = messages.Store(honest._access.number, "cut", (messages.Payload(b"y" * 200_000),))
    frame = b"".join(map(bytes, wire.encode(1, store)))
    for length in (10, 40, 1000, 150_000, len(frame) - 1):
        with raw_client(server) as sock:
            sock.sendall(frame[:length])
    count(honest)
    assert honest.findTry("cut", "nothing") == "nothing"


def test_a_peer_that_does_not_read_stops_nobody_else(
    server: WorkspaceServer, honest: NetWorkSpace
) -> None:
    honest.store("big", b"z" * 1_000_000)
    with raw_client(server) as sock:
        find_it = wire.encode(1, messages.Find(honest._access.number, ("big",)))[0]
        sock.sendall(bytes(find_it) * 50)
        count(honest)
    wait_for(lambda: honest.find("big", timeout=5) is not None, "the value is still there")


# ------------------------------------------------------------------ a server of its own process

MB = 1024 * 1024


class Daemon:
    """`sleighexec server` as a user starts it."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "sleighexec", "server", "--bind", "127.0.0.1:0", "--json"]
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url: str = json.loads(self.process.stdout.readline())["url"]

    def memory(self) -> int:
        """Bytes in use now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])

    def seconds(self) -> float:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def close(self) -> str:
        """End it; what it had to say."""
        self.process.terminate()
        return self.process.communicate(timeout=10)[1]


StartDaemon = Callable[..., Daemon]


@pytest.fixture
def start(run_directory: Path) -> Iterator[StartDaemon]:
    daemons: list[Daemon] = []

    def start(*options: str) -> Daemon:
        daemons.append(Daemon(*options))
        return daemons[-1]

    yield start
    for daemon in daemons:
        if daemon.process.poll() is None:
            daemon.close()


@contextlib.contextmanager
def honest_client(daemon: Daemon) -> Iterator[NetWorkSpace]:
    """Counts before and after, and all the time meanwhile."""
    with NetWorkSpace("honest", server=NwsServer(url=daemon.url)) as ws:
        count(ws)
        stop, problems = threading.Event(), list[BaseException]()

        def go_on() -> None:
            try:
                while not stop.is_set():
                    ws.store("m", 1)
                    ws.fetch("m", timeout=10)
            except BaseException as error:
                problems.append(error)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield ws
        finally:
            stop.set()
            thread.join()
        assert problems == []
        count(ws)


def ends(sock: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while more := sock.recv(65536):
            got += more
    return got


def test_random_bytes_cost_no_memory_and_fill_no_log(start: StartDaemon) -> None:
    daemon, chance = start(), random.Random(1)
    with honest_client(daemon):
        before = daemon.memory()
        for number in range(300):
            connect = raw_client if number % 2 else stranger
            with connect(daemon) as sock, contextlib.suppress(OSError):  # it may be gone already
                sock.sendall(chance.randbytes(chance.randrange(1, 5000)))
                sock.shutdown(socket.SHUT_WR)
                ends(sock)
        grown = daemon.memory() - before
    assert grown < 20 * MB, f"grew by {grown} bytes"
    assert len(daemon.close().splitlines()) <= 2


def test_frames_that_announce_gigabytes_cost_two_megabytes_each_at_most(start: StartDaemon) -> None:
    daemon = start()
    sizes = struct.pack("!Q", 2**31)
    many = struct.pack("!Q", 2**21 - 1) * 1000
    deep = b"[" * 60_000
    announcements = [
        wire.HEADER.pack(2, 0, 1, 0, 1, 1, 0) + sizes + b"x" * 100,
        wire.HEADER.pack(2, 0, 1000, 0, 1, 1, 0) + many + b"x" * 100,
        wire.HEADER.pack(2, 0, 0xFFFF, wire.MAX_HEAD, 1, 1, 0),
        wire.HEADER.pack(12, 0, 0, len(deep), 1, 0, 0) + deep,
    ]
    with honest_client(daemon), contextlib.ExitStack() as open_ones:
        before = daemon.memory()
        for announcement in announcements * 20:
            open_ones.enter_context(raw_client(daemon)).sendall(announcement)
        time.sleep(0.3)  # so that it has read them all
        grown = daemon.memory() - before
    assert grown < 80 * wire.MAPPED, f"grew by {grown} bytes"


def test_strangers_that_drip_are_cut_off_in_time(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleighexec.server, "HANDSHAKE_SECONDS", 0.5)
    with WorkspaceServer("127.0.0.1:0") as server:
        strangers = [stranger(server) for _ in range(20)]
        for sock in strangers[::2]:
            sock.sendall(b"slx1\x01\x01")
        dripping = set(strangers)

        def drip() -> None:
            for sock in list(dripping):
                try:
                    sock.sendall(b"\0" if sock in strangers[::2] else b"")
                    sock.setblocking(False)
                    if sock.recv(100) == b"":
                        dripping.discard(sock)
                except BlockingIOError:
                    pass
                except ConnectionError:
                    dripping.discard(sock)

        def all_cut_off() -> bool:
            drip()
            return not dripping

        wait_for(all_cut_off, "the strangers are cut off", seconds=5)
        for sock in strangers:
            sock.close()
        with NwsServer(url=server.url) as other:
            other.openWs("w").store("x", 1)


def test_a_flood_of_strangers_is_kept_small_and_honest_clients_get_in(start: StartDaemon) -> None:
    daemon = start()
    with honest_client(daemon), contextlib.ExitStack() as open_ones:
        before = daemon.memory(), daemon.descriptors()
        for _ in range(500):
            open_ones.enter_context(stranger(daemon))
        with NwsServer(url=daemon.url) as late:
            assert "honest" in late.listWss()
        assert daemon.descriptors() - before[1] <= sleighexec.server.MAX_STRANGERS
        assert daemon.memory() - before[0] < 20 * MB


def test_a_client_too_many_is_told_so_and_gets_in_when_there_is_room(start: StartDaemon) -> None:
    daemon = start("--max-connections", "3")
    with honest_client(daemon):
        others = [NwsServer(url=daemon.url) for _ in range(2)]
        strangers = [stranger(daemon) for _ in range(5)]  # they take no honest client's place
        with pytest.raises(errors.ConnectError, match="higher --max-connections"):
            NwsServer(url=daemon.url)
        others.pop().close()
        wait_for(functools.partial(_gets_in, daemon), "there is room again")
        for thing in (*others, *strangers):
            thing.close()
    assert "there are 3 already" in daemon.close()


def _gets_in(daemon: Daemon) -> bool:
    try:
        NwsServer(url=daemon.url).close()
    except errors.ConnectError:
        return False
    return True


def test_out_of_descriptors_a_server_serves_tells_and_recovers(start: StartDaemon) -> None:
    daemon = start()
    with honest_client(daemon) as ws:
        limit = daemon.descriptors() + 5
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        clients = list[NwsServer]()
        with pytest.raises(errors.ConnectError, match="ulimit -n"):  # noqa: PT012 - one of them
            for _ in range(20):
                clients.append(NwsServer(url=daemon.url))
        count(ws)
        for client in clients:
            client.close()
        wait_for(functools.partial(_gets_in, daemon), "descriptors have come back")


def test_out_of_descriptors_a_server_does_not_spin(start: StartDaemon) -> None:
    daemon = start()
    limit = daemon.descriptors() + 2
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
    with contextlib.ExitStack() as open_ones:
        for _ in range(20):
            open_ones.enter_context(stranger(daemon))
        before = daemon.seconds()
        time.sleep(1)
        assert daemon.seconds() - before < 0.2


# ------------------------------------------------------------------ keys


def test_an_error_of_the_network_ends_no_server(
    server: WorkspaceServer, honest: NetWorkSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, original = [errno.ENOBUFS, errno.EHOSTUNREACH, errno.EPROTO], socket.socket.accept

    def accept(self: socket.socket) -> Any:
        if codes:
            raise OSError(codes.pop(), "what accept(2) may say")
        return original(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    with NwsServer(url=server.url) as late:
        late.openWs("late").store("x", 1)
    assert not codes


def test_a_wrong_key_or_channel_is_refused_and_learns_nothing(
    server: WorkspaceServer, honest: NetWorkSpace
) -> None:
    address = find(server.url)
    wrong = [
        Handshake(bytes(32), address.binding, role=CLIENT),
        Handshake(address.key, b"another channel", role=CLIENT),
    ]
    for handshake in wrong:
        with stranger(server) as sock:
            sock.sendall(handshake.feed(sock.recv(40)))
            refusal = ends(sock)
        with pytest.raises(errors.AuthenticationError):
            handshake.feed(refusal)
        assert refusal[5:] == bytes(35)


def test_what_was_overheard_opens_no_second_connection(
    server: WorkspaceServer, honest: NetWorkSpace
) -> None:
    """A whole session, bytes as they were sent, played once more."""
    address = find(server.url)
    handshake = Handshake(address.key, address.binding, role=CLIENT)
    open_it = wire.encode(1, messages.Open("replayed"))[0]
    with stranger(server) as sock:
        answer = handshake.feed(sock.recv(40))
        sock.sendall(answer + bytes(open_it))
        assert len(sock.recv(40)) == 40
        assert sock.recv(100)
    with stranger(server) as sock:
        sock.sendall(answer + bytes(open_it))
        assert len(ends(sock)) <= 80  # the hello and a refusal
    with NwsServer(url=server.url) as other:
        assert "replayed" not in other.listWss()


# ------------------------------------------------------------------ clients that know the key


def test_who_stores_without_end_is_refused_and_memory_stays(start: StartDaemon) -> None:
    daemon = start("--max-bytes", str(30 * MB))
    with (
        honest_client(daemon) as ws,
        NetWorkSpace("greedy", server=NwsServer(url=daemon.url)) as greedy,
    ):
        before = daemon.memory()
        with pytest.raises(errors.WorkspaceFullError, match="higher --max-bytes"):  # noqa: PT012
            for _ in range(1000):
                greedy.store("x", b"x" * 100_000)
        for _ in range(100):
            with pytest.raises(errors.WorkspaceFullError):
                greedy.store("x", b"x" * 1_000_000)
        assert daemon.memory() - before < 60 * MB
        ws.store("small", 1)
        assert greedy.fetch("x") == b"x" * 100_000
        greedy.store("x", b"x" * 100_000)


def test_many_small_values_count_with_what_they_cost(start: StartDaemon) -> None:
    daemon = start("--max-bytes", str(20 * MB))
    with honest_client(daemon) as ws, raw_client(daemon) as sock:
        before = daemon.memory()
        values = tuple(messages.Payload(b"x") for _ in range(1000))
        frame = b"".join(map(bytes, wire.encode(1, messages.Store(ws._access.number, "x", values))))
        decoder, replies = wire.Decoder(), list[object]()
        for _ in range(200):
            sock.sendall(frame)
            replies += decoder.feed(sock.recv(65536))
        assert "Failed('full'" in repr(replies) or "reason='full'" in repr(replies)
        assert daemon.memory() - before < 60 * MB


def test_output_for_who_never_reads_is_bounded(start: StartDaemon) -> None:
    daemon = start()
    with honest_client(daemon) as ws:
        ws.store("big", b"z" * 1_000_000)
        ws.store("small", b"z" * 10_000)
        for name, times in (("big", 2000), ("small", 40_000)):
            before = daemon.memory()
            with raw_client(daemon) as sock:
                find_it = bytes(wire.encode(1, messages.Find(ws._access.number, (name,)))[0])
                sock.setblocking(False)
                data = find_it * times
                deadline = time.monotonic() + 2  # by then nothing more is taken from it
                while data and time.monotonic() < deadline:
                    with contextlib.suppress(BlockingIOError):
                        data = data[sock.send(data) :]
                count(ws)
                grown = daemon.memory() - before
            assert grown < 120 * MB, f"{name}: grew by {grown} bytes"


@pytest.fixture
def strict(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkspaceServer]:
    """A server that has little patience with those who do not read."""
    strict = functools.partial(Limits, unsent_bytes=2 * MB, stall_seconds=0.5)
    monkeypatch.setattr(sleighexec.standalone, "Limits", strict)
    with WorkspaceServer("127.0.0.1:0") as server:
        yield server


def ask_often(sock: socket.socket, ws: NetWorkSpace, times: int) -> None:
    for tag in range(1, times + 1):
        sock.sendall(bytes(wire.encode(tag, messages.Find(ws._access.number, ("big",)))[0]))


def test_who_does_not_read_for_long_is_cut_off_and_what_it_holds_comes_back(
    strict: WorkspaceServer, caplog: pytest.LogCaptureFixture
) -> None:
    with NetWorkSpace("honest", server=NwsServer(url=strict.url)) as ws, raw_client(strict) as sock:
        ws.store("big", b"z" * 1_000_000)
        ws.store("lent", 1)
        fetch = messages.Fetch(ws._access.number, ("lent",), lend=True)
        sock.sendall(bytes(wire.encode(1, fetch)[0]))
        assert sock.recv(1000)
        ask_often(sock, ws, 50)
        with caplog.at_level(logging.WARNING, "sleighexec"):
            assert ws.fetch("lent", timeout=10) == 1
        assert "did not read its replies" in caplog.text


def test_a_slow_reader_gets_every_reply_in_order(strict: WorkspaceServer) -> None:
    with NetWorkSpace("honest", server=NwsServer(url=strict.url)) as ws, raw_client(strict) as sock:
        ws.store("big", b"z" * 100_000)
        ask_often(sock, ws, 200)
        time.sleep(0.2)  # so that it has to wait for us
        decoder, tags = wire.Decoder(), list[int]()
        while len(tags) < 200:
            got = sock.recv(300_000)
            assert got, "it was cut off"
            tags += [tag for tag, _ in decoder.feed(got)]
            time.sleep(0.002)
        assert tags == list(range(1, 201))


def test_a_client_that_half_closes_has_left(server: WorkspaceServer, honest: NetWorkSpace) -> None:
    honest.store("lent", 1)
    fetch = messages.Fetch(honest._access.number, ("lent",), lend=True)
    with raw_client(server) as sock:
        sock.sendall(bytes(wire.encode(1, fetch)[0]))
        assert sock.recv(1000)
        sock.shutdown(socket.SHUT_WR)
        assert honest.fetch("lent", timeout=10) == 1
        assert sock.recv(1000) == b""
