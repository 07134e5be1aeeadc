"""What happens when things die: every row has its promised outcome, and the pool goes on."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import os
import pickle
import pickletools
import random
import re
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cloudpickle
import pytest

from sleighexec import SleighExecutor, WorkerLost, current_worker, errors
from sleighexec.engines.agents import AgentLink
from tests import scripts
from tests.conftest import alive, plain_id, stay_in_c_code, wait_for
from tests.stress.planted import SLOW_TO_RETURN, Planting

WORKER_SETUP = {
    "threads": 1,
    "beside": 1,
    "slots": {},
    "memory": None,
    "depot": False,
    "pass_on": False,
}
PATIENCE = 20


def kill_me(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def segfault() -> None:
    ctypes.string_at(0)


def shout_and_exit(status: int) -> None:
    print("the last words", file=sys.stderr, flush=True)
    os._exit(status)


def close_everything() -> None:
    os.closerange(3, 4096)
    time.sleep(60)


class DiesAtUnpickle:
    def __reduce__(self) -> object:
        return os._exit, (4,)


class DiesAtPickle:
    def __reduce__(self) -> object:
        kill_me()
        return int, ()


DEATHS = [  # call, arguments, exit code, what the message must name
    (kill_me, (), -9, "signal 9 (SIGKILL)"),
    (kill_me, (signal.SIGTERM,), -15, "signal 15 (SIGTERM)"),
    (segfault, (), -11, "Segmentation fault"),
    (os._exit, (0,), 0, "exit status 0"),
    (shout_and_exit, (3,), 3, "the last words"),
    (close_everything, (), None, "worker"),  # it sees that itself, or is killed, whatever is first
    (id, (DiesAtUnpickle(),), 4, "exit status 4"),
    (DiesAtPickle, (), -9, "signal 9"),
]


@pytest.mark.parametrize(("call", "arguments", "exitcode", "names"), DEATHS, ids=plain_id)
def test_a_death_fails_the_task_it_took_and_nothing_else(
    executor: SleighExecutor, call: object, arguments: object, exitcode: int | None, names: str
) -> None:
    before = [executor.submit(abs, -n) for n in range(200)]
    victim = executor.submit(call, *arguments)  # type: ignore[arg-type, misc]
    after = [executor.submit(abs, -n) for n in range(200)]
    error = victim.exception(PATIENCE)
    assert isinstance(error, WorkerLost)
    assert isinstance(error, BrokenProcessPool)
    assert error.exitcode in ([exitcode] if exitcode is not None else [1, -9])
    assert names in str(error)
    assert str(error.pid) in str(error)
    assert [f.result(PATIENCE) for f in before + after] == [*range(200), *range(200)]
    assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_a_death_amid_tiny_tasks_loses_no_result_of_those_before_it(tmp_path: Path) -> None:
    """Finished results stand in the journal, whether they were sent or not."""

    def note(number: int) -> int:
        with open(tmp_path / str(number), "a") as file:
            file.write("x")
        if number == 700:
            os._exit(9)
        return number

    with SleighExecutor(1) as executor:
        list(executor.map(abs, range(2000)))  # the worker takes big batches now
        futures = [executor.submit(note, n) for n in range(1000)]
        errors_ = {n: f.exception(PATIENCE) for n, f in enumerate(futures)}
    assert [n for n, error in errors_.items() if error is not None] == [700]
    assert all((tmp_path / str(n)).read_text() == "x" for n in range(1000)), "ran twice"


def test_an_idle_worker_that_dies_is_replaced_silently(executor: SleighExecutor) -> None:
    pids = {executor.submit(os.getpid).result(PATIENCE) for _ in range(3)}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    futures = [executor.submit(abs, -n) for n in range(20)]
    assert [future.result(PATIENCE) for future in futures] == list(range(20))


def test_a_worker_that_dies_before_its_agent_was_heard_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its own connection may be read, and end, before the agent's word that it was started. Seen
    # under load: the agent, which had never answered, was killed with it, and the pool broken.
    with monkeypatch.context() as unheard, SleighExecutor(1) as executor:
        unheard.setattr(AgentLink, "heard", lambda self: None)
        assert isinstance(executor.submit(kill_me).exception(PATIENCE), WorkerLost)
        assert executor.submit(abs, -3).result(PATIENCE) == 3


def test_what_is_said_between_two_starts_is_done_between_them() -> None:
    # The agent forks together what is to start together; all this is there when it comes up.
    with SleighExecutor(3) as executor:
        engine = executor._engine
        engine.start()
        with engine.server.lock:
            (agent,) = engine._agents.values()
            numbers = list(engine._workers)
            agent.kill(numbers[-1])
            agent.start_worker(999, WORKER_SETUP).close()
        wait_for(lambda: numbers[-1] not in engine._workers, "the kill was not heard")
        assert [executor.submit(abs, -n).result(PATIENCE) for n in range(20)] == list(range(20))
        assert set(numbers[:-1]) <= set(engine._workers)


def test_a_replacement_inherits_the_rank() -> None:
    def rank() -> int:
        return current_worker().rank

    with SleighExecutor(1) as executor:
        assert executor.submit(rank).result(PATIENCE) == 0
        assert isinstance(executor.submit(kill_me).exception(PATIENCE), WorkerLost)
        assert executor.submit(rank).result(PATIENCE) == 0


def test_retries_run_a_lost_task_again_and_say_how_often(
    executor: SleighExecutor, tmp_path: Path
) -> None:
    def second_time(path: Path) -> str:
        with open(path, "a") as file:
            file.write("x")
        if len(path.read_text()) < 2:
            kill_me()
        return path.read_text()

    assert executor.options(retries=2).submit(second_time, tmp_path / "a").result(PATIENCE) == "xx"
    error = executor.options(retries=1).submit(kill_me).exception(PATIENCE)
    assert isinstance(error, WorkerLost)
    assert error.attempts == 2
    assert "attempt 2" in str(error)


def test_in_a_map_a_lost_item_fails_the_map_at_its_place(executor: SleighExecutor) -> None:
    def maybe(number: int) -> int:
        if number == 30:
            kill_me()
        return number

    results = executor.map(maybe, range(60))
    assert [next(results) for _ in range(30)] == list(range(30))
    with pytest.raises(WorkerLost):
        next(results)


def test_killing_workers_again_and_again_loses_nothing_with_retries() -> None:
    """Any worker, at any moment, also while it starts; but no call is hit twice: see the next."""

    def slow_square(number: int) -> int:
        time.sleep(0.001)
        return number * number

    chance = random.Random(7)
    with SleighExecutor(3, retries=1) as executor:
        squares = []
        for square in executor.map(slow_square, range(2000)):
            squares.append(square)
            # What was hit last is done: results come in order, and it was among the first.
            if len(squares) % 60 == 0:
                pids = [worker.pid for worker in executor.workers() if worker.pid is not None]
                if pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chance.choice(pids), signal.SIGKILL)
        assert squares == [n * n for n in range(2000)]


def test_killing_workers_blindly_costs_only_calls_that_were_hit_twice() -> None:
    def slow_square(number: int) -> int:
        time.sleep(0.001)
        return number * number

    chance = random.Random(7)
    stop = threading.Event()
    with SleighExecutor(3, retries=20) as executor:

        def kill_some() -> None:
            while not stop.wait(0.05):
                pids = [worker.pid for worker in executor.workers() if worker.pid is not None]
                if pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chance.choice(pids), signal.SIGKILL)

        killer = threading.Thread(target=kill_some)
        killer.start()
        try:
            futures = [executor.submit(slow_square, n) for n in range(1000)]
            for number, future in enumerate(futures):
                error = future.exception(3 * PATIENCE)
                if error is None:
                    assert future.result() == number * number
                else:
                    assert isinstance(error, WorkerLost)
                    assert error.attempts == 2
        finally:
            stop.set()
            killer.join()


def test_results_belong_to_their_calls_however_slow_a_worker_gives_back() -> None:
    """What is given back must be known before the results of what comes next."""

    def sometimes_long(number: int) -> int:
        time.sleep(0.004 if number % 7 == 0 else 0.0002)
        return number

    with SleighExecutor(launcher=Planting(SLOW_TO_RETURN, 2)) as executor:
        for _ in range(5):
            futures = [executor.submit(sometimes_long, n) for n in range(300)]
            assert [future.result(PATIENCE) for future in futures] == list(range(300))


def test_one_kill_without_retries_costs_at_most_one_task() -> None:
    def slow(number: int) -> int:
        time.sleep(0.002)
        return number

    for seed in range(5):
        with SleighExecutor(2) as executor:
            futures = [executor.submit(slow, n) for n in range(300)]
            futures[random.Random(seed).randrange(200)].result(PATIENCE)
            os.kill(next(iter(executor._processes)), signal.SIGKILL)
            outcomes = [future.exception(PATIENCE) for future in futures]
            lost = [error for error in outcomes if error is not None]
            assert len(lost) <= 1
            assert all(isinstance(error, WorkerLost) for error in lost)


def test_a_killed_agent_takes_its_workers_along_and_is_replaced(executor: SleighExecutor) -> None:
    running = executor.submit(time.sleep, 60)
    wait_for(running.running, "the task runs")
    [worker] = executor._processes
    os.kill(parent(worker), signal.SIGKILL)
    assert isinstance(running.exception(PATIENCE), WorkerLost)
    assert executor.submit(abs, -1).result(PATIENCE) == 1
    wait_for(lambda: not alive(worker), "the orphan ends")


def test_a_killed_agent_takes_along_what_is_in_c_code_and_what_it_started(
    executor: SleighExecutor, tmp_path: Path
) -> None:
    # A worker that keeps its interpreter does not see that its connection ends: it went on for as
    # long as its call took, beside another one that made the same call again.
    running = executor.submit(stay_in_c_code, tmp_path / "pids")
    wait_for((tmp_path / "pids").exists, "the call runs")
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    os.kill(parent(pids[0]), signal.SIGKILL)
    assert isinstance(running.exception(PATIENCE), WorkerLost)
    wait_for(lambda: not any(map(alive, pids)), "nothing is left")


def test_signals_that_the_caller_blocks_reach_agent_and_workers(tmp_path: Path) -> None:
    """A program of its own: who blocks SIGCHLD must not make its agent deaf."""
    lines = scripts.run(
        """
        import os, signal, time
        from sleighexec import SleighExecutor

        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with SleighExecutor(1) as executor:
            print(executor.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result(20))
            print(type(executor.submit(os._exit, 3).exception(20)).__name__)
            late = executor.options(timeout=0.1).submit(time.sleep, 60)
            print(type(late.exception(20)).__name__)
            print(executor.submit(abs, -3).result(20))
        """,
        tmp_path,
    )
    assert lines == ["set()", "WorkerLost", "TaskTimeoutError", "3"]


def test_an_agent_may_have_more_descriptors_than_its_workers() -> None:
    # It has two of each of them: many workers on one machine are not to end for want of that.
    def limits() -> tuple[int, int, str]:
        text = Path(f"/proc/{os.getppid()}/limits").read_text()
        return *resource.getrlimit(resource.RLIMIT_NOFILE), text

    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (usual // 2, most))
    try:
        with SleighExecutor(1) as executor:
            ours, allowed, text = executor.submit(limits).result(PATIENCE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (usual, most))
    assert (ours, allowed) == (usual // 2, most)
    assert re.search(rf"Max open files +{most} +{most} ", text)


def note(path: str, number: int) -> int:
    with open(path, "a") as file:
        file.write(f"{number}\n")
    return number


def test_a_killed_agent_of_a_busy_pool_is_replaced_and_nothing_runs_twice(tmp_path: Path) -> None:
    """What its workers had begun stood in journals that went with it."""
    path = tmp_path / "ran"
    with SleighExecutor(2) as executor:
        futures = [executor.submit(note, str(path), number) for number in range(1000)]
        futures[200].result(PATIENCE)
        os.kill(parent(next(iter(executor._processes))), signal.SIGKILL)
        lost = [n for n, future in enumerate(futures) if future.exception(PATIENCE) is not None]
        assert all(isinstance(futures[n].exception(), WorkerLost) for n in lost)
        assert executor.submit(abs, -1).result(PATIENCE) == 1
    ran = Counter(map(int, path.read_text().split()))
    assert max(ran.values()) == 1
    assert set(range(1000)) - set(lost) <= set(ran)


def test_with_on_crash_break_one_death_breaks_the_pool() -> None:
    with SleighExecutor(2, on_crash="break") as executor:
        victim = executor.submit(kill_me)
        others = [executor.submit(time.sleep, 60) for _ in range(5)]
        for future in (victim, *others):
            assert isinstance(future.exception(PATIENCE), BrokenProcessPool)
        with pytest.raises(BrokenProcessPool):
            executor.submit(abs, 1)


def test_with_on_crash_break_a_call_that_might_be_tried_again_has_its_own_error() -> None:
    with SleighExecutor(1, on_crash="break", retries=2) as executor:
        error = executor.submit(kill_me).exception(PATIENCE)
    assert isinstance(error, WorkerLost)
    assert "signal 9" in str(error)


def end_at(moment: float) -> None:
    while time.time() < moment:
        pass
    os._exit(1)


def test_with_on_crash_break_two_deaths_at_once_are_told_and_logged_as_no_error_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(5):
        with SleighExecutor(2, on_crash="break") as executor:
            executor.eachWorker(os.getpid)
            moment = time.time() + 0.03
            for future in [executor.submit(end_at, moment) for _ in range(2)]:
                assert isinstance(future.exception(PATIENCE), BrokenProcessPool)
    assert not caplog.records


def test_a_stopped_worker_stalls_only_its_own_task(executor: SleighExecutor) -> None:
    running = executor.submit(time.sleep, 0.5)
    wait_for(running.running, "the task runs")
    [pid] = executor._processes
    os.kill(pid, signal.SIGSTOP)
    others = [executor.submit(abs, -n) for n in range(50)]
    assert [future.result(PATIENCE) for future in others] == list(range(50))
    assert not running.done()
    os.kill(pid, signal.SIGCONT)
    assert running.result(PATIENCE) is None


def test_what_tasks_started_goes_with_their_worker() -> None:
    def start() -> int:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]).pid

    with SleighExecutor(1) as executor:
        pid = executor.submit(start).result(PATIENCE)
        assert alive(pid)
    wait_for(lambda: not alive(pid), "the child of the task ends")


def test_programs_that_a_task_starts_inherit_no_descriptor_of_ours() -> None:
    def inheritable() -> list[str]:
        numbers = [int(number) for number in os.listdir("/proc/self/fd") if int(number) > 2]
        links = {n: f"/proc/self/fd/{n}" for n in numbers if os.path.exists(f"/proc/self/fd/{n}")}
        return [os.readlink(link) for number, link in links.items() if os.get_inheritable(number)]

    def become_another() -> None:
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(100)"])

    with SleighExecutor(1) as executor:
        assert executor.submit(inheritable).result(PATIENCE) == []
        assert isinstance(executor.submit(become_another).exception(PATIENCE), WorkerLost)


def test_much_and_binary_output_harms_nothing(
    executor: SleighExecutor, capfd: pytest.CaptureFixture[str]
) -> None:
    def shout() -> int:
        os.write(2, bytes(range(256)) * 20_000)
        os.write(1, b"\x00\xff\n" * 100)
        return 1

    assert executor.submit(shout).result(PATIENCE) == 1
    assert isinstance(executor.submit(shout_and_exit, 1).exception(PATIENCE), WorkerLost)


def test_a_worker_holding_the_interpreter_lock_is_busy_not_dead(executor: SleighExecutor) -> None:
    def hold() -> int:
        import re

        re.match(r"(a+)+$", "a" * 24 + "b")  # one C call for about a second
        return 1

    assert executor.submit(hold).result(60) == 1


def grow() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (2**29, resource.getrlimit(resource.RLIMIT_AS)[1]))
    try:
        return len(bytearray(2**30))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2)


def test_running_out_of_memory_is_the_error_of_the_call() -> None:
    with SleighExecutor(1) as executor:
        pid = executor.submit(os.getpid).result(PATIENCE)
        assert isinstance(executor.submit(grow).exception(PATIENCE), MemoryError)
        assert executor.submit(os.getpid).result(PATIENCE) == pid


def leak() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    while True:
        os.dup(0)


def test_running_out_of_descriptors_is_the_error_of_the_call(executor: SleighExecutor) -> None:
    error = executor.submit(leak).exception(PATIENCE)
    assert isinstance(error, OSError)
    assert error.errno == errno.EMFILE
    assert list(executor.map(abs, range(200), timeout=PATIENCE)) == list(range(200))


def test_a_worker_without_descriptors_is_replaced_after_its_call() -> None:
    def read() -> int:
        with open(__file__) as file:
            return len(file.read(1))

    with SleighExecutor(1) as executor:
        pid = executor.submit(os.getpid).result(PATIENCE)
        victim = executor.submit(leak)
        futures = [executor.submit(read) for _ in range(50)]  # some of them lent with the leak
        assert isinstance(victim.exception(PATIENCE), OSError)
        assert [future.result(PATIENCE) for future in futures] == [1] * 50
        assert executor.submit(os.getpid).result(PATIENCE) != pid


def test_an_overflow_of_the_c_stack_is_a_death(executor: SleighExecutor) -> None:
    error = executor.submit(faulthandler._stack_overflow).exception(PATIENCE)  # type: ignore
    assert isinstance(error, WorkerLost)
    assert error.signal == signal.SIGSEGV
    assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_a_module_that_workers_do_not_have_fails_what_needs_it(
    executor: SleighExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    phantom = types.ModuleType("phantom")
    exec("class Thing: pass\ndef work(): pass\n", phantom.__dict__)
    monkeypatch.setitem(sys.modules, "phantom", phantom)
    error = executor.submit(id, phantom.Thing()).exception(PATIENCE)
    assert isinstance(error, errors.SerializationError)
    assert isinstance(error.__cause__, ModuleNotFoundError)
    host = os.uname().nodename
    assert f"No module named 'phantom' on {host}: workers look for modules where" in str(error)
    error = executor.submit(phantom.work).exception(PATIENCE)
    assert isinstance(error, ModuleNotFoundError)
    assert f"No module named 'phantom' on {host}: " in str(error)
    assert executor.submit(abs, -1).result(PATIENCE) == 1
    cloudpickle.register_pickle_by_value(phantom)  # which the error has named
    try:
        with SleighExecutor(1) as another:
            assert another.submit(phantom.work).result(PATIENCE) is None
    finally:
        cloudpickle.unregister_pickle_by_value(phantom)


class LocalOnly:
    """Can be rebuilt in the process that made it, and in no other."""

    def __reduce__(self) -> object:
        return rebuilt_in, (os.getpid(), "inside")


def rebuilt_in(pid: int, text: str) -> str:
    if os.getpid() != pid:
        raise ValueError("not here")
    return text


def test_a_result_that_cannot_be_rebuilt_is_kept_as_bytes(executor: SleighExecutor) -> None:
    error = executor.submit(LocalOnly).exception(PATIENCE)
    assert isinstance(error, errors.SerializationError)
    assert isinstance(error.__cause__, ValueError)
    assert str(error) == "the result could not be rebuilt here: ValueError: not here"
    opcodes = [argument for _, argument, _ in pickletools.genops(error.data)]
    assert "inside" in opcodes
    assert pickle.loads(pickle.dumps(error)).data == error.data
    assert executor.submit(abs, -1).result(PATIENCE) == 1


def run_script(source: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


CLIENT = """
    import os, sys, time
    from sleighexec import SleighExecutor
    ex = SleighExecutor(2)
    print(*[ex.submit(os.getpid).result() for _ in range(2)], flush=True)
    futures = [ex.submit(time.sleep, 60) for _ in range(20)]
    while not futures[1].running():
        time.sleep(0.01)
    print(*ex._processes, flush=True)
    print("ready", flush=True)
    {rest}
"""


def read_pids(client: subprocess.Popen[str]) -> set[int]:
    assert client.stdout is not None
    pids: set[int] = set()
    for line in client.stdout:
        if line.strip() == "ready":
            break
        pids |= set(map(int, line.split()))
    assert pids
    return pids


def gone(pids: set[int]) -> bool:
    return not any(map(alive, pids))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_client_dies_the_workers_are_gone_within_two_seconds(number: int) -> None:
    with run_script(CLIENT.format(rest="time.sleep(60)")) as client:
        pids = read_pids(client)
        client.send_signal(number)
        client.wait(PATIENCE)
        wait_for(lambda: gone(pids), "the workers end", seconds=4)


def test_a_forked_child_of_a_killed_client_keeps_no_worker_alive() -> None:
    rest = "os.fork() or (time.sleep(6), os._exit(0)); time.sleep(60)"
    with run_script(CLIENT.format(rest=rest)) as client:
        pids = read_pids(client)
        client.kill()
        wait_for(lambda: gone(pids), "the workers end", seconds=4)


@pytest.mark.parametrize(
    "rest",
    ["futures[0].result()", "with ex:\n        futures[0].result()", "list(ex.map(abs, [1]))"],
)
def test_ctrl_c_ends_a_client_promptly_and_without_noise_from_workers(rest: str) -> None:
    with run_script(CLIENT.format(rest=rest)) as client:
        pids = read_pids(client)
        assert client.stderr is not None
        time.sleep(0.2)  # so that it waits: what it does then is what is tested
        client.send_signal(signal.SIGINT)
        client.wait(5)
        text = client.stderr.read()
        assert text.count("KeyboardInterrupt") == 1
        assert "Worker" not in text
        wait_for(lambda: gone(pids), "the workers end", seconds=4)


def test_ctrl_c_while_the_interpreter_waits_at_its_end_ends_it_too() -> None:
    with run_script(CLIENT.format(rest="pass")) as client:
        pids = read_pids(client)
        time.sleep(0.3)  # so that it has come to its end and waits for the tasks
        client.send_signal(signal.SIGINT)
        client.wait(5)
        wait_for(lambda: gone(pids), "the workers end", seconds=4)


def test_a_deadlocked_design_would_be_seen(executor: SleighExecutor) -> None:
    """Sixty four blocked workers at once; shutdown ends them all."""
    with SleighExecutor(16) as many:
        futures = [many.submit(time.sleep, 0.2) for _ in range(64)]
        assert [future.result(60) for future in futures] == [None] * 64


def test_workers_that_cannot_start_break_the_pool_with_their_last_words(tmp_path: Path) -> None:
    """A crash loop stops with an error instead of burning the machine."""
    (tmp_path / "usercustomize.py").write_text("")

    def die(*_: object) -> None:
        os.write(2, b"no such table\n")
        os._exit(5)

    with SleighExecutor(2, initializer=die) as executor:
        future = executor.submit(abs, 1)
        error = future.exception(60)
        assert isinstance(error, errors.PoolBrokenError)
        assert "no such table" in str(error)


AGENT_IN_BAD_ORDER = """
    import array, json, os, selectors, socket, time
    from sleighexec import wire
    from sleighexec.agent import Agent
    from sleighexec.messages import Start, StopAgent

    class EndFirst(selectors.DefaultSelector):
        '''All that happens within a moment comes in one round, ends of workers first.'''
        def select(self, timeout=None):
            if super().select(timeout):
                time.sleep(0.1)
            return sorted(super().select(0), key=lambda event: event[0].fd != agent._wake_read)

    selectors.DefaultSelector = EndFirst
    ours, theirs = socket.socketpair()
    agent = Agent(theirs, os.getppid())
    setup = {"cwd": "/", "environ": {}, "threads": 0, "beside": 1, "memory": None, "pass_on": True}
    setup["cloudpickle"] = False
    setup |= {"slots": {}, "depot": False}
    setup = json.dumps(setup)
    frame = b"".join(wire.encode(0, Start(1, setup))) + b"".join(wire.encode(0, StopAgent()))
    rights = array.array("i", [socket.socketpair()[0].detach()])
    ours.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    if agent.serve() is not None:
        os.write(2, b"bye")
        os._exit(0)
    print("served to the end")
"""


def test_a_worker_that_ends_while_its_agent_reads_it_is_no_trouble() -> None:
    """The descriptor was closed by an earlier event of the same round."""
    with run_script(AGENT_IN_BAD_ORDER) as agent:
        out, err = agent.communicate(timeout=PATIENCE)
    assert out.splitlines() == ["served to the end"], err
    assert err == "bye"


def rest_a_little(number: int) -> int:
    time.sleep(0.001)
    return number


def test_no_outcome_changes_after_a_crash_has_broken_the_pool() -> None:
    """What other workers have sent meanwhile is not wanted any more."""
    for _ in range(5):
        executor = SleighExecutor(3, on_crash="break")
        futures = [executor.submit(rest_a_little, number) for number in range(60)]
        with contextlib.suppress(errors.PoolBrokenError):  # it may be broken already
            futures.append(executor.submit(os._exit, 1))
            futures += [executor.submit(rest_a_little, number) for number in range(60)]
        first = [future.exception(PATIENCE) for future in futures]
        executor.shutdown()
        assert [future.exception(0) for future in futures] == first
