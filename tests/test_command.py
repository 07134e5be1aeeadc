"""Workers behind a command that carries stdin and stdout; here it is one of this machine."""

from __future__ import annotations

import getpass
import logging
import math
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sleighexec import (
    Command,
    Local,
    PoolBrokenError,
    SerializationError,
    SleighExecutor,
    WorkerLost,
    WorkspaceServer,
    current_worker,
    errors,
    wire,
)
from sleighexec.engines.agents import AgentLink
from sleighexec.engines.shipping import source_for
from sleighexec.launchers import boot
from sleighexec.launchers.command import ProcessStreams
from sleighexec.launchers.link import Link
from sleighexec.messages import Need, Reply
from sleighexec.shipped import Shipped
from tests.conftest import alive, plain_id, wait_for, wait_for_file

PATIENCE = 20
HERE = Command("{agent}", name="here")
BARE = f"{sys.base_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def behind() -> Iterator[SleighExecutor]:
    with SleighExecutor(launcher=Command(("nice", "{agent}"), workers=2, name="here")) as executor:
        yield executor


def test_everything_works_as_on_this_machine(behind: SleighExecutor) -> None:
    behind.workspace.store("factor", 3)

    def scaled(number: int) -> int:
        factor: int = current_worker().workspace.find("factor")
        return number * factor

    assert list(behind.map(scaled, range(2000))) == [3 * n for n in range(2000)]
    assert behind.eachWorker(lambda: current_worker().rank) == [0, 1]
    big = os.urandom(10_000_000)
    assert behind.submit(lambda data: data[::-1], big).result(PATIENCE) == big[::-1]
    with pytest.raises(ZeroDivisionError) as caught:
        behind.submit(divmod, 1, 0).result(PATIENCE)
    assert caught.value.__cause__ is not None
    assert behind.submit(os.getpriority, os.PRIO_PROCESS, 0).result(PATIENCE) > 0


@pytest.mark.parametrize(
    ("call", "arguments", "exitcode"),
    [(os._exit, (3,), 3), (signal.raise_signal, (signal.SIGKILL,), -9)],
    ids=plain_id,
)
def test_a_worker_that_dies_over_there_fails_its_task_alone(
    behind: SleighExecutor, call: object, arguments: tuple[int], exitcode: int
) -> None:
    before = [behind.submit(abs, -n) for n in range(200)]
    error = behind.submit(call, *arguments).exception(PATIENCE)  # type: ignore[arg-type]
    assert isinstance(error, WorkerLost)
    assert error.exitcode == exitcode
    assert [future.result(PATIENCE) for future in before] == list(range(200))
    assert behind.submit(abs, -1).result(PATIENCE) == 1


def test_large_results_before_a_death_are_not_lost() -> None:
    """They are on their way over the link when the worker ends."""
    with SleighExecutor(launcher=HERE) as executor:
        futures = [executor.submit(os.urandom, 3_000_000) for _ in range(3)]
        last = executor.submit(os._exit, 1)
        assert [len(future.result(PATIENCE)) for future in futures] == [3_000_000] * 3
        assert isinstance(last.exception(PATIENCE), WorkerLost)


def test_a_running_call_can_be_killed(behind: SleighExecutor) -> None:
    future = behind.submit(time.sleep, 60)
    wait_for(future.running, "it runs")
    assert behind.kill(future)
    assert future.cancelled()
    assert behind.submit(abs, -1).result(PATIENCE) == 1


def test_prints_come_to_our_stdout_and_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    def talk() -> None:
        os.write(1, b"\x00\xff binary\n")
        print("printed")
        print("to stderr", file=sys.stderr)

    with SleighExecutor(launcher=HERE) as executor:
        executor.submit(talk).result(PATIENCE)
    out, err = capfd.readouterr()
    assert "printed" in out
    assert "binary" in out
    assert "to stderr" in err


def test_environment_folder_and_prelude(tmp_path: Path) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    place = Command(
        ["sh", "-c", "exec {agent}"],
        env={"NOTE": "a 'quoted' $HOME"},
        prelude="cat  # reads nothing of ours\nGREETING=hello\nexport GREETING",
        cwd=str(folder),
    )
    with SleighExecutor(launcher=place) as executor:
        names = "NOTE", "GREETING"
        assert list(executor.map(os.getenv, names)) == ["a 'quoted' $HOME", "hello"]
        assert executor.submit(os.getcwd).result(PATIENCE) == str(folder)


@pytest.mark.parametrize(
    ("cwd", "folder"),
    [
        ("~", "{home}"),
        ("~/", "{home}"),
        ("~/a b", "{home}/a b"),
        (f"~{getpass.getuser()}", os.path.expanduser(f"~{getpass.getuser()}")),
        ("-P", "{here}/-P"),
        ("there", "{here}/there"),
        ("~ no user", "{here}/~ no user"),
    ],
)
def test_a_folder_may_be_in_a_home_or_be_called_like_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cwd: str, folder: str
) -> None:
    home, here, other = tmp_path / "home", tmp_path / "here", tmp_path / "other"
    for path in (home / "a b", here / "-P", here / "there", here / "~ no user", other / "there"):
        path.mkdir(parents=True)
    monkeypatch.chdir(here)
    place = Command("{agent}", env={"HOME": str(home), "CDPATH": str(other)}, cwd=cwd)
    with SleighExecutor(launcher=place) as executor:
        found = executor.submit(os.getcwd).result(PATIENCE)
    assert found == folder.format(home=home, here=here)


def test_an_interpreter_may_be_in_a_home(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    text = f'#!/bin/sh\nIN_HOME=yes exec {sys.executable} "$@"\n'
    (tmp_path / "a b" / "python").write_text(text)
    (tmp_path / "a b" / "python").chmod(0o755)
    place = Command("{agent}", env={"HOME": str(tmp_path)}, python="~/a b/python")
    with SleighExecutor(launcher=place) as executor:
        assert executor.submit(os.getenv, "IN_HOME").result(PATIENCE) == "yes"


@pytest.mark.parametrize("prelude", ["# module load cuda", "\n", "true \\"])
def test_a_prelude_may_have_no_command(prelude: str) -> None:
    with SleighExecutor(launcher=Command("{agent}", prelude=prelude)) as executor:
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_a_noisy_login_does_no_harm() -> None:
    noise = "import os; os.write(1, bytes(range(256)) * 200)"
    login = f'{sys.executable} -c "{noise}"; echo; echo welcome; printf x; exec {{agent}}'
    place = Command(("sh", "-c", login))
    with SleighExecutor(launcher=place) as executor:
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_what_a_prelude_leaves_in_the_background_may_print_and_ends_with_the_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gate, printed, pid = (tmp_path / name for name in ("gate", "printed", "pid"))
    prelude = f"""
        echo loaded
        (until test -e {gate}; do sleep 0.01; done; echo ready; touch {printed}; exec sleep 60) &
        echo $! >{pid}
    """
    with SleighExecutor(launcher=Command("{agent}", prelude=prelude)) as executor:
        assert executor.submit(abs, -1).result(PATIENCE) == 1
        gate.touch()
        wait_for_file(printed)
        assert executor.submit(abs, -2).result(PATIENCE) == 2
        service = int(pid.read_text())
        assert alive(service)
    wait_for(lambda: not alive(service), "it has ended")
    out, err = capfd.readouterr()
    assert err.split() == ["loaded", "ready"]
    assert not out


# ---------------------------------------------------------------------- what does not come


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_another_python_is_refused_by_name(tmp_path: Path) -> None:
    other = script(tmp_path / "python", r"printf '\n\002sleighexec python 3.99.1\n'")
    with SleighExecutor(launcher=Command("{agent}", python=other, name="newt")) as executor:
        with pytest.raises(PoolBrokenError, match=r"3\.99\.1") as caught:
            executor.submit(abs, -1).result(PATIENCE)
        text = str(caught.value)
        assert "newt" in text
        assert f"python{sys.version_info[0]}.{sys.version_info[1]}" in text, "the remedy"
        assert isinstance(caught.value.__cause__, errors.HostError)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (
            Command("{agent}", python="/no/python3"),
            ["no python there", "/no/python3", "status 127"],
        ),
        (Command("{agent}", prelude="exit 3"), ["status 3"]),
        (Command("{agent}", cwd="/no/folder"), ["/no/folder"]),
        (
            Command("sh -c 'echo all nodes are down >&2; exit 5'"),
            ["all nodes are down", "status 5"],
        ),
        (Command("sh -c '{agent} </dev/null'"), ["pass on its standard input"]),
        (Command("/no/such/command {agent}"), ["/no/such/command"]),
        (Command("sh -c yes"), ["prints without end"]),
    ],
    ids=lambda value: None,
)
def test_a_launch_that_comes_to_nothing_says_why(place: Command, says: list[str]) -> None:
    began = time.monotonic()
    with SleighExecutor(launcher=place) as executor:
        with pytest.raises(PoolBrokenError) as caught:
            executor.submit(abs, -1).result(PATIENCE)
        for text in says:
            assert text in str(caught.value)
    assert time.monotonic() - began < 5


def test_a_command_that_says_nothing_is_given_up_in_time() -> None:
    place = Command("sh -c 'exec sleep 300'", name="newt")
    with SleighExecutor(launcher=place, start_timeout=0.5) as executor:
        error = executor.submit(abs, -1).exception(PATIENCE)
    assert isinstance(error, PoolBrokenError)
    assert "newt: it did not answer in time" in str(error)


@pytest.mark.parametrize("seconds", [30 * 86400, math.inf])
def test_a_host_may_be_waited_for_as_long_as_one_likes(seconds: float) -> None:
    with SleighExecutor(launcher=HERE, min_workers=1, start_timeout=seconds) as executor:
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_shutting_down_does_not_wait_for_a_host_that_does_not_come() -> None:
    executor = SleighExecutor(launcher=Command("sh -c 'exec sleep 300'"))
    future = executor.submit(abs, -1)
    began = time.monotonic()
    executor.shutdown(cancel_futures=True)
    assert time.monotonic() - began < 5
    assert future.done()


def test_ctrl_c_while_the_constructor_waits_for_a_host_ends_that_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(AgentLink, "wait_settled", interrupted)
    mark = f"{300 + random.random()}"  # by which the command is found
    with pytest.raises(KeyboardInterrupt):
        SleighExecutor(launcher=[Local(1), Command(f"sh -c 'exec sleep {mark}'")], min_workers=1)
    assert mark not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


def test_with_min_workers_the_pool_begins_without_who_does_not_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    places = [
        Command("{agent}", workers=2, name="hippo"),
        Command("sh -c 'echo it rains >&2; exit 5'", name="newt"),
        Command("sh -c 'exec sleep 300'", name="rhino"),
        Local(1),
    ]
    with caplog.at_level(logging.WARNING, "sleighexec"):
        executor = SleighExecutor(launcher=places, min_workers=2, start_timeout=2)
    with executor:
        assert executor.worker_count == 3
        assert executor.eachWorker(lambda: current_worker().rank) == [0, 1, 2]
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "newt" in said
    assert "it rains" in said
    assert "rhino: it did not answer in time" in said


def test_a_host_that_cannot_be_stopped_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As one whose name is being looked up. It was waited for, for seconds, under the lock.
    ended = threading.Event()

    def hang(link: Link) -> ProcessStreams:
        ended.wait(PATIENCE)
        raise OSError("too late")

    def launch(command: Command, *_: object, timeout: float, delay: float) -> Link:
        return Link(command.host, hang, b"", timeout=timeout, delay=delay)

    monkeypatch.setattr(Command, "launch", launch)
    monkeypatch.setattr(Link, "wait", None)
    try:
        places = [Local(1), Command("{agent}", name="newt")]
        with SleighExecutor(launcher=places, min_workers=1, start_timeout=0.1) as executor:
            assert executor.worker_count == 1
    finally:
        ended.set()
    assert "newt: it did not answer within 0.1 s; start_timeout gives it longer" in caplog.text


def test_with_too_few_workers_the_constructor_says_who_is_missing() -> None:
    places = [HERE, Command("sh -c 'echo it rains >&2; exit 5'", name="newt")]
    with pytest.raises(PoolBrokenError, match="for 1 workers only, not for 2") as caught:
        SleighExecutor(launcher=places, min_workers=2, start_timeout=10)
    assert "newt" in str(caught.value)
    assert "it rains" in str(caught.value)


def test_wrong_launchers_are_refused_at_once(run_directory: Path) -> None:
    for wrong in [
        {"template": ""},
        {"template": ()},
        {"template": "a", "env": {"A B": "c"}},
        {"template": "a", "env": {"Aé": "c"}},
    ]:
        with pytest.raises(ValueError, match=r"empty|no name"):
            Command(**wrong)  # type: ignore[arg-type]
    with (
        WorkspaceServer("unix"),
        pytest.raises(errors.UnsupportedOptionError, match="other machines"),
    ):
        SleighExecutor(launcher=HERE, workspace="unix")
    with pytest.raises(ValueError, match="nodes is a list"):
        SleighExecutor(nodes="hippo")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the one or the other"):
        SleighExecutor(nodes=["hippo"], launcher=HERE)


class Unread:
    """A launcher whose agent does not read; it is its own handle."""

    host, ship, workers = "sloth", "auto", 300
    failure, ended = None, True

    def __init__(self) -> None:
        self.stream, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)

    def launch(self, *_: object, **__: object) -> Unread:
        return self

    def kill(self) -> None:
        self.theirs.close()

    def wait(self, timeout: float | None = None) -> int:
        return 0

    def starts(self) -> list[tuple[int, int]]:
        """What has been sent to it: the numbers of workers, with their descriptors."""
        decoder, found = wire.Decoder(), []
        while True:
            try:
                data, descriptors, *_ = socket.recv_fds(self.theirs, 4096, 4)
            except BlockingIOError:
                return found
            starts = [message.worker for _, message in decoder.feed(data)]  # type: ignore[union-attr]
            assert len(starts) == len(descriptors)
            found += zip(starts, descriptors)


def test_an_agent_that_does_not_read_yet_holds_nobody_up() -> None:
    # A socket takes some 170 messages with descriptors. Those beyond waited for room under the
    # lock, in vain for a host that was slow to come, and their workers were never started.
    place = Unread()
    with SleighExecutor(launcher=place) as executor:
        executor._engine.start()
        numbers, found = [*executor._engine._workers], []

        def all_came() -> bool:
            found.extend(place.starts())
            return len(found) >= 300

        wait_for(all_came, "not all workers were asked for")
        assert [number for number, _ in found] == numbers
        for _, descriptor in found:
            os.close(descriptor)
        place.kill()


def test_a_host_that_is_out_of_descriptors_says_so() -> None:
    place = Command("{agent}", workers=60, prelude="ulimit -n 40", name="newt")
    with SleighExecutor(launcher=place) as executor:
        executor._engine.start()
        wait_for(lambda: executor._engine.broken is not None, "the workers came")
        error = executor._engine._broken_error()
    assert "newt" in str(error)
    assert "ulimit -n" in str(error)


# ---------------------------------------------------------------------- deaths


def relatives(executor: SleighExecutor) -> tuple[int, int, int]:
    """Pids of a worker, of its agent, and of the outpost whose child that is."""

    def family() -> tuple[int, int]:
        return os.getpid(), os.getppid()

    worker, agent = executor.submit(family).result(PATIENCE)
    text = Path(f"/proc/{agent}/stat").read_text().rsplit(")", 1)[1]
    return worker, agent, int(text.split()[1])


@pytest.mark.parametrize("victim", ["agent", "outpost"])
def test_who_kills_an_agent_loses_what_runs_and_its_host_comes_again(victim: str) -> None:
    with SleighExecutor(launcher=HERE) as executor:
        worker, agent, outpost = relatives(executor)
        running = executor.submit(time.sleep, 60)
        waiting = executor.submit(abs, -7)
        wait_for(running.running, "it runs")
        began = time.monotonic()
        os.kill(agent if victim == "agent" else outpost, signal.SIGKILL)
        error = running.exception(PATIENCE)
        assert time.monotonic() - began < 2
        assert isinstance(error, WorkerLost)
        assert error.host == os.uname().nodename
        assert error.reason
        assert waiting.result(PATIENCE) == 7
        assert time.monotonic() - began < 6
        wait_for(lambda: not alive(worker) and not alive(agent), "nothing is left over there", 3)


def test_a_host_that_does_not_come_again_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sleighexec.engines.places.FIRST_PAUSE", 0.05)
    gate = tmp_path / "gate"
    gate.touch()
    newt = Command(("sh", "-c", f"test -e {gate} || exit 4; {{agent}}"), name="newt")
    with SleighExecutor(launcher=[HERE, newt]) as executor:
        agents = executor.eachWorker(os.getppid)
        gate.unlink()
        os.kill(agents[1], signal.SIGKILL)
        wait_for(lambda: "newt was lost" in caplog.text, "it is noticed")
        futures = executor.eachWorker(os.getpid, blocking=False)
        assert futures[0].result(PATIENCE)
        error = futures[1].exception(PATIENCE)
        assert isinstance(error, (errors.HostError, WorkerLost))
        assert "newt" in str(error)
        assert list(executor.map(abs, range(-50, 0))) == list(range(50, 0, -1))
        os.kill(agents[0], signal.SIGKILL)
        wait_for(lambda: executor.submit(abs, -1).exception(PATIENCE) is None, "it comes again")
    assert "given up: newt" in caplog.text


def test_a_host_that_is_lost_at_the_end_is_named_too(caplog: pytest.LogCaptureFixture) -> None:
    with SleighExecutor(launcher=HERE) as executor:
        _, agent, _ = relatives(executor)
        running = executor.submit(time.sleep, 60)
        wait_for(running.running, "it runs")
        executor.shutdown(wait=False)
        os.kill(agent, signal.SIGKILL)
        error = running.exception(PATIENCE)
    assert isinstance(error, WorkerLost)
    assert "the connection ended" in error.reason
    assert "here was lost (the connection ended" in caplog.text


@pytest.mark.parametrize("order", [["gone", "here"], ["here", "gone"]])
def test_a_new_size_counts_no_host_that_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, order: Any
) -> None:
    monkeypatch.setattr("sleighexec.engines.places.MAX_TRIES", 0)
    gate = tmp_path / "gate"
    gate.touch()
    gone = Command(("sh", "-c", f"test -e {gate} || exit 4; {{agent}}"), name="gone")
    places = {"gone": gone, "here": Command("{agent}", workers=2, name="here")}

    def rank() -> int:
        return current_worker().rank

    with SleighExecutor(launcher=[places[name] for name in order]) as executor:
        dead = 0 if order[0] == "gone" else 2
        agent = executor.eachWorker(os.getppid)[dead]
        gate.unlink()
        running = executor.eachWorker(time.sleep, 0.2, blocking=False)
        os.kill(agent, signal.SIGKILL)
        assert running[dead].exception(PATIENCE) is not None
        wait_for(lambda: "given up: gone" in caplog.text, "it is given up")
        executor.resize(1)
        assert executor.submit(rank).result(PATIENCE) != dead
        executor.resize(4)
        ranks = executor.eachWorker(rank)
        assert len(ranks) == 4
        assert dead not in ranks


def test_a_killed_client_leaves_nothing_over_there() -> None:
    text = """
        import os, sys, time
        from sleighexec import Command, SleighExecutor
        executor = SleighExecutor(launcher=Command("{agent}"))
        print(*executor.submit(lambda: (os.getpid(), os.getppid())).result(), flush=True)
        executor.submit(time.sleep, 60)
        time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text)], stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        pids = [int(pid) for pid in client.stdout.readline().split()]
        assert all(map(alive, pids))
        client.kill()
        wait_for(lambda: not any(map(alive, pids)), "they are gone", 2)


def test_a_forked_child_of_a_killed_client_keeps_nothing_alive_over_there() -> None:
    text = """
        import os, sys, time
        from sleighexec import Command, SleighExecutor
        executor = SleighExecutor(launcher=Command("{agent}"))
        pids = executor.submit(lambda: (os.getpid(), os.getppid())).result()
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
        assert executor.submit(abs, -1).result() == 1
        print(child, *pids, flush=True)
        executor.submit(time.sleep, 60).result()
    """
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout is not None
        child, *pids = [int(pid) for pid in client.stdout.readline().split()]
        client.kill()
        try:
            wait_for(lambda: not any(map(alive, pids)), "they are gone", 3)
            assert alive(child)
        finally:
            os.kill(child, signal.SIGKILL)


# ---------------------------------------------------------------------- nothing installed there


def test_nothing_need_be_installed_over_there() -> None:
    """An interpreter without a single installed package, as in a bare container."""

    def found() -> list[bool]:
        import importlib.util

        import sleighexec

        spec = importlib.util.find_spec("paramiko")
        return [spec is None, type(sleighexec.__loader__).__name__ == "Importer"]  # type: ignore[name-defined]

    place = Command("{agent}", python=BARE, env={"PYTHONNOUSERSITE": "1"})
    with SleighExecutor(launcher=place) as executor:
        assert executor.submit(found).result(PATIENCE)[1]
        assert executor.submit(lambda x: x**2, 12).result(PATIENCE) == 144
        with pytest.raises(ZeroDivisionError):
            executor.submit(lambda: 1 / 0).result(PATIENCE)


@pytest.fixture
def only_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that this process can import and a worker cannot: its path is no folder."""
    path = tmp_path / "modules.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("slx_zoo/__init__.py", "from slx_zoo.animals import name\n")
        file.writestr("slx_zoo/animals.py", "def name():\n    return 'hippo'\n")
        file.writestr("slx_alone.py", "def fail():\n    return 1 / 0\n")
        file.writestr("site-packages/slx_installed.py", "def name():\n    return 'newt'\n")
    monkeypatch.syspath_prepend(str(path))
    monkeypatch.syspath_prepend(str(path / "site-packages"))
    for name in [name for name in sys.modules if name.startswith("slx_")]:
        monkeypatch.delitem(sys.modules, name)
    return str(path)


def test_modules_of_the_caller_travel(only_ours: str) -> None:
    import slx_alone
    import slx_zoo

    with SleighExecutor(launcher=HERE) as executor:
        assert executor.submit(slx_zoo.name).result(PATIENCE) == "hippo"

        def late() -> str:
            import slx_zoo.animals

            return str(slx_zoo.animals.name())

        assert executor.submit(late).result(PATIENCE) == "hippo"
        with pytest.raises(ZeroDivisionError) as caught:
            executor.submit(slx_alone.fail).result(PATIENCE)
        traceback = caught.value.__traceback__
        assert traceback is not None
        while traceback.tb_next is not None:
            traceback = traceback.tb_next
        assert traceback.tb_frame.f_code.co_filename.endswith("slx_alone.py")


def test_modules_that_do_not_travel_are_named_with_the_remedy(only_ours: str) -> None:
    import slx_alone
    import slx_installed

    with SleighExecutor(launcher=HERE) as executor:
        with pytest.raises(ModuleNotFoundError, match="slx_installed") as caught:
            executor.submit(slx_installed.name).result(PATIENCE)
        assert os.uname().nodename in str(caught.value)
        assert "install it there" in str(caught.value)
        with pytest.raises(ModuleNotFoundError, match="slx_nowhere' on "):
            executor.submit(__import__, "slx_nowhere").result(PATIENCE)
        assert executor.submit(_spec_of, "slx_nowhere").result(PATIENCE) is None
        future = executor.submit(id, slx_alone.fail)
        assert future.exception(PATIENCE) is None
    with SleighExecutor(launcher=Command("{agent}", ship=())) as executor:
        error = executor.submit(id, slx_alone.fail).exception(PATIENCE)
        assert isinstance(error, SerializationError)
        assert 'ship="auto"' in str(error)
    with SleighExecutor(launcher=Command("{agent}", ship=("slx_installed",))) as executor:
        assert executor.submit(slx_installed.name).result(PATIENCE) == "newt"


def test_a_module_that_the_caller_has_later_is_found_later(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def call(need: Need) -> Reply:
        asked.append(need.module)
        return source_for("json.tool" if len(asked) > 1 else "slx_nowhere", ("json",))

    finder = Shipped(call)
    assert finder.find_spec("slx_late") is None
    assert finder.find_spec("slx_late") is None
    assert asked == ["slx_late"], "not asked for again at once"
    monkeypatch.setattr("sleighexec.shipped.ASK_AGAIN", 0.0)
    assert finder.find_spec("slx_late") is not None
    assert finder.find_spec("sleighexec.none") is None
    assert finder.find_spec("json.none") is None
    assert asked == ["slx_late"] * 2, "what belongs to a package from here is not asked for"


def _spec_of(name: str) -> object:
    import importlib.util

    return importlib.util.find_spec(name)


def test_what_is_carried_is_text_of_three_packages() -> None:
    assert len(boot.carried()) < 400_000
    assert boot.carried()[:10].isdigit()


@pytest.mark.once
def test_what_is_lost_with_an_agent_is_not_given_to_another_worker_of_it(tmp_path: Path) -> None:
    """Else one death costs a call as many tries as there were idle workers."""

    def wait_once(flag: Path) -> str:
        if not flag.exists():
            flag.touch()
            time.sleep(60)
        return "done"

    place = Command("{agent}", name="here", workers=4)
    with SleighExecutor(launcher=place, retries=1) as executor:
        for number in range(3):
            [agent] = set(executor.eachWorker(os.getppid))  # so all of them are there, and idle
            flag = tmp_path / str(number)
            future = executor.submit(wait_once, flag)
            wait_for(flag.exists, "it does not begin")
            os.kill(agent, signal.SIGKILL)
            assert future.result(PATIENCE) == "done"
