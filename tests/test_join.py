"""Machines that join a pool by themselves: they come late, leave politely, or are lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sleighexec import (
    Local,
    NwsServer,
    SleighExecutor,
    TaskTimeoutError,
    WorkerLost,
    current_worker,
    errors,
    introduction,
)
from sleighexec.address import connection_file, find
from sleighexec.dial import connect, reach
from sleighexec.engines import joining
from sleighexec.importer import MINOR
from sleighexec.session import CLIENT, MONITOR, WORKER
from sleighexec.version import __version__
from tests.conftest import alive, stay_in_c_code, wait_for

pytestmark = pytest.mark.once

PATIENCE = 30
WORKER_COMMAND = [sys.executable, "-m", "sleighexec", "worker"]


class Machine:
    """A process that runs `sleighexec worker`."""

    def __init__(self, where: str, *words: str, stdin: str | None = None) -> None:
        self.process = subprocess.Popen(
            [*WORKER_COMMAND, where, *words],
            stdin=None if stdin is None else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if stdin is not None:
            assert self.process.stdin is not None
            self.process.stdin.write(stdin)
            self.process.stdin.close()
        self.said = ""
        self._reader = threading.Thread(target=self._read, name="test-reader")
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line

    def joined(self) -> Machine:
        wait_for(lambda: "joined" in self.said, f"it did not join: {self.said}", PATIENCE)
        return self

    def ended(self) -> int:
        status = self.process.wait(PATIENCE)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status

    def __enter__(self) -> Machine:
        return self.joined()

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.ended()


@pytest.fixture
def url(run_directory: Path, executor: SleighExecutor) -> str:
    return executor.listen()


def family() -> tuple[int, int, int]:
    """Rank, process id and that of the agent."""
    return current_worker().rank, os.getpid(), os.getppid()


def on_rank(executor: SleighExecutor, rank: int) -> tuple[int, int, int]:
    found: tuple[int, int, int] = executor.eachWorker(family)[rank]
    return found


def when_there(path: Path) -> int:
    wait_for(path.exists, "nobody opened the gate", PATIENCE)
    return current_worker().rank


def hold(executor: SleighExecutor, ranks: int, path: Path) -> list[Any]:
    """Keep all workers busy until there is a file of this path."""
    futures = [executor.submit(when_there, path) for _ in range(ranks)]
    wait_for(lambda: all(future.running() for future in futures), "they do not run")
    states = {worker.rank: worker.state for worker in executor.workers()}
    assert states == dict.fromkeys(range(ranks), "busy")
    return futures


# ------------------------------------------------------------------ they come


def test_a_machine_that_joins_has_ranks_of_its_own(executor: SleighExecutor, url: str) -> None:
    with Machine(url, "--workers", "2"):
        wait_for(lambda: executor.worker_count == 4, "the pool has not grown")
        assert [rank for rank, *_ in executor.eachWorker(family)] == [0, 1, 2, 3]
        agents = [agent for *_, agent in executor.eachWorker(family)]
        assert agents[0] == agents[1] != agents[2] == agents[3]
        assert list(executor.map(abs, range(-3000, 0))) == list(range(3000, 0, -1))
        assert len(executor.submit(bytes, 3_000_000).result(PATIENCE)) == 3_000_000
        assert executor.submit(len, b"x" * 3_000_000).result(PATIENCE) == 3_000_000


def test_it_is_prepared_as_all_others(run_directory: Path) -> None:
    def prepare(text: str) -> None:
        current_worker().state["prepared"] = text

    def add(text: str) -> None:
        current_worker().state["prepared"] += text

    def prepared() -> Any:
        return current_worker().state["prepared"]

    with SleighExecutor(1, initializer=prepare, initargs=("a",)) as executor:
        executor.eachWorker(add, "b", sticky=True)
        with Machine(executor.listen()):
            wait_for(lambda: executor.worker_count == 2, "the pool has not grown")
            assert executor.eachWorker(prepared) == ["ab", "ab"]
            executor.workspace.store("x", 1)
            asked = executor.eachWorker(lambda: current_worker().workspace.find("x"))
            assert asked == [1, 1]


def test_calls_that_only_it_can_run(executor: SleighExecutor, url: str) -> None:
    view = executor.options(resources={"gpu": 2})
    with pytest.raises(errors.UnsupportedOptionError):
        view.submit(abs, -1)
    with Machine(url, "--resource", "gpu=2", "--workers", "2"):
        wait_for(lambda: executor.worker_count == 4, "the pool has not grown")
        seen = set(view.map(os.getenv, ["CUDA_VISIBLE_DEVICES"] * 50))
        assert seen <= {"0,1", "2,3"}


def test_limits_and_prints_work_there_too(executor: SleighExecutor, url: str) -> None:
    with Machine(url, "--resource", "there=1"):
        wait_for(lambda: executor.worker_count == 3, "the pool has not grown")
        there = executor.options(resources={"there": 1})
        late = executor.options(resources={"there": 1}, timeout=0.3).submit(time.sleep, 60)
        assert isinstance(late.exception(PATIENCE), TaskTimeoutError)
        printing = there.submit(print, "hello")
        printing.result(PATIENCE)
        assert printing.output == "hello\n"
        running = there.submit(time.sleep, 60)
        wait_for(running.running, "it does not run")
        assert executor.kill(running)
        assert there.submit(abs, -1).result(PATIENCE) == 1


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_the_connection_file_is_enough(
    executor: SleighExecutor, url: str, run_directory: Path, way: str
) -> None:
    [path] = run_directory.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Machine(str(path)) if way == "file" else Machine("-", stdin=path.read_text()):
        wait_for(lambda: executor.worker_count == 3, "the pool has not grown")
    executor.shutdown()
    assert list(run_directory.iterdir()) == []


# ------------------------------------------------------------------ they leave


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_after_its_present_call(
    executor: SleighExecutor, url: str, tmp_path: Path, number: int
) -> None:
    with Machine(url) as machine:
        wait_for(lambda: executor.worker_count == 3, "the pool has not grown")
        running = hold(executor, 3, tmp_path / "gate")
        waiting = [executor.submit(current_rank) for _ in range(10)]
        machine.process.send_signal(number)
        wait_for(lambda: "leaving" in machine.said, "it does not leave")
        wait_for(lambda: drains(executor), "the executor does not let it go")
        assert machine.process.poll() is None
        (tmp_path / "gate").touch()
        assert sorted(future.result(PATIENCE) for future in running) == [0, 1, 2]
        assert machine.ended() == 0
        assert {future.result(PATIENCE) for future in waiting} <= {0, 1, 2}
        wait_for(lambda: executor.worker_count == 2, "the pool has not shrunk")
        assert len(executor.eachWorker(family)) == 2


def drains(executor: SleighExecutor) -> bool:
    engine: Any = executor._engine
    return any(agent.draining for agent in list(engine._agents.values()))


def current_rank() -> int:
    return current_worker().rank


def test_an_idle_one_leaves_at_once_and_its_rank_is_for_the_next(
    executor: SleighExecutor, url: str
) -> None:
    for _ in range(3):
        with Machine(url) as machine:
            wait_for(lambda: executor.worker_count == 3, "the pool has not grown")
            assert [rank for rank, *_ in executor.eachWorker(family)] == [0, 1, 2]
            machine.process.terminate()
            assert machine.ended() == 0
            wait_for(lambda: executor.worker_count == 2, "the pool has not shrunk")


def test_asked_twice_it_leaves_at_once(executor: SleighExecutor, url: str, tmp_path: Path) -> None:
    with Machine(url) as machine:
        wait_for(lambda: executor.worker_count == 3, "the pool has not grown")
        running = hold(executor, 3, tmp_path / "gate")
        machine.process.terminate()
        wait_for(lambda: "leaving" in machine.said, "it does not leave")
        machine.process.terminate()
        assert machine.ended() != 0
        wait_for(lambda: executor.worker_count == 2, "the pool has not shrunk")
        (tmp_path / "gate").touch()
        outcomes = [future.exception(PATIENCE) for future in running]
        assert sorted(map(type, outcomes), key=str) == [type(None), type(None), WorkerLost]


def test_asked_twice_it_leaves_amid_c_code_too(run_directory: Path, tmp_path: Path) -> None:
    with SleighExecutor(launcher=[]) as executor, Machine(executor.listen()) as machine:
        running = executor.submit(stay_in_c_code, tmp_path / "pids")
        wait_for((tmp_path / "pids").exists, "the call runs")
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        machine.process.terminate()
        wait_for(lambda: "leaving" in machine.said, "it does not leave")
        machine.process.terminate()
        assert machine.ended() != 0
        assert isinstance(running.exception(PATIENCE), WorkerLost)
        wait_for(lambda: not any(map(alive, pids)), "something is left")


@pytest.mark.once
def test_many_come_and_go_and_no_call_is_lost(executor: SleighExecutor, url: str) -> None:
    ends = threading.Event()
    problems: list[int] = []

    def come_and_go() -> None:
        while not ends.is_set():
            with Machine(url) as machine:
                executor.submit(abs, -1).result(PATIENCE)
                machine.process.terminate()
                if status := machine.ended():
                    problems.append(status)

    threads = [threading.Thread(target=come_and_go) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            assert list(executor.map(slowly, range(200))) == list(range(200))
    finally:
        ends.set()
        for thread in threads:
            thread.join()
    assert problems == []


def slowly(number: int) -> int:
    time.sleep(0.002)
    return number


def test_it_ends_with_the_executor(run_directory: Path) -> None:
    with SleighExecutor(1) as executor:
        machine = Machine(executor.listen()).joined()
        wait_for(lambda: executor.worker_count == 2, "the pool has not grown")
        executor.eachWorker(family)
    assert machine.ended() == 0
    assert "it is over" in machine.said


# ------------------------------------------------------------------ nobody else is there


def test_a_pool_may_have_only_machines_that_join(run_directory: Path) -> None:
    with SleighExecutor(launcher=[]) as executor:
        assert executor.worker_count == 0
        assert executor.workers() == []
        url = executor.listen()
        early = [executor.submit(abs, -1), executor.options(priority=1).submit(abs, -2)]
        mapped = executor.map(abs, range(-100, 0))
        pending = executor.eachElem(pow, [range(100)], [2], loadFactor=2, blocking=False)
        assert not any(future.running() or future.done() for future in early)
        with Machine(url, "--workers", "2"):
            executor.wait_for_workers(2, PATIENCE)
            assert [future.result(PATIENCE) for future in early] == [1, 2]
            assert list(mapped) == list(range(100, 0, -1))
            assert pending.wait() == [n * n for n in range(100)]
            assert [rank for rank, *_ in executor.eachWorker(family)] == [0, 1]
            assert executor.eachElem(pow, [range(100)], [2], loadFactor=2) == pending.wait()
        wait_for(lambda: executor.worker_count == 0, "the pool has not shrunk")
        later = executor.submit(current_rank)
        with Machine(url):
            assert later.result(PATIENCE) == 0


def test_calls_for_each_worker_wait_for_the_first_machine(run_directory: Path) -> None:
    with SleighExecutor(launcher=[], initializer=os.putenv, initargs=("A", "b")) as executor:
        url = executor.listen()
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.extend(executor.eachWorker(family)))
        asking.start()
        with Machine(url):
            asking.join(PATIENCE)
            assert [rank for rank, *_ in answers] == [0]


def test_what_waits_at_the_end_is_still_done_by_a_machine_that_joins(run_directory: Path) -> None:
    executor = SleighExecutor(launcher=[])
    url = executor.listen()
    future = executor.submit(abs, -5)
    executor.shutdown(wait=False)
    with Machine(url) as machine:
        assert future.result(PATIENCE) == 5
        assert machine.ended() == 0
    executor.shutdown()


def test_when_nobody_joins_in_time_the_error_says_what_to_do(run_directory: Path) -> None:
    with SleighExecutor(launcher=[], start_timeout=0.3) as executor:
        url = executor.listen()
        command = re.escape(f"`sleighexec worker {url}`")
        with pytest.raises(TimeoutError, match=command):
            executor.eachWorker(abs, -1)
        with pytest.raises(TimeoutError, match="places for 0 workers only"):
            executor.wait_for_workers(2, 0.1)
        error = executor.submit(abs, -1).exception(PATIENCE)
        assert isinstance(error, errors.PoolBrokenError)
        assert f"`sleighexec worker {url}`" in str(error)
        with pytest.raises(errors.PoolBrokenError, match="no machine has joined"):
            executor.submit(abs, -1)
        with pytest.raises(errors.PoolBrokenError, match="no machine has joined"):
            executor.wait_for_workers()


def test_where_nobody_can_join_the_end_does_not_wait_for_it(run_directory: Path) -> None:
    with SleighExecutor(launcher=[]) as executor:
        futures = [executor.submit(abs, -1) for _ in range(3)]
    for future in futures:
        error = future.exception(PATIENCE)
        assert isinstance(error, errors.PoolBrokenError)
        assert "call listen()" in str(error)
    executor = SleighExecutor(launcher=[])
    executor.listen()
    dropped = executor.submit(abs, -1)
    executor.shutdown(cancel_futures=True)
    assert dropped.cancelled()
    SleighExecutor(launcher=[]).shutdown()


@pytest.mark.once
def test_such_a_pool_refuses_what_it_cannot_do(run_directory: Path) -> None:
    for options in ({"min_workers": 1}, {"max_workers": 3}):
        with pytest.raises(ValueError, match=r"launcher=\[\]"):
            SleighExecutor(launcher=[], **options)  # type: ignore[arg-type]
    with SleighExecutor(launcher=[]) as executor:
        url = executor.listen()
        with Machine(url, "--workers", "3", "--resource", "gpu=1"):
            assert executor.options(resources={"gpu": 1}).submit(abs, -1).result(PATIENCE) == 1
            with pytest.raises(errors.UnsupportedOptionError, match="let more machines join"):
                executor.resize(4)
            executor.resize(2)
            assert [rank for rank, *_ in executor.eachWorker(family)] == [0, 1]
            executor.resize(3)
            assert [rank for rank, *_ in executor.eachWorker(family)] == [0, 1, 2]


def test_the_status_of_a_pool_in_which_nobody_is(run_directory: Path) -> None:
    with SleighExecutor(launcher=[]) as executor:
        url = executor.listen()
        futures = [executor.submit(abs, -1) for _ in range(3)]
        command = [sys.executable, "-m", "sleighexec", "status", url, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        facts = json.loads(done.stdout)
        assert (facts["places"], facts["waiting"], facts["workers"]) == (0, 3, [])
        for future in futures:
            future.cancel()


# ------------------------------------------------------------------ they are lost


@pytest.mark.parametrize("victim", ["machine", "agent"])
def test_one_that_is_killed_loses_what_had_begun_there(
    executor: SleighExecutor, url: str, tmp_path: Path, victim: str
) -> None:
    with Machine(url) as machine:
        wait_for(lambda: executor.worker_count == 3, "the pool has not grown")
        _, worker, agent = on_rank(executor, 2)
        running = hold(executor, 3, tmp_path / "gate")
        waiting = [executor.submit(current_rank) for _ in range(10)]
        os.kill(machine.process.pid if victim == "machine" else agent, signal.SIGKILL)
        wait_for(lambda: executor.worker_count == 2, "the pool has not shrunk")
        (tmp_path / "gate").touch()
        outcomes = [future.exception(PATIENCE) for future in running]
        [lost] = [error for error in outcomes if error is not None]
        assert isinstance(lost, WorkerLost)
        assert lost.rank == 2
        assert lost.reason
        assert {future.result(PATIENCE) for future in waiting} <= {0, 1}
        wait_for(lambda: not alive(worker) and not alive(agent), "something is left there")
    with Machine(url):
        wait_for(lambda: executor.worker_count == 3, "the pool has not grown again")
        assert on_rank(executor, 2)[0] == 2


def test_a_worker_that_dies_there_costs_its_own_call_only(
    executor: SleighExecutor, url: str
) -> None:
    with Machine(url, "--resource", "there=1"):
        wait_for(lambda: executor.worker_count == 3, "the pool has not grown")
        there = executor.options(resources={"there": 1})
        futures = [there.submit(die_at, 7, number) for number in range(20)]
        errors_ = [future.exception(PATIENCE) for future in futures]
        [lost] = [error for error in errors_ if error is not None]
        assert isinstance(lost, WorkerLost)
        assert errors_[7] is lost
        assert lost.exitcode == -signal.SIGKILL
        assert executor.worker_count == 3


def die_at(fatal: int, number: int) -> None:
    if number == fatal:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.once
def test_one_that_falls_silent_is_lost(executor: SleighExecutor, url: str, tmp_path: Path) -> None:
    with Machine(url) as machine:
        wait_for(lambda: executor.worker_count == 3, "the pool has not grown")
        running = hold(executor, 3, tmp_path / "gate")
        machine.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: executor.worker_count == 2, "it is not missed", PATIENCE)
        (tmp_path / "gate").touch()
        outcomes = [future.exception(PATIENCE) for future in running]
        [lost] = [error for error in outcomes if error is not None]
        assert isinstance(lost, WorkerLost)
        assert "no sign of life" in lost.reason


def test_with_retries_nothing_is_lost_whoever_is_killed(executor: SleighExecutor, url: str) -> None:
    view = executor.options(retries=5)
    for _ in range(2):
        with Machine(url) as machine:
            wait_for(lambda: executor.worker_count == 3, "the pool has not grown")
            futures = [view.submit(slowly, number) for number in range(400)]
            futures[50].result(PATIENCE)
            machine.process.kill()
            assert [future.result(PATIENCE) for future in futures] == list(range(400))


def test_when_the_caller_is_killed_nothing_is_left_there(run_directory: Path) -> None:
    text = """
        import os, time
        from sleighexec import SleighExecutor
        executor = SleighExecutor(1)
        print(executor.listen(), flush=True)
        while executor.worker_count < 2:
            time.sleep(0.01)
        print(*executor.eachWorker(lambda: (os.getpid(), os.getppid()))[1], flush=True)
        executor.eachWorker(time.sleep, 60)
    """
    command = [sys.executable, "-c", textwrap.dedent(text)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        with Machine(client.stdout.readline().strip()) as machine:
            pids = list(map(int, client.stdout.readline().split()))
            client.kill()
            machine.ended()
            wait_for(lambda: not any(map(alive, pids)), "something is left there")


# ------------------------------------------------------------------ who may


def test_its_keys_make_no_client(executor: SleighExecutor, url: str, run_directory: Path) -> None:
    [path] = run_directory.iterdir()
    assert set(json.loads(path.read_text())["keys"]) == {"worker", "monitor"}
    with pytest.raises(errors.AuthenticationError, match="not for a client"):
        NwsServer(url=url)
    worker = find(url, WORKER)
    for role in (CLIENT, MONITOR):
        with pytest.raises(errors.AuthenticationError):
            reach(type(worker)(url, worker.key, worker.fingerprint, role), role)
    monitor = connect(url, MONITOR)
    from sleighexec.messages import ListWorkspaces

    with pytest.raises(errors.ConnectionLostError):
        monitor.call(ListWorkspaces())
    monitor.close()


def test_a_key_for_all_roles_is_no_use_as_a_client(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody gets that key; but if somebody did."""
    monkeypatch.setattr(joining, "new_key", lambda: b"k" * 32)
    with SleighExecutor(1) as executor:
        url = executor.listen()
        address = type(find(url, WORKER))(url, b"k" * 32, find(url, WORKER).fingerprint)
        sock, _ = reach(address, CLIENT)
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1) == b""
        sock.close()


GOOD = {"release": __version__, "python": MINOR, "host": "zebra", "workers": 1, "resources": {}}
WRONG = {
    "another release": ({"release": "0.0.1"}, f"it has sleighexec 0.0.1, not {__version__}"),
    "another python": ({"python": "2.7"}, "its Python is 2.7"),
    "no name": ({"host": 5}, "does not say who it is"),
    "no workers": ({"workers": 0}, "cannot have 0 workers"),
    "too many workers": ({"workers": 10**9}, "cannot have 1000000000 workers"),
    "strange resources": ({"resources": "gpu"}, "resources must be"),
}


@pytest.mark.parametrize(("facts", "says"), WRONG.values(), ids=WRONG)
def test_one_that_does_not_fit_is_told_why(
    executor: SleighExecutor, url: str, facts: dict[str, Any], says: str
) -> None:
    sock, rest = reach(find(url, WORKER), WORKER)
    introduction.say(sock, GOOD | facts)
    answer, _ = introduction.hear(sock, rest)
    assert says in answer["refused"]
    sock.close()
    assert executor.worker_count == 2


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\2[]", b"\0\0\0\2{{", b"\0\0\0\1"])
def test_one_that_talks_nonsense_is_cut_off(
    executor: SleighExecutor, url: str, data: bytes
) -> None:
    sock, _ = reach(find(url, WORKER), WORKER)
    sock.sendall(data)
    sock.shutdown(1)
    sock.settimeout(PATIENCE)
    with contextlib.suppress(ConnectionError):
        assert sock.recv(1) == b""
    sock.close()
    assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_who_comes_too_late_is_told(run_directory: Path, tmp_path: Path) -> None:
    executor = SleighExecutor(1)
    url = executor.listen()
    copy = tmp_path / "copy.json"
    copy.write_text(connection_file(url).read_text())
    copy.chmod(0o600)
    running = executor.submit(when_there, tmp_path / "gate")
    wait_for(running.running, "it does not run")
    executor.shutdown(wait=False)
    machine = Machine(url)
    assert machine.ended() == 1
    assert "after shutdown" in machine.said
    with pytest.raises(RuntimeError):
        executor.listen()
    (tmp_path / "gate").touch()
    executor.shutdown()
    for where in url, copy:
        late = Machine(str(where))
        assert late.ended() == 1
        assert "no listening executor" in late.said
        assert "`executor.listen()`" in late.said
        assert "sleighexec server" not in late.said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "neither a URL nor a connection file"),
        (["sleigh+unix:///nowhere.sock"], "there is no"),
        (["x", "--resource", "gpu"], "NAME=N"),
    ],
)
def test_a_wrong_command_is_refused(run_directory: Path, words: list[str], says: str) -> None:
    done = subprocess.run(
        [*WORKER_COMMAND, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert says in done.stderr


# ------------------------------------------------------------------ what is seen


def test_the_status_of_a_pool(run_directory: Path, tmp_path: Path) -> None:
    with SleighExecutor(launcher=Local(1)) as executor:
        url = executor.listen()
        with Machine(url):
            wait_for(lambda: executor.worker_count == 2, "the pool has not grown")
            hold(executor, 2, tmp_path / "gate")
            for _ in range(3):
                executor.submit(abs, -1)
            connection = [sys.executable, "-m", "sleighexec", "status", url]
            output = subprocess.run(
                [*connection, "--json"], capture_output=True, text=True, timeout=60, check=True
            ).stdout
            facts = json.loads(output)
            assert facts["url"] == url
            assert facts["places"] == 2
            assert facts["waiting"] == 3
            assert [(w["rank"], w["state"]) for w in facts["workers"]] == [(0, "busy"), (1, "busy")]
            (tmp_path / "gate").touch()


def test_a_busy_pool_of_joined_machines_can_be_resized(executor: SleighExecutor, url: str) -> None:
    with Machine(url, "--workers", "2"):
        wait_for(lambda: executor.worker_count == 4, "the pool has not grown")
        assert len(executor.eachWorker(family)) == 4
        executor.resize(3)
        assert [rank for rank, *_ in executor.eachWorker(family)] == [0, 1, 2]
        executor.resize(6)  # the fourth is there again, the others are ours
        ranks = executor.eachWorker(family)
        agents = [agent for *_, agent in ranks]
        assert agents[2] == agents[3]
        assert agents[4] == agents[0]
    wait_for(lambda: executor.worker_count == 4, "the pool has not shrunk")
    assert [rank for rank, *_ in executor.eachWorker(family)] == [0, 1, 4, 5]
    assert list(executor.map(abs, range(-100, 0))) == list(range(100, 0, -1))


def test_calls_in_one_chunk_with_a_cancelled_one_are_told_when_nobody_comes() -> None:
    executor = SleighExecutor(launcher=[])
    pending = executor.eachElem(abs, range(4), chunkSize=2, blocking=False)
    assert pending[0].cancel()
    executor.shutdown()
    assert all(future.done() for future in pending)
