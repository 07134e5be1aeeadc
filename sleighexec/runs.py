"""What has become of calls, as records of bytes that stand behind each other.

A record is size u32, flag u8, number of the call u64, bytes. Each says which call it answers, so
that a frame that was never sent can be read to its last record, and one that was sent twice does no
harm.

Results of simple types stand together in a run: a list as `marshal` writes it, "[", how many they
are, and one behind the other. So each is written on its own, by itself complete, and a thousand are
read by one call. A run that is still being written has OPEN in its flag and goes to the end of what
is there; the byte of the flag is what closes it. Tuples of simple values stand there as well. In a
mixed run, small results of other types stand too: shallow dicts as they are, each shallow list in a
list, and all others as the bytes of their pickles, each in a list. In a run of numbers all are of
one type, int or float, of eight bytes each: many calls return nothing else.
"""

from __future__ import annotations

import io
import marshal
import struct
from collections.abc import Sequence

from sleighexec.hints import Any
from sleighexec.messages import Payload
from sleighexec.payload import OUT_OF_BAND, is_shallow, loads_small

RECORD = struct.Struct("!IBQ")
GOOD, BAD, LARGE, RUN = 0, 1, 2, 3  # a value; an error; one whose buffers follow outside; a run
PRINTED = 4  # no outcome yet: what the call has printed, UTF-8
MIXED = 5  # a mixed run
INTS, FLOATS = 6, 7  # a run of numbers
RUNS = frozenset({RUN, MIXED})
NUMBERS: dict[type, int] = {int: INTS, float: FLOATS}
NUMBER = 8  # bytes of one
FORMATS: dict[int, Any] = {INTS: "q", FLOATS: "d"}  # as `memoryview.cast` has them
OPEN = 0x80  # in the flag of a run
EVERYWHERE = 2  # the version of marshal's format that every Python reads and that has no references
_SIZE, _COUNT = struct.Struct("!I"), struct.Struct("<I")
FLAG_AT = _SIZE.size  # where the flag is in a record
_EMPTY, _ONE = (b"[" + _COUNT.pack(count) for count in (0, 1))
RUN_HEAD = RECORD.size + len(_EMPTY)  # bytes before the first result of a run


def run_head(number: int, flag: int = RUN) -> bytes:
    """How a run begins, the first result of which is that of call `number`; it is open."""
    head = RECORD.pack(0, flag | OPEN, number)
    return head if flag in FORMATS else head + _EMPTY


def run_of_one(data: bytes) -> bytes:
    """What a run has behind the head of its record if this, as it stands in it, is all of it."""
    return _ONE + data


def of_one(data: Any) -> tuple[int, Any] | None:
    """The number of a call and what stands for its value, if a frame is but a run of one."""
    if type(data) is not bytes or not data.startswith(_ONE, RECORD.size):
        return None
    size, flag, number = RECORD.unpack_from(data)
    if flag not in RUNS or RECORD.size + size != len(data):
        return None
    return number, marshal.loads(data[RUN_HEAD:])


def close_run(memory: Any, start: int, end: int, count: int) -> None:
    """Write into the head of the run that lies there how long it is, and of how many results."""
    flag = memory[start + FLAG_AT] & ~OPEN
    _SIZE.pack_into(memory, start, end - start - RECORD.size)
    if flag not in FORMATS:
        _COUNT.pack_into(memory, start + RECORD.size + 1, count)
    memory[start + FLAG_AT] = flag  # last: until then, none of that counts


def dump_simple(value: Any) -> bytes:
    """A value of a simple type, as it stands in a run."""
    return marshal.dumps(value, EVERYWHERE)


def dump_mixed(pickled: bytes) -> bytes:
    """A value of another type, pickled, as it stands in a mixed run."""
    return marshal.dumps([pickled], EVERYWHERE)


def dump_shallow(value: Any) -> bytes | None:
    """A shallow dict or list, as it stands in a mixed run; None: it is none, or not small."""
    if not is_shallow(value):
        return None
    data = marshal.dumps([value] if type(value) is list else value, EVERYWHERE)
    return data if len(data) < OUT_OF_BAND else None


def load_mixed(stands: list[Any]) -> Any:
    """The value for which a list stands in a mixed run. Raises whatever unpickling it raises."""
    value = stands[0]
    return value if type(value) is list else loads_small(value)


def _load_open_run(data: memoryview) -> list[Any]:
    values = []
    with io.BytesIO(data[len(_EMPTY) :]) as file:
        while file.tell() < len(data) - len(_EMPTY):
            values.append(marshal.load(file))
    return values


def outcomes(payload: Payload) -> list[tuple[int, int, Any, Sequence[Any]]]:
    """The records of a worker's frame: number of the (first) call, flag, bytes, buffers.

    The bytes of a run are the list of its values.
    """
    data, position, length = memoryview(payload.head), 0, len(payload.head)
    records: list[tuple[int, int, Any, Sequence[Any]]] = []
    while position < length:
        size, flag, number = RECORD.unpack_from(data, position)
        start = position + RECORD.size
        position = start + size if flag < OPEN else length
        record: Any = data[start:position]
        if flag == RUN:
            record = marshal.loads(record)
        else:
            is_open, flag = flag & OPEN, flag & ~OPEN
            if flag in FORMATS:
                flag, record = RUN, record.cast(FORMATS[flag]).tolist()
            elif flag in RUNS:
                record = _load_open_run(record) if is_open else marshal.loads(record)
        records.append((number, flag, record, payload.buffers if flag == LARGE else ()))
    return records


def last_answered(payload: Payload) -> int:
    """The number of the last call that has a record; 0: there is none."""
    last = 0
    for number, flag, data, _ in outcomes(payload):
        if flag != PRINTED:
            last = number + len(data) - 1 if flag in RUNS else number
    return last
