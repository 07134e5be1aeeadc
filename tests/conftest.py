"""Every test leaves the house as it found it: no process, thread or descriptor stays behind."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from sleighexec import NetWorkSpace, NwsServer, SleighExecutor, WorkspaceServer
from sleighexec.inprocess import LocalConnection
from sleighexec.server import Server
from sleighexec.workspace import DICT, V_FETCHERS, V_FINDERS
from tests.daskcluster import DaskCluster, dask_cluster

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and the programs of our tests would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# On a busy machine the first example may take a second, for nothing that a test is about.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# For other interpreters than the first: `pytest --hypothesis-profile=quick`.
settings.register_profile("quick", settings.get_profile("patient"), max_examples=25)
settings.load_profile("patient")


def plain_id(value: object) -> str:
    """What to call a value in the name of a test: the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


# Seconds that something which is ending may take; more where workers are slow to start.
PATIENCE = float(os.environ.get("SLEIGHEXEC_TEST_PATIENCE", "30"))


def children() -> set[int]:
    """The child processes of this one, of all its threads."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found |= set(map(int, (task / "children").read_text().split()))
    return {pid for pid in found if not _is_resource_tracker(pid)}


def _is_resource_tracker(pid: int) -> bool:
    """multiprocessing's own helper lives as long as the interpreter."""
    with contextlib.suppress(OSError):
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("sleigh")}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def wait_for(condition: object, what: str, seconds: float = PATIENCE) -> None:
    """Wait until something has come true; fail with `what` when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def wait_for_file(path: Path) -> None:
    """For a task: end when the file is there."""
    while not path.exists():
        time.sleep(0.005)


def wait_behind(gate: Path) -> None:
    """For a task: tell that it has begun, and end when the file `gate` is there."""
    gate.with_suffix(".begun").touch()
    wait_for(gate.exists, "nobody opened the gate")


def wait_until_behind(gate: Path) -> None:
    """Wait until a task has begun to: not `running`, which it is on the way to its worker."""
    wait_for(gate.with_suffix(".begun").exists, "it does not run")


def stay_in_c_code(told: Path) -> None:
    """For a task: start a process, tell its number and our own, and keep the interpreter."""
    started = subprocess.Popen(["sleep", "300"])
    draft = told.with_suffix(".draft")
    draft.write_text(f"{os.getpid()} {started.pid}")
    draft.rename(told)
    re.match(r"(a+)+$", "a" * 40 + "b")  # for hours


def in_threads(work: Callable[[int], object], numbers: Iterable[int]) -> None:
    """Call `work` with each number, each in a thread of its own; raise what one of them raises."""
    problems: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    if "conformance" in str(request.path):  # CPython's suite has a check of its own
        yield
        return
    before = children(), threads(), descriptors()
    yield
    wait_for(lambda: threads() <= before[1], f"threads are left: {threads() - before[1]}")
    wait_for(lambda: children() <= before[0], f"processes are left: {children() - before[0]}")
    wait_for(lambda: descriptors() <= before[2] + 1, "descriptors are left")


@pytest.fixture
def executor() -> Iterator[SleighExecutor]:
    with SleighExecutor(2) as executor:
        yield executor


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory of the test's own, for sockets and connection files."""
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("SLEIGHEXEC_RUN_DIR", str(path))
    return path


# ------------------------------------------------------------------ workspaces to test with


class Local:
    """Workspaces of a server in this process."""

    def __init__(self) -> None:
        self.server = Server(name="sleigh-test-server")

    def connect(self) -> NwsServer:
        return NwsServer(connection=LocalConnection(self.server))

    def close(self) -> None:
        self.server.close()


class Socket:
    """Workspaces of a server that listens."""

    def __init__(self, bind: str) -> None:
        self.server = WorkspaceServer(bind)

    def connect(self) -> NwsServer:
        return NwsServer(url=self.server.url)

    def close(self) -> None:
        self.server.close()


@pytest.fixture(params=["local", "unix", "tcp", "tls"])
def house(request: pytest.FixtureRequest, run_directory: Path) -> Iterator[Local | Socket]:
    if request.param == "local":
        house: Local | Socket = Local()
    else:
        binds = {"unix": "unix", "tcp": "127.0.0.1:0", "tls": "127.0.0.2:0"}
        house = Socket(binds[request.param])
    yield house
    house.close()


@pytest.fixture
def server(house: Local | Socket) -> Iterator[NwsServer]:
    with house.connect() as server:
        yield server


@pytest.fixture
def ws(server: NwsServer) -> NetWorkSpace:
    return server.openWs("test")


def blocked(ws: NetWorkSpace, name: str, *, fetchers: int = 0, finders: int = 0) -> None:
    """Wait until that many are blocked at a variable."""

    def are_there() -> bool:
        row = ws.listVars(format=DICT).get(name, (name, 0, 0, 0))
        return bool(row[V_FETCHERS] >= fetchers and row[V_FINDERS] >= finders)

    wait_for(are_there, f"nobody waits at {name}")


# ------------------------------------------------------------------ whole runs


def pytest_collection_finish() -> None:
    """Have the collector not look at thousands of tests each time that a test calls it."""
    gc.freeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In CI, show what has failed at once: if the run is cut off, there is no summary."""
    if report.failed and os.environ.get("SLEIGHEXEC_CI") == "1":
        print(f"\nFAILED {report.nodeid} ({report.when})\n{report.longreprtext}", flush=True)


# ------------------------------------------------------------------ skips


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """In CI a skip that nobody expects is a failure; the reason says what is missing."""
    if os.environ.get("SLEIGHEXEC_CI") != "1":
        return
    reports = terminalreporter.stats.get("skipped", [])
    reasons = {report.longrepr[2] for report in reports if isinstance(report.longrepr, tuple)}
    unexpected = [reason for reason in reasons if "named exception" not in reason]
    if unexpected:
        terminalreporter.section("unexpected skips")
        for reason in unexpected:
            terminalreporter.line(f"UNEXPECTED SKIP: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if os.environ.get("SLEIGHEXEC_CI") != "1" or exitstatus != 0:
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter is not None else []
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        known = "named exception", "walltime", "Tested platform", "requires Windows"
        if not any(text in reason for text in known):
            session.exitstatus = 1


# ------------------------------------------------------------------ Dask


@pytest.fixture(scope="session")
def one_dask_cluster() -> Iterator[DaskCluster]:
    """Two Dask workers of one thread each, for all tests of this process."""
    pytest.importorskip("distributed")
    with dask_cluster() as cluster:
        yield cluster


@pytest.fixture
def three() -> Iterator[SleighExecutor]:
    """An executor with three workers."""
    with SleighExecutor(3) as executor:
        yield executor


@pytest.fixture
def on_dask(one_dask_cluster: DaskCluster) -> Iterator[SleighExecutor]:
    """An executor on it, whose workers are all there."""
    one_dask_cluster.settle()
    with SleighExecutor(engine=one_dask_cluster.url, min_workers=2) as executor:
        yield executor
