"""A process that is run instruction by instruction: it could be killed behind each of them.

What must hold then is looked at each time. A program of its own, so that nothing else is in the
process that is forked: `python -m tests.steps worker`, `… lone` or `… dask`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from sleighexec import payload as pickling
from sleighexec import runs, wire
from sleighexec.engines.dask import journal as of_dask
from sleighexec.functions import PLAIN
from sleighexec.journal import HEAD, START, Journal
from sleighexec.messages import Calls, Payload, Results
from sleighexec.output import capture
from sleighexec.worker import Worker

TRACEME, SINGLESTEP = 0, 9  # requests of ptrace
TRAPPED = signal.SIGTRAP << 8 | 0x7F  # the status of a process that has done one instruction
CANNOT = 77  # our exit status where the system does not let us
SEEN, TEXT = 1024, 32  # bytes of records, and of printed text, in which a change is noticed
LIMITS = (1000.0, 1 << 40)


def each_step(
    prepare: Callable[[], None], run: Callable[[], None], look: Callable[[], None]
) -> int:
    """Run something in a forked child, and `look` behind each instruction; how many there were.

    `prepare`: what the child does before.
    """
    ptrace = ctypes.CDLL(None).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    one = random.choice(sorted(os.sched_getaffinity(0)))
    os.sched_setaffinity(0, [one])  # else each step wakes another processor
    pid = os.fork()
    if pid == 0:
        if ptrace(TRACEME, 0, None, None) != 0:
            os._exit(CANNOT)
        try:
            prepare()
            os.kill(os.getpid(), signal.SIGSTOP)
            run()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    steps, waitpid = 0, os.waitpid
    _, status = waitpid(pid, 0)
    try:
        while os.WIFSTOPPED(status):
            if steps and status != TRAPPED:
                raise AssertionError(f"stopped by signal {os.WSTOPSIG(status)}")
            if ptrace(SINGLESTEP, pid, None, None) != 0:
                sys.exit(CANNOT)
            _, status = waitpid(pid, 0)
            steps += 1
            look()
    finally:
        if os.WIFSTOPPED(status):
            os.kill(pid, signal.SIGKILL)
    if status:
        sys.exit(os.waitstatus_to_exitcode(status))
    return steps


# ------------------------------------------------------------------ calls, and what they come to

GROUPS = [  # one call behind the other, by what they return or do; in each, of one function
    ["int", "int", "float"],
    ["pair", "set", "error", "dict"],
    ["printed"],
    ["list"],
]
KINDS = [kind for group in GROUPS for kind in group]  # of call 1, 2, …
LONE = ["int", "set", "error", "printed", "list"]  # …and where each is sent by itself
RESULTS = {"int": 6, "float": 0.5, "pair": (1, -2.5), "set": {1, 2}, "dict": {"a": 1}}
RESULTS |= {"printed": 7, "list": [1, "x"]}


def outcome(kind: str) -> Any:
    if kind == "error":
        raise LookupError
    if kind == "printed":
        print("one")
        print("two")
    return RESULTS[kind]


def text_of(kind: str) -> str:
    return "one\ntwo\n" * (kind == "printed")


class Seen:
    """What was found of the calls, of so many kinds."""

    def __init__(self, kinds: list[str]) -> None:
        self.kinds = kinds
        self.outcomes: dict[int, Any] = {}
        self.printed: dict[int, str] = {}

    def add(self, records: bytes) -> None:
        for number, flag, data, _ in runs.outcomes(Payload(records)):
            if flag in runs.RUNS:
                data = [runs.load_mixed(v) if type(v) is list else v for v in data]
                self.outcomes.update(enumerate(data, number))
            elif flag == runs.PRINTED:
                self.printed[number] = bytes(data).decode()
            elif flag == runs.BAD:
                self.outcomes[number] = "error"
            else:
                assert flag == runs.GOOD, f"no record has flag {flag}"
                self.outcomes[number] = pickling.loads(Payload(data))

    def check(self, begun: int, present: str, before: dict[int, str]) -> None:
        """All calls that have begun, but the last one, must have ended.

        `present`: what that has printed, if it has not; `before`: by call, what we saw of that.
        """
        ended = self.kinds[: len(self.outcomes)]
        assert len(ended) in (begun - 1, begun), (begun, self.outcomes)
        wanted = [RESULTS.get(kind, "error") for kind in ended]
        assert [*self.outcomes] == [*range(1, len(ended) + 1)], self.outcomes
        assert [*self.outcomes.values()] == wanted, self.outcomes
        for number, kind in enumerate(ended, 1):
            assert self.printed.get(number, "") == text_of(kind), (number, self.printed)
        if len(ended) < begun:
            assert text_of(self.kinds[begun - 1]).startswith(present), (begun, present)
            assert present.startswith(before.get(begun, "")), (begun, present, before)
            before[begun] = present


# ------------------------------------------------------------------ the journal of a worker


Scenario = tuple[Callable[[], None], Callable[[], None], Callable[[], None]]  # as `each_step` wants


def of_worker(*, lone: bool = False) -> Scenario:
    """A worker runs a batch of calls, or `lone` ones, and sends their outcomes."""
    journal = Journal()
    ours, theirs = socket.socketpair()
    others = socket.socketpair()
    workers: list[Worker] = []
    ours.setblocking(False)
    kinds = LONE if lone else KINDS
    groups = [
        (1, PLAIN, (), LIMITS if group == ["list"] else None, [(kind,) for kind in group])
        for group in ([[kind] for kind in LONE] if lone else GROUPS)
    ]
    batches = [
        Calls((pickling.pack(([], part, [])),), number, 0)
        for number, part in enumerate([[group] for group in groups] if lone else [groups], 1)
    ]
    decoder, sent = wire.Decoder(), Seen(kinds)

    def prepare() -> None:
        make(others[0], Journal())
        run()  # what is imported when first needed is none of our business
        make(theirs, journal)

    def make(sock: socket.socket, journal: Journal) -> None:
        worker = Worker(sock, journal)
        worker._learned._functions[1] = outcome
        worker._failure = lambda error: b"error"  # type: ignore[method-assign]
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it is to stay
        capture(worker._outcomes.note_output)
        workers.append(worker)

    def run() -> None:
        worker = workers.pop()
        for batch in batches:
            worker._accept(batch)
            if lone:
                worker._run_lone()
            else:
                worker._run_calls(ahead=False)
            worker._outcomes.flush()

    memory, before, printed = journal.memory, b"", dict[int, str]()

    def look() -> None:
        nonlocal before
        now = memory[: HEAD + TEXT] + memory[START : START + SEEN]
        if now == before:
            return
        before = now
        records, begun = journal.read()
        with contextlib.suppress(BlockingIOError):
            for _, message in decoder.feed(ours.recv(1 << 16)):
                assert type(message) is Results
                sent.add(bytes(message.values[0].head))
        seen = Seen(kinds)
        seen.outcomes.update(sent.outcomes)
        seen.printed.update(sent.printed)
        seen.add(records)
        seen.check(begun, journal.text.read().decode(), printed)
        end, size = journal.limits()
        assert size in (0, LIMITS[1])
        assert end == 0 or 0 < end - time.monotonic() < LIMITS[0], end

    return prepare, run, look


def of_dask_worker(name: str) -> Scenario:
    """The same of the journal that a Dask worker has of a batch."""
    journal = of_dask.Journal(name)
    journal.start(1, 0)
    memory, before, printed = journal._memory, b"", dict[int, str]()

    def work(journal: of_dask.Journal) -> None:
        for kind in KINDS:
            journal.begin()
            result = RESULTS.get(kind)
            for line in text_of(kind).splitlines(keepends=True):
                journal.note(line)
            if kind == "error":
                journal.write(runs.BAD, b"error")
            elif pickling.is_simple(result):
                journal.write_simple(runs.dump_simple(result))
            else:
                journal.write(runs.GOOD, bytes(pickling.dumps(result).head))

    def look() -> None:
        nonlocal before
        start = of_dask.RECORDS_AT
        now = memory[: of_dask.TEXT_AT + TEXT] + memory[start : start + SEEN]
        if now == before:
            return
        before = now
        remains = of_dask.read(name, 1)
        assert remains is not None
        seen = Seen(KINDS)
        seen.add(remains.records)
        seen.check(remains.begun, remains.printed.decode(), printed)

    return lambda: work(of_dask.Journal(name)), lambda: work(journal), look


def main() -> None:
    name = f"steps-{os.getpid()}"
    try:
        [what] = sys.argv[1:]
        scenario = of_dask_worker(name) if what == "dask" else of_worker(lone=what == "lone")
        print(each_step(*scenario), "instructions")
    finally:
        of_dask.remove_all(name)


if __name__ == "__main__":
    main()
