"""What has become of a worker's calls: written into its journal, and sent from there.

    a simple result ─▶ behind the others in the open run ──┐
    any other, an error ─▶ pickled ─▶ a record of its own ─┴─▶ journal ─▶ one send with the request
    a big one ─▶ sent by itself, behind all that is ready

The loop that runs the calls writes most results itself, see worker.py: it puts them behind the
last one while `slotted`, `straight` and `sized` allow that. All else is done here.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable

from sleighexec import payload as pickling
from sleighexec import raised, runs, wire
from sleighexec.client import ONE_WAY, SocketConnection
from sleighexec.forks import forget_in_child, leave
from sleighexec.hints import Any
from sleighexec.journal import END, ROOM, Journal, Records
from sleighexec.messages import Payload, Results
from sleighexec.output import Outbox

SIZED = frozenset({str, bytes, tuple})


class Outcomes:
    """The outcomes of the calls of one worker, and what they print.

    Attributes:
        finished: Calls that have ended, also the number of the last one. While calls run it is
            behind; whoever calls a method that writes has set it.
        slotted: The type of results that have slots in the open run; None: there are no slots.
        straight: The types of results that simply go into the open run.
        sized: …and those for which it depends on how long one is, and what is in it. All three are
            empty if the present call has printed, and for the first of several calls, whose result
            decides what kind of run it is to be.
        lock: Guards the records and what was printed.
        outbox: Lines and log records on their way.
        keeps_lines: Whether anybody wants lines.
        stdout: What notes what is printed.
    """

    def __init__(
        self,
        connection: SocketConnection,
        journal: Journal,
        post_output: Callable[[list[Any]], None],
        is_sending: Callable[[], bool],
    ) -> None:
        """The latter two are for the Outbox."""
        self._connection = connection
        self._journal, self._text = journal.memory, journal.text
        self.records = Records(journal)
        self._words = self.records.words
        self.finished = 0
        self.straight: set[type] = set(pickling.ATOMS)
        self.sized: set[type] = set(SIZED)
        self.slotted: type | None = None
        self._undecided = False
        self._dumper = pickling.Dumper()
        self.lock = threading.RLock()
        self.outbox = Outbox(post_output, is_sending, self.lock)
        self.keeps_lines = False
        self._printed = False  # something since the last flush
        self.stdout: Any = None
        forget_in_child(self)

    def forget(self) -> None:
        """In a child that a call has forked: the journal, which it shares with us, is ours."""
        self.__class__ = _OfParent

    # ------------------------------------------------------------------ writing

    def open_run(
        self, number: int, flag: int = runs.RUN, *, several: bool = False
    ) -> tuple[int, Any, int]:
        """See that call `number` can write a simple result, the first of `several` perhaps.

        How far the records go; slots for numbers, if that is the kind of the run; the number of
        the call that has the first of them. `flag`: what kind of run, if none is open.
        """
        records = self.records
        with self.lock:
            if several and records.slots is None:
                self._undecided = True
                self._hold()
            else:
                if not records.open_run(number, flag):
                    self.finished = number - 1
                    self.flush()
                    records.open_run(number, flag)
                if records.slots is None and not self.straight:
                    self._allow()
            return self._words[END], records.slots, records.first

    def _hold(self) -> None:
        """Have no result go straight into the open run."""
        self.slotted = None
        self.straight.clear()
        self.sized.clear()

    def _allow(self, kind: type | None = None) -> None:
        """Have simple results go straight into the open run; `kind`: only those of that type."""
        self._hold()
        if self._text.size:
            return  # the present call has printed that: it comes first
        if kind is not None:
            self.slotted = kind
        else:
            self.straight.update(pickling.ATOMS)
            self.sized.update(SIZED)

    def write_lone(self, result: object) -> None:
        """Write the result of a call that has no others beside it, while no run is open.

        Raises:
            BaseException: What pickling it raises: nothing is written then.
        """
        flag, data = self._standing(result)
        if data is not None:
            data, number = runs.run_of_one(data), self.finished + 1
            if not self._text.size and self.records.write(number, flag, data):
                self.finished = number
                return
        self._write_record(flag, data)

    def write_result(self, result: object) -> bool:
        """Write the next result, which does not simply go behind the one before.

        Whether the run that was open is still the one for what comes next.
        """
        same = bool(self.straight)
        if not same and self._decide(result):
            return False
        flag, data = self._standing(result)
        if data is None:
            self._write_record(flag, data)
        elif not self.straight:  # it has printed, perhaps while it was pickled: that comes before
            self._write_record(flag, runs.run_of_one(data))
        else:
            if flag == runs.MIXED:
                self.records.mix()
            try:
                self._words[END] += self._journal.write(data)
                return same
            except ValueError:  # so much room is not left
                self._make_room(data, result)
        return False

    def _decide(self, result: object) -> bool:
        """Have the next result begin another run; True: it is one of numbers, and stands in it."""
        with self.lock:
            first, self._undecided = self._undecided, False
            flag = runs.NUMBERS.get(type(result), runs.RUN) if first else runs.RUN
            self.records.close_run(self.finished)
            if self._text.size:
                return False
            _, slots, _ = self.open_run(self.finished + 1, flag)
            if slots is None:
                return False
            try:
                slots[0] = result
            except ValueError:  # it needs more than eight bytes
                return False
            self.records.commit(self.finished + 1)
            self._allow(type(result))
            return True

    def _make_room(self, data: bytes, result: object) -> None:
        """Write a result that is too long for what is left of the open run."""
        self.flush()
        if runs.RUN_HEAD + len(data) > ROOM:
            self._send_alone(pickling.dumps(result))
            self._write_record(runs.LARGE, None)
            return
        self.open_run(self.finished + 1)
        self.records.mix()  # perhaps it is a pickle
        self._words[END] += self._journal.write(data)

    def _write_record(self, flag: int, data: bytes | None) -> None:
        """Write any other outcome of the next call to be finished, unless it went out by itself."""
        with self.lock:
            self.records.close_run(self.finished)
            if data is not None:
                self._write_text()
                self._write(flag, data)
            self.finished += 1
            self._text.clear()  # until it has an outcome, what it printed stands here

    def write_failure(self, data: bytes) -> None:
        """Write that the next call to be finished has failed, and how."""
        self._write_record(runs.BAD, data)

    def _write_text(self) -> None:
        """Write what the present call has printed, before its outcome. Under the lock."""
        if self._text.size:
            self._write(runs.PRINTED, self._text.read())

    def _write(self, flag: int, data: bytes) -> None:
        number = self.finished + 1
        if not self.records.write(number, flag, data):
            self.flush()
            if not self.records.write(number, flag, data):
                entry = runs.RECORD.pack(len(data), flag, number) + data
                self._connection.post(Results((Payload(entry),)), ONE_WAY)

    def _standing(self, result: object) -> tuple[int, bytes | None]:
        """How a result stands in a run, and of which kind that must be; None: it went out alone.

        Raises:
            BaseException: What pickling the result raises: the outcome of the call, then.
        """
        if type(result) in pickling.PLAIN_KINDS:
            if pickling.is_simple(result):
                return runs.RUN, runs.dump_simple(result)
            if (data := runs.dump_shallow(result)) is not None:
                return runs.MIXED, data
        head = self._pickled(result)
        return (runs.LARGE, None) if head is None else (runs.MIXED, runs.dump_mixed(head))

    def _pickled(self, result: object) -> bytes | None:
        """A small result pickled; None: it is big, and was sent by itself.

        Raises:
            BaseException: What pickling the result raises.
        """
        try:
            data = self._dumper.dump(result)
        except BaseException as error:
            text = f"while pickling the result of the task, a {type(result).__name__}"
            raised.add_note(error, text)
            raise
        if isinstance(data, Payload):
            self._send_alone(data)
            return None
        return data

    def _send_alone(self, payload: Payload) -> None:
        """Send a big result by itself, behind all that is ready."""
        self._check_size(payload.size_bytes)
        with self.lock:
            self.records.close_run(self.finished)
            self._write_text()
            self.flush()
        head = runs.RECORD.pack(len(payload.head), runs.LARGE, self.finished + 1)
        payload = Payload(head + bytes(payload.head), payload.buffers)
        self._connection.post(Results((payload,)), ONE_WAY)

    def _check_size(self, size: int) -> None:
        if size > wire.MAX_FRAME - ROOM:
            raise ValueError(
                f"the result takes {size} bytes, more than the {wire.MAX_FRAME} that may come back "
                "at once: write it to a file, or cut it into parts"
            )

    # ------------------------------------------------------------------ sending

    def flush(self, count: int = 0) -> int:
        """Send the results of the journal, and ask for so many calls with them; the tag of that.

        Only by the thread that runs the calls: the journal forgets them.
        """
        with self.lock:
            self.records.close_run(self.finished)
            tag = self.send(count)
            self.records.clear()
        return tag

    def send(self, count: int = 0) -> int:
        """Send what is new in the journal. Under the lock."""
        self.outbox.send()
        records, tag = self.records, self._connection.next_tag() if count else 0
        data = records.take()
        if data and (self._printed or sys.stdout is not self.stdout):
            self._printed = False
            with contextlib.suppress(Exception):  # a task may have closed or replaced them
                sys.stdout.flush()
                sys.stderr.flush()
        if self._connection.memory is not None:
            self._connection.memory.tidy()
        if count or data:
            # Not by shared memory: it stands in some already, and is soon read.
            self._connection.send(wire.frame_of(Results, ONE_WAY, data, tag, count))
        return tag

    # ------------------------------------------------------------------ what tasks print

    def forget_text(self) -> None:
        """What was printed until now was printed by no call."""
        self._text.clear()

    def note_output(self, text: str, lines: list[str]) -> None:
        """A call prints, or a thread that it has left behind."""
        if self.outbox.foreign:
            return
        with self.lock:
            self._hold()  # first: a call that ends now waits for us
            self._text.add(text)
            self._printed = True
            if lines and self.keeps_lines:
                self.outbox.add(lines)


class _OfParent(Outcomes):
    """What they are in a child that a call has forked, which ends when it comes out of the call.

    The loop that runs the calls looks here then, for where to write a result or that it has failed.
    """

    @property
    def slotted(self) -> type | None:  # type: ignore[override]
        leave(None)

    def write_lone(self, result: object) -> None:
        leave(None)

    @property
    def finished(self) -> int:
        return 0

    @finished.setter
    def finished(self, count: int) -> None:
        leave(sys.exc_info()[1])
