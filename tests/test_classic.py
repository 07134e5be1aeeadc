"""What a user of Sleigh and NetWorkSpaces for Python (2008) expects to keep working unchanged.

First every row of the classic argument table, called as it stands there, through workers; then each
promise about the sleigh and its workspaces, by its own test. test_elements.py has the table
without workers, and a model beside it.
"""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sleighexec import Sleigh, WorkspaceServer
from sleighexec.nws.client import (
    DICT,
    FIFO,
    LIFO,
    MULTI,
    SINGLE,
    STRING,
    V_FETCHERS,
    V_FINDERS,
    V_MODE,
    V_VALUES,
    V_VARIABLE,
    WS_MINE,
    WS_NAME,
    WS_NUMVARS,
    WS_OWNER,
    WS_PERSISTENT,
    WS_VARLIST,
    NetWorkSpace,
    NwsDeclarationFailedException,
    NwsNoWorkSpaceException,
    NwsOperationException,
    NwsServer,
)
from sleighexec.nws.sleigh import (
    Accumulator,
    SleighGatheredException,
    SleighIllegalValueException,
    SleighNotAllowedException,
    SleighOccupiedException,
    SleighStoppedException,
    SleighTaskException,
    defaultSleighOptions,
    sshcmd,
)
from tests.conftest import alive, blocked, wait_for

PATIENCE = 20


@pytest.fixture(scope="module")
def s() -> Iterator[Sleigh]:
    sleigh = Sleigh()
    sleigh.eachWorker(str)  # they are there before the first test counts what is there
    yield sleigh
    sleigh.stop()


@pytest.fixture
def user(s: Sleigh) -> Iterator[NetWorkSpace]:
    """The user's workspace, without the variables of other tests."""
    yield s.userNws
    for name in s.userNws.listVars(format=DICT):
        s.userNws.deleteVar(name)


def f(*a: Any) -> tuple[Any, ...]:
    return a


def typed(*a: Any) -> list[tuple[str, Any]]:
    """The arguments as things that can be compared: an array compares by element."""
    return [(type(x).__name__, x.tolist() if hasattr(x, "tolist") else x) for x in a]


def calls(*arguments: Any) -> list[tuple[Any, ...]]:
    """One call with one argument for each."""
    return [(argument,) for argument in arguments]


# ---------------------------------------------------------------------- the table of arguments

ILLEGAL = SleighIllegalValueException

ROWS: list[tuple[str, Any]] = [
    # elementArgs
    ("[1, 2]", calls(1, 2)),
    ("[[1, 2], [3, 4]]", [(1, 3), (2, 4)]),
    ("[(1, 2), (3, 4)]", [(1, 3), (2, 4)]),
    ("(1, 2)", calls(1, 2)),
    ("([1, 2], [3, 4])", calls([1, 2], [3, 4])),
    ("'ab'", calls("a", "b")),
    ("['ab', 'cd']", [("a", "c"), ("b", "d")]),
    ("[['ab', 'cd']]", calls("ab", "cd")),
    ("[1, [2, 3]]", calls(1, [2, 3])),
    ("[[2, 3], 1]", ILLEGAL),
    ("[[1, 2, 3], [4, 5]]", [(1, 4), (2, 5)]),
    ("[[1, 2, 3], []]", []),
    ("[[]]", []),
    ("", []),
    ("()", []),
    ("iter([])", []),
    ("[]", ILLEGAL),
    ("5", ILLEGAL),
    ("None", ILLEGAL),
    ("[None, None]", calls(None, None)),
    ("{'k': 1}", calls("k")),
    ("[{'k': 1}]", calls("k")),
    ("(n for n in (1, 2))", calls(1, 2)),
    ("range(2)", calls(0, 1)),
    ("{7}", calls(7)),
    ("[iter([0, 1, 2, 3, 4]), iter([0, 1])]", [(0, 0), (1, 1)]),
    # fixedArgs
    ("[1, 2], 9", [(1, 9), (2, 9)]),
    ("[1], [8, 9]", [(1, 8, 9)]),
    ("[1], [[8, 9]]", [(1, [8, 9])]),
    ("[1], (8, 9)", [(1, (8, 9))]),
    ("[1], None", [(1, None)]),
    ("[1], 'ab'", [(1, "ab")]),
    # argPermute
    ("[1, 2], 9, argPermute=None", [(1, 9), (2, 9)]),
    ("[1, 2], 9, argPermute=[1, 0]", [(9, 1), (9, 2)]),
    ("[1, 2], 9, argPermute=[0]", calls(1, 2)),
    ("[1], [8, 9], argPermute=[2, 0, 1, 0]", [(9, 1, 8, 1)]),
    ("[1, 2], 9, argPermute=[]", [(), ()]),
    ("[1], 9, argPermute=[-1, 0]", [(9, 1)]),
    ("[1], 9, argPermute=[True]", calls(9)),
    ("[1], 9, argPermute=[5]", IndexError),
    ("[1], argPermute=[0.0]", TypeError),
    ("[1], 9, argPermute=(1, 0)", ILLEGAL),
    ("[1], argPermute='x'", ILLEGAL),
    ("[1], 9, argPermute=np.array([1, 0])", ILLEGAL),
    ("[1], 9, argPermute=list(np.array([1, 0]))", [(9, 1)]),
    ("[1], 9, argPermute=range(2)", [(1, 9)]),
]


def ident(value: object) -> str | None:
    return f"eachElem({value})" if isinstance(value, str) else ""


@pytest.mark.parametrize(("arguments", "expected"), ROWS, ids=ident)
def test_row_of_the_table(s: Sleigh, arguments: str, expected: Any) -> None:
    call = f"s.eachElem(f, {arguments})"
    if isinstance(expected, type):
        with pytest.raises(expected):
            eval(call)
        expected = []
    else:
        assert eval(call) == expected
    assert s.eachElem(f, ("next",)) == calls("next")  # nothing of it is left


M = np.arange(6).reshape(2, 3)
ARRAYS: list[tuple[str, Any]] = [
    ("np.array([1, 2])", [[("int64", 1)], [("int64", 2)]]),
    ("M", [[("ndarray", [0, 1, 2])], [("ndarray", [3, 4, 5])]]),
    ("[M]", [[("ndarray", [0, 1, 2])], [("ndarray", [3, 4, 5])]]),
    (
        "[np.array([1, 2]), np.array([3, 4])]",
        [[("int64", 1), ("int64", 3)], [("int64", 2), ("int64", 4)]],
    ),
    ("np.array(5)", ILLEGAL),
    ("[np.float64(1), np.float64(2)]", [[("float64", 1.0)], [("float64", 2.0)]]),
    ("[1, np.array([2, 3])]", [[("int", 1)], [("ndarray", [2, 3])]]),
    ("[np.array(1), np.array(2)]", [[("ndarray", 1)], [("ndarray", 2)]]),
    ("np.array([])", []),
    ("np.array([(1, 2.0)], dtype=[('a', int), ('b', float)])", [[("void", (1, 2.0))]]),
    ("np.matrix(M)", [[("matrix", [[0, 1, 2]])], [("matrix", [[3, 4, 5]])]]),
    ("[1], M", [[("int", 1), ("ndarray", M.tolist())]]),
    ("[1], [M]", [[("int", 1), ("ndarray", M.tolist())]]),
]


@pytest.mark.parametrize(("arguments", "expected"), ARRAYS, ids=ident)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_row_of_the_table_with_arrays(s: Sleigh, arguments: str, expected: Any) -> None:
    call = f"s.eachElem(typed, {arguments})"
    if isinstance(expected, type):
        with pytest.raises(expected):
            eval(call)
    else:
        assert eval(call) == expected


def test_a_workspace_iterator_is_one_column(s: Sleigh, user: NetWorkSpace) -> None:
    for number in range(3):
        user.store("element", number)
    assert s.eachElem(f, user.ifetchTry("element")) == calls(0, 1, 2)
    assert user.fetchTry("element") is None


def test_the_third_item_of_the_longer_column_is_read_and_lost(s: Sleigh) -> None:
    longer = iter(range(5))
    assert s.eachElem(f, [longer, iter("ab")]) == [(0, "a"), (1, "b")]
    assert list(longer) == [3, 4]


def test_columns_are_read_at_once_without_a_load_factor_and_as_results_come_with_it(
    s: Sleigh,
) -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(30):
            read.append(number)
            yield number

    ahead: list[int] = []
    taken = itertools.count(1)

    def accumulate(pairs: list[Any]) -> None:
        ahead.extend(len(read) - next(taken) for _ in pairs)

    s.eachElem(f, numbers(), accumulator=accumulate, loadFactor=1)
    assert max(ahead) < 2 * s.workerCount  # of which those that have come may be half
    assert len(ahead) == 30
    read.clear()
    pending = s.eachElem(f, numbers(), blocking=False)
    assert len(read) == 30
    assert pending.wait() == calls(*range(30))


def test_an_index_out_of_range_is_found_before_anything_is_read(s: Sleigh) -> None:
    column = iter([1, 2])
    with pytest.raises(IndexError):
        s.eachElem(f, column, argPermute=[5])
    assert list(column) == [1, 2]


def test_columns_of_imap_are_separate_arguments(s: Sleigh) -> None:
    assert list(s.imap(f, [1, 2], (3, 4, 5))) == [(1, 3), (2, 4)]
    assert list(s.imap(f, [[1, 2], [3, 4]])) == calls([1, 2], [3, 4])


def test_an_argument_of_imap_that_is_no_iterable_is_refused(s: Sleigh) -> None:
    with pytest.raises(ILLEGAL, match="arguments must be iterables"):
        s.imap(f, [1], 5)
    assert not s.occupied


def test_imap_has_no_fixed_arguments_and_no_permutation(s: Sleigh) -> None:
    for keyword in ("fixedArgs", "argPermute"):
        with pytest.raises(TypeError, match=keyword):
            s.imap(f, [1], **{keyword: [0]})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=keyword):
            s.starmap(f, [[1]], **{keyword: [0]})  # type: ignore[arg-type]


def test_items_of_starmap_are_the_arguments(s: Sleigh) -> None:
    assert list(s.starmap(f, [(1, 2), [3], "ab", ()])) == [(1, 2), (3,), ("a", "b"), ()]


def test_an_item_of_starmap_that_is_no_sequence_is_a_type_error_behind_what_came_before(
    s: Sleigh,
) -> None:
    results = s.starmap(f, [(1,), 5])
    assert next(results) == (1,)
    with pytest.raises(TypeError):
        next(results)
    assert not s.occupied


def test_arguments_of_each_worker_are_taken_as_given(s: Sleigh) -> None:
    assert s.eachWorker(f, [1, 2], "ab", None) == [([1, 2], "ab", None)] * 3
    assert s.eachWorker("SleighArgs", 1, [2]) == [[1, [2]]] * 3


# ---------------------------------------------------------------------- the four verbs, the modes


def test_verbs_take_or_look_and_wait_or_not(user: NetWorkSpace) -> None:
    user.store("x", 1)
    user.store("x", 2)
    assert (user.find("x"), user.findTry("x"), user.fetch("x"), user.fetchTry("x")) == (1, 1, 1, 2)
    assert (user.fetchTry("x"), user.findTry("x", "none")) == (None, "none")
    got: list[Any] = []
    reader = threading.Thread(target=lambda: got.append(user.fetch("x")))
    reader.start()
    blocked(user, "x", fetchers=1)
    user.store("x", 3)
    reader.join(PATIENCE)
    assert got == [3]


def test_constants_have_their_old_values() -> None:
    assert (FIFO, LIFO, MULTI, SINGLE) == ("fifo", "lifo", "multi", "single")
    assert (STRING, DICT) == ("string", "dict")
    assert (*range(6),) == (WS_NAME, WS_MINE, WS_OWNER, WS_PERSISTENT, WS_NUMVARS, WS_VARLIST)
    assert (*range(5),) == (V_VARIABLE, V_VALUES, V_FETCHERS, V_FINDERS, V_MODE)


@pytest.mark.parametrize(
    ("mode", "fetched"), [(FIFO, [1, 2, 3]), (LIFO, [3, 2, 1]), (SINGLE, [3]), (MULTI, {1, 2, 3})]
)
def test_each_mode_has_its_order(user: NetWorkSpace, mode: str, fetched: Any) -> None:
    user.declare("x", mode)
    for value in (1, 2, 3):
        user.store("x", value)
    got = list(iter(lambda: user.fetchTry("x"), None))
    assert (set(got) if mode == MULTI else got) == fetched


def test_a_variable_is_unknown_until_its_first_value_makes_it_fifo(user: NetWorkSpace) -> None:
    threading.Thread(target=user.find, args=("x",)).start()
    blocked(user, "x", finders=1)
    assert user.listVars(format=DICT)["x"][V_MODE] == "unknown"
    user.store("x", 1)
    assert user.listVars(format=DICT)["x"][V_MODE] == "fifo"


def test_a_declaration_may_be_repeated_but_not_changed(user: NetWorkSpace) -> None:
    user.declare("x", SINGLE)
    user.declare("x", SINGLE)
    with pytest.raises(NwsDeclarationFailedException):
        user.declare("x", FIFO)
    with pytest.raises(ValueError, match="mode"):
        user.declare("y", "queue")
    user.store("x", 1)
    user.fetch("x")
    with pytest.raises(NwsDeclarationFailedException):
        user.declare("x", LIFO)  # nor when it is empty
    user.deleteVar("x")
    user.declare("x", LIFO)


def test_finders_are_served_before_fetchers_and_fetchers_in_order(user: NetWorkSpace) -> None:
    got: dict[str, Any] = {}

    def wait(who: str, verb: str) -> threading.Thread:
        reader = threading.Thread(target=lambda: got.update({who: getattr(user, verb)("x")}))
        reader.start()
        return reader

    first = wait("first", "fetch")
    blocked(user, "x", fetchers=1)
    second = wait("second", "fetch")
    blocked(user, "x", fetchers=2)
    finders = [wait("a", "find"), wait("b", "find")]
    blocked(user, "x", fetchers=2, finders=2)
    user.store("x", 1)
    for reader in (first, *finders):
        reader.join(PATIENCE)
    assert got == {"a": 1, "b": 1, "first": 1}
    user.store("x", 2)
    second.join(PATIENCE)
    assert got["second"] == 2


# ---------------------------------------------------------------------- what ends when


def test_deleting_a_variable_ends_blocked_readers_and_stops_iterators(user: NetWorkSpace) -> None:
    ends: dict[str, str] = {}

    def read(verb: str) -> None:
        try:
            getattr(user, verb)("x")
        except NwsOperationException:
            ends[verb] = "error"

    def iterate(verb: str) -> None:
        ends[verb] = str(list(getattr(user, verb)("x")))

    readers = [threading.Thread(target=read, args=(verb,)) for verb in ("fetch", "find")]
    readers += [threading.Thread(target=iterate, args=(verb,)) for verb in ("ifetch", "ifind")]
    for reader in readers:
        reader.start()
    blocked(user, "x", fetchers=2, finders=2)
    user.deleteVar("x")
    for reader in readers:
        reader.join(PATIENCE)
    assert ends == {"fetch": "error", "find": "error", "ifetch": "[]", "ifind": "[]"}


def test_a_workspace_vanishes_with_its_owner_and_a_persistent_one_stays(
    run_directory: Path,
) -> None:
    with WorkspaceServer("localhost:0") as server, NwsServer(url=server.url) as other:
        owner = NwsServer(url=server.url)
        owner.openWs("mine")
        owner.openWs("kept", persistent=True).store("x", 1)
        owner.close()
        wait_for(lambda: "mine" not in other.listWss(DICT), "it vanishes")
        assert other.useWs("kept", create=False).fetch("x") == 1
        with pytest.raises(NwsNoWorkSpaceException):
            other.useWs("mine", create=False)


# ---------------------------------------------------------------------- iterators, files, listings


def test_iterators_restart_reset_and_write(user: NetWorkSpace) -> None:
    for value in ("a", "b"):
        user.store("x", value)
    iterator = user.ifindTry("x")
    assert list(iterator) == ["a", "b"]
    user.store("x", "c")
    assert list(iterator) == []
    iterator.restart()
    assert list(iterator) == ["c"]
    iterator.reset()
    file = io.BytesIO()
    assert iterator.writeTo(file) == 1
    assert file.getvalue() == b"a"
    assert list(iterator) == ["b", "c"]
    assert iterator.writeTo(file) == 0
    assert list(user.ifetchTry("x")) == ["a", "b", "c"]
    assert user.listVars(format=DICT)["x"][V_VALUES] == 0


def test_blocking_iterators_wait_for_the_next_value(user: NetWorkSpace) -> None:
    for verb in ("ifind", "ifetch"):
        iterator = getattr(user, verb)(verb)
        threading.Thread(target=user.store, args=(verb, 1)).start()
        assert next(iterator) == 1


def test_a_variable_is_a_file_of_text(user: NetWorkSpace) -> None:
    with user.makefile("log", "w") as file:
        print("one\ntwo", file=file)
    assert user.makefile("log").readlines() == ["one\n", "two\n"]
    assert [user.fetch("log"), user.fetch("log")] == ["one\n", "two\n"]


def test_files_go_through_a_variable(user: NetWorkSpace) -> None:
    file = io.BytesIO(b"0123456789")
    while user.storeFile("x", file, n=4):
        pass
    out = io.BytesIO()
    assert user.findFile("x", out) == 4
    while user.fetchTryFile("x", out):
        pass
    assert out.getvalue() == b"01230123456789"
    assert user.findTryFile("x", out) is False


def test_listings_of_workspaces_in_both_formats(s: Sleigh) -> None:
    s.nwss.openWs("listed").store("x", 1)
    row = s.nwss.listWss(DICT)["listed"]
    assert (row[WS_NAME], row[WS_MINE], row[WS_PERSISTENT]) == ("listed", True, False)
    assert (row[WS_NUMVARS], list(row[WS_VARLIST])) == (1, ["x"])
    assert f">listed\t{row[WS_OWNER]}\tFalse\t1\tx\n" in s.nwss.listWss()
    s.nwss.deleteWs("listed")
    assert "listed" not in s.nwss.listWss(DICT)


def test_listings_of_variables_in_both_formats(user: NetWorkSpace) -> None:
    user.store("b", 1)
    user.declare("a", LIFO)
    assert user.listVars() == "a\t0\t0\t0\tlifo\nb\t1\t0\t0\tfifo"
    assert tuple(user.listVars(format=DICT)["b"]) == ("b", 1, 0, 0, "fifo")


@pytest.mark.parametrize("template", ["t%d", "t%s", "t%05d"])
def test_templates_of_temporary_workspaces(s: Sleigh, template: str) -> None:
    first, second = s.nwss.mktempWs(template), s.nwss.mktempWs(template)
    assert first != second
    assert first.startswith("t")
    for name in (first, second):
        s.nwss.deleteWs(name)


@pytest.mark.parametrize("template", ["foo", "%d%d"])
def test_a_template_takes_one_number(s: Sleigh, template: str) -> None:
    with pytest.raises(NwsOperationException):
        s.nwss.mktempWs(template)


# ---------------------------------------------------------------------- the constructor


def test_the_keywords_of_the_constructor(tmp_path: Path, capfd: Any) -> None:
    s = Sleigh(
        launch="local",
        workerCount=1,
        nodeList=["ignored"],
        modulePath=str(tmp_path),
        workingDir=str(tmp_path),
        user="me",
        verbose=True,
        wsNameTemplate="ride_%d",
        userWsNameTemplate="user_%d",
    )
    try:
        (where, path), *others = s.eachWorker("__import__('os').getcwd(), __import__('sys').path")
        assert (where, others) == (str(tmp_path), [])
        assert str(tmp_path) in path
        assert s.nwsName.startswith("ride_")
        assert s.userNwsName.startswith("user_")
    finally:
        s.stop()
    assert "Sleigh" in capfd.readouterr().err  # verbose


def test_three_workers_unless_the_defaults_are_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert defaultSleighOptions["workerCount"] == 3
    monkeypatch.setitem(defaultSleighOptions, "workerCount", 2)
    s = Sleigh()
    assert s.workerCount == 2
    s.stop()


def test_a_server_of_ones_own_by_keyword_and_by_environment(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WorkspaceServer("localhost:0") as server, NwsServer(url=server.url) as other:
        port = server.url.rsplit(":", 1)[1]
        s = Sleigh(nwsHost="localhost", nwsPort=int(port), workerCount=1)
        assert s.nwsName in other.listWss(DICT)
        s.stop()
        monkeypatch.setenv("PythonSleighNwsHost", "localhost")
        monkeypatch.setenv("PythonSleighNwsPort", port)
        s = Sleigh(workerCount=1)
        assert s.userNwsName in other.listWss(DICT)
        s.stop()


def test_launch_is_a_function_of_the_machine_and_the_options() -> None:
    assert sshcmd("hippo", user="me", verbose=True) == ["ssh", "-x", "-l", "me", "hippo"]

    def launch(machine: str, **options: Any) -> list[str]:
        return ["/usr/bin/env", f"NODE={machine}", f"USER_GIVEN={options['user']}"]

    s = Sleigh(nodeList=["a", "b"], launch=launch, user="me")
    try:
        assert s.nodeList == ["a", "b"]
        assert s.eachWorker("__import__('os').environ['NODE']") == ["a", "b"]
        assert s.eachWorker(os.getenv, "USER_GIVEN") == ["me", "me"]
    finally:
        s.stop()


# ---------------------------------------------------------------------- the calls


def test_results_come_in_the_order_of_the_elements(s: Sleigh) -> None:
    def late_first(n: int) -> int:
        import time

        time.sleep(0.02 * (n < 3))
        return n

    for chosen in ({}, {"loadFactor": 1}, {"loadFactor": 2.5}, {"chunkSize": 4}):
        assert s.eachElem(late_first, range(20), **chosen) == list(range(20))  # type: ignore[arg-type]


def test_failures_are_task_exceptions_in_the_list(s: Sleigh) -> None:
    def fail(n: int) -> int:
        raise ValueError(f"no {n}")

    for failed in s.eachElem(fail, [1, 2]):
        assert isinstance(failed, SleighTaskException)
        assert "Task invocation failed - 'ValueError': no " in failed.args[0]
    assert [type(e) for e in s.eachWorker(fail, 1)] == [SleighTaskException] * 3


def test_types_of_tasks(s: Sleigh) -> None:
    def twice(n: int) -> int:
        return 2 * n

    assert s.eachElem(twice, [1], type=" INVOKE ") == [2]
    assert s.eachWorker(twice, type="define") == [None] * 3
    assert s.eachElem("twice(SleighArgs[0])", [1, 2]) == [2, 4]
    assert s.eachElem("  SleighArgs[0] + 1", [1], type="eval") == [2]
    assert s.eachElem("a = SleighArgs[0]\nSleighValue = a + 1", [1]) == [2]
    assert s.eachElem("a = 1", [1]) == [None]
    s.eachWorker(lambda n: -n, type="define")
    assert s.eachElem("SleighFunction(SleighArgs[0])", [1]) == [-1]
    with pytest.raises(SyntaxError):
        s.eachElem("1 +", [1])
    for wrong in ({"fun": f, "type": "call"}, {"fun": "1", "type": "invoke"}, {"fun": 5}):
        with pytest.raises(ILLEGAL):
            s.eachElem(elementArgs=[1], **wrong)  # type: ignore[arg-type]


def test_lambdas_and_bound_methods(s: Sleigh) -> None:
    class Account:
        def __init__(self, amount: int) -> None:
            self.amount = amount

        def add(self, amount: int) -> int:
            self.amount += amount
            return self.amount

    account = Account(10)
    assert s.eachElem(account.add, [1, 2]) == [11, 12]
    assert account.amount == 10  # it is the worker's copy that changed
    assert s.eachElem(lambda a, b: a - b, [[5, 6]], 1) == [4, 5]


def test_accumulators_get_lists_of_pairs(s: Sleigh) -> None:
    class Sum:
        def __init__(self) -> None:
            self.sum, self.errors = 0, 0

        def result(self, pairs: list[tuple[int, Any]]) -> None:
            ((_, value),) = pairs
            self.sum += value

        def error(self, pairs: list[tuple[int, Any]]) -> None:
            ((_, error),) = pairs
            self.errors += isinstance(error, SleighTaskException)

        def value(self) -> tuple[int, int]:
            return self.sum, self.errors

    assert s.eachElem(lambda n: 6 // n, [1, 2, 0], accumulator=Sum()) == (9, 1)
    pairs: list[Any] = []
    assert s.eachElem(abs, [-1, -2], accumulator=pairs.extend) is None
    assert sorted(pairs) == [(0, 1), (1, 2)]
    assert s.eachElem(abs, [-1, -2], accumulator=Accumulator()) == [1, 2]
    with pytest.raises(ILLEGAL):
        s.eachElem(abs, [1], accumulator=5)


def test_check_and_wait_and_the_three_exceptions_of_state() -> None:
    s = Sleigh(workerCount=1)
    try:
        p = s.eachElem(lambda: SleighUserNws.fetch("go"), [[0]], argPermute=[], blocking=False)  # type: ignore[name-defined] # noqa: F821
        assert (p.check(), p.numTasks) == (1, 1)
        with pytest.raises(SleighOccupiedException):
            s.eachElem(f, [1])
        s.userNws.store("go", 5)
        assert p.wait() == [5]
        assert p.check() == 0
        with pytest.raises(SleighGatheredException):
            p.wait()
    finally:
        s.stop()
    with pytest.raises(SleighStoppedException):
        s.eachElem(f, [1])


# ---------------------------------------------------------------------- inside and around workers


def test_worker_globals_are_seen_by_functions_of_any_module(s: Sleigh, tmp_path: Path) -> None:
    (tmp_path / "module_of_tasks.py").write_text(
        "def who():\n    return SleighRank, SleighWorkerCount, SleighNws.currentWs(), "
        "SleighUserNws.currentWs()\n"
    )
    s.eachWorker("__import__('sys').path.append(SleighArgs[0])", str(tmp_path))
    who = s.eachWorker("__import__('module_of_tasks').who()")
    assert who == [(rank, 3, s.nwsName, s.userNwsName) for rank in range(3)]


def test_what_a_sleigh_knows(s: Sleigh) -> None:
    assert s.workerCount == len(s.nodeList) == 3
    assert s.status(timeout=PATIENCE) == (3, 1)
    assert [info["rank"] for info in s.workerInfo()] == [0, 1, 2]
    assert {"host", "os", "pid", "python", "nws", "rank", "logfile"} <= set(s.workerInfo()[0])
    assert s.nws.currentWs() == s.nwsName
    assert s.userNws.currentWs() == s.userNwsName


def test_stop_may_be_called_again() -> None:
    s = Sleigh(workerCount=1)
    (pid,) = s.eachWorker(os.getpid)
    s.stop()
    s.stop()
    assert not alive(pid)


def test_workers_pass_a_token_round_a_ring(s: Sleigh, user: NetWorkSpace) -> None:
    def ring(rounds: int) -> int:
        token = 0
        for _ in range(rounds):
            if SleighRank == 0:  # type: ignore[name-defined] # noqa: F821
                SleighUserNws.store("ring 0", token)  # type: ignore[name-defined] # noqa: F821
            token = SleighUserNws.fetch(f"ring {SleighRank}") + 1  # type: ignore[name-defined] # noqa: F821
            after = (SleighRank + 1) % SleighWorkerCount  # type: ignore[name-defined] # noqa: F821
            if after:
                SleighUserNws.store(f"ring {after}", token)  # type: ignore[name-defined] # noqa: F821
            else:
                SleighUserNws.store("ring end", token)  # type: ignore[name-defined] # noqa: F821
            if SleighRank == 0:  # type: ignore[name-defined] # noqa: F821
                token = SleighUserNws.fetch("ring end")  # type: ignore[name-defined] # noqa: F821
        return token

    assert s.eachWorker(ring, 10)[0] == 30


def test_workers_hear_what_each_of_them_says(s: Sleigh, user: NetWorkSpace) -> None:
    def broadcast() -> list[str]:
        SleighUserNws.store(f"said {SleighRank}", f"hello from {SleighRank}")  # type: ignore[name-defined] # noqa: F821
        return [SleighUserNws.find(f"said {rank}") for rank in range(SleighWorkerCount)]  # type: ignore[name-defined] # noqa: F821

    assert s.eachWorker(broadcast) == [[f"hello from {rank}" for rank in range(3)]] * 3


def test_what_workers_print_is_in_output_at_rank() -> None:
    s = Sleigh(workerCount=2)
    try:
        s.eachWorker("print('rank', SleighRank)")
        assert [s.nws.fetch(f"output@{n}", timeout=PATIENCE) for n in (0, 1)] == [
            "rank 0",
            "rank 1",
        ]
    finally:
        s.stop()


def test_workers_end_when_their_master_is_killed() -> None:
    script = """
        import os, signal
        from sleighexec import Sleigh
        s = Sleigh(workerCount=2)
        print(*s.eachWorker(os.getpid), flush=True)
        s.eachWorker(lambda: SleighUserNws.fetch("never"), blocking=False)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    wait_for(lambda: not any(map(alive, pids)), "they end")


@pytest.mark.parametrize("guard", [True, False])
def test_a_script_with_a_guard_or_without(tmp_path: Path, guard: bool) -> None:
    script = """
        from sleighexec.nws.sleigh import Sleigh
        def cube(x):
            return x * x * x
        def main():
            s = Sleigh()
            print(s.eachElem(cube, range(4)))
            s.stop()
    """
    end = 'if __name__ == "__main__":\n    main()\n' if guard else "main()\n"
    (tmp_path / "script.py").write_text(textwrap.dedent(script) + end)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[0, 1, 8, 27]\n", "")


def test_a_task_may_not_start_a_sleigh(s: Sleigh) -> None:
    (failed,) = s.eachElem("import sleighexec; sleighexec.Sleigh()", [1])
    assert isinstance(failed.__cause__, SleighNotAllowedException)


def test_an_occupied_sleigh_takes_the_calls_of_an_executor(s: Sleigh, user: NetWorkSpace) -> None:
    p = s.eachElem(lambda n: SleighUserNws.fetch("go"), [1], blocking=False)  # type: ignore[name-defined] # noqa: F821
    assert s.occupied
    assert s.submit(abs, -1).result(PATIENCE) == 1
    assert list(s.map(abs, [-2, -3])) == [2, 3]
    user.store("go", 1)
    assert p.wait() == [1]
