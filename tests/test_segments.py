"""Shared memory: no segment is in two places, and no array changes under who has it."""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sleighexec import (
    Local,
    NwsServer,
    SleighExecutor,
    WorkerLost,
    WorkspaceServer,
    current_worker,
    wire,
)
from sleighexec import segments as seg
from sleighexec.borrowing import Borrower
from sleighexec.client import SocketConnection
from sleighexec.dial import connect
from sleighexec.errors import ConnectionLostError
from sleighexec.messages import Abandon, Lease, Leased, Nothing, Open, Release, Reply
from sleighexec.segments import LEAST, Place, Pool, Shelf, unpack
from tests.conftest import alive, descriptors, wait_for

pytestmark = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="this system has no memory without a name"
)

PATIENCE = 60
SIZES = (LEAST, 3 * LEAST, 1024 * 1024)
A, B = "one user", "another"


@pytest.fixture
def pool() -> Iterator[Pool]:
    before = descriptors()
    pool = Pool()
    yield pool
    pool.close()
    gc.collect()
    assert descriptors() == before


def filled(size: int, value: int) -> memoryview:
    return memoryview(bytes([value]) * size)


def put(pool: Pool, size: int, value: int, whom: str = A) -> Place:
    """Put a buffer, whether or not such a size was there before."""
    place = pool.put(filled(size, value), whom) or pool.put(filled(size, value), whom)
    assert place is not None
    return place


# ------------------------------------------------------------------ the pool and the shelf


def test_a_size_that_comes_for_the_first_time_is_not_worth_a_segment(pool: Pool) -> None:
    assert pool.put(filled(LEAST, 1), A) is None
    assert pool.put(filled(LEAST, 1), A) is not None


def test_a_user_sees_what_was_put_and_may_write_to_it(pool: Pool) -> None:
    shelf = Shelf(os.getpid())
    buffer = shelf.buffer(unpack(put(pool, LEAST, 7).pack()))
    assert bytes(buffer) == bytes([7]) * LEAST
    buffer[0] = 1


def test_a_segment_is_used_again_when_its_buffer_has_died_and_not_before(pool: Pool) -> None:
    shelf = Shelf(os.getpid())
    first = put(pool, LEAST, 1)
    array: Any = numpy.frombuffer(shelf.buffer(first), "u1")
    assert shelf.give_back() == ([], [])
    second = put(pool, LEAST, 2)
    assert second.number != first.number
    del array
    assert shelf.give_back() == ([first.number], [])
    pool.give_back([first.number], A)
    assert put(pool, LEAST, 3).number == first.number


def test_a_result_goes_into_a_lent_segment_and_gives_it_back_when_it_dies(pool: Pool) -> None:
    shelf = Shelf(os.getpid())
    assert pool.lend(LEAST, A) is None
    place = pool.lend(LEAST, A)
    assert place is not None
    place = place._replace(size=LEAST - 5)
    shelf.put(filled(LEAST - 5, 9), place)
    result = pool.adopt(place, A)
    assert bytes(result) == bytes([9]) * (LEAST - 5)
    assert pool.grants(A) == []
    del result
    [again] = pool.grants(A)
    assert again.number == place.number
    shelf.grant([again])
    assert shelf.find(3 * LEAST) is None
    assert shelf.find(LEAST) == again._replace(size=LEAST)
    assert shelf.find(LEAST) is None


def test_nobody_can_show_a_segment_that_he_was_not_lent(pool: Pool) -> None:
    place = put(pool, LEAST, 1)
    for wrong in (place._replace(number=99), place._replace(size=2 * LEAST)):
        with pytest.raises(ValueError, match="was not lent"):
            pool.adopt(wrong, A)
    with pytest.raises(ValueError, match="was not lent"):
        pool.adopt(place, B)
    pool.give_back([place.number], B)  # it is not his to give
    assert put(pool, LEAST, 2).number != place.number


def test_buffers_that_are_kept_together_lie_behind_each_other(pool: Pool) -> None:
    sizes = [5, 0, LEAST, 64, 3 * LEAST + 1]
    data = [bytes([number]) * size for number, size in enumerate(sizes, 1)]
    kept = pool.keep(*data)
    assert kept is not None
    starts, end = seg.spread(sizes)
    assert all(start % seg.ALIGNED == 0 for start in starts)
    assert len(kept) == end
    place = seg.place_of(kept)
    assert place is not None
    seen = Shelf(os.getpid()).buffer(place)
    assert [bytes(seen[s : s + n]) for s, n in zip(starts, sizes)] == data
    assert seen.readonly


def test_a_constant_of_ones_own_is_written_to_unseen_until_its_owner_drops_it(pool: Pool) -> None:
    kept = pool.keep(filled(LEAST, 7))
    assert kept is not None
    place = seg.place_of(kept)
    assert place is not None
    shelf = Shelf(os.getpid())
    own, common, other = shelf.own(place), shelf.buffer(place), shelf.own(place)
    own[:] = filled(LEAST, 1)
    assert {bytes(view) for view in (kept, common, other)} == {bytes([7]) * LEAST}
    del kept
    pool.tidy()
    assert other[0] == 7
    with pytest.raises(FileNotFoundError):
        shelf.own(place)


def test_the_segments_of_a_lost_user_are_used_no_more(pool: Pool) -> None:
    place = put(pool, LEAST, 1)
    left_behind = Shelf(os.getpid()).buffer(place)
    pool.lost(A)
    pool.give_back([place.number], A)
    assert put(pool, LEAST, 2).number != place.number
    assert left_behind[0] == 1


def test_what_a_fork_can_see_is_not_written_to_again(pool: Pool) -> None:
    shelf = Shelf(os.getpid())
    place = put(pool, LEAST, 1)
    held = shelf.buffer(place)
    ours = pool.adopt(put(pool, LEAST, 2), A)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    del held, ours
    assert shelf.give_back() == ([], [place.number])
    pool.give_back([place.number], A, spoilt=True)
    assert not pool._free
    assert pool.grants(A) == []


def test_free_segments_are_few_and_all_of_them_bounded(pool: Pool, monkeypatch: Any) -> None:
    monkeypatch.setattr(seg, "FREE_LIMIT", 4 * LEAST)
    monkeypatch.setattr(seg, "LIMIT", 8 * LEAST)
    places = [put(pool, LEAST, n) for n in range(8)]
    assert pool.put(filled(LEAST, 0), A) is None
    pool.give_back([place.number for place in places], A)
    assert len(pool._free) == 4
    assert pool._bytes == 4 * LEAST


def test_a_constant_is_the_same_memory_for_all_and_read_only(pool: Pool) -> None:
    kept = pool.keep(bytes([5]) * LEAST)
    places = [pool.put(memoryview(kept), whom) for whom in (A, B)]
    assert places[0] == places[1] is not None
    view = Shelf(os.getpid()).buffer(places[0])
    assert view.readonly
    assert bytes(view) == bytes([5]) * LEAST


def test_a_constant_that_was_dropped_is_empty_for_who_comes_too_late(pool: Pool) -> None:
    kept = pool.keep(bytes(LEAST))
    place = pool.put(memoryview(kept), A)
    assert place is not None
    kept = None
    other = pool.keep(bytes(LEAST))  # it may get the same descriptor
    assert len(Shelf(os.getpid()).buffer(place)) == 0
    del other


def test_who_cannot_see_the_owners_memory_finds_out(pool: Pool) -> None:
    assert seg.reachable(*pool.probe())
    owner, descriptor, nonce = pool.probe()
    assert not seg.reachable(owner, descriptor, "00" * seg.NONCE)
    assert not seg.reachable(2**22 + 1, descriptor, nonce)
    with open(os.devnull) as other:
        assert not seg.reachable(owner, other.fileno(), nonce)


class PoolModel(RuleBasedStateMachine):
    """A pool and two users beside what each buffer should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool()
        self.shelves = {whom: Shelf(os.getpid()) for whom in (A, B)}
        self.value = 0
        self.held: list[tuple[str | None, memoryview, int]] = []  # whose (None: ours), and what

    def fresh(self) -> int:
        self.value = self.value % 250 + 1
        return self.value

    @rule(whom=st.sampled_from((A, B)), size=st.sampled_from(SIZES))
    def send(self, whom: str, size: int) -> None:
        value = self.fresh()
        place = self.pool.put(filled(size, value), whom)
        if place is not None:
            buffer = self.shelves[whom].buffer(unpack(place.pack()))
            self.held.append((whom, buffer, value))

    @rule(whom=st.sampled_from((A, B)), size=st.sampled_from(SIZES))
    def answer(self, whom: str, size: int) -> None:
        value, shelf = self.fresh(), self.shelves[whom]
        shelf.grant(self.pool.grants(whom))
        place = shelf.find(size) or self.pool.lend(size, whom)
        if place is not None:
            place = place._replace(size=size)
            shelf.put(filled(size, value), place)
            self.held.append((None, self.pool.adopt(unpack(place.pack()), whom), value))

    @rule(size=st.sampled_from(SIZES))
    def hold(self, size: int) -> None:
        buffer = self.pool.hold(size)
        if buffer is not None:
            value = self.fresh()
            buffer[:] = bytes([value]) * size
            self.held.append((None, buffer, value))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def drop(self, data: Any) -> None:
        del self.held[data.draw(st.integers(0, len(self.held) - 1))]

    @rule(whom=st.sampled_from((A, B)))
    def tell(self, whom: str) -> None:
        self.pool.give_back(self.shelves[whom].give_back()[0], whom)

    @rule(whom=st.sampled_from((A, B)))
    def vanish(self, whom: str) -> None:
        self.held = [each for each in self.held if each[0] != whom]
        self.shelves[whom] = Shelf(os.getpid())
        self.pool.lost(whom)

    @invariant()
    def everybody_has_what_was_meant_for_him(self) -> None:
        for _, buffer, value in self.held:
            assert buffer[0] == buffer[-1] == value

    @invariant()
    def the_bytes_are_counted(self) -> None:
        pool = self.pool
        pool._collect()
        lent = [segment for segment, _ in (*pool._lent.values(), *pool._ours.values())]
        assert pool._bytes == sum(each.capacity for each in (*pool._free.values(), *lent))

    def teardown(self) -> None:
        self.held.clear()
        self.shelves.clear()
        self.pool.close()
        gc.collect()


TestPoolModel = pytest.mark.once(PoolModel.TestCase)
TestPoolModel.settings = settings(max_examples=30, stateful_step_count=40)


# ------------------------------------------------------------------ calls


def ones(count: int) -> Any:
    return numpy.ones(count)


def add_one(array: Any) -> Any:
    array += 1
    return array


def test_arrays_there_and_back_are_exact_and_writable() -> None:
    with SleighExecutor(2) as executor:
        for number in range(12):
            size = (10_000, 300_000, 1_000_000)[number % 3]
            array = numpy.full(size, float(number))
            result = executor.submit(add_one, array).result(PATIENCE)
            assert (result == number + 1).all()
            assert (array == number).all()
            result[0] = 5
        assert executor._engine.server._pool._bytes > 0  # type: ignore[attr-defined]


def test_results_that_are_kept_stay_what_they_are() -> None:
    with SleighExecutor(3) as executor:
        futures = [executor.submit(numpy.full, 20_000 + 7 * n, n) for n in range(200)]
        results = [future.result(PATIENCE) for future in futures]
        list(executor.map(ones, [20_000] * 100))
        assert all(len(r) == 20_000 + 7 * n and (r == n).all() for n, r in enumerate(results))
    assert all((r == n).all() for n, r in enumerate(results))  # also when the executor is gone


def test_what_a_task_keeps_stays_what_it_is() -> None:
    def keep(number: int, array: Any) -> None:
        current_worker().state.setdefault("kept", []).append((number, array))

    def check() -> int:
        kept = current_worker().state.get("kept", [])
        return sum(bool((array == number).all()) for number, array in kept)

    with SleighExecutor(2) as executor:
        for future in [executor.submit(keep, n, numpy.full(20_000, n)) for n in range(60)]:
            future.result(PATIENCE)
        list(executor.map(ones, [20_000] * 50))
        assert sum(executor.eachWorker(check)) == 60


def test_calls_with_arrays_of_all_sizes_at_once() -> None:
    """Results are kept and dropped in any order, while others arrive."""
    choose = random.Random(7)
    kept: dict[int, Any] = {}
    with SleighExecutor(3) as executor:
        futures = {}
        for number in range(300):
            size = choose.choice((5_000, 9_000, 60_000, 130_000, 500_000))
            futures[number] = executor.submit(add_one, numpy.full(size, number))
            if len(futures) > 12:
                oldest = next(iter(futures))
                kept[oldest] = futures.pop(oldest).result(PATIENCE)
            if len(kept) > 20:
                array = kept.pop(choose.choice(list(kept)))
                del array
            assert all((array[::100] == n + 1).all() for n, array in kept.items())


def test_a_fork_of_a_task_and_of_the_caller_keep_what_they_see() -> None:
    def fork(array: Any, read: int, write: int) -> int:
        """A child that looks at the array when others have long been sent."""
        pid = os.fork()
        if pid == 0:
            os.read(read, 1)
            os._exit(0 if (array == 1).all() else 1)
        current_worker().state["child"] = pid
        return pid

    def wait() -> int:
        return os.waitstatus_to_exitcode(os.waitpid(current_worker().state["child"], 0)[1])

    def fork_with_pipe(array: Any) -> None:
        read, write = os.pipe()
        fork(array, read, write)
        current_worker().state["pipe"] = write

    def go() -> None:
        os.write(current_worker().state["pipe"], b"!")

    with SleighExecutor(1) as executor:
        for _ in range(3):
            executor.submit(len, numpy.zeros(50_000)).result(PATIENCE)
        executor.submit(fork_with_pipe, numpy.ones(50_000)).result(PATIENCE)
        result = executor.submit(ones, 50_000).result(PATIENCE)
        pid = os.fork()
        if pid == 0:
            os._exit(0 if (result == 1).all() else 1)
        del result
        for _ in range(5):
            executor.submit(add_one, numpy.zeros(50_000)).result(PATIENCE)
        executor.submit(go).result(PATIENCE)
        assert executor.submit(wait).result(PATIENCE) == 0
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_killed_worker_costs_its_segments_and_nothing_else() -> None:
    def die(array: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with SleighExecutor(2) as executor:
        array = numpy.ones(100_000)
        kept = [executor.submit(ones, 100_000).result(PATIENCE) for _ in range(3)]
        for _ in range(4):
            with pytest.raises(WorkerLost):
                executor.submit(die, array).result(PATIENCE)
            assert (executor.submit(add_one, array).result(PATIENCE) == 2).all()
        pool = executor._engine.server._pool  # type: ignore[attr-defined]
        workers = {worker.pid for worker in executor.workers()}
        wait_for(lambda: all(map(alive, workers)), "the workers are there")
        assert len(pool._lent) <= 2 * 2 * seg.MAX_GRANTS
    assert all((each == 1).all() for each in kept)


def test_a_shared_value_is_in_memory_once_for_all_workers() -> None:
    def where(table: Any) -> set[str]:
        assert not table.flags.writeable
        assert table[0] == 1
        address = table.__array_interface__["data"][0]
        found = set()
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, _, _, _, inode, *_ = line.split()
            start, end = (int(part, 16) for part in span.split("-"))
            if start <= address < end:
                found.add(inode)
        return found

    with SleighExecutor(2) as executor:
        table = executor.share(numpy.ones(300_000))
        first, second = executor.eachWorker(where, table)
        assert first == second
        assert len(first) == 1


def test_without_shared_memory_everything_is_as_it_was() -> None:
    with SleighExecutor(launcher=Local(2, shared_memory=False)) as executor:
        for _ in range(3):
            assert (executor.submit(add_one, ones(100_000)).result(PATIENCE) == 2).all()
        assert executor._engine.server._pool is None  # type: ignore[attr-defined]


def test_a_connection_that_nobody_holds_goes_with_what_it_borrowed(run_directory: Path) -> None:
    with WorkspaceServer("unix") as server:
        connection = connect(server.url)
        connection.call(Open("x"))
        while connection.memory is None:
            connection.pump(PATIENCE)
        gone = weakref.ref(connection), weakref.ref(connection.memory)
        gc.disable()
        try:
            connection.close()
            del connection
            assert [reference() for reference in gone] == [None, None]
        finally:
            gc.enable()


def test_arrays_through_the_workspace_are_exact() -> None:
    def double() -> None:
        workspace = current_worker().workspace
        workspace.store("back", workspace.fetch("there") * 2)

    with SleighExecutor(1) as executor:
        for number in range(5):
            array = numpy.full(100_000, float(number))
            executor.workspace.store("there", array)
            array[:] = -1
            executor.submit(double)
            found = executor.workspace.find("back", timeout=PATIENCE)
            found[0] = -1
            assert (executor.workspace.fetch("back") == 2 * number).all()


def test_no_descriptor_and_no_memory_is_left_of_an_executor() -> None:
    def shared() -> int:
        status = Path("/proc/self/smaps").read_text()
        return sum(line.startswith("/memfd:sleighexec") for line in status.splitlines()) or sum(
            "memfd:sleighexec" in line for line in status.splitlines()
        )

    before = descriptors(), shared()
    for _ in range(3):
        with SleighExecutor(2) as executor:
            for _ in range(4):
                executor.submit(add_one, ones(100_000)).result(PATIENCE)
    gc.collect()
    assert (descriptors(), shared()) == before


def test_a_result_of_one_call_may_be_the_argument_of_the_next() -> None:
    with SleighExecutor(2) as executor:
        array = numpy.zeros(200_000)
        for _ in range(20):
            array = executor.submit(add_one, array).result(PATIENCE)
        assert (array == 20).all()


# ------------------------------------------------------------------ a workspace server


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[WorkspaceServer, NwsServer]]:
    tmp_path.chmod(0o700)
    with WorkspaceServer(str(tmp_path / "s")) as server, NwsServer(url=server.url) as client:
        yield server, client


def segments_of(server: WorkspaceServer) -> Pool:
    pool = server._server._pool
    assert pool is not None
    return pool


def test_arrays_of_a_workspace_server_travel_in_its_memory(
    served: tuple[WorkspaceServer, NwsServer],
) -> None:
    server, client = served
    workspace = client.openWs("arrays")
    for number in range(5):
        array = numpy.full(100_000, number)
        workspace.store("x", array)
        array[:] = -1
        found = workspace.find("x")
        fetched = workspace.fetch("x")
        found[0] = -2
        assert fetched[0] == number
        assert (fetched[1:] == number).all()
        fetched[:] = -3
        assert (found[1:] == number).all()
    pool = segments_of(server)
    assert pool._lent, "the last arrays lie in segments"
    assert len(pool._free) + len(pool._lent) + len(pool._ours) <= 5, "they are used again"


def test_an_array_outlives_its_workspace_server(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with WorkspaceServer(str(tmp_path / "s")) as server, NwsServer(url=server.url) as client:
        workspace = client.openWs("arrays")
        for number in range(3):
            workspace.store("x", numpy.full(100_000, number))
            fetched = workspace.fetch("x")
    fetched[0] = 7
    assert fetched.sum() == 7 + 99_999 * 2


def test_values_that_wait_in_segments_survive_who_stored_them(
    served: tuple[WorkspaceServer, NwsServer],
) -> None:
    server, client = served
    workspace = client.openWs("arrays")
    code = f"""
import numpy, os, sys
from sleighexec import NwsServer
workspace = NwsServer(url={server.url!r}).useWs("arrays")
for number in range(6):
    workspace.store("x", numpy.full(100_000, number))
kept = workspace.find("x")
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE).returncode == -9
    pool = segments_of(server)
    assert len(pool._ours) >= 4, "all but the first of a size are in segments"
    wait_for(lambda: not pool._lent, "the segments of who was killed are not lent", PATIENCE)
    for number in range(6):
        assert (workspace.fetch("x") == number).all()


def test_many_threads_share_the_segments_of_one_connection(
    served: tuple[WorkspaceServer, NwsServer],
) -> None:
    _, client = served
    workspace = client.openWs("arrays")

    def work(name: str) -> int:
        for number in range(30):
            workspace.store(name, numpy.full(20_000 + 1_000 * (number % 3), number))
            if not (workspace.fetch(name) == number).all():
                return number
        return -1

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, "abcd")) == [-1] * 4


def test_who_comes_over_tcp_gets_no_offer() -> None:
    with WorkspaceServer("127.0.0.1:0") as server, NwsServer(url=server.url) as client:
        workspace = client.openWs("arrays")
        for number in range(3):
            workspace.store("x", numpy.full(100_000, number))
            assert (workspace.fetch("x") == number).all()
        assert server._server._pool is None


class Lender:
    """Has a segment when it is to have one, and counts who asks."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.asked, self.has = pool, 0, False

    def call(self, request: Lease) -> Reply:
        self.asked += 1
        place = self.pool.lend(request.size, A) if self.has else None
        return Nothing() if place is None else Leased(tuple(place))


def test_who_gets_no_segment_several_times_asks_less_often(pool: Pool) -> None:
    lender = Lender(pool)
    borrower = Borrower(lender, os.getpid())  # type: ignore[arg-type]
    view = filled(LEAST, 1)
    assert [borrower.put(view) for _ in range(500)] == [None] * 500
    assert 30 < lender.asked < 50
    pool.lend(LEAST, A)  # what comes for the first time gets none
    lender.has = True
    assert sum(borrower.put(view) is not None for _ in range(40)) >= 25
    lender.has, lender.asked = False, 0
    assert [borrower.put(view) for _ in range(2)] == [None] * 2
    assert lender.asked == 2, "what was is forgotten"
    for _ in range(20):
        borrower.put(view)
    pool.lend(LEAST, A)
    borrower.grant([pool.lend(LEAST, A)])
    assert borrower.put(view) is not None


def test_a_segment_that_comes_when_nobody_waits_for_it_any_more_is_given_back() -> None:
    ours, theirs = socket.socketpair()
    connection = SocketConnection(ours)
    with theirs:
        tag = connection.post(Lease(LEAST))
        connection._give_up(tag)
        for piece in wire.encode(tag, Leased((7, 1, 2, 0, LEAST, LEAST))):
            theirs.send(piece)
        connection.pump(PATIENCE)
        sent = [message for _, message in wire.Decoder().feed(theirs.recv(4096))]
        connection.close()
    assert sent == [Lease(LEAST), Abandon(tag), Release((7,))]


def test_giving_back_to_a_peer_that_is_gone_blocks_nobody() -> None:
    ours, theirs = socket.socketpair()
    connection = SocketConnection(ours)
    tag = connection.post(Lease(LEAST))
    connection._give_up(tag)
    for piece in wire.encode(tag, Leased((7, 1, 2, 0, LEAST, LEAST))):
        theirs.send(piece)
    theirs.close()
    connection.pump(PATIENCE)
    with pytest.raises(ConnectionLostError):
        connection.pump(PATIENCE)
    connection.close()
