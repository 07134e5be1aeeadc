"""The classic Sleigh: what a program of 2008 expects to find, statement by statement."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest

from sleighexec import (
    Sleigh,
    SleighExecutor,
    WorkerLost,
    WorkspaceServer,
    current_worker,
    errors,
)
from sleighexec.nws import client as classic_client
from sleighexec.nws import sleigh as classic_sleigh
from sleighexec.nws.client import NetWorkSpace, NwsException, NwsOperationException
from sleighexec.nws.sleigh import (
    SleighException,
    SleighGatheredException,
    SleighIllegalValueException,
    SleighNotAllowedException,
    SleighOccupiedException,
    SleighPending,
    SleighStoppedException,
    SleighTaskException,
    defaultSleighOptions,
    envcmd,
    rshcmd,
    scriptcmd,
    sshcmd,
    sshforwardcmd,
)
from tests.conftest import alive, in_threads, plain_id, wait_for

PATIENCE = 20


@pytest.fixture
def s() -> Iterator[Sleigh]:
    sleigh = Sleigh()
    yield sleigh
    sleigh.stop()


def star(*a: object) -> tuple[object, ...]:
    return a


def invert(x: float) -> float:
    return 1 / x


def classic_globals() -> Any:
    return (
        SleighRank,  # type: ignore[name-defined] # noqa: F821
        SleighWorkerCount,  # type: ignore[name-defined] # noqa: F821
        SleighNws.currentWs(),  # type: ignore[name-defined] # noqa: F821
        SleighUserNws.currentWs(),  # type: ignore[name-defined] # noqa: F821
    )


# ---------------------------------------------------------------------- the article


def test_the_first_session_of_the_article(s: Sleigh) -> None:
    assert s.eachWorker(gethostname) == [gethostname()] * 3
    r = s.eachElem(lambda x: x * x * x, range(100))
    assert len(r) == 100
    assert r[2:5] == [8, 27, 64]
    assert s.eachElem(star, [[1, 2, 3], [11, 12, 13]], [99]) == [
        (1, 11, 99),
        (2, 12, 99),
        (3, 13, 99),
    ]
    assert s.eachElem(star, [[1, 2, 3]], [99], argPermute=[1, 0]) == [(99, n) for n in (1, 2, 3)]
    p = s.eachElem(time.sleep, [0.01] * 10, blocking=False)
    assert isinstance(p, SleighPending)
    assert 0 <= p.check() <= 10
    assert p.wait() == [None] * 10


# ---------------------------------------------------------------------- results and errors


def test_a_failed_task_is_an_exception_in_the_list(s: Sleigh) -> None:
    one, failed, half = s.eachElem(invert, [1, 0, 2])
    assert (one, half) == (1, 0.5)
    assert isinstance(failed, SleighTaskException)
    assert isinstance(failed, SleighException)
    assert isinstance(failed.__cause__, ZeroDivisionError)
    assert failed.args[0].startswith("Task invocation failed - 'ZeroDivisionError': ")
    assert failed.args[0].endswith(f"[{__file__}:{invert.__code__.co_firstlineno + 1}]")
    with pytest.raises(ZeroDivisionError):
        s.eachElem(invert, [0], on_error="raise")
    assert s.eachElem(invert, [0, 1], on_error="skip") == [1]


def test_what_killed_and_left_workers_in_the_original(s: Sleigh) -> None:
    """These hung for ever: exit, Ctrl-C, os._exit, a kill."""

    def end(how: int) -> int:
        if how == 0:
            sys.exit(3)
        if how == 1:
            raise KeyboardInterrupt
        if how == 2:
            os._exit(1)
        if how == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return how

    got = s.eachElem(end, range(6))
    assert got[4:] == [4, 5]
    causes = [type(each.__cause__) for each in got[:4]]
    assert causes == [SystemExit, KeyboardInterrupt, WorkerLost, WorkerLost]
    assert s.eachWorker(star, 1) == [(1,)] * 3


def test_accumulators_get_failures_as_exceptions(s: Sleigh) -> None:
    pairs: list[Any] = []
    assert s.eachElem(invert, [1, 0], accumulator=pairs.extend) is None
    pairs.sort(key=lambda pair: pair[0])
    assert pairs[0] == (0, 1)
    assert isinstance(pairs[1][1], SleighTaskException)
    in_order = s.eachElem(abs, range(-9, 0), accumulator=classic_sleigh.Accumulator())
    assert in_order == list(range(9, 0, -1))
    by_rank: list[Any] = []
    s.eachWorker(star, accumulator=by_rank.extend)
    assert sorted(by_rank) == [(0, ()), (1, ()), (2, ())]


def test_a_view_has_the_answers_and_the_states_of_its_sleigh(s: Sleigh) -> None:
    view = s.options(retries=1)
    one, failed = view.eachElem(invert, [1, 0])
    assert one == 1
    assert isinstance(failed, SleighTaskException)
    p = view.eachElem(abs, [-1], blocking=False)
    for busy in (s, view):
        with pytest.raises(SleighOccupiedException):
            busy.eachElem(abs, [1])
    assert p.wait() == [1]
    with pytest.raises(SleighGatheredException):
        p.wait()
    assert list(view.imap(abs, [-1])) == [1]
    s.stop()
    with pytest.raises(SleighStoppedException):
        view.eachWorker(star)


# ---------------------------------------------------------------------- states


def test_occupied_until_the_results_are_taken(s: Sleigh) -> None:
    p = s.eachElem(abs, [-1], blocking=False)
    assert p.numTasks == 1
    for call in (
        lambda: s.eachElem(abs, [1]),
        lambda: s.eachWorker(star),
        lambda: s.imap(abs, [1]),
        lambda: s.starmap(abs, [(1,)]),
    ):
        with pytest.raises(SleighOccupiedException, match="occupied"):
            call()
    assert s.submit(abs, -2).result() == 2  # the executor's calls do not care
    assert p.wait() == [1]
    with pytest.raises(SleighGatheredException, match="already gathered"):
        p.wait()
    assert p.check() == 0
    assert s.eachElem(abs, [-1]) == [1]


def test_a_wait_that_timed_out_may_be_repeated(s: Sleigh) -> None:
    p = s.eachElem(time.sleep, [0.3], blocking=False)
    with pytest.raises(TimeoutError if sys.version_info >= (3, 11) else Exception):
        p.wait(0.01)
    assert s.occupied
    assert p.wait() == [None]


def test_a_wait_that_raises_frees_the_sleigh_too(s: Sleigh) -> None:
    p = s.eachElem(invert, [0], blocking=False, on_error="raise")
    with pytest.raises(ZeroDivisionError):
        p.wait()
    assert s.eachElem(abs, [-1]) == [1]
    (failed,) = s.eachElem("1 / SleighArgs[0]", [0])
    assert failed.args[0].startswith("Task evaluation failed - 'ZeroDivisionError'")


def test_an_abandoned_or_cancelled_pending_frees_the_sleigh(s: Sleigh) -> None:
    s.eachElem(abs, [-1], blocking=False)  # nobody keeps it
    gc.collect()
    assert s.eachElem(abs, [-1]) == [1]
    p = s.eachElem(time.sleep, [0.1] * 50, blocking=False)
    p.cancel()
    assert s.eachElem(abs, [-1]) == [1]


def test_iterators_occupy_the_sleigh_until_they_end(s: Sleigh) -> None:
    results = s.imap(invert, [1, 0])
    assert s.occupied
    assert next(results) == 1
    failed = next(results)
    assert isinstance(failed, SleighTaskException)
    assert list(results) == []
    assert not s.occupied
    endless = s.starmap(star, ((n,) for n in itertools.count()))
    assert next(endless) == (0,)
    with pytest.raises(SleighOccupiedException):
        s.eachWorker(star)
    endless.stop()
    assert s.eachWorker(star) == [()] * 3
    empty = s.imap(abs, [])
    assert list(empty) == []
    assert s.eachWorker(star) == [()] * 3


def test_stopped() -> None:
    s = Sleigh(workerCount=1)
    assert not s.stopped
    s.stop()
    assert s.stopped
    s.stop()
    for call in (
        lambda: s.eachElem(abs, [1]),
        lambda: s.eachWorker(star),
        lambda: s.imap(abs, [1]),
    ):
        with pytest.raises(SleighStoppedException, match="sleigh is stopped"):
            call()
    assert s.status()[1] in (0, 1)
    with pytest.raises(NwsException):
        s.nws.store("x", 1)


def test_stop_ends_running_tasks_at_once() -> None:
    s = Sleigh()
    pids = [info["pid"] for info in s.workerInfo()] or s.eachWorker(os.getpid)
    p = s.eachElem(time.sleep, [60] * 9, blocking=False)
    wait_for(lambda: sum(future.running() for future in p) == 3, "three run")
    s.stop()
    assert p.done()
    assert not any(map(alive, pids))
    assert all(isinstance(each, SleighTaskException) for each in p.wait())


def test_a_with_block_waits_for_its_tasks() -> None:
    with Sleigh(workerCount=2) as s:
        p = s.eachElem(abs, range(-100, 0), blocking=False)
    assert p.wait() == list(range(100, 0, -1))


# ---------------------------------------------------------------------- the sleigh itself


def test_workers_status_and_names(s: Sleigh) -> None:
    assert s.workerCount == 3
    assert s.status(timeout=PATIENCE) == (3, 1)
    assert s.rankCount == 3
    assert s.nodeList == [gethostname()] * 3
    infos = s.workerInfo()
    assert [info["rank"] for info in infos] == [0, 1, 2]
    assert len({info["pid"] for info in infos}) == 3
    version = ".".join(map(str, sys.version_info[:3]))
    assert {(i["host"], i["os"], i["python"]) for i in infos} == {(gethostname(), os.name, version)}
    assert s.nws.currentWs() == s.nwsName
    assert s.userNws.currentWs() == s.userNwsName
    assert s.nwsName.startswith("sleigh_ride_")
    assert s.userNwsName.startswith("sleigh_user_")
    assert s.userNws.listVars() == ""


def test_worker_globals(s: Sleigh) -> None:
    expected = [(rank, 3, s.nwsName, s.userNwsName) for rank in range(3)]
    assert s.eachWorker(classic_globals) == expected
    assert s.eachWorker(lambda: (SleighRank, SleighWorkerCount)) == [  # type: ignore[name-defined] # noqa: F821
        (rank, 3) for rank in range(3)
    ]
    assert s.eachWorker("SleighRank") == [0, 1, 2]
    s.userNws.store("word", "hello")
    assert s.eachWorker("SleighUserNws.find('word')") == ["hello"] * 3


def test_a_placeholder_of_the_client_does_not_hide_a_worker_global(tmp_path: Path) -> None:
    script = """
        from sleighexec import Sleigh
        SleighRank = None
        def rank():
            return SleighRank
        s = Sleigh()
        print(s.eachWorker(rank), SleighRank)
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "[0, 1, 2] None\n"


def test_workers_share_the_workspaces_with_the_caller(s: Sleigh) -> None:
    def pass_on() -> int:
        value: int = SleighUserNws.fetch("in")  # type: ignore[name-defined] # noqa: F821
        SleighNws.store("out", value + 1)  # type: ignore[name-defined] # noqa: F821
        return value

    p = s.eachWorker(pass_on, blocking=False)
    for n in range(3):
        s.userNws.store("in", n)
    assert sorted(s.nws.fetch("out", timeout=PATIENCE) for _ in range(3)) == [1, 2, 3]
    assert sorted(p.wait()) == [0, 1, 2]


def test_a_workspace_travels_as_an_argument(s: Sleigh) -> None:
    def use(ws: NetWorkSpace, value: int) -> str:
        ws.store("came", value)
        return ws.currentWs()

    other = s.nwss.openWs("a third one")
    assert s.eachElem(use, [[1, 2]], [other], argPermute=[1, 0]) == ["a third one"] * 2
    assert sorted([other.fetch("came"), other.fetch("came")]) == [1, 2]
    assert s.eachWorker(use, s.userNws, 3) == [s.userNwsName] * 3
    with SleighExecutor(1) as elsewhere:
        error = elsewhere.submit(use, other, 1).exception(PATIENCE)
        assert error is not None
        assert "another" in str(error)


def test_prints_are_not_lost(s: Sleigh) -> None:
    def say() -> None:
        print("hello from", SleighRank)  # type: ignore[name-defined] # noqa: F821

    s.eachWorker(say)
    lines = [s.nws.fetchTry(f"output@{rank}") for rank in range(3)]
    assert lines == [f"hello from {rank}" for rank in range(3)]


# ---------------------------------------------------------------------- options


def test_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_by_module_path.py").write_text("value = 42")
    monkeypatch.setitem(defaultSleighOptions, "workerCount", 2)
    s = Sleigh(modulePath=str(tmp_path), workingDir=str(tmp_path), wsNameTemplate="my_%d")
    try:
        assert s.eachWorker("__import__('found_by_module_path').value") == [42, 42]
        assert s.eachWorker(os.getcwd) == [str(tmp_path)] * 2
        assert s.nwsName.startswith("my_")
    finally:
        s.stop()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"workerCont": 2}, TypeError, "workerCount"),
        ({"workerCount": 0}, SleighIllegalValueException, "workerCount"),
        ({"launch": "rocket"}, SleighIllegalValueException, "launch"),
        ({"launch": lambda node, **_: "env"}, SleighIllegalValueException, "list of strings"),
        ({"launch": star, "nodeList": []}, SleighIllegalValueException, "nodeList"),
        ({"launch": sshcmd, "nodeList": ["-oProxyCommand=a"]}, ValueError, "name of a host"),
        ({"launch": "web"}, SleighIllegalValueException, "launch"),
        ({"nwsHost": "localhost", "nwsPort": 1}, classic_client.NwsConnectException, "server"),
        ({"logDir": "/tmp"}, errors.UnsupportedOptionError, "output@RANK"),
        ({"workingDir": "/no/such"}, SleighIllegalValueException, "workingDir"),
        ({"wsNameTemplate": "ride"}, SleighIllegalValueException, "template"),
    ],
    ids=plain_id,
)
def test_wrong_options_start_nothing(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Sleigh(**options)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["sh", "-c", "exit 7"], "status 7"),
        # It hangs up before it ends.
        (["sh", "-c", "sleep 0.2; exec <&-; sleep 0.3; exit 7"], "status 7"),
        (["sh", "-c", "exec sleep 300"], "did not answer"),
    ],
)
def test_a_launch_that_comes_to_nothing(
    words: list[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sleighexec.engines.agents.LAUNCH_SECONDS", 1)
    s = Sleigh(["a"], launch=lambda machine, **_: words)
    wait_for(lambda: s._broken, "it is given up")
    with pytest.raises(errors.PoolBrokenError, match=text):
        s.eachElem(abs, [1])
    s.stop()


def test_stop_ends_a_launch_that_comes_to_nothing() -> None:
    s = Sleigh(["a"], launch=lambda machine, **_: ["sh", "-c", "exec sleep 300"])
    p = s.eachWorker(abs, 1, blocking=False)
    s.stop()
    assert p.done()


def test_a_program_that_ends_ends_its_workers() -> None:
    script = """
        from sleighexec import Sleigh
        s = Sleigh()
        p = s.eachWorker(lambda: SleighUserNws.fetch("never"), blocking=False)
        print(*s.eachWorker.__self__._engine.processes())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == ""
    assert not any(alive(int(pid)) for pid in done.stdout.split())


def test_an_own_launch_function() -> None:
    asked: list[Any] = []

    def launch(machine: str, **options: Any) -> list[str]:
        asked.append((machine, options["user"]))
        return ["/usr/bin/env", f"NODE={machine}"]

    s = Sleigh(["a", "b", "a"], launch=launch, user="me")
    try:
        assert s.nodeList == ["a", "b", "a"]
        assert s.eachWorker(os.getenv, "NODE") == ["a", "b", "a"]
        assert asked == [("a", "me"), ("b", "me"), ("a", "me")]
    finally:
        s.stop()


def test_workspaces_on_a_server_of_their_own(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WorkspaceServer("localhost:0") as server:
        port = server.url.rsplit(":", 1)[1]
        s = Sleigh(nwsHost="localhost", nwsPort=port, workerCount=2)
        ride, user = s.nwsName, s.userNwsName
        assert (
            s.eachWorker("SleighNws.currentWs(), SleighUserNws.currentWs()") == [(ride, user)] * 2
        )
        with classic_client.NwsServer("localhost", int(port)) as other:
            other.useWs(user).store("x", 5)
            assert s.eachWorker("SleighUserNws.find('x')") == [5, 5]
            s.eachWorker("print(SleighRank)")
            assert other.useWs(ride).fetch("output@1", timeout=PATIENCE) == "1"
            assert s.eachElem(lambda ws: ws.find("x"), [[s.userNws]]) == [5]
            s.stop()
            wait_for(lambda: user not in other.listWss(), "what was ours is deleted")
        monkeypatch.setenv("PythonSleighNwsHost", "localhost")
        monkeypatch.setenv("PythonSleighNwsPort", port)
        s = Sleigh(workerCount=1)
        assert f"localhost:{port}" in str(s.nwss) or "127.0.0.1" in str(s.nwss)
        s.stop()
        with SleighExecutor(1, workspace=server.url) as executor:
            executor.submit(lambda: current_worker().workspace.store("y", 1)).result(PATIENCE)
            assert executor.workspace.fetch("y") == 1


SHELL = """\
#!/bin/sh
# Stands for ssh and rsh to a machine that is this one.
machine=
while :; do
    case $1 in
        -n) exec </dev/null; shift;;
        -x) shift;;
        -l) shift 2;;
        *) test "$machine" && exec "$@"; machine=$1; shift;;
    esac
done
"""


@pytest.mark.parametrize("command", [sshcmd, rshcmd, sshforwardcmd])
def test_a_launch_function_may_wrap_one_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., list[str]]
) -> None:
    for name in "ssh", "rsh":
        (tmp_path / name).write_text(SHELL)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def launch(machine: str, **options: Any) -> list[str]:
        return ["env", f"NODE={machine}", *command(machine, **options)]

    s = Sleigh(nodeList=["hippo"], launch=launch, user="me")
    try:
        assert s.eachWorker(os.getenv, "NODE") == ["hippo"]
    finally:
        s.stop()


def test_launch_commands() -> None:
    assert sshcmd("hippo") == ["ssh", "-x", "hippo"]
    assert sshcmd("hippo", user="me") == ["ssh", "-x", "-l", "me", "hippo"]
    assert sshcmd("newt", user={"hippo": "you", "default": "me"})[3] == "me"
    assert rshcmd("hippo", user="me") == ["rsh", "hippo", "-l", "me"]
    assert sshforwardcmd("hippo") == sshcmd("hippo")
    assert envcmd("hippo", "A=1") == ["/usr/bin/env", "A=1"]
    assert scriptcmd("hippo", "A=1") == []


def test_a_task_may_not_start_a_sleigh_but_an_executor(s: Sleigh) -> None:
    def nested() -> int:
        with SleighExecutor(1) as inner:
            return int(inner.submit(abs, -1).result(PATIENCE))

    (failed,) = s.eachElem(Sleigh, elementFunc=iter([()]).__next__)
    assert isinstance(failed.__cause__, SleighNotAllowedException)
    assert s.eachElem(lambda _: nested(), [1]) == [1]


# ---------------------------------------------------------------------- names of 2008


SLEIGH_NAMES = """
    SleighException SleighNwsException SleighGatheredException SleighStoppedException
    SleighOccupiedException SleighIllegalValueException SleighScriptException SleighTaskException
    SleighJoinException SleighNotAllowedException SleighPending SleighResultIterator Accumulator
    defaultSleighOptions sshcmd rshcmd sshforwardcmd envcmd scriptcmd
"""
CLIENT_NAMES = """
    FIFO LIFO MULTI SINGLE STRING DICT WS_NAME WS_MINE WS_OWNER WS_PERSISTENT WS_NUMVARS WS_VARLIST
    V_VARIABLE V_VALUES V_FETCHERS V_FINDERS V_MODE NwsServer NetWorkSpace NwsException
    NwsServerException NwsConnectException NwsConnectionDroppedException
    NwsUnsupportedOperationException NwsOperationException NwsNoWorkSpaceException
    NwsDeclarationFailedException NwsPicklingException NwsUnpicklingException
"""


def test_every_public_name_of_2008_is_there() -> None:
    assert classic_sleigh.Sleigh is Sleigh
    for name in SLEIGH_NAMES.split():
        assert name in classic_sleigh.__all__
        if name.endswith("Exception"):
            assert issubclass(getattr(classic_sleigh, name), SleighException)
    for name in CLIENT_NAMES.split():
        assert name in classic_client.__all__
        if name.endswith("Exception"):
            assert issubclass(getattr(classic_client, name), NwsException)
    assert [classic_client.WS_NAME, classic_client.WS_VARLIST] == [0, 5]
    assert [classic_client.V_VARIABLE, classic_client.V_MODE] == [0, 4]
    assert classic_client.NWS_PORT == 8765


def test_classic_exceptions_catch_what_they_caught(s: Sleigh) -> None:
    ws = s.userNws
    ws.declare("x", "fifo")
    with pytest.raises(classic_client.NwsDeclarationFailedException):
        ws.declare("x", "lifo")
    with pytest.raises(classic_client.NwsNoWorkSpaceException):
        s.nwss.openWs("none such", create=False)
    with pytest.raises(NwsOperationException):
        ws.deleteVar("none such")
    with pytest.raises(NwsOperationException):
        s.nwss.deleteWs("none such")
    with pytest.raises(classic_client.NwsPicklingException):
        ws.store("x", (n for n in "a generator"))
    with pytest.raises(classic_client.NwsConnectException):
        classic_client.NwsServer("localhost", 1)
    reader = threading.Thread(target=lambda: caught.append(_caught(ws)))
    caught: list[Any] = []
    reader.start()
    wait_for(lambda: "waited" in ws.listVars(), "it waits")
    ws.deleteVar("waited")
    reader.join()
    assert caught == [True]


def _caught(ws: NetWorkSpace) -> bool:
    try:
        ws.fetch("waited")
    except NwsOperationException:
        return True
    return False


# ---------------------------------------------------------------------- Ctrl-C, threads


CTRL_C = """
    import signal, sys, time
    from sleighexec import Sleigh
    s = Sleigh()
    s.eachWorker(str)
    print("ready", flush=True)
    try:
        s.eachElem(lambda n: time.sleep(0.3), range(1000))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(s.eachElem(lambda n: n + 1, [10, 20, 30]), flush=True)
    print(s.eachWorker("SleighRank"), flush=True)
    s.stop()
"""


def test_ctrl_c_in_a_blocking_call_leaves_nothing_stale() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CTRL_C)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        time.sleep(0.3)  # so that it waits: what it does then is what is tested
        client.send_signal(signal.SIGINT)
        out, err = client.communicate(timeout=30)
    assert out.splitlines() == ["interrupted", "[11, 21, 31]", "[0, 1, 2]"], err
    assert err == ""


def test_two_threads_use_one_sleigh(s: Sleigh) -> None:
    def work(me: int) -> None:
        for round_ in range(30):
            base = 1000 * me + round_
            assert s.eachElem(star, [[base, base + 1]]) == [(base,), (base + 1,)]
            s.userNws.store(f"mine {me}", base)
            assert s.userNws.fetch(f"mine {me}") == base

    in_threads(work, (1, 2))


def test_many_short_lived_sleighs_leave_nothing() -> None:
    for _ in range(5):
        s = Sleigh(workerCount=2)
        assert s.eachWorker("SleighRank") == [0, 1]
        s.stop()
