"""What Dask calls in a worker: a batch of calls, and all that a run needs there.

    attach (a WorkerPlugin) ─▶ Run: rank, what it has learned, workspaces, calls that prepare it
    run_batch (a Dask task) ─▶ prepare once ─▶ learn ─▶ call by call, each noted in the journal
                               ─▶ (how it went, which worker, records of results, not begun)

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
from typing import Any

from sleighexec import payload as pickling
from sleighexec.engines.dask import journal
from sleighexec.engines.dask.run import Facts, Run, RunningBatch, Spaces, spaces
from sleighexec.failures import failure_of
from sleighexec.importer import MINOR
from sleighexec.output import capture
from sleighexec.version import __version__

DONE, STRANGER, BROKEN, AGAIN, LOST = "done", "stranger", "broken", "again", "lost"

runs: dict[str, Run] = {}


def run_batch(message: bytes, *constants: bytes) -> tuple[Any, ...]:
    """A Dask task: run a batch of calls.

    Returns:
        How it went, which worker this is, and for DONE: seconds, records, the big buffers of the
        last result, how many calls have not begun.
    """
    name, number, ranks, count, sticky, news, groups, forgotten = pickle.loads(message)
    run = runs.get(name)
    if run is None:
        return STRANGER, None
    rank = run.given = ranks.get(run.facts.name, run.given)
    if rank < 0:
        return STRANGER, run.who()
    if run.setup["versions"] != (__version__, MINOR):
        theirs, ours = run.setup["versions"], (__version__, MINOR)
        text = "the Dask worker {} has sleighexec {} on Python {}, the caller {} on {}"
        problem = RuntimeError(text.format(run.facts.name, *ours, *theirs))
        return BROKEN, run.who(), failure_of(problem, __file__)
    with run.stopping:
        if number in run.revoked or run.gone:
            return DONE, run.who(), 0.0, b"", [], sum(len(items) for *_, items in groups)
        try:
            written = journal.Journal(name, number, rank)
        except FileExistsError:
            return AGAIN, run.who()
        lined_up = deque((*kind, deque(items)) for *kind, items in groups)
        batch = run.batches[threading.get_ident()] = RunningBatch(number, written, lined_up)
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
                return BROKEN, run.who(), failure
            return _run(run, batch, sticky)
        finally:
            run.leave(given)
    finally:
        batch.ended.set()
        with run.stopping:
            del run.batches[threading.get_ident()]
            written.close()


def _run(run: Run, batch: RunningBatch, sticky: int) -> tuple[Any, ...]:
    written = batch.journal
    if sticky in run.prepared:  # we have come after the call was made, and made it on arrival
        written.begin()
        written.write(*run.prepared[sticky])
        return DONE, run.who(), 0.0, written.records(), [], 0
    if sum(len(items) for *_, items in batch.groups) > 1:
        args = (batch,)
        threading.Thread(target=run.relieve, args=args, name="sleigh-relief", daemon=True).start()
    began = time.perf_counter()
    records, buffers = run.call_all(batch)
    seconds = time.perf_counter() - began
    if sticky:
        run.prepared[sticky] = pickling.GOOD, b""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    return DONE, run.who(), seconds, records, buffers, batch.returned


def lost() -> tuple[str]:
    """A Dask task that stands for a batch which must not run a second time."""
    return (LOST,)


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


def detach(name: str, number: int) -> None:
    """A run is over, or a call that prepares is not to be made any more."""
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
    journal.remove_all(name)


def stop(name: str, batches: list[tuple[int, int]], everything: bool) -> bool | None:
    """Kill this process if it runs one of these calls, as (batch, its number there).

    `everything`: or any call of the run. What has not begun here will not any more. Else it
    returns whether one of these batches has begun here.
    """
    run = runs.get(name)
    if run is None:
        return None
    with run.stopping:
        run.gone = run.gone or everything
        runs_here = False
        for batch in run.batches.values():
            for number, call in batches:
                if batch.number == number:
                    runs_here = True
                    if call == batch.call and run.facts.killable:
                        os.kill(os.getpid(), signal.SIGKILL)
            if everything and run.facts.killable:
                os.kill(os.getpid(), signal.SIGKILL)
        for number, _ in batches:
            # One whose outcome is on its way has been begun as well.
            runs_here = runs_here or journal.has_begun(name, number)
        run.revoked.update(number for number, _ in batches)
        return runs_here


def describe(name: str) -> tuple[int, str, str, bool]:
    """This worker: process, host, version of Python, and whether it runs a call of the run."""
    run = runs.get(name)
    python = ".".join(map(str, sys.version_info[:3]))
    return os.getpid(), os.uname().nodename, python, run is not None and bool(run.batches)


def read_remains(name: str, number: int) -> journal.Remains | None:
    """What is left on this machine of a batch."""
    return journal.read(name, number)


def forget_batches(name: str, numbers: list[int]) -> None:
    """The outcomes of these batches are safe."""
    for number in numbers:
        journal.remove(name, number)


def _note_output(text: str, lines: list[str]) -> None:
    """Something is printed in this process: by which call?"""
    here = threading.get_ident()
    for run in list(runs.values()):
        batch = run.batches.get(here)
        if batch is None and run.facts.threads == 1:  # by a thread of the call
            batch = next(iter(list(run.batches.values())), None)
        if batch is not None:
            with contextlib.suppress(ValueError):  # it has just ended
                batch.journal._close_run()
                batch.journal.text.add(text)
            return
