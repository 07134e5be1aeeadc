"""Sockets over two streams: what arrives, in which order, and how much may wait."""

from __future__ import annotations

import array
import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sleighexec import relay as relaying
from sleighexec.channels import CONTROL, OUTPUT, WINDOW
from sleighexec.relay import BEAT, CHUNK, CLOSE, DATA, FRAME, OPEN, Relay
from sleighexec.streams import Pipes, Stream
from sleighexec.tls import Certificate, TlsSocket, reach
from sleighexec.tlsstream import TlsStream
from tests.conftest import wait_for

PATIENCE = 10


Ended = Callable[[], object]  # closes a stream as its process does when it ends


def piped() -> Iterator[tuple[Stream, Ended]]:
    """The near stream of a link and the far one: two pipes."""
    down, up = os.pipe(), os.pipe()
    for read, write in ((up[0], down[1]), (down[0], up[1])):
        yield Pipes(read, write), partial(close, read, write)


def close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def encrypted() -> Iterator[tuple[Stream, Ended]]:
    """…a TCP connection with TLS. The near one has heard the first words of the other already."""
    certificate = Certificate()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = socket.create_connection(listener.getsockname())
        here, _ = listener.accept()
    near = TlsSocket(here, certificate.context, server_side=True)
    near.settimeout(PATIENCE)
    shaking = threading.Thread(target=near.shake_hands)
    shaking.start()
    far = reach(there, certificate.fingerprint, PATIENCE)
    shaking.join()
    far.sendall(b"!" + FRAME.pack(BEAT, 0, 0))
    assert near.recv(1) == b"!"
    begun = near.recv(4)
    assert near.pending() == FRAME.size - 4  # where no poll sees it
    for stream in (TlsStream(near, begun), TlsStream(far, b"")):
        yield stream, stream.close


class Ends:
    """Both ends of a link in this process, and the sockets that the engine and the agent hold."""

    def __init__(self, streams: Iterable[tuple[Stream, Ended]]) -> None:
        (near_stream, near_ended), (far_stream, far_ended) = streams
        prints, shown = os.pipe(), os.pipe()
        self.engine, near = socket.socketpair()
        self.agent, far = socket.socketpair()
        for sock in (self.engine, self.agent):
            sock.settimeout(PATIENCE)
        self.near = Relay(near_stream, near, shown[1], far=False)
        self.far = Relay(far_stream, far, prints[0], far=True)
        self.prints, self.shown = prints[1], shown[0]
        self._descriptors = [*prints, *shown]
        self._near_control = near
        self._threads = [
            threading.Thread(target=self._serve, args=(end, ended))
            for end, ended in ((self.near, near_ended), (self.far, far_ended))
        ]
        for thread in self._threads:
            thread.start()
        self.sockets = [self.engine, self.agent]

    def _serve(self, end: Relay, ended: Ended) -> None:
        end.serve()
        ended()

    def channel(self) -> tuple[socket.socket, socket.socket]:
        """A new one: the engine's end and the end that came to the agent."""
        ours, theirs = socket.socketpair()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))]
        self.engine.sendmsg([b"start"], rights)
        theirs.close()
        data, descriptors, *_ = socket.recv_fds(self.agent, 5, 1)
        assert data == b"start"
        far = socket.socket(fileno=descriptors[0])
        for sock in (ours, far):
            sock.settimeout(PATIENCE)
        self.sockets += [ours, far]
        return ours, far

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self._near_control.close()
        for descriptor in self._descriptors:
            os.close(descriptor)


@pytest.fixture(params=[piped, encrypted], ids=["pipes", "tls"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    ends = Ends(request.param())
    yield ends
    ends.close()


def receive(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = sock.recv(count - len(data))
        assert more, f"it ended after {len(data)} of {count} bytes"
        data += more
    return bytes(data)


def test_bytes_arrive_in_both_directions_however_they_are_cut(ends: Ends) -> None:
    randoms = random.Random(1)
    pairs = [ends.channel() for _ in range(3)]
    sent = [randoms.randbytes(3 * WINDOW + 17) for _ in range(6)]
    ways = [way for ours, theirs in pairs for way in ((ours, theirs), (theirs, ours))]
    got: dict[int, bytes] = {}

    def read(number: int) -> None:
        got[number] = receive(ways[number][1], len(sent[number]))

    def write(number: int) -> None:
        data = memoryview(sent[number])
        while data:
            size = randoms.choice([1, 100, CHUNK, 5 * CHUNK])
            ways[number][0].sendall(data[:size])
            data = data[size:]

    works = [threading.Thread(target=w, args=(n,)) for n in range(6) for w in (read, write)]
    for work in works:
        work.start()
    for work in works:
        work.join(30)
    assert [got[number] for number in range(6)] == sent


def test_what_is_closed_on_one_side_ends_on_the_other_after_its_last_bytes(ends: Ends) -> None:
    ours, theirs = ends.channel()
    theirs.sendall(b"x" * 300_000)
    theirs.close()
    assert receive(ours, 300_000) == b"x" * 300_000
    assert ours.recv(1) == b""
    ours, theirs = ends.channel()
    ours.close()
    assert theirs.recv(1) == b""


def test_a_channel_that_nobody_reads_holds_up_no_other_and_a_bounded_amount(ends: Ends) -> None:
    stuck, theirs = ends.channel()
    other, others = ends.channel()
    theirs.setblocking(False)
    pushed, last = 0, time.monotonic()
    while time.monotonic() - last < 0.3:
        try:
            pushed += theirs.send(bytes(CHUNK))
            last = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
    assert WINDOW <= pushed < 2 * WINDOW
    others.sendall(b"hello")
    assert receive(other, 5) == b"hello"
    ends.agent.sendall(b"started")
    theirs.setblocking(True)
    assert len(receive(stuck, pushed)) == pushed
    assert receive(ends.engine, 7) == b"started"


def test_many_channels_that_are_all_busy_have_their_turns(ends: Ends) -> None:
    pairs = [ends.channel() for _ in range(30)]
    data = random.Random(5).randbytes(300_000)
    senders = [threading.Thread(target=theirs.sendall, args=(data,)) for _, theirs in pairs]
    for sender in senders:
        sender.start()
    for ours, _ in reversed(pairs):  # the first ones are not read for long
        assert receive(ours, len(data)) == data
    for sender in senders:
        sender.join(PATIENCE)
    for ours, theirs in pairs:  # and each message finds its way among channels that are quiet
        ours.sendall(b"ping")
        assert receive(theirs, 4) == b"ping"
        theirs.sendall(b"pong")
        assert receive(ours, 4) == b"pong"


def test_files_take_the_place_of_pipes(tmp_path: Path) -> None:
    """No `epoll` waits for a file."""
    words = FRAME.pack(BEAT, 0, 0) + FRAME.pack(DATA, OUTPUT, 5) + b"shown"
    (tmp_path / "in").write_bytes(words + FRAME.pack(DATA, CONTROL, 2) + b"ok")
    engine, control = socket.socketpair()
    with (
        engine,
        control,
        open(tmp_path / "in", "rb") as read,
        open(tmp_path / "out", "wb") as write,
        open(tmp_path / "shown", "wb") as shown,
    ):
        relay = Relay(Pipes(read.fileno(), write.fileno()), control, shown.fileno(), far=False)
        assert relay.serve() == "the connection ended"
        assert receive(engine, 2) == b"ok"
    assert (tmp_path / "shown").read_bytes() == b"shown"
    assert FRAME.unpack_from((tmp_path / "out").read_bytes())[0] == BEAT


def test_what_the_agent_says_comes_after_what_its_workers_wrote_before(ends: Ends) -> None:
    """Else a result that came in time would count as lost with its worker."""
    ours, theirs = ends.channel()
    size, count, exited = WINDOW, 0, threading.Event()

    def read_slowly() -> None:
        nonlocal count
        while not exited.is_set():
            with contextlib.suppress(TimeoutError):
                count += len(ours.recv(CHUNK // 4))
            time.sleep(0.001)

    ours.settimeout(0.01)
    reader = threading.Thread(target=read_slowly)
    reader.start()
    theirs.sendall(bytes(size))
    ends.agent.sendall(b"exited")
    assert receive(ends.engine, 6) == b"exited"
    exited.set()
    reader.join()
    ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):  # what an engine reads before it buries a worker
        while True:
            count += len(ours.recv(CHUNK))
    assert count == size


def test_prints_come_out_here(ends: Ends) -> None:
    os.write(ends.prints, b"hello\n")
    assert os.read(ends.shown, 100) == b"hello\n"


def test_when_the_engine_hangs_up_all_over_there_ends(ends: Ends) -> None:
    _, theirs = ends.channel()
    ends.engine.close()
    assert theirs.recv(1) == b""
    assert ends.agent.recv(1) == b""


def test_when_the_agent_ends_its_last_words_arrive(ends: Ends) -> None:
    ours, theirs = ends.channel()
    theirs.sendall(b"r" * 500_000)
    theirs.close()
    ends.agent.sendall(b"w" * 50_000)
    ends.agent.close()
    assert receive(ours, 500_000) == b"r" * 500_000
    assert receive(ends.engine, 50_000) == b"w" * 50_000
    ends._threads[0].join(PATIENCE)
    assert ends.near.reason == "the connection ended"


# ---------------------------------------------------------------------- a bad other side


class Stranger:
    """A near end whose other side is ours to play."""

    def __init__(self, *, far: bool = False) -> None:
        self.theirs, mine = socket.socketpair()
        self.engine, control = socket.socketpair()
        self._open = [mine, control]
        self.relay = Relay(Pipes(mine.fileno(), mine.fileno()), control, 1, far=far)
        self.thread = threading.Thread(target=self.relay.serve)

    def close(self) -> None:
        for sock in (self.theirs, self.engine):
            sock.close()
        self.thread.join(PATIENCE)
        for sock in self._open:
            sock.close()


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    stranger = Stranger()
    yield stranger
    stranger.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 12,
        b"GET / HTTP/1.1\r\n\r\n",
        FRAME.pack(DATA, 0, CHUNK + 1),
        FRAME.pack(OPEN, 2, 0),  # only an engine opens channels
        FRAME.pack(CLOSE, 0, 0),
        b"".join(FRAME.pack(DATA, 0, CHUNK) + bytes(CHUNK) for _ in range(WINDOW // CHUNK + 8)),
    ],
    ids=["zeros", "http", "too long", "open", "close the agent", "more than asked for"],
)
def test_a_stranger_at_the_other_end_ends_the_link(stranger: Stranger, data: bytes) -> None:
    stranger.thread.start()
    stranger.theirs.settimeout(0.5)
    with contextlib.suppress(OSError):  # it may hang up in the midst of it
        stranger.theirs.sendall(data)
    stranger.thread.join(PATIENCE)
    assert "broke" in stranger.relay.reason


def test_the_last_words_of_who_takes_nothing_any_more_are_heard(stranger: Stranger) -> None:
    stranger.thread.start()
    stranger.theirs.shutdown(socket.SHUT_RD)
    stranger.engine.sendall(b"for nobody")
    time.sleep(0.1)
    stranger.theirs.sendall(FRAME.pack(DATA, 0, 2) + b"ok")
    assert receive(stranger.engine, 2) == b"ok"
    stranger.theirs.close()
    stranger.thread.join(PATIENCE)
    assert not stranger.thread.is_alive()


def test_who_takes_nothing_and_does_not_end_is_given_up(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "END_SECONDS", 0.3)
    monkeypatch.setattr(relaying, "BEAT_SECONDS", 0.2)
    stranger.theirs.shutdown(socket.SHUT_RD)
    stranger.thread.start()
    stranger.thread.join(PATIENCE)
    assert "broke" in stranger.relay.reason


def test_frames_for_channels_that_are_gone_do_no_harm(stranger: Stranger) -> None:
    stranger.thread.start()
    stranger.theirs.sendall(FRAME.pack(DATA, 9, 3) + b"abc" + FRAME.pack(CLOSE, 9, 0))
    stranger.theirs.sendall(FRAME.pack(DATA, 0, 2) + b"ok")
    assert receive(stranger.engine, 2) == b"ok"


def test_silence_ends_a_link_but_not_before_the_first_sign(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "NEAR_PATIENCE", 0.5)
    monkeypatch.setattr(relaying, "BEAT_SECONDS", 0.2)
    stranger.thread.start()
    for _ in range(4):  # it beats itself all the time
        assert FRAME.unpack(receive(stranger.theirs, FRAME.size))[0] == BEAT
    assert not stranger.relay.reason
    stranger.theirs.sendall(FRAME.pack(BEAT, 0, 0))
    began = time.monotonic()
    wait_for(lambda: stranger.relay.reason, "it ends")
    assert "no sign" in stranger.relay.reason
    assert time.monotonic() - began < 5


def test_a_side_that_was_late_itself_calls_nobody_silent(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a Ctrl-Z, or a minute in C code that keeps the interpreter."""
    monkeypatch.setattr(relaying, "NEAR_PATIENCE", 0.5)
    monkeypatch.setattr(relaying, "BEAT_SECONDS", 0.2)
    now = time.monotonic
    skip = [0.0]

    class Clock:
        monotonic = staticmethod(lambda: now() + skip[0])

    monkeypatch.setattr(relaying, "time", Clock)
    stranger.thread.start()
    stranger.theirs.sendall(FRAME.pack(BEAT, 0, 0) + FRAME.pack(DATA, 0, 2) + b"ok")
    assert receive(stranger.engine, 2) == b"ok"
    skip[0] = 60.0
    stranger.theirs.sendall(FRAME.pack(BEAT, 0, 0) + FRAME.pack(DATA, 0, 2) + b"ok")
    assert receive(stranger.engine, 2) == b"ok"
    assert not stranger.relay.reason
