"""The public face: names and signatures that other people's code relies on. More may be added."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

import sleighexec
from sleighexec import cli
from sleighexec.nws import client as classic_client
from sleighexec.nws import sleigh as classic_sleigh

PUBLIC = """
    SleighExecutor Sleigh SleighPending NetWorkSpace NwsServer FIFO LIFO MULTI SINGLE
    WorkspaceServer Local SSH Command sshcmd scriptcmd current_worker errors
"""

# Parameters as they can be given by position, then, behind the star, those by keyword.
SIGNATURES = {
    "SleighExecutor": (
        "max_workers=None, mp_context=None, initializer=None, initargs=(), *, "
        "max_tasks_per_child=None, launcher=None, nodes=None, engine=None, workspace=None, "
        "timeout=None, retries=0, memory_limit=None, on_crash='heal', capture_output=True, "
        "progress=None, name=None"
    ),
    "SleighExecutor.submit": "fn, /, *args, **kwargs",
    "SleighExecutor.map": "fn, /, *iterables, timeout=None, chunksize=1, buffersize=None",
    "SleighExecutor.shutdown": "wait=True, *, cancel_futures=False",
    "SleighExecutor.terminate_workers": "",
    "SleighExecutor.kill_workers": "",
    "SleighExecutor.eachElem": (
        "fun, elementArgs=[[]], fixedArgs=[], *, argPermute=None, blocking=True, "
        "loadFactor=None, chunkSize=None, accumulator=None, on_error=None"
    ),
    "SleighExecutor.eachWorker": "fun, *args, blocking=True, accumulator=None, sticky=False",
    "SleighExecutor.imap": "fun, *iterables, loadFactor=10",
    "SleighExecutor.starmap": "fun, iterable, *, loadFactor=10",
    "SleighExecutor.options": (
        "*, timeout=None, retries=None, memory_limit=None, priority=None, progress=None"
    ),
    "SleighExecutor.kill": "future",
    "SleighExecutor.resize": "max_workers",
    "SleighExecutor.workers": "",
    "SleighExecutor.listen": "bind='127.0.0.1:0'",
    "SleighExecutor.wait_for_workers": "count=1, timeout=None",
    "Sleigh": "nodeList=None, **options",
    "Sleigh.workerInfo": "",
    "Sleigh.status": "closeGroup=False, timeout=0.0",
    "Sleigh.stop": "",
    "SleighPending.check": "",
    "SleighPending.wait": "timeout=None",
    "SleighPending.results": "timeout=None",
    "SleighPending.as_completed": "timeout=None",
    "SleighPending.cancel": "",
    "SleighPending.kill": "",
    "SleighPending.done": "",
    "SleighPending.progress": "",
    "NetWorkSpace": "wsName='__default', serverHost='localhost', serverPort=8765, useUse=False, "
    "server=None, persistent=False, create=True",
    "NetWorkSpace.store": "varName, val",
    "NetWorkSpace.fetch": "varName, *, timeout=None",
    "NetWorkSpace.fetchTry": "varName, missing=None",
    "NetWorkSpace.find": "varName, *, timeout=None",
    "NetWorkSpace.findTry": "varName, missing=None",
    "NetWorkSpace.ifetch": "varName, *, timeout=None",
    "NetWorkSpace.ifetchTry": "varName",
    "NetWorkSpace.ifind": "varName, *, timeout=None",
    "NetWorkSpace.ifindTry": "varName",
    "NetWorkSpace.declare": "varName, mode",
    "NetWorkSpace.deleteVar": "varName",
    "NetWorkSpace.listVars": "wsName=None, format='string'",
    "NetWorkSpace.storeFile": "varName, fobj, n=0",
    "NetWorkSpace.fetchFile": "varName, fobj, *, timeout=None",
    "NetWorkSpace.findFile": "varName, fobj, *, timeout=None",
    "NetWorkSpace.fetchTryFile": "varName, fobj",
    "NetWorkSpace.findTryFile": "varName, fobj",
    "NetWorkSpace.makefile": "varName, mode='r'",
    "NetWorkSpace.borrow": "varName, *, timeout=None",
    "NetWorkSpace.currentWs": "",
    "NetWorkSpace.close": "",
    "NwsServer.openWs": "wsName, *, persistent=False, create=True",
    "NwsServer.useWs": "wsName, *, create=True",
    "NwsServer.deleteWs": "wsName",
    "NwsServer.listWss": "format='string'",
    "NwsServer.mktempWs": "wsName='__pyws__%d'",
    "NwsServer.close": "",
    "sshcmd": "machine, **options",
    "scriptcmd": "machine, *arguments, **options",
    "current_worker": "",
}


def found(path: str) -> Any:
    value: Any = sleighexec
    for name in path.split("."):
        value = getattr(value, name)
    return value


def parameters(callable_: Any) -> dict[str, inspect.Parameter]:
    known = dict(inspect.signature(callable_).parameters)
    known.pop("self", None)
    return known


@pytest.mark.parametrize("path", SIGNATURES)
def test_the_signature_is_what_was_promised(path: str) -> None:
    promised: dict[str, Any] = {}
    exec(f"def promise({SIGNATURES[path]}): pass", promised)
    wanted, there = parameters(promised["promise"]), parameters(found(path))
    by_position = [name for name in wanted if wanted[name].kind < inspect.Parameter.VAR_POSITIONAL]
    assert list(there)[: len(by_position)] == by_position
    for name, parameter in wanted.items():
        assert there[name].kind == parameter.kind
        assert there[name].default == parameter.default
    for name in there.keys() - wanted.keys():
        kind = there[name].kind
        assert there[name].default is not inspect.Parameter.empty or kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ), f"{name} must be given, which was not promised"


@pytest.mark.parametrize("name", PUBLIC.split())
def test_the_name_is_public(name: str) -> None:
    assert name in sleighexec.__all__
    assert found(name) is not None


@pytest.mark.parametrize("name", sleighexec.errors.__all__)
def test_an_error_is_public_and_of_our_tree(name: str) -> None:
    assert name in sleighexec.__all__
    assert issubclass(found(name), sleighexec.SleighError)


@pytest.mark.parametrize("module", [classic_client, classic_sleigh], ids=lambda m: m.__name__)
def test_a_star_import_gives_what_the_old_modules_had(module: Any) -> None:
    names: dict[str, Any] = {}
    exec(f"from {module.__name__} import *", names)
    assert set(module.__all__) <= names.keys()


def test_other_spellings_are_the_same_methods() -> None:
    for cls in (sleighexec.SleighExecutor, sleighexec.Sleigh):
        assert cls.each_elem is cls.eachElem
        assert cls.each_worker is cls.eachWorker


def test_kinds() -> None:
    assert issubclass(sleighexec.SleighExecutor, Executor)
    assert issubclass(sleighexec.Sleigh, sleighexec.SleighExecutor)
    assert issubclass(sleighexec.SleighPending, Sequence)
    with sleighexec.SleighExecutor(1) as executor:
        future = executor.submit(abs, -1)
        assert isinstance(future, Future)
        assert isinstance(executor.map(abs, [1]), Iterator)
        assert future.result() == 1


def test_what_an_executor_says_of_itself() -> None:
    with sleighexec.SleighExecutor(2) as executor:
        assert (executor.worker_count, executor._max_workers) == (2, 2)
        assert executor.workers() == []
        assert isinstance(executor.workspace, sleighexec.NetWorkSpace)
        executor.eachWorker(abs, 1)
        assert [worker.rank for worker in executor.workers()] == [0, 1]
        executor.resize(3)
        assert executor.worker_count == 3


def test_an_executor_has_a_url_while_it_listens(run_directory: Path) -> None:
    with sleighexec.SleighExecutor(1) as executor:
        assert executor.url is None
        url = executor.listen()
        assert executor.url == url
    assert executor.url is None


def test_what_a_task_knows_of_its_worker() -> None:
    def look() -> Any:
        me = sleighexec.current_worker()
        me.state["seen"] = me.state.get("seen", 0) + 1
        return me.rank, me.count, me.host, me.workspace.currentWs(), me.state["seen"]

    with sleighexec.SleighExecutor(1) as executor:
        rank, count, host, name, seen = executor.submit(look).result()
        assert (rank, count, name, seen) == (0, 1, executor.workspace.currentWs(), 1)
        assert host == executor.workers()[0].host
        assert executor.submit(look).result()[4] == 2


def test_a_view_takes_the_settings_of_the_promise() -> None:
    with sleighexec.SleighExecutor(1) as executor:
        view = executor.options(timeout=5, retries=2, memory_limit="1 GB", priority=1)
        assert view.submit(abs, -1).result() == 1
        assert list(view.map(abs, [-1])) == view.eachElem(abs, [-1]) == [1]


def test_workspaces_and_servers_are_context_managers(tmp_path: Any) -> None:
    tmp_path.chmod(0o700)
    with (
        sleighexec.WorkspaceServer(str(tmp_path / "socket")) as server,
        sleighexec.NwsServer(url=server.url) as client,
        client.openWs("x") as ws,
    ):
        ws.store("v", 1)
        assert ws.fetch("v", timeout=1) == 1


@pytest.mark.parametrize(
    "command",
    [
        "server",
        "status",
        "doctor",
        "worker u",
        "ws list",
        "ws vars w",
        "ws store w v 1",
        "ws fetch w v",
    ],
)
def test_the_command_is_there(command: str) -> None:
    assert cli.parser().parse_args(command.split()).command == command.split()[0]
    if not command.startswith(("server", "worker")):
        head, *rest = command.split()
        assert cli.parser().parse_args([head, "--json", *rest]).json
