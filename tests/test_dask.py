"""The executor on a Dask cluster: what is promised for every engine, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("distributed")

import dask
from distributed import Client

from sleighexec import Sleigh, SleighExecutor, WorkspaceServer, current_worker
from sleighexec.engines.dask.journal import folder_of
from sleighexec.errors import (
    PoolBrokenError,
    UnsupportedOptionError,
    WorkerLost,
)
from sleighexec.sleigh import SleighTaskException
from tests.conftest import alive, wait_for
from tests.daskcluster import ROOT, dask_cluster
from tests.test_dask_traps import LONG, marks, note, take

pytestmark = [pytest.mark.timeout(300), pytest.mark.once]

table: dict[int, int] = {}


def load(factor: int) -> None:
    global table
    table = {n: factor * n for n in range(100)}


def look(n: int) -> int:
    return table[n]


def test_importing_sleighexec_imports_no_dask():
    code = (
        "import sys, sleighexec, sleighexec.worker; print({'dask', 'distributed'} & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_the_classic_calls(one_dask_cluster):
    one_dask_cluster.settle()
    sleigh = Sleigh(engine=one_dask_cluster.url)
    try:
        assert sleigh.workerCount == 2
        assert sleigh.eachWorker("SleighRank, SleighWorkerCount") == [(0, 2), (1, 2)]
        sleigh.eachWorker(load, 3)
        assert sleigh.eachElem(look, [1, 2, 3]) == [3, 6, 9]
        assert sleigh.eachElem(divmod, [[7, 8]], [2], argPermute=[1, 0]) == [(0, 2), (0, 2)]
        [good, bad] = sleigh.eachElem(lambda x: 1 // x, [1, 0])
        assert good == 1
        assert isinstance(bad, SleighTaskException)
        assert isinstance(bad.__cause__, ZeroDivisionError)
        pending = sleigh.eachElem(lambda n: SleighUserNws.find("go") + n, range(9), blocking=False)  # noqa: F821
        assert pending.check() == 9
        sleigh.userNws.store("go", 1)
        assert pending.wait(LONG) == list(range(1, 10))
        assert [info["rank"] for info in sleigh.workerInfo()] == [0, 1]
    finally:
        sleigh.stop()


def test_each_worker_runs_its_call_at_the_same_time_as_the_others(on_dask):
    def meet() -> tuple[int, int]:
        worker = current_worker()
        worker.workspace.store("here", worker.rank)
        return worker.rank, worker.workspace.fetch(f"go {worker.rank}")

    pending = on_dask.eachWorker(meet, blocking=False)
    there = {on_dask.workspace.fetch("here", timeout=LONG) for _ in range(2)}
    assert there == {0, 1}
    for rank in range(2):
        on_dask.workspace.store(f"go {rank}", rank * 10)
    assert pending.wait(LONG) == [(0, 0), (1, 10)]


def test_a_remote_error_has_its_frames(on_dask):
    def inner() -> None:
        raise LookupError("deep")

    with pytest.raises(LookupError, match="deep") as caught:
        on_dask.submit(lambda: inner()).result(LONG)
    frames = [frame.name for frame in caught.traceback]
    assert frames[-2:] == ["<lambda>", "inner"]
    assert not any("remote.py" in str(frame.path) for frame in caught.traceback)


def test_a_global_that_the_client_changes_arrives_and_one_that_it_does_not_stays(on_dask):
    on_dask.eachWorker("kept = 7", type="eval")
    names = {"count": 1}
    code = compile("def see():\n    return count, 'kept' in globals()\n", "x", "exec")
    names["__name__"] = "__main__"
    exec(code, names)
    assert on_dask.submit(names["see"]).result(LONG)[0] == 1
    names["count"] = 2
    assert on_dask.eachWorker(names["see"]) == [(2, False)] * 2
    assert on_dask.eachWorker("kept", type="eval") == [7, 7]


def test_a_dask_client_is_an_engine_and_is_left_open(one_dask_cluster):
    one_dask_cluster.settle()
    with Client(one_dask_cluster.url.replace("dask", "tcp"), set_as_default=False) as client:
        with SleighExecutor(engine=client) as executor:
            assert list(executor.map(abs, [-1, -2])) == [1, 2]
        assert client.submit(abs, -3).result(timeout=LONG) == 3


def test_what_calls_print_arrives_with_their_outcome(one_dask_cluster):
    one_dask_cluster.settle()
    lines: list[tuple[int, str]] = []
    with SleighExecutor(
        engine=one_dask_cluster.url, output=lambda rank, line: lines.append((rank, line))
    ) as executor:
        future = executor.submit(print, "hello\nworld")
        assert future.result(LONG) is None
        assert future.output == "hello\nworld\n"
        wait_for(lambda: len(lines) == 2, "the lines come")
        [(rank, first), (_, second)] = lines
        assert (first, second) == ("hello", "world")
        ride = executor._workspaces[0]
        assert ride.fetch(f"output@{rank}", timeout=LONG) == "hello"


# ------------------------------------------------------------------ workers come and go


def test_kill_9_of_a_worker_in_mid_run_loses_the_one_call_that_it_ran(on_dask, tmp_path):
    path = tmp_path / "runs"
    [victim] = [w.pid for w in on_dask.workers() if w.rank == 0]

    def work(n: int) -> int:
        note(str(path), f"{n} ")
        time.sleep(0.01)
        return n

    pending = on_dask.eachElem(work, range(200), blocking=False)
    wait_for(lambda: pending.progress().done > 20, "it has begun", LONG)
    os.kill(victim, signal.SIGKILL)
    errors = [future.exception(LONG) for future in pending]
    lost = [error for error in errors if error is not None]
    assert len(lost) <= 1  # none, if it was between two calls
    assert all(type(error) is WorkerLost and error.rank == 0 for error in lost)
    ran = [int(text) for text in marks(path).split()]
    assert len(set(ran)) == len(ran)
    # What was lost had begun; whether it came as far as its mark is another question.
    assert {n for n, error in enumerate(errors) if error is None} <= set(ran) <= set(range(200))


def test_kill_9_of_a_worker_costs_nothing_with_retries(on_dask, tmp_path):
    [victim] = [w.pid for w in on_dask.workers() if w.rank == 0]
    pending = on_dask.options(retries=1).eachElem(
        lambda n: time.sleep(0.01) or n, range(100), blocking=False
    )
    wait_for(lambda: pending.progress().done > 10, "it has begun", LONG)
    os.kill(victim, signal.SIGKILL)
    assert pending.wait(LONG) == list(range(100))


@pytest.mark.once
def test_a_worker_that_is_sent_away_takes_nothing_with_it_that_tells_of_others(tmp_path):
    began = tmp_path / "began"
    with (
        dask_cluster(2) as cluster,
        SleighExecutor(engine=cluster.url, min_workers=2) as executor,
    ):
        pids = executor.eachWorker(os.getpid)
        # Whichever of them stays, the call is there, and the other one has had its journals too.
        both = [executor.submit(lambda: (note(str(began)), take("go"))) for _ in range(2)]
        wait_for(lambda: marks(began) == "xx", "both run", LONG)
        cluster.scale(1)
        ended = [future.done for future in both]
        wait_for(lambda: ended[0]() or ended[1](), "one was lost with its worker", LONG)
        [left] = [pid for pid in pids if alive(pid)]
        os.kill(left, signal.SIGKILL)
        kinds = {type(future.exception(LONG)) for future in both}
        assert kinds == {WorkerLost}
        assert executor.submit(abs, -1).result(LONG) == 1
        assert marks(began) == "xx"  # no call ran a second time


def test_many_batches_share_few_files(on_dask):
    assert list(on_dask.map(abs, range(1000), chunksize=2)) == list(range(1000))
    found = list(folder_of(on_dask._engine.name).iterdir())
    assert 0 < len(found) < 400  # of 500 batches


def remember(what: str) -> None:
    current_worker().state.setdefault("prepared", []).append(what)


def prepared() -> list[str]:
    return current_worker().state["prepared"]


@pytest.mark.once
def test_late_and_restarted_workers_are_prepared_once_and_in_order():
    with (
        dask_cluster(1) as cluster,
        SleighExecutor(
            engine=cluster.url, initializer=remember, initargs=("first",), min_workers=1
        ) as executor,
    ):
        executor.eachWorker(remember, "second", sticky=True)
        executor.eachWorker(remember, "not kept")
        executor.eachWorker(remember, "third", sticky=True)
        assert executor.eachWorker(prepared) == [["first", "second", "not kept", "third"]]
        cluster.scale(2)
        wait_for(lambda: executor.worker_count == 2, "the second one is known", LONG)
        lists = executor.eachWorker(prepared)
        assert lists[1] == ["first", "second", "third"]
        with pytest.raises(WorkerLost):
            executor.submit(os._exit, 1).result(LONG)
        lists = executor.eachWorker(prepared, blocking=False).wait(LONG)
        assert ["first", "second", "third"] in lists
        assert executor.eachWorker(lambda: current_worker().rank) == [0, 1]


@pytest.mark.once
def test_an_adaptive_cluster_grows_for_what_waits():
    with (
        dask_cluster(0) as cluster,
        SleighExecutor(4, engine=cluster.url, initializer=remember, initargs=("x",)) as executor,
    ):
        cluster.adapt(0, 2)
        both = [executor.submit(lambda: (prepared(), take("go"))) for _ in range(2)]
        wait_for(lambda: [w.state for w in executor.workers()].count("busy") == 2, "it grows", LONG)
        for _ in both:
            executor.workspace.store("go", 1)
        assert [future.result(LONG) for future in both] == [(["x"], 1)] * 2


@pytest.mark.parametrize("retries", [0, 3])
def test_an_initializer_that_fails_breaks_the_pool(one_dask_cluster, retries):
    one_dask_cluster.settle()
    with SleighExecutor(
        engine=one_dask_cluster.url, initializer=divmod, initargs=(1, 0), retries=retries
    ) as executor:
        future = executor.submit(abs, -1)
        assert isinstance(future.exception(LONG), PoolBrokenError)
        assert isinstance(future.exception(LONG).__cause__, ZeroDivisionError)
        with pytest.raises(PoolBrokenError):
            executor.submit(abs, -1)


def test_a_crash_breaks_the_pool_if_that_was_asked_for(one_dask_cluster):
    one_dask_cluster.settle()
    with SleighExecutor(engine=one_dask_cluster.url, on_crash="break", min_workers=2) as executor:
        assert isinstance(executor.submit(os._exit, 1).exception(LONG), WorkerLost)
        wait_for(lambda: executor._broken, "it is broken", LONG)


@pytest.mark.once
def test_the_end_of_the_scheduler_breaks_the_pool_and_hangs_nobody():
    with dask_cluster(1) as cluster, dask.config.set({"distributed.comm.timeouts.connect": "3s"}):
        executor = SleighExecutor(engine=cluster.url, min_workers=1)
        future = executor.submit(take, "never")
        wait_for(lambda: executor.workers()[0].state == "busy", "it runs", LONG)
        cluster.kill()
        assert isinstance(future.exception(LONG), PoolBrokenError)
        executor.shutdown()


ABANDONED = """
import os, sys, time
from sleighexec import SleighExecutor, current_worker

def work():
    current_worker().workspace.store("pid", os.getpid())
    time.sleep(600)

executor = SleighExecutor(engine=sys.argv[1], min_workers=2)
executor.submit(work)
print(executor.workspace.fetch("pid"), flush=True)
time.sleep(600)
"""


def test_what_a_dead_caller_had_running_ends_and_nothing_of_it_stays(one_dask_cluster):
    one_dask_cluster.settle()
    script = subprocess.Popen(
        [sys.executable, "-c", ABANDONED, one_dask_cluster.url],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert script.stdout is not None
    with script.stdout:
        pid = int(script.stdout.readline())
        script.kill()
        script.wait()
    wait_for(lambda: not alive(pid), "the call that it had running has ended", LONG)
    with Client(one_dask_cluster.url.replace("dask", "tcp"), set_as_default=False) as client:
        wait_for(lambda: not client.run_on_scheduler(plugins), "no plugin is left", LONG)


def plugins(dask_scheduler: object) -> list[str]:
    """Those of ours, in a scheduler."""
    names = *dask_scheduler.worker_plugins, *dask_scheduler.plugins
    return [name for name in names if name.startswith("sleigh-")]


AT_EXIT = """
import sys, time
from sleighexec import SleighExecutor

def work(path):
    time.sleep(0.5)
    open(path, "w").close()

SleighExecutor(engine=sys.argv[1]).submit(work, sys.argv[2])
"""


def test_what_was_submitted_is_finished_before_the_interpreter_ends(one_dask_cluster, tmp_path):
    one_dask_cluster.settle()
    path = tmp_path / "done"
    command = [sys.executable, "-c", AT_EXIT, one_dask_cluster.url, str(path)]
    subprocess.run(command, timeout=LONG, check=True, cwd=ROOT)
    assert path.exists()


INTERRUPTED = """
import os, signal, sys, threading, time
from sleighexec import SleighExecutor, current_worker

def work(n):
    current_worker().workspace.store("runs", n)
    time.sleep(600)

with SleighExecutor(engine=sys.argv[1], min_workers=2) as executor:
    def interrupt():
        for _ in range(2):
            executor.workspace.fetch("runs")
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        executor.eachElem(work, range(10))
    except KeyboardInterrupt:
        print("interrupted", executor.submit(abs, -1).result())
"""


def test_ctrl_c_ends_what_runs_and_the_pool_goes_on(one_dask_cluster):
    one_dask_cluster.settle()
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, one_dask_cluster.url],
        capture_output=True,
        text=True,
        timeout=LONG,
        cwd=ROOT,
    )
    assert run.stdout == "interrupted 1\n", run.stderr


# ------------------------------------------------------------------ the workspace, TLS


def test_tasks_share_the_workspaces_of_a_server(one_dask_cluster, run_directory):
    one_dask_cluster.settle()
    with (
        WorkspaceServer("127.0.0.1:0") as server,
        SleighExecutor(engine=one_dask_cluster.url, workspace=server.url) as executor,
    ):
        future = executor.submit(take, "x")
        executor.workspace.store("x", 5)
        assert future.result(LONG) == 5


def test_a_workspace_is_an_argument(on_dask):
    def store(workspace: object, value: int) -> None:
        workspace.store("from afar", value)

    on_dask.submit(store, on_dask.workspace, 6).result(LONG)
    assert on_dask.workspace.fetch("from afar", timeout=LONG) == 6


def certificate(folder: Path) -> dict[str, str]:
    """What Dask reads from the environment for TLS, with a certificate made for it."""
    from datetime import datetime, timedelta, timezone

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dask")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(made.public_bytes(encoding))
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, form, plain))
    prefix = "DASK_DISTRIBUTED__COMM__"
    names = {f"{prefix}REQUIRE_ENCRYPTION": "True"}
    names[f"{prefix}TLS__CA_FILE"] = str(folder / "cert.pem")
    for side in ("SCHEDULER", "WORKER", "CLIENT"):
        names[f"{prefix}TLS__{side}__CERT"] = str(folder / "cert.pem")
        names[f"{prefix}TLS__{side}__KEY"] = str(folder / "key.pem")
    return names


OVER_TLS = """
import json, sys
from pathlib import Path
from sleighexec import SleighExecutor, current_worker

address = json.loads(Path(sys.argv[1]).read_text())["address"]
assert address.startswith("tls://"), address
url = address.replace("tls://", "dask+tls://")
with SleighExecutor(engine=url, min_workers=2, start_timeout=90) as executor:
    future = executor.submit(lambda: current_worker().workspace.fetch("x"))
    executor.workspace.store("x", 7)
    print(future.result(), executor.eachWorker("SleighRank", type="eval"))
"""


@pytest.mark.once
def test_a_scheduler_and_workers_as_processes_with_tls(tmp_path):
    environment = {**os.environ, **certificate(tmp_path)}
    file = tmp_path / "scheduler.json"
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    shared = ["--scheduler-file", str(file), "--no-dashboard"]
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--protocol", "tls", "--host", "127.0.0.1", "--port", "0", *shared],
        **quiet,
    )
    worker = subprocess.Popen(
        [*dask, "worker", "--nworkers", "2", "--nthreads", "1", "--protocol", "tls", *shared],
        **quiet,
    )
    try:
        wait_for(lambda: marks(file).rstrip().endswith("}"), "the scheduler is there", LONG)
        run = subprocess.run(
            [sys.executable, "-c", OVER_TLS, str(file)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=2 * LONG,
            cwd=ROOT,
        )
        assert run.stdout == "7 [0, 1]\n", run.stderr
    finally:
        for process in (worker, scheduler):
            process.terminate()
        for process in (worker, scheduler):
            process.wait(LONG)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory_limit": "1 GB"}, "memory_limit"),
        ({"max_tasks_per_child": 3}, "max_tasks_per_child"),
        ({"idle_timeout": 3}, "idle_timeout"),
        ({"inner_threads": 1}, "inner_threads"),
        ({"nodes": ["hippo"]}, "nodes"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_option_that_dask_cannot_honour_is_refused(one_dask_cluster, options, words):
    one_dask_cluster.settle()
    with pytest.raises(UnsupportedOptionError, match=words):
        SleighExecutor(engine=one_dask_cluster.url, **options)


def test_options_that_dask_cannot_honour_are_refused_before_anything_is_sent(on_dask):
    with pytest.raises(UnsupportedOptionError, match="memory_limit"):
        on_dask.options(memory_limit=10**9)
    with pytest.raises(UnsupportedOptionError, match="1 gpu"):
        on_dask.options(resources={"gpu": 1}).submit(abs, -1)
    with pytest.raises(UnsupportedOptionError, match="cluster"):
        on_dask.resize(3)
    with pytest.raises(UnsupportedOptionError, match="join"):
        on_dask.listen("127.0.0.1:0")


@pytest.mark.parametrize("engine", ["ray://hippo", "hippo:8786", object(), 3])
def test_what_is_no_engine_is_refused(engine):
    with pytest.raises(UnsupportedOptionError, match="Dask"):
        SleighExecutor(engine=engine)


NOBODY = """
import socket
from sleighexec import SleighExecutor
from sleighexec.errors import ConnectError

with socket.socket() as nobody:
    nobody.bind(("127.0.0.1", 0))
    try:
        SleighExecutor(engine=f"dask://127.0.0.1:{nobody.getsockname()[1]}")
    except ConnectError as error:
        print(error)
"""


def test_no_scheduler_is_said_to_be_there():
    # In a process of its own: Dask leaves something open.
    run = subprocess.run(
        [sys.executable, "-c", NOBODY],
        env={**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"},
        capture_output=True,
        text=True,
        timeout=LONG,
        cwd=ROOT,
    )
    assert "no Dask scheduler answers at dask://127.0.0.1:" in run.stdout, run.stderr
