"""The executor's contract beyond CPython's suite: the standard library first, then ours."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import operator
import os
import pickle
import reprlib
import sys
import threading
import time
import types
import weakref
from collections.abc import Iterator
from concurrent.futures import (
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from concurrent.futures import TimeoutError as FuturesTimeoutError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleighexec import Local, SerializationError, SleighExecutor, current_worker, errors, maps
from sleighexec.engines.workers import WorkerLink
from sleighexec.functions import KEPT, LONG, PLAIN, SINGLE
from sleighexec.future import SleighFuture
from sleighexec.mapping import MapJob
from tests.conftest import wait_behind, wait_for, wait_for_file, wait_until_behind

PATIENCE = 20


@pytest.fixture(params=[ThreadPoolExecutor, SleighExecutor], ids=lambda cls: cls.__name__)
def either(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with request.param(2) as executor:
        yield executor


def plus_one(number: int) -> int:
    return number + 1


def add(a: int, b: int = 0, *, c: int = 0) -> int:
    return a + b + c


def fail(text: str) -> None:
    raise ValueError(text)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]

    def moved(self, by: int) -> Point:
        return Point(self.x + by)


# ---------------------------------------------------------------------- what both must do


def test_a_call_gives_its_value(either: Executor) -> None:
    assert either.submit(add, 1, b=2, c=3).result(PATIENCE) == 6
    assert either.submit(lambda x: x * 2, 4).result(PATIENCE) == 8
    assert either.submit(functools.partial(add, 1), 2).result(PATIENCE) == 3
    assert either.submit(Point(1).moved, 2).result(PATIENCE) == Point(3)
    assert either.submit(Point, 5).result(PATIENCE) == Point(5)
    assert either.submit("abc".upper).result(PATIENCE) == "ABC"


def test_the_error_of_the_call_is_the_error_of_the_future(either: Executor) -> None:
    with pytest.raises(ZeroDivisionError):
        either.submit(divmod, 1, 0).result(PATIENCE)
    assert isinstance(either.submit(sys.exit, 3).exception(PATIENCE), SystemExit)
    assert isinstance(either.submit(fail, "x").exception(PATIENCE), ValueError)


class FalseError(Exception):
    def __bool__(self) -> bool:
        return False


def fail_falsely(seconds: float) -> None:
    time.sleep(seconds)
    raise FalseError


@pytest.mark.parametrize("seconds", [0, 0.3], ids=["there already", "waited for"])
def test_an_error_that_is_false_is_an_error(executor: SleighExecutor, seconds: float) -> None:
    future = executor.submit(fail_falsely, seconds)
    if not seconds:
        wait_for(future.done, "the call ends")
    with pytest.raises(FalseError):
        future.result(PATIENCE)


def test_an_exception_that_is_returned_is_a_result(either: Executor) -> None:
    assert type(either.submit(ValueError, 1).result(PATIENCE)) is ValueError


def test_map_gives_results_in_order(either: Executor) -> None:
    assert list(either.map(add, range(100), range(100))) == [2 * n for n in range(100)]
    assert list(either.map(add, range(10), [1, 2], chunksize=3)) == [1, 3]
    assert list(either.map(add, [])) == []


def test_map_raises_at_the_item_that_failed(either: Executor) -> None:
    results = either.map(divmod, [1, 2, 3, 4], [1, 1, 0, 1])
    assert [next(results), next(results)] == [(1, 0), (2, 0)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("chunksize", [1, 2])
def test_calls_of_map_begin_while_its_input_is_read(
    either: Executor, chunksize: int, tmp_path: Path
) -> None:
    def paths() -> Iterator[Path]:
        for number in range(chunksize * 3):
            time.sleep(0.03)  # reading takes long
            yield tmp_path / str(number)
        wait_for((tmp_path / "0").exists, "no call begins")
        wait_for((tmp_path / str(chunksize)).exists, "no other call begins")

    assert list(either.map(Path.touch, paths(), chunksize=chunksize)) == [None] * 3 * chunksize


def test_an_error_in_the_input_of_map_is_raised_by_map(either: Executor) -> None:
    def inputs() -> Iterator[int]:
        yield 1
        raise LookupError("input")

    with pytest.raises(LookupError):
        list(either.map(add, inputs()))


def test_results_can_be_waited_for_together(either: Executor) -> None:
    futures = [either.submit(add, n) for n in range(20)]
    done, not_done = wait(futures, timeout=PATIENCE)
    assert (len(done), len(not_done)) == (20, 0)
    assert sorted(future.result() for future in as_completed(futures)) == list(range(20))


def test_callbacks_run_even_when_added_late(either: Executor) -> None:
    seen: list[int] = []
    future = either.submit(add, 1, 2)
    called = threading.Event()
    future.add_done_callback(lambda f: seen.append(f.result()))
    future.add_done_callback(lambda f: called.set())
    assert called.wait(PATIENCE)
    future.add_done_callback(lambda f: seen.append(-f.result()))
    assert seen == [3, -3]


def test_asyncio_can_await_the_futures(either: Executor) -> None:
    import asyncio

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        wrapped = [asyncio.wrap_future(either.submit(add, n)) for n in range(5)]
        return [*await asyncio.gather(*wrapped), await loop.run_in_executor(either, add, 9)]

    assert asyncio.run(main()) == [0, 1, 2, 3, 4, 9]


def test_submit_takes_any_keyword_of_the_task(either: Executor) -> None:
    def keywords(**kwargs: object) -> dict[str, object]:
        return kwargs

    assert either.submit(keywords, self=1, fn=2).result(PATIENCE) == {"self": 1, "fn": 2}
    with pytest.raises(TypeError):
        either.submit(fn=add)  # type: ignore[call-arg]


# ---------------------------------------------------------------------- construction


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": -1}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": "2"}, TypeError, "max_workers must be an integer"),
        ({"initializer": 5}, TypeError, "initializer must be a callable"),
        ({"initializer": print, "initargs": 5}, TypeError, "initargs must be a tuple"),
        ({"launcher": 5}, TypeError, "launcher must be a launcher"),
        ({"launcher": ["hippo"]}, TypeError, "launcher must be a launcher"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child"),
        ({"max_tasks_per_child": 1.5}, TypeError, "max_tasks_per_child"),
        ({"retries": -1}, ValueError, "retries"),
        ({"on_crash": "panic"}, ValueError, "on_crash"),
        ({"engine": "dask://x"}, errors.UnsupportedOptionError, "engine="),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"progress": "bar"}, ValueError, "progress must be"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(
    arguments: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        SleighExecutor(**arguments)  # type: ignore[arg-type]


def test_the_first_arguments_are_those_of_the_standard_pool(tmp_path: Path) -> None:
    path = tmp_path / "made"
    with SleighExecutor(1, None, Path.touch, (path,)) as executor:
        assert executor.submit(path.exists).result(PATIENCE)
        assert executor._max_workers == 1


def test_constructing_starts_nothing() -> None:
    with SleighExecutor(5) as executor:
        assert executor.workers() == []
        executor.submit(add, 1).result(PATIENCE)
        assert len(executor.workers()) == 1


def test_blocked_tasks_start_exactly_max_workers(tmp_path: Path) -> None:
    def block(path: Path) -> None:
        while not path.exists():
            time.sleep(0.01)

    with SleighExecutor(3) as executor:
        for _ in range(2):
            executor.submit(block, tmp_path / "go")
        assert len(executor._processes) == 2
        for _ in range(30):
            executor.submit(block, tmp_path / "go")
        assert len(executor._processes) == 3
        (tmp_path / "go").touch()


@pytest.mark.parametrize("bad", [None, 5, "text", object()])
def test_what_is_not_callable_is_refused_at_once(executor: SleighExecutor, bad: object) -> None:
    with pytest.raises(TypeError, match="callable"):
        executor.submit(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callable"):
        executor.map(bad, [1])  # type: ignore[arg-type]
    assert executor.submit(add, 1).result(PATIENCE) == 1


# ---------------------------------------------------------------------- map


def test_map_with_buffersize_reads_its_input_as_results_are_taken(executor: SleighExecutor) -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        number = 0
        while True:
            read.append(number)
            yield number
            number += 1

    results = executor.map(add, numbers(), buffersize=3)
    assert read == [0, 1, 2]
    assert [next(results) for _ in range(10)] == list(range(10))
    assert len(read) == 13  # three are ahead of the last of them, as with Python 3.14
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt])
def test_an_error_in_the_input_cancels_what_has_not_begun(
    error: type[BaseException], tmp_path: Path
) -> None:
    def touch(number: int) -> None:
        (tmp_path / str(number)).touch()
        if error is KeyboardInterrupt:
            time.sleep(600)  # what has begun is stopped then
        wait_for_file(tmp_path / "gate")

    def numbers() -> Iterator[int]:
        for number in range(4):
            time.sleep(0.03)
            yield number
        wait_for((tmp_path / "0").exists, "no call begins")
        raise error

    with SleighExecutor(1) as executor:
        with pytest.raises(error):
            executor.map(touch, numbers())
        (tmp_path / "gate").touch()
        assert executor.submit(abs, -3).result(PATIENCE) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"0", "gate"}


@given(
    times=st.lists(st.sampled_from([0, 0, 0, 0, 5, 50]), max_size=40), chunksize=st.integers(1, 5)
)
def test_what_is_read_is_cut_into_whole_chunks(times: list[int], chunksize: int) -> None:
    clock = 0.0

    def numbers() -> Iterator[int]:
        nonlocal clock
        for number, milliseconds in enumerate(times):
            clock += milliseconds / 1000
            yield number

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maps, "time", types.SimpleNamespace(monotonic=lambda: clock))
        portions = list(maps._portions(numbers(), chunksize))
    assert [number for portion in portions for number in portion] == list(range(len(times)))
    assert all(len(portion) % chunksize == 0 for portion in portions[:-1])
    assert all(portions)


def test_map_reads_no_further_than_zip(executor: SleighExecutor) -> None:
    longer = iter(range(500))
    assert len(list(executor.map(add, longer, iter(range(200))))) == 200
    assert next(longer) == 201


@pytest.mark.parametrize(
    "numbers",
    [range(0), range(1), range(7, 5000), range(5000, 7, -3), range(2**64, 2**65, 2**55)],
    ids=repr,
)
def test_map_over_a_range(executor: SleighExecutor, numbers: range) -> None:
    expected = [number + 1 for number in numbers]
    more = functools.partial(add, 1)  # has no definition of its own
    for options in ({}, {"chunksize": 3}, {"buffersize": 7}, {"chunksize": 2, "buffersize": 2}):
        assert list(executor.map(plus_one, numbers, **options)) == expected
        assert list(executor.map(more, numbers, **options)) == expected


def test_of_a_range_only_the_call_that_kills_its_worker_is_lost() -> None:
    def die_at(number: int) -> int:
        if number == 1234:
            os._exit(3)
        return number

    with SleighExecutor(2) as executor:
        results = executor.map(die_at, range(5000))
        assert [next(results) for _ in range(1234)] == list(range(1234))
        with pytest.raises(errors.WorkerLost, match="1234"):
            next(results)
        returned = executor.eachElem(die_at, range(1500), on_error="return")
        assert returned[:1234] + returned[1235:] == [*range(1234), *range(1235, 1500)]


def test_pieces_of_a_range_travel_together(executor: SleighExecutor) -> None:
    function = executor._functions.define(abs)
    assert function is not None
    job = MapJob(executor._engine, function, (), executor._settings, single=True)
    [span] = job.add(SINGLE, range(100))
    pieces = [span.begin(limit)[0] for limit in (20, 20, 20)]
    job.deliver(0, 7, None)  # the range stays what it is
    link = WorkerLink(1, 0, "here", Any, executor._functions)  # type: ignore[arg-type]
    for some in (pieces[:1], pieces):
        payload, _, _ = link.pack(some)
        [[_, form, _, _, items]] = pickle.loads(payload.head)[1]
        assert (form, [*items]) == (SINGLE, [*range(sum(each.size() for each in some))])


def test_map_is_cut_into_shares_that_become_smaller_but_not_tiny(executor: SleighExecutor) -> None:
    function = executor._functions.define(abs)
    assert function is not None
    job = MapJob(executor._engine, function, (), executor._settings)
    [rest] = job.add(PLAIN, [(number,) for number in range(10_000)])
    sizes = []
    while rest is not None:
        part, rest = rest.begin(1600)
        sizes.append(part.size())
    assert sum(sizes) == 10_000
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 1600
    assert min(sizes[:-1]) == 100


def test_map_with_buffersize_counts_chunks(executor: SleighExecutor) -> None:
    results = executor.map(add, range(25), chunksize=4, buffersize=2)
    assert list(results) == list(range(25))


@pytest.mark.parametrize(("size", "error"), [("3", TypeError), (0, ValueError), (1.0, TypeError)])
def test_a_wrong_buffersize_is_refused_at_the_call(
    executor: SleighExecutor, size: object, error: type[Exception]
) -> None:
    for its in (executor, executor.options(retries=1)):
        with pytest.raises(error, match="buffersize"):
            its.map(add, [1], buffersize=size)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="chunksize"):
            its.map(add, [1], chunksize=0)


def test_a_lazy_map_says_when_its_executor_is_shut_down() -> None:
    executor = SleighExecutor(1)
    results = executor.map(add, range(10), buffersize=2)
    assert next(results) == 0
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures"):
        list(results)


def test_map_out_of_time_raises_after_what_was_ready(executor: SleighExecutor) -> None:
    results = executor.map(time.sleep, [0, 0, 5], timeout=1)
    assert [next(results), next(results)] == [None, None]
    with pytest.raises(FuturesTimeoutError):
        next(results)
    executor.kill_workers()


def test_a_closed_map_runs_no_more(executor: SleighExecutor, tmp_path: Path) -> None:
    def note(number: int) -> int:
        time.sleep(0.02)
        (tmp_path / str(number)).touch()
        return number

    results = executor.map(note, range(500))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    executor.shutdown()
    assert len(list(tmp_path.iterdir())) < 50


@pytest.mark.parametrize("buffersize", [None, 20])
def test_a_closed_map_gives_nothing_more_of_what_was_there(
    executor: SleighExecutor, buffersize: int | None
) -> None:
    results = executor.map(abs, range(1000), buffersize=buffersize)
    assert [next(results), next(results)] == [0, 1]
    results.close()  # type: ignore[attr-defined]
    assert list(results) == []
    results.close()  # type: ignore[attr-defined]


def test_two_threads_that_ask_a_map_at_the_same_time_are_told_so(
    executor: SleighExecutor, tmp_path: Path
) -> None:
    results = executor.map(wait_behind, [tmp_path / "gate"] * 2)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            next(results)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until_behind(tmp_path / "gate")
    with pytest.raises(ValueError, match="two threads"):
        next(results)
    (tmp_path / "gate").touch()
    thread.join()
    assert [type(error) for error in errors] == [ValueError]  # not the end of the results


@pytest.mark.parametrize("make", [abs, float, str, Point, divmod])
@pytest.mark.parametrize("options", [{}, {"buffersize": 7}, {"buffersize": 2, "chunksize": 3}])
def test_map_gives_results_of_each_kind_in_order_however_they_come(
    executor: SleighExecutor, make: Any, options: dict[str, int]
) -> None:
    arguments = [range(200), [7] * 200] if make is divmod else [range(200)]
    assert list(executor.map(make, *arguments, **options)) == list(map(make, *arguments))


def test_a_map_holds_no_object_that_was_taken(executor: SleighExecutor) -> None:
    results = executor.map(Point, range(50))
    for _ in range(50):
        reference = weakref.ref(next(results))
        assert reference() is None


def test_map_calls_a_submit_that_was_replaced(executor: SleighExecutor) -> None:
    calls: list[object] = []
    submit = executor.submit

    def watched(fn: object, *args: object) -> object:
        calls.append(fn)
        return submit(fn, *args)  # type: ignore[arg-type]

    executor.submit = watched  # type: ignore[method-assign, assignment]
    assert list(executor.map(add, range(6))) == list(range(6))
    assert len(calls) == 6
    assert list(executor.map(add, range(6), chunksize=4, buffersize=1)) == list(range(6))


class Fragile:
    """What the process that it was made in cannot rebuild."""

    def __reduce__(self) -> Any:
        return _rebuilt, (os.getppid(),)


def _rebuilt(maker: int) -> Fragile:
    if maker != os.getppid():
        raise LookupError("broken on the way")
    return Fragile()


def made(kind: str) -> object:
    return Fragile() if kind == "fragile" else [kind] if kind == "list" else kind


def test_a_result_that_cannot_be_rebuilt_costs_no_other(executor: SleighExecutor) -> None:
    kinds = ["list", "text", "fragile", "fragile", "list", "text", "fragile", "list"]
    results = executor.map(made, kinds)
    assert [next(results), next(results)] == [["list"], "text"]
    with pytest.raises(SerializationError, match="LookupError: broken on the way"):
        next(results)
    futures = [executor.submit(made, kind) for kind in kinds * 50]
    for kind, future in zip(kinds * 50, futures):
        if kind == "fragile":
            assert isinstance(future.exception(), SerializationError)
            assert future.exception().data  # type: ignore[union-attr]
        else:
            assert future.result() == made(kind)


@pytest.mark.parametrize("buffersize", [None, 3])
def test_a_map_may_have_items_of_all_kinds_and_sizes(
    executor: SleighExecutor, buffersize: int | None
) -> None:
    import numpy

    items = [1, "a", [2], numpy.arange(3), numpy.arange(100_000), {"b": (3,)}, "x" * 100_000]
    items += [Path("y"), lambda: 4, made] + [7] * 20
    there = list(executor.map(type, items, buffersize=buffersize))
    assert there == [type(item) for item in items]
    [small, big] = executor.map(given, items[3:5], buffersize=buffersize)
    numpy.testing.assert_array_equal(big, items[4])
    small[0] = big[0] = 9  # both can be written to


def given(value: Any) -> Any:
    return value


@pytest.mark.parametrize("options", [{}, {"chunksize": 7}, {"buffersize": 5}], ids=str)
def test_dicts_and_lists_travel_as_they_were_when_map_was_called(
    executor: SleighExecutor, options: dict[str, int]
) -> None:
    items: list[Any] = [{"id": n, "name": f"n{n}", 5: None, "on": True} for n in range(60)]
    items += [[n, n / 2, "x"] for n in range(60)]
    items += [{}, [], {"deep": [1]}, ({"in": "a tuple"},), 7, "text", None, [[]]]
    expected = copy.deepcopy(items)
    results = executor.map(given, items, **options)
    if "buffersize" not in options:
        for item in items[:120]:
            item.clear()
    found = list(results)
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))
    assert len(set(map(id, found[:120]))) == 120


@pytest.mark.parametrize(
    "argument",
    [
        {},
        [],
        {"id": 1, "name": "x"},
        [1, "x", None],
        [[1]],
        {"deep": [1]},
        [0] * 5000,
        ["x" * 5000],
    ],
    ids=reprlib.repr,
)
def test_a_dict_or_list_travels_as_it_was_when_submit_was_called(
    executor: SleighExecutor, argument: Any
) -> None:
    expected = copy.deepcopy(argument)
    future = executor.submit(given, argument)
    argument.clear()
    assert future.result(PATIENCE) == expected


def test_every_item_of_a_map_has_arguments_of_its_own(executor: SleighExecutor) -> None:
    def grow(items: list[int]) -> int:
        items.append(0)
        return len(items)

    shared = [1]
    assert list(executor.map(grow, [shared] * 50)) == [2] * 50
    futures = [executor.submit(grow, shared) for _ in range(50)]
    assert [future.result(PATIENCE) for future in futures] == [2] * 50


def grow(items: list[int]) -> int:
    items.append(0)
    return len(items)


LONG_TEXTS = ["short", "x" * 70_000, b"y" * 2_000_000, b"", "\ud800" * 30_000, 7, None, "z" * 2000]


def both(first: object, second: object) -> tuple[object, object]:
    return first, second


@pytest.mark.parametrize("options", [{}, {"chunksize": 3}, {"buffersize": 2}], ids=str)
def test_long_texts_come_and_go_as_they_are(
    executor: SleighExecutor, options: dict[str, int]
) -> None:
    assert list(executor.map(given, LONG_TEXTS, **options)) == LONG_TEXTS  # type: ignore[arg-type]
    pairs = list(zip(LONG_TEXTS, LONG_TEXTS[::-1]))
    assert list(executor.map(both, *zip(*pairs), **options)) == pairs  # type: ignore[arg-type]
    factor = 1
    by_value = executor.map(lambda text: (text, factor), LONG_TEXTS, **options)  # type: ignore[arg-type]
    assert list(by_value) == [(text, 1) for text in LONG_TEXTS]
    futures = [executor.submit(both, *pair) for pair in pairs * 3]
    assert [future.result(PATIENCE) for future in futures] == pairs * 3
    assert executor.eachElem(given, [LONG_TEXTS]) == LONG_TEXTS
    assert executor.eachElem(given, [LONG_TEXTS], chunkSize=3) == LONG_TEXTS


def test_a_batch_is_cut_where_long_texts_make_it_big(executor: SleighExecutor) -> None:
    function = executor._functions.define(abs)
    assert function is not None
    job = MapJob(executor._engine, function, (), executor._settings)
    [span] = job.add(LONG, [("x" * 500_000,)] * 100)
    part, rest = span.begin(1000)
    assert (part.size(), rest.size()) == (3, 97)
    link = WorkerLink(1, 0, "here", Any, executor._functions)  # type: ignore[arg-type]
    futures = [
        SleighFuture(executor._engine, function, (), LONG, ("x" * 500_000,), executor._settings)
    ]
    payload, sent, _ = link.pack(futures * 100)  # type: ignore[arg-type]
    assert sent == 3
    assert payload.size_bytes < 2_000_000


def test_only_what_travels_together_may_share_what_it_has_in_common(
    executor: SleighExecutor,
) -> None:
    """As with ProcessPoolExecutor; but a chunk may be cut, and then its parts share nothing."""
    for function in (grow, functools.partial(grow)):
        its = list(executor.map(function, [[1]] * 6, chunksize=3))
        for first, second, third in (its[:3], its[3:]):
            assert first == 2
            assert second in (2, 3)
            assert third in (2, second + 1)


def slow_or_deadly(item: dict[str, Any]) -> int:
    if item["number"] == 5:
        time.sleep(0.3)
    if item["number"] == 33 and not item["path"].exists():
        item["path"].touch()
        os._exit(1)
    return item["number"] + os.getpid() * item["number"] % 2 * 0


@pytest.mark.parametrize("buffersize", [None, 2])
def test_a_chunk_may_be_cut_where_a_call_takes_long_or_its_worker_ends(
    tmp_path: Path, buffersize: int | None
) -> None:
    items = [{"number": number, "path": tmp_path / "died"} for number in range(95)]
    with SleighExecutor(2, retries=1) as executor:
        results = executor.map(slow_or_deadly, items, chunksize=20, buffersize=buffersize)
        assert list(results) == list(range(95))
        assert (tmp_path / "died").exists()
        assert executor.submit(add, 1).result(PATIENCE) == 1


def test_a_chunk_that_cannot_be_rebuilt_fails_with_all_its_calls(executor: SleighExecutor) -> None:
    items = [[1], [2], ExplodesAtUnpickle(), [4], [5]]
    results = executor.map(len, items, chunksize=2)  # type: ignore[arg-type]
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(SerializationError, match="boom"):
        next(results)
    assert list(executor.map(len, items[3:], chunksize=2)) == [1, 1]  # type: ignore[arg-type]


def test_chunks_of_what_is_big_or_has_no_name_come_back_whole(executor: SleighExecutor) -> None:
    import numpy

    items = [numpy.full(40_000, number) for number in range(5)]
    for number, each in enumerate(executor.map(given, items, chunksize=2)):
        numpy.testing.assert_array_equal(each, items[number])
    calls = [lambda n=number: n for number in range(7)]  # type: ignore[misc]
    assert list(executor.map(lambda call: call(), calls, chunksize=3)) == list(range(7))
    assert list(executor.map(given, ["x" * 60_000] * 40 + [[1]], chunksize=30))[-1] == [1]


def test_a_call_is_taken_as_it_was_when_submitted(executor: SleighExecutor) -> None:
    items: list[int] = []
    futures = []
    for number in range(100):
        items.append(number)
        futures.append(executor.submit(len, items))
    assert [future.result(PATIENCE) for future in futures] == list(range(1, 101))


# ---------------------------------------------------------------------- futures


def test_a_call_that_is_cancelled_while_it_is_put_never_begins() -> None:
    with SleighExecutor(1) as executor:
        assert executor.submit(abs, -1).result() == 1
        function = executor._functions.define(abs)
        assert function is not None
        cut: SleighFuture[int] = SleighFuture(
            executor._engine, function, (), PLAIN, ("no number",), executor._settings
        )
        cut.cancel()
        executor._engine.put((cut,))
        assert executor.submit(abs, -2).result() == 2
        assert cut.cancelled()


def test_more_functions_than_a_worker_remembers_can_be_called_one_by_one() -> None:
    functions = [eval(f"lambda: {n}") for n in range(KEPT + 20)]
    again = [*range(30), *range(KEPT, KEPT + 20), 0, 0, 1, 0, KEPT + 10, KEPT + 10]
    with SleighExecutor(1) as executor:
        for n in (*range(KEPT + 20), *again):
            assert executor.submit(functions[n]).result() == n


def test_what_has_not_begun_can_be_cancelled_and_its_waiters_know_at_once() -> None:
    with SleighExecutor(1) as executor:
        running = executor.submit(time.sleep, 1)
        wait_for(running.running, "the first task runs")
        waiting = [executor.submit(add, n) for n in range(10)]
        not_done = as_completed([waiting[3]])
        assert all(future.cancel() for future in waiting)
        assert next(not_done) is waiting[3]
        assert wait(waiting, timeout=0).done == set(waiting)
        assert not running.cancel()
        assert not running.done()
        with pytest.raises(CancelledError):
            waiting[0].result()


def test_a_task_behind_a_long_one_does_not_count_as_running() -> None:
    with SleighExecutor(1) as executor:
        list(executor.map(add, range(2000)))  # the worker knows now that these are quick
        futures = [executor.submit(time.sleep, 0.7), *(executor.submit(add, n) for n in range(50))]
        wait_for(futures[0].running, "the long task runs")
        wait_for(lambda: not futures[1].running(), "the worker gave the others back")
        assert futures[1].cancel()


def test_short_tasks_do_not_wait_behind_a_long_one(
    executor: SleighExecutor, tmp_path: Path
) -> None:
    list(executor.map(add, range(5000)))
    long = executor.submit(wait_for_file, tmp_path / "never")
    short = [executor.submit(add, n) for n in range(200)]
    assert [future.result(PATIENCE) for future in short] == list(range(200))
    assert not long.done()
    executor.kill_workers()


def test_a_task_that_was_fetched_early_does_not_wait_behind_a_long_one(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with SleighExecutor(2) as executor:
        list(executor.map(time.sleep, [0.005] * 60))  # long enough to be fetched one by one
        tasks = [executor.submit(time.sleep, 0.005) for _ in range(10)]
        long = executor.submit(wait_for_file, gate)
        tasks += [executor.submit(time.sleep, 0.005) for _ in range(40)]
        for task in tasks:
            task.result(PATIENCE)
        assert not long.done()
        gate.touch()
        long.result(PATIENCE)


def test_a_callback_may_submit_wait_and_fail() -> None:
    with SleighExecutor(2) as executor:
        outcomes: list[object] = []
        finished = threading.Event()

        def again(future: Future[int]) -> None:
            if future.result() < 100:
                executor.submit(add, future.result(), 1).add_done_callback(again)
            else:
                outcomes.append(
                    executor.submit(add, 5, 5).result(PATIENCE)
                )  # waits in the callback
                outcomes.append(list(executor.map(add, [1, 2])))
                finished.set()
                raise SystemExit

        executor.submit(add, 0).add_done_callback(again)
        assert finished.wait(PATIENCE)
        assert outcomes == [10, [1, 2]]
        assert executor.submit(add, 1).result(PATIENCE) == 1


def test_a_callback_may_shut_its_executor_down() -> None:
    executor = SleighExecutor(1)
    called = threading.Event()

    def end(future: Future[int]) -> None:
        executor.shutdown(wait=True)
        called.set()

    executor.submit(add, 1).add_done_callback(end)
    assert called.wait(PATIENCE)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(add, 1)
    executor.shutdown()


def test_futures_of_several_executors_mix(executor: SleighExecutor) -> None:
    with ThreadPoolExecutor(1) as threads, SleighExecutor(1) as other:
        futures = [pool.submit(add, n) for n in range(5) for pool in (threads, other, executor)]
        assert sorted(f.result() for f in as_completed(futures, PATIENCE)) == sorted(
            [*range(5)] * 3
        )


# ---------------------------------------------------------------------- arguments and results


def test_numpy_arrays_arrive_whole_and_writable(executor: SleighExecutor) -> None:
    import numpy

    def change(array: numpy.ndarray) -> tuple[numpy.ndarray, bool]:
        writable = array.flags.writeable
        array += 1
        return array, writable

    for size in (10, 100_000, 3_000_000):
        array = numpy.arange(size, dtype=float)
        result, writable = executor.submit(change, array).result(PATIENCE)
        assert writable
        assert result.flags.writeable
        assert numpy.array_equal(result, array + 1)
        assert array[0] == 0


def test_many_megabytes_go_both_ways(executor: SleighExecutor) -> None:
    data = b"\x01" * 50_000_000
    assert executor.submit(operator.itemgetter(slice(None)), data).result(60) == data


def test_an_unpicklable_argument_is_the_futures_error(executor: SleighExecutor) -> None:
    futures = [
        executor.submit(add, threading.Lock() if n % 3 == 0 else n)  # type: ignore[arg-type]
        for n in range(100)
    ]
    for number, future in enumerate(futures):
        if number % 3 == 0:
            with pytest.raises(TypeError, match="pickle"):
                future.result(PATIENCE)
        else:
            assert future.result(PATIENCE) == number


def test_an_argument_that_cannot_be_pickled_is_named(executor: SleighExecutor) -> None:
    lock = threading.Lock()
    for call, place in (
        (lambda: executor.submit(add, 1, lock).result(PATIENCE), "args[1]"),  # type: ignore[arg-type]
        (lambda: executor.submit(add, 1, c=lock).result(PATIENCE), "c"),
        (lambda: list(executor.map(add, [1], [lock])), "args[1]"),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        if sys.version_info >= (3, 11):
            note = f"while pickling a call of add for a worker: {place} is a lock"
            assert caught.value.__notes__ == [note]


def test_an_unpicklable_argument_and_shutdown_do_not_hang() -> None:
    executor = SleighExecutor(2)
    executor.submit(id, 42).result(PATIENCE)
    future = executor.submit(id, threading.Lock())
    executor.shutdown(wait=False)
    with pytest.raises(TypeError):
        future.result(PATIENCE)
    executor.shutdown()


def test_an_unpicklable_result_is_the_futures_error(executor: SleighExecutor) -> None:
    with pytest.raises(TypeError, match="pickle") as caught:
        executor.submit(threading.Lock).result(PATIENCE)
    if sys.version_info >= (3, 11):
        assert "while pickling the result" in "".join(caught.value.__notes__)
    assert executor.submit(add, 1).result(PATIENCE) == 1


class ExplodesAtUnpickle:
    def __init__(self, call: object = fail, *args: object) -> None:
        self.call, self.args = call, args or ("boom",)

    def __reduce__(self) -> object:
        return self.call, self.args


@pytest.mark.parametrize("call", [fail, sys.exit], ids=["error", "exit"])
def test_what_cannot_be_rebuilt_fails_its_own_task_only(
    executor: SleighExecutor, call: object
) -> None:
    bad = executor.submit(id, ExplodesAtUnpickle(call))
    worse = executor.submit(ExplodesAtUnpickle, call)
    good = executor.submit(add, 1)
    for future in (bad, worse):
        error = future.exception(PATIENCE)
        assert isinstance(error, SerializationError)
        assert isinstance(error.__cause__, (ValueError, SystemExit))
        assert "rebuilt" in str(error)
    assert good.result(PATIENCE) == 1


def test_an_executor_or_future_within_an_argument_is_refused_with_the_remedy(
    executor: SleighExecutor,
) -> None:
    for thing, text in ((executor, "inside the task"), ([executor.submit(add, 1)], "result")):
        with pytest.raises(TypeError, match=text):
            executor.submit(id, thing).result(PATIENCE)


def test_arguments_are_let_go_when_the_task_is_done(executor: SleighExecutor) -> None:
    point = Point(1)
    reference = weakref.ref(point)
    executor.submit(point.moved, 1).result(PATIENCE)
    del point
    wait_for(lambda: gc.collect() is not None and reference() is None, "the executor keeps it")


# ---------------------------------------------------------------------- errors from afar


def test_a_remote_error_comes_with_its_frames_and_causes(executor: SleighExecutor) -> None:
    def outer() -> None:
        try:
            fail("inner")
        except ValueError as error:
            raise KeyError("outer") from error

    with pytest.raises(KeyError) as caught:
        executor.submit(outer).result(PATIENCE)
    assert [entry.name for entry in caught.traceback][-1] == "outer"
    cause = caught.value.__cause__
    assert isinstance(cause, ValueError)
    assert cause.args == ("inner",)
    assert cause.__traceback__ is not None
    frames = []
    tb = cause.__traceback__
    while tb is not None:
        frames.append(tb.tb_frame.f_code.co_name)
        tb = tb.tb_next
    assert frames[-1] == "fail"


class Odd(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Locked(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


def test_an_exception_with_an_odd_constructor_keeps_its_type(executor: SleighExecutor) -> None:
    def odd() -> None:
        raise Odd(code=7)

    with pytest.raises(Odd) as caught:
        executor.submit(odd).result(PATIENCE)
    assert caught.value.code == 7


def test_an_exception_that_cannot_travel_becomes_a_remote_error(executor: SleighExecutor) -> None:
    def locked() -> None:
        raise Locked

    with pytest.raises(errors.RemoteError) as caught:
        executor.submit(locked).result(PATIENCE)
    assert caught.value.type_name.endswith("Locked")
    assert caught.value.message == "locked"
    assert "raise Locked" in caught.value.traceback_text


def test_endless_recursion_is_an_ordinary_error(executor: SleighExecutor) -> None:
    def forever(n: int) -> int:
        return forever(n + 1) + 1

    with pytest.raises(RecursionError):
        executor.submit(forever, 0).result(PATIENCE)


# ---------------------------------------------------------------------- workers and the workspace


def test_tasks_know_their_worker_and_keep_state_there() -> None:
    def count() -> tuple[int, int, int]:
        worker = current_worker()
        worker.state["calls"] = worker.state.get("calls", 0) + 1
        return worker.rank, worker.count, worker.state["calls"]

    with SleighExecutor(1) as executor:
        outcomes = [executor.submit(count).result(PATIENCE) for _ in range(3)]
    assert outcomes == [(0, 1, 1), (0, 1, 2), (0, 1, 3)]
    with pytest.raises(RuntimeError, match="inside a task only"):
        current_worker()


def test_tasks_and_the_caller_talk_over_the_workspace(executor: SleighExecutor) -> None:
    def serve(rounds: int) -> None:
        ws = current_worker().workspace
        for _ in range(rounds):
            ws.store("answer", ws.fetch("question") * 2)

    future = executor.submit(serve, 5)
    for number in range(5):
        executor.workspace.store("question", number)
        assert executor.workspace.fetch("answer", timeout=PATIENCE) == number * 2
    future.result(PATIENCE)


def test_two_tasks_talk_with_each_other(executor: SleighExecutor) -> None:
    def side(mine: str, other: str) -> int:
        ws = current_worker().workspace
        total = 0
        for number in range(20):
            ws.store(other, number)
            total += ws.fetch(mine, timeout=20)
        return total

    futures = [executor.submit(side, "a", "b"), executor.submit(side, "b", "a")]
    assert [future.result(PATIENCE) for future in futures] == [190, 190]


def test_what_is_lined_up_behind_a_task_that_waits_in_the_workspace_runs_elsewhere(
    executor: SleighExecutor,
) -> None:
    def take() -> object:
        return current_worker().workspace.fetch("z", timeout=PATIENCE)

    def give(number: int) -> None:
        if number == 25:
            current_worker().workspace.store("z", number)

    executor.submit(lambda: current_worker().workspace.fetchTry("nothing")).result(PATIENCE)
    before = [executor.submit(abs, -n) for n in range(50)]
    waiting = executor.submit(take)
    after = [executor.submit(give, n) for n in range(50)]
    assert waiting.result(PATIENCE) == 25
    assert wait([*before, *after], PATIENCE).not_done == set()


def test_closing_the_workspace_of_an_executor_does_no_harm(executor: SleighExecutor) -> None:
    def use() -> object:
        with current_worker().workspace as ws:
            return ws.fetchTry("x", "nothing")

    with executor.workspace as ws:
        assert ws.listVars() == ""
    assert [executor.submit(use).result(PATIENCE) for _ in range(4)] == ["nothing"] * 4
    assert executor.workspace.fetchTry("x", "nothing") == "nothing"
    assert list(executor.workspace.server.listWss(format="dict")) == ["sleigh_ride", "sleigh_user"]
    executor.submit(lambda ws: ws.store("y", 1), executor.workspace).result(PATIENCE)
    assert executor.workspace.fetch("y") == 1


def test_the_number_of_workers_may_stand_in_the_launcher() -> None:
    assert SleighExecutor(launcher=Local(3))._max_workers == 3
    assert SleighExecutor(4, launcher=Local(workers=1))._max_workers == 1


def test_garbage_is_collected_in_workers(executor: SleighExecutor) -> None:
    assert executor.submit(gc.isenabled).result(PATIENCE)


def test_workers_are_replaced_after_max_tasks_per_child() -> None:
    with SleighExecutor(1, max_tasks_per_child=2) as executor:
        futures = [executor.submit(os.getpid) for _ in range(7)]
        pids = [future.result(PATIENCE) for future in futures]
    assert len(set(pids)) == 4
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_path_directory_and_environment_hold_in_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here_module.py").write_text("def answer():\n    return 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLEIGHEXEC_TEST", "yes")
    import only_here_module  # type: ignore[import-not-found]

    with SleighExecutor(1) as executor:
        assert executor.submit(only_here_module.answer).result(PATIENCE) == 42
        assert executor.submit(os.getcwd).result(PATIENCE) == str(tmp_path)
        assert executor.submit(os.getenv, "SLEIGHEXEC_TEST").result(PATIENCE) == "yes"


def test_a_module_that_became_importable_later_is_found(
    executor: SleighExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor.submit(add, 1).result(PATIENCE)
    (tmp_path / "later_module.py").write_text("def answer():\n    return 43\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import later_module  # type: ignore[import-not-found]

    assert executor.submit(later_module.answer).result(PATIENCE) == 43


def test_workers_see_multiprocessings_parent_and_may_have_children(
    executor: SleighExecutor,
) -> None:
    def look() -> tuple[bool, str, bool]:
        import multiprocessing

        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        child.join()
        me = multiprocessing.current_process()
        return multiprocessing.parent_process() is not None, me.name, me.daemon

    known, name, daemon = executor.submit(look).result(PATIENCE)
    assert known
    assert name.startswith("SleighWorker")
    assert not daemon


def _set_up(value: int) -> None:
    current_worker().state["set up"] = value


def test_an_executor_works_inside_a_task(executor: SleighExecutor) -> None:
    def nested() -> list[int]:
        with SleighExecutor(1) as inner:
            return list(inner.map(add, range(3)))

    assert executor.submit(nested).result(PATIENCE) == [0, 1, 2]


def test_the_initializer_runs_in_every_worker_before_its_first_task() -> None:
    with SleighExecutor(2, initializer=_set_up, initargs=(7,), max_tasks_per_child=1) as executor:
        futures = [executor.submit(lambda: current_worker().state["set up"]) for _ in range(6)]
        assert [future.result(PATIENCE) for future in futures] == [7] * 6


def test_a_failing_initializer_breaks_the_pool_and_says_why(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with SleighExecutor(2, initializer=fail, initargs=("no table",)) as executor:
        futures = [executor.submit(add, n) for n in range(5)]
        for future in futures:
            error = future.exception(PATIENCE)
            assert isinstance(error, errors.PoolBrokenError)
            assert isinstance(error.__cause__, ValueError)
        assert executor._broken
        with pytest.raises(errors.PoolBrokenError, match="initializer"):
            executor.submit(add, 1)


def test_what_may_run_again_does_not_hold_up_the_end_of_a_broken_pool(tmp_path: Path) -> None:
    def prepare() -> None:
        if (tmp_path / "fail").exists():
            raise LookupError

    with SleighExecutor(2, initializer=prepare) as executor:
        again = executor.options(retries=1).submit(wait_behind, tmp_path / "gate")
        wait_until_behind(tmp_path / "gate")
        (tmp_path / "fail").touch()
        other = executor.submit(abs, -1)  # for which a second worker is started
        for future in (again, other):
            assert isinstance(future.exception(PATIENCE), errors.PoolBrokenError)


def test_a_failing_initializer_is_logged_in_the_worker(tmp_path: Path) -> None:
    def log_to(path: Path) -> None:
        import logging

        logging.getLogger("concurrent.futures").addHandler(logging.FileHandler(path))
        raise ValueError("no table")

    path = tmp_path / "log"
    with SleighExecutor(1, initializer=log_to, initargs=(path,)) as executor:
        assert executor.submit(add, 1).exception(PATIENCE) is not None
    assert "Exception in initializer:" in path.read_text()
    assert "no table" in path.read_text()


# ---------------------------------------------------------------------- the end


def test_after_shutdown_submit_and_map_are_refused() -> None:
    executor = SleighExecutor(1)
    executor.submit(add, 1).result(PATIENCE)
    executor.shutdown()
    executor.shutdown()
    for call in (executor.submit, executor.map):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            call(add, [1])  # type: ignore[operator]


def test_shutdown_without_wait_finishes_what_was_submitted() -> None:
    executor = SleighExecutor(1)
    futures = [executor.submit(add, n) for n in range(10)]
    executor.shutdown(wait=False)
    assert [future.result(PATIENCE) for future in futures] == list(range(10))
    executor.shutdown()


def test_a_second_shutdown_may_cancel_and_wait() -> None:
    executor = SleighExecutor(1)
    first = executor.submit(time.sleep, 0.3)
    wait_for(first.running, "the first task runs")
    others = [executor.submit(time.sleep, 0.3) for _ in range(50)]
    executor.shutdown(wait=False)
    executor.shutdown(wait=True, cancel_futures=True)
    assert first.result(0) is None
    assert sum(future.cancelled() for future in others) >= 49
    assert wait(others, timeout=0).not_done == set()


def test_a_collected_executor_finishes_and_ends() -> None:
    executor = SleighExecutor(1)
    results = executor.map(add, range(20))
    future = executor.submit(add, 100)
    reference = weakref.ref(executor)
    del executor
    gc.collect()
    assert reference() is None
    assert list(results) == list(range(20))
    assert future.result(PATIENCE) == 100


@pytest.mark.parametrize("end", ["kill_workers", "terminate_workers"])
def test_workers_can_be_ended_at_once(end: str) -> None:
    executor = SleighExecutor(2, retries=3)
    running = [executor.submit(time.sleep, 60) for _ in range(2)]
    for future in running:
        wait_for(future.running, "the tasks run")
    time.sleep(0.3)  # they are handed out; what is tested is what becomes of calls that have begun
    waiting = [executor.submit(add, n) for n in range(10)]
    getattr(executor, end)()
    for future in running:
        assert isinstance(future.exception(PATIENCE), errors.WorkerLost)
    assert all(future.cancelled() for future in waiting)
    with pytest.raises(RuntimeError):
        executor.submit(add, 1)
    getattr(executor, end)()
    executor.shutdown()


def test_ending_workers_harms_nothing_when_there_are_none() -> None:
    executor = SleighExecutor(2)
    executor.kill_workers()
    executor.terminate_workers()
    executor.shutdown()


def test_many_threads_submit_at_once(executor: SleighExecutor) -> None:
    def work(start: int) -> int:
        futures = [executor.submit(add, n) for n in range(start, start + 200)]
        return sum(future.result(PATIENCE) for future in futures)

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(work, range(0, 3200, 200))) == sum(range(3200))


def test_a_forked_child_is_told_and_does_not_disturb_the_parent(
    executor: SleighExecutor, tmp_path: Path
) -> None:
    executor.submit(add, 1).result(PATIENCE)
    pending = executor.submit(wait_for_file, tmp_path / "go")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for use in (lambda: executor.submit(add, 1), lambda: pending.result(5)):
                try:
                    use()
                except errors.ForkedProcessError:
                    status = 0
                else:
                    os._exit(2)
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    (tmp_path / "go").touch()
    assert status == 0
    assert pending.result(PATIENCE) is None
    assert executor.submit(add, 2).result(PATIENCE) == 2


def test_a_forked_child_is_told_also_beside_executors_that_have_ended(tmp_path: Path) -> None:
    ended = [SleighExecutor(1) for _ in range(5)]
    for each in ended:
        each.submit(add, 1).result(PATIENCE)
        each.shutdown()
    with SleighExecutor(1) as executor:
        executor.submit(add, 1).result(PATIENCE)
        pid = os.fork()
        if pid == 0:
            try:
                executor.submit(add, 1)
            except errors.ForkedProcessError:
                os._exit(0)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("way", ["exit", "return", "return a list", "raise"])
def test_a_child_that_a_call_forks_ends_where_it_comes_out_of_it(
    executor: SleighExecutor, way: str
) -> None:
    def fork() -> Any:
        pid = os.fork()
        if pid == 0:
            if way == "exit":
                sys.exit(7)
            if way == "raise":
                raise ValueError(way)
            return 1 if way == "return" else [1]
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    expected = {"exit": 7, "raise": 1}.get(way, 0)
    for future in [executor.submit(fork), executor.submit(fork)]:
        assert future.result(PATIENCE) == expected
    assert executor.submit(abs, -2).result(PATIENCE) == 2


class Watched(bytearray):
    """Asks a future when it goes."""

    def __init__(self, size: int, future: Future[Any]) -> None:
        super().__init__(size)
        self.future = future

    def __del__(self) -> None:
        self.future.add_done_callback(lambda future: None)


class Wrapped:
    """Travels as bytes, which stay in a buffer of ours until then."""

    def __init__(self, buffer: Watched) -> None:
        self.buffer = buffer

    def __reduce_ex__(self, protocol: Any) -> Any:
        return bytes, (pickle.PickleBuffer(self.buffer),)


@pytest.mark.timeout(30)
def test_what_goes_when_a_call_ends_may_ask_a_future() -> None:
    with SleighExecutor(1) as executor:
        other = executor.submit(time.sleep, 0.1)
        assert executor.submit(len, Wrapped(Watched(100_000, other))).result(PATIENCE) == 100_000
        assert executor.submit(abs, -1).result(PATIENCE) == 1


@pytest.mark.timeout(30)
def test_garbage_that_cancels_calls_may_be_collected_at_any_time(
    executor: SleighExecutor,
) -> None:
    """An imap that nobody wants any more cancels its calls, while another future is asked."""
    before = gc.get_threshold()
    gc.set_threshold(20)
    try:
        for _ in range(200):
            circle: list[Any] = [executor.imap(abs, [1, 2])]
            circle.append(circle)
            for future in [executor.submit(abs, number) for number in range(20)]:
                future.add_done_callback(lambda future: None)
    finally:
        gc.set_threshold(*before)
    assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_a_million_pending_tasks_could_wait(executor: SleighExecutor) -> None:
    """A pending task takes a third of a kilobyte, not two: shown with fewer of them."""
    blocker = SleighExecutor(1)
    blocker.submit(time.sleep, 30)
    futures = [blocker.submit(add, n) for n in range(1000)]
    sizes = sum(sys.getsizeof(future) for future in futures) / len(futures)
    assert sizes <= 340
    blocker.kill_workers()
    blocker.shutdown()


def test_options_are_a_view_of_the_same_pool(executor: SleighExecutor) -> None:
    view = executor.options(retries=2)
    assert view.submit(add, 1, 2).result(PATIENCE) == 3
    assert list(view.map(add, range(5))) == list(range(5))
    with pytest.raises(errors.UnsupportedOptionError, match="nonsense"):
        executor.options(nonsense=3)


def test_a_submit_that_races_with_the_end_is_served_or_refused() -> None:
    """Tasks are lined up without a lock while all workers are busy: none may be forgotten."""
    for round_ in range(6):
        executor = SleighExecutor(1)
        executor.submit(abs, 1).result(PATIENCE)
        taken: list[Future[Any]] = []

        def submit(executor: SleighExecutor = executor, taken: list[Any] = taken) -> None:
            with contextlib.suppress(RuntimeError):
                while True:
                    taken.append(executor.submit(abs, -1))

        threads = [threading.Thread(target=submit) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.002 * round_)
        executor.shutdown(wait=True, cancel_futures=bool(round_ % 2))
        for thread in threads:
            thread.join()
        for future in taken:
            assert future.cancelled() or future.exception(PATIENCE) or future.result() == 1


@pytest.mark.parametrize(("threads", "text"), [(None, "1"), (3, "3"), (0, None)])
def test_numerical_libraries_share_the_cpus(
    threads: int | None, text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with SleighExecutor(os.cpu_count(), inner_threads=threads) as executor:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
            assert executor.submit(os.getenv, name).result() == text


def test_who_has_told_numerical_libraries_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with SleighExecutor(1) as executor:
        assert executor.submit(os.getenv, "OMP_NUM_THREADS").result() == "7"


def test_inner_threads_must_be_a_number() -> None:
    with pytest.raises(ValueError, match="inner_threads"):
        SleighExecutor(1, inner_threads=-1)
