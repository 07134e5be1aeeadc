"""Classes with slots and functions of functools that no worker can import, and classes at home.

What a script's own classes do is tested with a program of its own, see scripts.py.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.scripts import run

# ------------------------------------------------------------------ slots

SLOTTED = {
    "one": """
        class Slotted:
            __slots__ = ("a",)
            def __init__(self): self.a = 1
            def get(self): return self.a
        """,
    "text": """
        class Slotted:
            __slots__ = "name"
            def __init__(self): self.name = 1
            def get(self): return self.name
        """,
    "dict": """
        class Slotted:
            __slots__ = {"a": "what it is for"}
            def __init__(self): self.a = 1
            def get(self): return self.a, self.__slots__
        """,
    "private": """
        class Slotted:
            __slots__ = ("__a", "b")
            def __init__(self): self.__a, self.b = 1, 2
            def get(self): return self.__a, self.b
        """,
    "private text": """
        class Slotted:
            __slots__ = "__a"
            def __init__(self): self.__a = 1
            def get(self): return self.__a
        """,
    "dict and weak references": """
        import weakref
        class Slotted:
            __slots__ = ("a", "__dict__", "__weakref__")
            def __init__(self): self.a, self.b = 1, 2
            def get(self): return self.a, self.b, weakref.ref(self)() is self
        """,
    "inherited": """
        class Empty:
            __slots__ = ()
        class Base(Empty):
            __slots__ = ("a",)
            kind = "kind"
            def __init__(self): self.a = 1
            def get(self): return self.a
        class Slotted(Base):
            __slots__ = ("b",)
            def __init__(self):
                super().__init__()
                self.b = 2
            def get(self): return super().get(), self.b, self.kind
        """,
    "abstract base": """
        from abc import ABC, abstractmethod
        class Base(ABC):
            __slots__ = ("a",)
            @abstractmethod
            def get(self): ...
        class Slotted(Base):
            __slots__ = "b"
            def __init__(self): self.a, self.b = 1, 2
            def get(self): return self.a, self.b, isinstance(self, Base)
        """,
    "generic": """
        from typing import Generic, TypeVar
        T = TypeVar("T")
        class Slotted(Generic[T]):
            __slots__ = ("a",)
            def __init__(self): self.a = 1
            def get(self): return self.a
        """,
    "dataclass": """
        from dataclasses import dataclass, field
        @dataclass(slots=True)
        class Base:
            a: int = 1
        @dataclass(slots=True)
        class Slotted(Base):
            b: list = field(default_factory=list)
            def get(self): return self.a, self.b
        """,
    "frozen dataclass": """
        from dataclasses import dataclass
        @dataclass(slots=True, frozen=True)
        class Slotted:
            a: int = 1
            def get(self): return self.a
        """,
    "state of its own": """
        class Slotted:
            __slots__ = ("a", "b")
            def __init__(self): self.a = self.b = 1
            def __getstate__(self): return self.a
            def __setstate__(self, state): self.a = self.b = state
            def get(self): return self.a, self.b
        """,
    "named tuple": """
        from typing import NamedTuple
        class Slotted(NamedTuple):
            a: int = 1
            def get(self): return self.a, self._fields
        """,
    "number": """
        class Slotted(int):
            __slots__ = ()
            def get(self): return int(self)
        """,
}

USE_SLOTTED = """
from sleighexec import SleighExecutor
def same(x): return x
def get(x): return x.get()
def has_dict(x): return hasattr(x, "__dict__")
if __name__ == "__main__":
    with SleighExecutor(1) as ex:
        thing = Slotted()
        back = [ex.submit(same, thing).result(), ex.submit(Slotted).result()]
        back += ex.map(same, [thing, thing])
        print({type(each) is Slotted and each.get() == thing.get() for each in back})
        print(ex.submit(get, thing).result() == ex.submit(thing.get).result() == thing.get())
        print(ex.submit(has_dict, thing).result() == has_dict(thing))
"""


@pytest.mark.parametrize("kind", SLOTTED)
def test_objects_of_slotted_classes_go_to_workers_and_back(tmp_path: Path, kind: str) -> None:
    source = textwrap.dedent(SLOTTED[kind]) + USE_SLOTTED
    assert run(source, tmp_path) == ["{True}", "True", "True"]


# ------------------------------------------------------------------ classes at home


def test_what_comes_back_does_not_change_the_class(tmp_path: Path) -> None:
    lines = run(
        """
        from enum import Enum
        from sleighexec import SleighExecutor
        factor = 1
        class Colour(Enum):
            RED = 1
            def scaled(self): return self.value * factor
        class Thing:
            made = 0
            def scaled(self): return factor
        def make():
            Thing.made += 1
            return Thing(), Colour.RED
        if __name__ == "__main__":
            methods = Thing.scaled, Colour.scaled
            with SleighExecutor(1) as ex:
                thing, colour = ex.submit(make).result()
            factor = 7
            print(thing.scaled(), colour.scaled(), Thing.made)
            print(methods == (Thing.scaled, Colour.scaled))
        """,
        tmp_path,
    )
    assert lines == ["7 7 0", "True"]


def test_what_a_worker_has_made_for_a_class_does_not_hinder_a_result(tmp_path: Path) -> None:
    lines = run(
        """
        import sqlite3, threading
        from sleighexec import SleighExecutor
        class Counter:
            def __init__(self): self.lock = threading.Lock()
        connection, counter = None, Counter()
        class Thing:
            cursor = None
            def use(self):
                with counter.lock:
                    return connection.execute("SELECT 1").fetchone()
        def connect():
            global connection
            connection = sqlite3.connect(":memory:")
            Thing.cursor = connection.cursor()
        def make(): return Thing(), Thing().use()
        if __name__ == "__main__":
            with SleighExecutor(1, initializer=connect) as ex:
                thing, used = ex.submit(make).result()
                print(type(thing) is Thing, used, thing.cursor)
        """,
        tmp_path,
    )
    assert lines == ["True (1,) None"]


def test_a_class_that_only_a_worker_knows_reaches_another(tmp_path: Path) -> None:
    lines = run(
        """
        from sleighexec import SleighExecutor, current_worker
        class Thing:
            def get(self): return 5
        def put(thing): current_worker().workspace.store("thing", thing)
        def take(): return current_worker().workspace.fetch("thing").get()
        if __name__ == "__main__":
            with SleighExecutor(1, max_tasks_per_child=1) as ex:
                ex.submit(put, Thing()).result()
                print(ex.submit(take).result())
        """,
        tmp_path,
    )
    assert lines == ["5"]


def test_a_method_that_the_caller_has_replaced_arrives(tmp_path: Path) -> None:
    lines = run(
        """
        from sleighexec import SleighExecutor
        class Thing:
            __slots__ = ()
            def get(self): return "old"
        ex = SleighExecutor(1)
        print(ex.submit(Thing().get).result())
        Thing.get = lambda self: "new"
        print(ex.submit(Thing().get).result())
        """,
        tmp_path,
    )
    assert lines == ["old", "new"]


def test_what_one_worker_stores_does_not_change_the_class_in_another(tmp_path: Path) -> None:
    lines = run(
        """
        from sleighexec import SleighExecutor, current_worker
        factor = 1
        class Thing:
            def scaled(self): return factor
        def pass_on():
            global factor
            worker = current_worker()
            factor += worker.rank
            if worker.rank == 0:
                worker.workspace.store("thing", Thing())
            else:
                thing = worker.workspace.fetch("thing")
            return Thing().scaled()
        if __name__ == "__main__":
            with SleighExecutor(2) as ex:
                print(ex.eachWorker(pass_on))
        """,
        tmp_path,
    )
    assert lines == ["[1, 2]"]


# ------------------------------------------------------------------ functools


def test_functions_with_caches_work_and_keep_their_cache(tmp_path: Path) -> None:
    lines = run(
        """
        import functools
        from sleighexec import SleighExecutor
        calls = 0
        @functools.lru_cache(maxsize=None)
        def fibonacci(n):
            global calls
            calls += 1
            return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
        def through(n): return fibonacci(n), calls
        if __name__ == "__main__":
            fibonacci(20)
            before, calls = fibonacci.cache_info(), 0
            with SleighExecutor(1) as ex:
                print(ex.submit(through, 5).result())
                print(ex.submit(fibonacci, 20).result(), ex.submit(fibonacci, 20).result())
                print(ex.submit(through, 20).result(), list(ex.map(fibonacci, range(4))))
            print(fibonacci.cache_info() == before)
        """,
        tmp_path,
    )
    assert lines == ["(5, 6)", "6765 6765", "(6765, 21) [0, 1, 1, 2]", "True"]


def test_a_function_with_a_cache_keeps_its_parameters_and_its_names(tmp_path: Path) -> None:
    lines = run(
        """
        import functools
        from sleighexec import SleighExecutor
        @functools.lru_cache(maxsize=3, typed=True)
        def cached(x):
            "What it is for."
            return x
        def look():
            return cached.cache_parameters(), cached.__name__, cached.__doc__, cached.__wrapped__(2)
        if __name__ == "__main__":
            with SleighExecutor(1) as ex:
                print(ex.submit(look).result())
        """,
        tmp_path,
    )
    assert lines == ["({'maxsize': 3, 'typed': True}, 'cached', 'What it is for.', 2)"]


def test_a_cache_that_was_defined_again_is_another_one(tmp_path: Path) -> None:
    lines = run(
        """
        import functools
        from sleighexec import SleighExecutor
        ex = SleighExecutor(1)
        for number in range(3):
            exec(f"@functools.cache\\ndef f(): return {number}")
            print(ex.submit(f).result(), ex.submit(lambda: f()).result())
        """,
        tmp_path,
    )
    assert lines == ["0 0", "1 1", "2 2"]


def test_a_cache_of_a_closure_has_what_the_closure_has_now(tmp_path: Path) -> None:
    lines = run(
        """
        import functools
        from sleighexec import SleighExecutor
        def make():
            step = 1
            @functools.cache
            def count(n): return 0 if n == 0 else count(n - 1) + step
            def wider():
                nonlocal step
                step += 1
            return count, wider
        count, wider = make()
        with SleighExecutor(1) as ex:
            print(ex.submit(count, 5).result())
            wider()
            print(ex.submit(count, 5).result())
        """,
        tmp_path,
    )
    assert lines == ["5", "10"]


def test_methods_with_caches_keep_them_in_the_worker_and_at_home(tmp_path: Path) -> None:
    lines = run(
        """
        import functools
        from sleighexec import SleighExecutor
        class Thing:
            def __hash__(self): return 1
            def __eq__(self, other): return type(other) is Thing
            @functools.lru_cache(maxsize=None)
            def cached(self, x): return x
            @functools.cached_property
            def once(self): return 5
            @classmethod
            @functools.cache
            def of_class(cls): return cls.__name__
        def use(thing):
            return thing.cached(1), thing.once, thing.of_class(), Thing.cached.cache_info().hits
        if __name__ == "__main__":
            with SleighExecutor(1) as ex:
                print([ex.submit(use, Thing()).result() for _ in range(3)])
                print(ex.submit(Thing().cached, 3).result())
                ex.submit(Thing).result().cached(7)
            print(Thing.cached.cache_info().currsize)
        """,
        tmp_path,
    )
    assert lines == ["[(1, 5, 'Thing', 0), (1, 5, 'Thing', 1), (1, 5, 'Thing', 2)]", "3", "1"]


def test_generic_functions_have_all_their_functions(tmp_path: Path) -> None:
    lines = run(
        """
        import functools
        from sleighexec import SleighExecutor
        class Base: pass
        class Derived(Base): pass
        word = "base"
        @functools.singledispatch
        def kind(x):
            "What kind it is."
            return "object", kind.__name__, kind.__doc__
        @kind.register
        def _(x: int): return "int"
        @kind.register(list)
        @kind.register(Base)
        def _(x): return word
        def through(x): return kind(x)
        class Kinds:
            @functools.singledispatchmethod
            def kind(self, x): return "object"
            @kind.register
            def _(self, x: int): return "int"
            @kind.register(str)
            @classmethod
            def _(cls, x): return cls.__name__
        def of_kinds(x): return Kinds().kind(x)
        if __name__ == "__main__":
            with SleighExecutor(1) as ex:
                print(*list(ex.map(kind, [1, [], Derived(), None])))
                print(*list(ex.map(through, [1, [], Derived()])))
                kind.register(float, lambda x: "later")
                print(ex.submit(through, 1.5).result())
                print(*list(ex.map(of_kinds, [1, "", None])))
        """,
        tmp_path,
    )
    assert lines == [
        "int base base ('object', 'kind', 'What kind it is.')",
        "int base base",
        "later",
        "int Kinds object",
    ]
