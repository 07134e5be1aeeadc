"""What Dask calls in a worker: a batch of calls, and all that a run needs there.

    attach (a WorkerPlugin) ─▶ Run: rank, what it has learned, workspaces, calls that prepare it
    run_batch (a Dask task) ─▶ prepare once ─▶ learn ─▶ call by call, each noted in the journal
                               ─▶ (how it went, which worker, records of results, not begun)
    make_safe (by the WorkerPlugin): Dask lets go of an outcome, so the journal may serve again

Nothing here imports Dask.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque

from sleighexec import payload as pickling
from sleighexec.engines.dask import journal
from sleighexec.engines.dask.run import (
    KEPT_REVOKED,
    Facts,
    Run,
    RunningBatch,
    Spaces,
    spaces,
)
from sleighexec.failures import failure_of
from sleighexec.hints import Any
from sleighexec.importer import MINOR
from sleighexec.output import capture
from sleighexec.runs import GOOD
from sleighexec.version import __version__

DONE, STRANGER, BROKEN, AGAIN, LOST = "done", "stranger", "broken", "again", "lost"

runs: dict[str, Run] = {}
_settled = False  # see Facts.settle


def run_batch(message: bytes, *constants: bytes) -> Any:
    """A Dask task: run a batch of calls. What it returns is for `outcome_of`."""
    kind, who, *rest = _run_batch(message, constants)
    buffers = rest.pop() if kind == DONE else []
    head = pickle.dumps((kind, who, *rest), 5)
    return (head, buffers) if buffers else head  # of bytes Dask knows the size at once


def outcome_of(returned: Any) -> tuple[Any, ...]:
    """How a batch went, on which worker; for BROKEN the error; for DONE seconds, records, how many
    calls have not begun, and the big buffers of the last result.
    """
    head, buffers = returned if type(returned) is tuple else (returned, [])
    outcome = pickle.loads(head)
    return (*outcome, buffers) if outcome[0] == DONE else outcome


def _run_batch(message: bytes, constants: tuple[bytes, ...]) -> tuple[Any, ...]:
    name, number, ranks, count, sticky, news, groups, forgotten = pickle.loads(message)
    run = runs.get(name)
    if run is None:
        return STRANGER, None
    rank = run.given = ranks.get(run.facts.name, run.given)
    if rank < 0:
        return STRANGER, run.who
    if run.setup["versions"] != (__version__, MINOR):
        theirs, ours = run.setup["versions"], (__version__, MINOR)
        text = "the Dask worker {} has sleighexec {} on Python {}, the caller {} on {}"
        problem = RuntimeError(text.format(run.facts.name, *ours, *theirs))
        return BROKEN, run.who, failure_of(problem, __file__)
    _settle(run)
    with run.stopping:
        if number in run.revoked or run.gone:
            return DONE, run.who, 0.0, b"", sum(len(items) for *_, items in groups), []
        try:
            written = run.journals.start(number, rank)
        except KeyError:
            return AGAIN, run.who
        lined_up = deque((*kind, deque(items)) for *kind, items in groups)
        batch = run.batches[threading.get_ident()] = RunningBatch(number, written, lined_up)
        if not run.relieving:
            run.relieving = True
            threading.Thread(target=run.relieve, name="sleigh-relief", daemon=True).start()
    try:
        with run.preparing:
            run.join(rank, count)
            given = run.enter()
            failure = run.prepare()
            if failure is None:
                run.learn(news, constants)
                run.forget(forgotten, sum(each[0] == pickling.SHARED for each in news))
        try:
            if failure is not None:
                return BROKEN, run.who, failure
            return _run(run, batch, sticky)
        finally:
            run.leave(given)
    finally:
        with run.stopping:
            del run.batches[threading.get_ident()]
        run.journals.end(written)


def _settle(run: Run) -> None:
    """Before the first call in this process: it may be one that ends it at once."""
    global _settled
    if not _settled:
        run.facts.settle()
        _settled = True


def _run(run: Run, batch: RunningBatch, sticky: int) -> tuple[Any, ...]:
    written = batch.journal
    if sticky in run.prepared:  # we have come after the call was made, and made it on arrival
        written.begin()
        written.write(*run.prepared[sticky])
        return DONE, run.who, 0.0, written.records(), 0, []
    began = time.perf_counter()
    records, buffers = run.call_all(batch)
    seconds = time.perf_counter() - began
    if sticky:
        run.prepared[sticky] = GOOD, b""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    return DONE, run.who, seconds, records, batch.returned, buffers


def lost() -> bytes:
    """A Dask task that stands for a batch which must not run a second time."""
    return pickle.dumps((LOST, None), 5)


def attach(name: str, facts: Facts, setup: dict[str, Any], number: int, call: Any) -> None:
    """This worker may get batches of a run; `call` prepares it."""
    if not isinstance(pickling._namespaces, Spaces):
        pickling._namespaces = spaces  # type: ignore[assignment]
        capture(_note_output)
    run = runs.get(name)
    if run is None:
        run = runs[name] = Run(name, facts, setup)
    if call is not None:
        run.calls[number] = call


def detach(name: str, number: int, *, ends: bool) -> None:
    """A run is over, or a call that prepares is not to be made any more.

    `ends`: only this worker does, and others on this machine may have the run.
    """
    run = runs.get(name)
    if run is None:
        return
    if number:
        run.calls.pop(number, None)
        return
    del runs[name]
    with run.stopping:
        run.gone = True
        if run.batches and run.facts.killable:  # nobody waits for it
            os.kill(os.getpid(), signal.SIGKILL)
    if run.learned.own_path is not None:
        sys.path[:] = run.learned.own_path
    with contextlib.suppress(OSError):
        os.chdir(run.folder)
    if run.reach is not None:
        run.reach.close()
    run.journals.close()
    if not ends:
        journal.remove_all(name)


def make_safe(name: str, number: int) -> None:
    """The outcome of this batch has been fetched, or nobody wants it."""
    run = runs.get(name)
    if run is not None:
        run.journals.make_safe(number)


def stop(name: str, batches: list[tuple[int, int]], everything: bool) -> list[int] | None:
    """Kill this process if it runs one of these calls, as (batch, its number there).

    `everything`: or any call of the run. What has not begun here will not any more. Else it
    returns those of the batches that have begun here.
    """
    run = runs.get(name)
    if run is None:
        return None
    with run.stopping:
        run.gone = run.gone or everything
        calls = dict(batches)
        for batch in run.batches.values():
            wanted = everything or calls.get(batch.number) == batch.call
            if wanted and run.facts.killable:
                os.kill(os.getpid(), signal.SIGKILL)
        run.revoked.update(calls)
        if len(run.revoked) > KEPT_REVOKED:
            run.revoked = set(sorted(run.revoked)[KEPT_REVOKED // 2 :])
        # One whose outcome is on its way has begun as well.
        return [number for number in calls if number in run.journals]


def describe(name: str) -> tuple[int, str, str, bool]:
    """This worker: process, host, version of Python, and whether it runs a call of the run."""
    run = runs.get(name)
    python = ".".join(map(str, sys.version_info[:3]))
    return os.getpid(), os.uname().nodename, python, run is not None and bool(run.batches)


def read_remains(name: str, number: int) -> journal.Remains | None:
    """What is left on this machine of a batch."""
    return journal.read(name, number)


def _note_output(text: str, lines: list[str]) -> None:
    """Something is printed in this process: by which call?"""
    here = threading.get_ident()
    for run in list(runs.values()):
        batch = run.batches.get(here)
        if batch is None and run.facts.threads == 1:  # by a thread of the call
            batch = next(iter(list(run.batches.values())), None)
        if batch is not None:
            batch.journal.note(text)
            return
