"""Functions of `__main__`: scripts without a guard, standard input, notebook-like sessions.

Each test is a small program of its own, since what it is about is its `__main__` module.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.scripts import run

CUBES = """
    from sleighexec import SleighExecutor
    def cube(x):
        return x ** 3
    ex = SleighExecutor(2)
    print(list(ex.map(cube, range(5))), ex.submit(lambda x: cube(x) + 1, 2).result())
"""


@pytest.mark.parametrize("how", ["file", "-c", "stdin"])
def test_a_script_needs_no_guard_and_no_shutdown(tmp_path: Path, how: str) -> None:
    assert run(CUBES, tmp_path, how) == ["[0, 1, 8, 27, 64] 9"]


def test_a_script_without_a_guard_that_is_imported_is_told_what_helps(tmp_path: Path) -> None:
    """Its functions have a name then, by which workers import it: they must not begin anew."""
    script = """
        from pathlib import Path
        from sleighexec import SleighExecutor
        with Path(__file__).with_name("imports.txt").open("a") as file:
            file.write("once ")
        def cube(x):
            return x ** 3
        with SleighExecutor(1) as ex:
            print(ex.submit(cube, 2).result())
    """
    (tmp_path / "cubes.py").write_text(textwrap.dedent(script))
    lines = run(
        """
        try:
            import cubes
        except Exception as error:
            print(type(error).__name__, error)
        """,
        tmp_path,
    )
    assert "PoolBrokenError the module cubes uses an executor" in lines[0]
    assert "__main__" in lines[0]
    assert (tmp_path / "imports.txt").read_text() == "once " * 2


def test_what_a_task_builds_in_a_global_is_there_for_later_tasks(tmp_path: Path) -> None:
    lines = run(
        """
        from sleighexec import SleighExecutor
        table = None
        def load():
            global table
            table = [n * n for n in range(100)]
        def look(x):
            return table[x]
        with SleighExecutor(1) as ex:
            ex.submit(load).result()
            print(list(ex.map(look, range(4))), ex.submit(lambda: len(table)).result())
        """,
        tmp_path,
    )
    assert lines == ["[0, 1, 4, 9] 100"]


def test_an_initializer_fills_globals_that_tasks_read_and_change(tmp_path: Path) -> None:
    lines = run(
        """
        from sleighexec import SleighExecutor
        _model = None
        _calls = 0
        def init(size):
            global _model
            _model = list(range(size))
        def use(i):
            global _calls
            _calls += 1
            _model[i] += 100
            return _model[i], _calls
        with SleighExecutor(1, initializer=init, initargs=(5,)) as ex:
            print([ex.submit(use, i).result() for i in (1, 1, 2)], _model, _calls)
        """,
        tmp_path,
    )
    assert lines == ["[(101, 1), (201, 2), (102, 3)] None 0"]


def test_a_global_that_changed_on_the_client_arrives(tmp_path: Path) -> None:
    lines = run(
        """
        from sleighexec import SleighExecutor
        factor, items, seen = 2, [1], 0
        def f(x):
            global seen
            seen += 1
            return x * factor, sum(items), seen
        with SleighExecutor(1) as ex:
            print(ex.submit(f, 1).result())
            factor = 10
            print(ex.submit(f, 1).result())
            items.append(5)
            print(ex.submit(f, 1).result())
            print(list(ex.map(f, [1, 1])))
        """,
        tmp_path,
    )
    assert lines == ["(2, 1, 1)", "(10, 1, 2)", "(10, 6, 3)", "[(10, 6, 4), (10, 6, 5)]"]


def test_a_function_that_is_defined_again_is_the_new_one(tmp_path: Path) -> None:
    lines = run(
        """
        from sleighexec import SleighExecutor
        ex = SleighExecutor(1)
        cells = [
            "def helper(x): return x + 1",
            "def f(x): return helper(x)",
            "print(ex.submit(f, 1).result())",
            "def helper(x): return x + 1000",
            "print(ex.submit(f, 1).result())",
            "import math",
            "def g(x): return math.floor(x) + f(x)",
            "print(list(ex.map(g, [1.5])))",
        ]
        for number, cell in enumerate(cells):
            exec(compile(cell, f"<cell {number}>", "exec"))
        """,
        tmp_path,
    )
    assert lines == ["2", "1001", "[1002.5]"]


def test_classes_of_main_keep_their_identity(tmp_path: Path) -> None:
    lines = run(
        """
        from dataclasses import dataclass
        from enum import Enum
        from sleighexec import SleighExecutor
        class Colour(Enum):
            RED = 1
        @dataclass
        class Point:
            x: int
            def twice(self):
                return Point(self.x * 2)
        class MyError(Exception):
            pass
        def broken():
            raise MyError("oh")
        ex = SleighExecutor(2)
        p = ex.submit(Point(4).twice).result()
        print(p, type(p) is Point, isinstance(p, Point))
        print(ex.submit(lambda: Colour.RED).result() is Colour.RED)
        print(type(ex.submit(broken).exception()) is MyError)
        """,
        tmp_path,
    )
    assert lines == ["Point(x=8) True True", "True", "True"]


def test_closures_and_counters_are_taken_as_they_are_at_each_call(tmp_path: Path) -> None:
    lines = run(
        """
        from sleighexec import SleighExecutor
        def make():
            count = 0
            def bump():
                nonlocal count
                count += 1
                return count
            return bump
        bump = make()
        with SleighExecutor(1) as ex:
            print(ex.submit(bump).result(), ex.submit(bump).result(), bump())
            print(ex.submit(bump).result())
        """,
        tmp_path,
    )
    assert lines == ["1 1 1", "2"]


def test_a_big_global_travels_once(tmp_path: Path) -> None:
    lines = run(
        """
        import os, time
        from sleighexec import SleighExecutor, current_worker
        table = b"x" * 30_000_000
        def where(i):
            return id(table), len(table)
        with SleighExecutor(1) as ex:
            print(len({ex.submit(where, i).result() for i in range(20)}))
        """,
        tmp_path,
    )
    assert lines == ["1"]


def test_prints_of_tasks_reach_standard_output(tmp_path: Path) -> None:
    lines = run(
        """
        from sleighexec import SleighExecutor
        ex = SleighExecutor(1)
        for word in ("one", "two"):
            ex.submit(print, word).result()
        """,
        tmp_path,
    )
    assert lines == ["one", "two"]


def test_a_manager_proxy_can_be_an_argument(tmp_path: Path) -> None:
    lines = run(
        """
        import multiprocessing
        from sleighexec import SleighExecutor
        def append(items, value):
            items.append(value)
        if __name__ == "__main__":  # for the manager's process, which is spawned
            with multiprocessing.get_context("spawn").Manager() as manager, SleighExecutor(2) as ex:
                items = manager.list()
                for number in range(3):
                    ex.submit(append, items, number).result()
                print(list(items))
        """,
        tmp_path,
    )
    assert lines == ["[0, 1, 2]"]
