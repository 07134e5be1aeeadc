"""The contract of a workspace, over both ways to reach one: in this process and over a socket."""

from __future__ import annotations

import math
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FuturesTimeoutError

import numpy
import pytest

from sleighexec import FIFO, LIFO, MULTI, SINGLE, NetWorkSpace, NwsServer, errors
from sleighexec.workspace import DICT, WS_VARLIST
from tests.conftest import PATIENCE, Local, Socket, blocked

VALUES = [
    None,
    "",
    "text ä ∀",
    b"",
    b"\x00\xff",
    0,
    2**70,
    1.5,
    True,
    [1, [2]],
    {"k": (1,)},
    {1, 2},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_was(ws: NetWorkSpace, value: object) -> None:
    ws.store("x", value)
    found, fetched = ws.find("x"), ws.fetch("x")
    assert (found, fetched) == (value, value)
    assert type(fetched) is type(value)


def test_functions_and_lambdas_can_be_stored(ws: NetWorkSpace) -> None:
    ws.store("f", lambda x: x + 1)
    assert ws.fetch("f")(1) == 2


def test_a_big_array_comes_back_writable_and_is_stored_as_it_was(ws: NetWorkSpace) -> None:
    array = numpy.arange(300_000, dtype=float)
    ws.store("a", array)
    array[0] = -1
    first, second = ws.find("a"), ws.find("a")
    first[1] = -2
    assert second[0] == 0
    assert second[1] == 1
    assert ws.fetch("a").sum() == numpy.arange(300_000, dtype=float).sum()


def test_many_values_come_back_in_their_order(ws: NetWorkSpace) -> None:
    values = [*range(3_000), *("ä" * 300 for _ in range(500)), *VALUES]
    ws.storeMany("x", iter(values))
    taken: list[object] = []
    while len(taken) < len(values):
        more = ws.fetchMany("x", 700, timeout=PATIENCE)
        assert 1 <= len(more) <= 700
        taken += more
    assert taken == values
    assert ws.fetchTry("x", "none") == "none"


def test_many_big_values_come_back_in_several_goes(ws: NetWorkSpace) -> None:
    arrays = [numpy.full(2_000_000, n) for n in range(4)]
    ws.storeMany("x", arrays)
    arrays[0][:] = -1
    first = ws.fetchMany("x", 4)
    rest = ws.fetchMany("x", 4 - len(first)) if len(first) < 4 else []
    assert [array[-1] for array in (*first, *rest)] == [0, 1, 2, 3]
    first[0][0] = 7  # it is ours
    assert ws.fetchTry("x", "none") == "none"


def test_fetch_many_waits_for_the_first_value_only(ws: NetWorkSpace, server: NwsServer) -> None:
    with pytest.raises(TimeoutError):
        ws.fetchMany("x", 5, timeout=0)
    other = server.openWs("test")
    with ThreadPoolExecutor(1) as threads:
        taken = threads.submit(ws.fetchMany, "x", 5)
        blocked(other, "x", fetchers=1)
        other.store("x", 1)
        assert taken.result(PATIENCE) == [1]


def test_store_many_keeps_the_newest(ws: NetWorkSpace) -> None:
    ws.storeMany("log", range(10_000), keep=3)
    assert ws.fetchMany("log", 10) == [9_997, 9_998, 9_999]
    with pytest.raises(ValueError, match="at least 1"):
        ws.storeMany("log", [1], keep=0)
    with pytest.raises(ValueError, match="at least 1"):
        ws.fetchMany("log", 0)


def test_store_many_stores_what_comes_before_a_value_that_cannot_be_pickled(
    ws: NetWorkSpace,
) -> None:
    with pytest.raises(errors.ValuePicklingError):
        ws.storeMany("x", [1, threading.Lock()])
    assert ws.fetchTry("x", "none") == "none"
    ws.storeMany("x", [])
    assert ws.fetchTry("x", "none") == "none"


def test_a_value_of_many_megabytes_comes_through(ws: NetWorkSpace) -> None:
    data = bytes(range(256)) * 40_000
    ws.store("big", data)
    assert ws.fetch("big") == data


def test_fifo_gives_the_oldest_first(ws: NetWorkSpace) -> None:
    for number in range(4):
        ws.store("x", number)
    assert ws.find("x") == 0
    assert [ws.fetch("x") for _ in range(4)] == [0, 1, 2, 3]


def test_lifo_gives_the_newest_first(ws: NetWorkSpace) -> None:
    ws.declare("x", LIFO)
    for number in range(4):
        ws.store("x", number)
    assert [ws.fetch("x") for _ in range(4)] == [3, 2, 1, 0]


def test_multi_gives_every_value_once_in_some_order(ws: NetWorkSpace) -> None:
    ws.declare("x", MULTI)
    for number in range(20):
        ws.store("x", number)
    assert sorted(ws.fetch("x") for _ in range(20)) == list(range(20))


def test_single_keeps_the_last_value(ws: NetWorkSpace) -> None:
    ws.declare("x", SINGLE)
    for number in range(4):
        ws.store("x", number)
    assert ws.fetch("x") == 3
    assert ws.fetchTry("x", "none") == "none"


def test_a_mode_cannot_be_changed(ws: NetWorkSpace) -> None:
    ws.declare("x", FIFO)
    ws.declare("x", FIFO)
    with pytest.raises(errors.ModeError):
        ws.declare("x", LIFO)
    with pytest.raises(ValueError, match="mode must be one of"):
        ws.declare("x", "queue")


def test_the_try_forms_give_missing_when_there_is_nothing(ws: NetWorkSpace) -> None:
    assert ws.fetchTry("x") is None
    assert ws.findTry("x", "missing") == "missing"
    ws.store("x", None)
    assert ws.findTry("x", "missing") is None


def test_a_fetch_that_times_out_takes_nothing(ws: NetWorkSpace) -> None:
    for timeout in (0, 0.05):
        with pytest.raises(TimeoutError) as caught:
            ws.fetch("x", timeout=timeout)
        assert isinstance(caught.value, FuturesTimeoutError)
    ws.store("x", 1)
    assert ws.fetch("x", timeout=0) == 1


def test_a_timeout_is_any_number(ws: NetWorkSpace) -> None:
    for timeout in (-1, -math.inf, -(10**400), False, 5e-324):
        with pytest.raises(TimeoutError):
            ws.fetch("x", timeout=timeout)
    for timeout in (True, 1e300, math.inf, 10**400):
        ws.store("x", timeout)
        assert ws.find("x", timeout=timeout) == timeout
        assert next(ws.ifetch("x", timeout=timeout)) == timeout
    with pytest.raises(ValueError, match="NaN"):
        ws.fetch("x", timeout=math.nan)
    with pytest.raises(TypeError, match="a number of seconds or None, not '1'"):
        ws.fetch("x", timeout="1")  # type: ignore[arg-type]


def test_a_blocked_fetch_gets_what_another_thread_stores(ws: NetWorkSpace) -> None:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(ws.fetch, "x")
        blocked(ws, "x", fetchers=1)
        ws.store("x", "now")
        assert future.result(PATIENCE) == "now"


def test_all_finders_are_served_before_the_first_fetcher(ws: NetWorkSpace) -> None:
    with ThreadPoolExecutor(4) as pool:
        fetcher = pool.submit(ws.fetch, "x")
        blocked(ws, "x", fetchers=1)
        finders = [pool.submit(ws.find, "x") for _ in range(3)]
        blocked(ws, "x", fetchers=1, finders=3)
        ws.store("x", 7)
        assert [future.result(PATIENCE) for future in (*finders, fetcher)] == [7] * 4
    assert ws.findTry("x", "gone") == "gone"


def test_deleting_a_variable_wakes_who_is_blocked_at_it(ws: NetWorkSpace) -> None:
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ws.fetch, "x"), pool.submit(ws.find, "x")]
        blocked(ws, "x", fetchers=1, finders=1)
        ws.deleteVar("x")
        for future in waiting:
            assert isinstance(future.exception(PATIENCE), errors.DeletedError)
    with pytest.raises(errors.NoSuchVariableError):
        ws.deleteVar("x")


def test_a_deleted_workspace_is_gone_even_if_one_of_that_name_comes_again(
    server: NwsServer, ws: NetWorkSpace
) -> None:
    ws.store("x", 1)
    server.deleteWs("test")
    again = server.openWs("test")
    assert again.findTry("x") is None
    for use in (ws.fetchTry, ws.findTry):
        with pytest.raises(errors.NoSuchWorkspaceError):
            use("x")
    with pytest.raises(errors.NoSuchWorkspaceError):
        server.deleteWs("nowhere")
    with pytest.raises(errors.NoSuchWorkspaceError):
        server.openWs("nowhere", create=False)


def test_a_workspace_ends_with_its_owner_unless_it_is_persistent(house: Local | Socket) -> None:
    with house.connect() as reader:
        with house.connect() as owner:
            owner.openWs("mine").store("x", 1)
            owner.openWs("ours", persistent=True).store("x", 2)
            listed = owner.listWss(DICT)
            assert listed["mine"][1]
            assert listed["mine"][3] is False
            assert reader.listWss(DICT)["mine"][1] is False
        for _ in range(1000):
            if "mine" not in reader.listWss(DICT):
                break
            threading.Event().wait(0.01)
        assert sorted(reader.listWss(DICT)) == ["ours"]
        assert reader.useWs("ours").fetch("x") == 2


def test_who_hangs_up_while_blocked_takes_nothing(house: Local | Socket) -> None:
    with house.connect() as watcher:
        ws = watcher.openWs("shared")
        with ThreadPoolExecutor(1) as pool:
            other = house.connect()
            future = pool.submit(other.useWs("shared").fetch, "x")
            blocked(ws, "x", fetchers=1)
            other.close()
            assert isinstance(future.exception(PATIENCE), errors.ConnectionLostError)
        ws.store("x", 1)
        assert ws.fetch("x", timeout=PATIENCE) == 1


def test_listings_have_both_formats(server: NwsServer, ws: NetWorkSpace) -> None:
    assert ws.listVars() == ""
    ws.store("b", 1)
    ws.declare("a", SINGLE)
    assert ws.listVars() == "a\t0\t0\t0\tsingle\nb\t1\t0\t0\tfifo"
    assert ws.listVars(format=DICT)["b"] == ("b", 1, 0, 0, "fifo")
    line = next(line for line in server.listWss().splitlines() if line[1:].startswith("test\t"))
    assert line.startswith(">test\t")
    assert line.endswith("\tFalse\t2\ta,b")
    for listing in (ws.listVars, server.listWss):
        with pytest.raises(ValueError, match="format must be"):
            listing(format="xml")


def test_very_many_variables_can_be_listed(server: NwsServer, ws: NetWorkSpace) -> None:
    names = [f"a name of some length, \N{SNOWMAN}, {number:05}" for number in range(3000)]
    for name in names:
        ws.store(name, 1, wait=False)
    ws.flush()
    assert list(ws.listVars(format=DICT)) == names
    assert server.listWss(DICT)["test"][WS_VARLIST] == names


def test_the_variables_of_another_workspace_can_be_listed(
    server: NwsServer, ws: NetWorkSpace
) -> None:
    server.openWs("other").store("y", 1)
    assert ws.listVars("other") == "y\t1\t0\t0\tfifo"
    assert list(ws.listVars("other", DICT)) == ["y"]
    assert ws.listVars() == ""
    with pytest.raises(errors.NoSuchWorkspaceError):
        ws.listVars("nowhere")
    assert "nowhere" not in server.listWss(DICT)


def test_temporary_workspaces_have_new_names_and_no_owner(server: NwsServer) -> None:
    first, second = server.mktempWs(), server.mktempWs("job %03d")
    assert first != second
    assert first.startswith("__pyws__")
    assert second.startswith("job ")
    assert server.listWss(DICT)[first][2] == ""
    with pytest.raises(errors.OperationError, match="template"):
        server.mktempWs("no number")


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00", "x" * 1025, "\ud800"])
def test_a_bad_name_is_refused(ws: NetWorkSpace, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        ws.store(name, 1)


@pytest.mark.parametrize("name", ["ä", "ﬁ", "a/../b", "🐧", "a b,c", "\u202eabc", "x" * 1024])
def test_any_other_name_is_its_own(ws: NetWorkSpace, name: str) -> None:
    ws.store(name, name)
    assert ws.fetch(name, timeout=0) == name
    with pytest.raises(TypeError):
        ws.store(b"bytes", 1)  # type: ignore[arg-type]


def test_what_cannot_be_pickled_is_not_stored(ws: NetWorkSpace) -> None:
    with pytest.raises(errors.ValuePicklingError, match=r"x @ test .*TypeError") as caught:
        ws.store("x", threading.Lock())
    assert isinstance(caught.value, pickle.PicklingError)
    assert isinstance(caught.value.exception, TypeError)
    assert caught.value.__cause__ is caught.value.exception
    assert ws.findTry("x", "nothing") == "nothing"


class Trap:
    """What can be pickled and cannot be rebuilt."""

    def __reduce__(self) -> object:
        return divmod, (1, 0)


def test_what_cannot_be_rebuilt_is_gone_by_fetch_and_not_by_find(ws: NetWorkSpace) -> None:
    ws.store("x", Trap())
    ws.store("x", "behind")
    for look in (ws.find, ws.findTry, ws.fetch):
        with pytest.raises(errors.ValueUnpicklingError, match=r"x @ test .*ZeroDiv") as caught:
            look("x")
        assert isinstance(caught.value, pickle.UnpicklingError)
        assert isinstance(caught.value.exception, ZeroDivisionError)
        assert caught.value.__cause__ is caught.value.exception
        with pytest.raises(ZeroDivisionError):
            pickle.loads(caught.value.obj)
    assert ws.fetch("x") == "behind"


# ------------------------------------------------------------------ keep


def test_a_store_may_keep_the_newest_values_only(ws: NetWorkSpace) -> None:
    for number in range(10):
        ws.store("log", number, keep=3)
    assert list(ws.ifindTry("log")) == [7, 8, 9]
    ws.store("log", 10)
    assert ws.listVars(format=DICT)["log"][1] == 4


def test_keeping_one_value_drops_nobodys_who_waits(ws: NetWorkSpace) -> None:
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ws.fetch, "x") for _ in range(2)]
        blocked(ws, "x", fetchers=2)
        for number in range(3):
            ws.store("x", number, keep=1)
        assert sorted(future.result(PATIENCE) for future in waiting) == [0, 1]
    assert ws.fetch("x") == 2


@pytest.mark.parametrize("keep", [0, -1])
def test_a_store_keeps_one_value_at_least(ws: NetWorkSpace, keep: int) -> None:
    with pytest.raises(ValueError, match="keep must be at least 1"):
        ws.store("x", 1, keep=keep)
    with pytest.raises(TypeError):
        ws.store("x", 1, keep="3")  # type: ignore[arg-type]
    assert ws.listVars() == ""
    ws.store("x", 1, keep=numpy.int64(2))  # type: ignore[arg-type]


# ------------------------------------------------------------------ pickling


def test_a_workspace_that_has_a_url_is_the_same_one_after_pickling(house: Local | Socket) -> None:
    with house.connect() as owner:
        ws = owner.openWs("shared")
        if owner.url is None:
            for thing in (ws, owner):
                with pytest.raises(TypeError, match=r"current_worker\(\).workspace"):
                    pickle.dumps(thing)
            return
        ws.store("x", 1)
        with pickle.loads(pickle.dumps(ws)) as again:
            assert again.currentWs() == "shared"
            assert again.server is not owner
            assert again.fetch("x") == 1
            assert not again.server.listWss(DICT)["shared"][1]
        ws.store("x", 2)
        assert ws.fetch("x", timeout=0) == 2


def test_an_unpickled_workspace_never_becomes_the_owner(house: Local | Socket) -> None:
    with house.connect() as other:
        used = other.useWs("nobody's")
        if other.url is None:
            return
        with pickle.loads(pickle.dumps(used)) as again:
            again.store("x", 1)
        assert used.fetch("x", timeout=PATIENCE) == 1
        data = pickle.dumps(used)
        other.deleteWs("nobody's")
        with pytest.raises(errors.NoSuchWorkspaceError):
            pickle.loads(data)


def test_workspaces_that_are_pickled_together_share_a_connection(house: Local | Socket) -> None:
    with house.connect() as server:
        if server.url is None:
            return
        pair = pickle.loads(pickle.dumps((server.openWs("a"), server.openWs("b"))))
        assert pair[0].server is pair[1].server
        pair[0].close()


@pytest.mark.parametrize(
    "error",
    [
        errors.ValuePicklingError("x", "ws", TypeError("no")),
        errors.ValueUnpicklingError("x", "ws", ValueError("no"), b"bytes"),
        errors.OrderError("x is lifo"),
        errors.ConnectError("nobody there"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_rebuilt_with_its_facts(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    for name, fact in vars(error).items():
        assert repr(getattr(again, name)) == repr(fact)


CLASSIC_TREE = [
    (errors.OperationError, errors.WorkspaceError),
    (errors.NoSuchWorkspaceError, errors.OperationError),
    (errors.NoSuchVariableError, errors.OperationError),
    (errors.ModeError, errors.OperationError),
    (errors.DeletedError, errors.OperationError),
    (errors.OrderError, errors.OperationError),
    (errors.OrderError, ValueError),
    (errors.ValuePicklingError, errors.OperationError),
    (errors.ValueUnpicklingError, errors.OperationError),
    (errors.ServerError, errors.WorkspaceError),
    (errors.ConnectError, errors.ServerError),
    (errors.AuthenticationError, errors.ConnectError),
    (errors.ConnectionLostError, errors.ServerError),
    (errors.ServerError, ConnectionError),
]


@pytest.mark.parametrize(("error", "base"), CLASSIC_TREE, ids=lambda cls: cls.__name__)
def test_who_catches_the_general_error_catches_the_special_one(
    error: type[Exception], base: type[Exception]
) -> None:
    assert issubclass(error, base)
    assert error.__name__ in errors.__all__


# ------------------------------------------------------------------ several threads, and the end


def test_many_threads_use_one_workspace_and_nothing_is_lost_or_doubled(ws: NetWorkSpace) -> None:
    def produce(start: int) -> None:
        for number in range(start, start + 100):
            ws.store("x", number)

    def consume() -> list[int]:
        return [ws.fetch("x", timeout=PATIENCE) for _ in range(100)]

    with ThreadPoolExecutor(8) as pool:
        consumers = [pool.submit(consume) for _ in range(4)]
        producers = [pool.submit(produce, 100 * n) for n in range(4)]
        for producer in producers:
            producer.result(PATIENCE)
        fetched = [number for c in consumers for number in c.result(PATIENCE)]
    assert sorted(fetched) == list(range(400))


def test_closing_twice_is_allowed_and_ends_everything(house: Local | Socket) -> None:
    server = house.connect()
    ws = server.openWs("test")
    server.close()
    server.close()
    with pytest.raises(errors.ConnectionLostError):
        ws.store("x", 1)


def test_when_the_server_ends_blocked_calls_say_so(house: Local | Socket) -> None:
    with house.connect() as server, ThreadPoolExecutor(1) as pool:
        ws = server.openWs("test")
        future = pool.submit(ws.fetch, "x")
        blocked(ws, "x", fetchers=1)
        house.close()
        assert isinstance(future.exception(PATIENCE), errors.ConnectionLostError)


def test_the_default_workspace_belongs_to_nobody_and_stays(house: Local | Socket) -> None:
    with house.connect() as first:
        first.openWs("__default").store("x", 1)
    with house.connect() as second:
        assert second.openWs("__default").fetch("x", timeout=0) == 1
        assert second.listWss(DICT)["__default"][1:3] == (False, "[system]")
