"""Functions and their globals: each sent once, what changed sent again, and nothing else.

A client and its workers live in this one process here: a worker has namespaces, a `__main__`,
classes and a `sys.path` of its own while it learns and runs, and between them there are bytes only.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import operator
import pickle
import sys
import textwrap
import threading
import types
import weakref

import cloudpickle.cloudpickle
import pytest

from sleighexec import functions, wire
from sleighexec import payload as pickling
from sleighexec.functions import FunctionTable, Known, Learned, places_of
from sleighexec.messages import Payload, Results


def sent(payload):
    """A payload as it arrives at the other end of a socket."""
    [(_, message)] = wire.Decoder().feed(b"".join(wire.encode(1, Results([payload]))))
    return message.values[0]


class Worker:
    """Both ends of what a worker knows."""

    def __init__(self, table):
        self.table, self.known, self.learned = table, Known(table), Learned()
        self.news = []  # what travelled with the last frame: names of globals, keys of functions
        self._namespaces = {}
        self._main = types.ModuleType("__main__")
        self._path = ["worker's own"]
        self._classes = weakref.WeakKeyDictionary(), weakref.WeakValueDictionary()

    @contextlib.contextmanager
    def _at_work(self):
        client = self._put_on((self._namespaces, self._main, self._path, *self._classes))
        try:
            yield
        finally:
            self._namespaces, self._main, self._path, *self._classes = self._put_on(client)

    @staticmethod
    def _put_on(state):
        """Make this what the process knows; what it knew before."""
        by_class, by_id = "_DYNAMIC_CLASS_TRACKER_BY_CLASS", "_DYNAMIC_CLASS_TRACKER_BY_ID"
        before = (
            pickling._namespaces,
            sys.modules["__main__"],
            sys.path[:],
            getattr(cloudpickle.cloudpickle, by_class),
            getattr(cloudpickle.cloudpickle, by_id),
        )
        pickling._namespaces, sys.modules["__main__"], sys.path[:], *classes = state
        setattr(cloudpickle.cloudpickle, by_class, classes[0])
        setattr(cloudpickle.cloudpickle, by_id, classes[1])
        return before

    def frame(self, *calls):
        """Send calls, (function, *arguments) each, in one frame; run them; what they return."""
        news, running = [], []
        self.known.forget_old()
        for function, *args in calls:
            definition, needs = self.table.define(function), ()
            if definition is None:
                definition, args = self.table.apply, (function, *args)
            payload, needs = self.table.dumps_call(tuple(args))
            news += self.known.news(definition, needs)
            places = definition.places + places_of(needs)
            running.append((definition.key, places, sent(payload)))
        self.news = [
            target if isinstance(target, int) else detail
            for target, detail, *_ in news
            if detail != "sys.path"
        ]
        with self._at_work():
            self.learned.learn(pickling.loads(sent(pickling.pack(news))))
            return [self._run(*call) for call in running]

    def _run(self, key, places, args):
        self.learned.check(places)
        return self.learned.function(key)(*pickling.loads(args))

    def call(self, function, *args):
        return self.frame((function, *args))[0]

    def globals_of(self, module):
        """What the functions of a module see in this worker."""
        key = self.table._namespace_of(vars(module))
        return self._namespaces.get(key, {})


@pytest.fixture
def table():
    return FunctionTable()


@pytest.fixture
def worker(table):
    return Worker(table)


@pytest.fixture
def script(monkeypatch):
    """A `__main__` of the client, made from source."""

    def make(source, name="__main__"):
        module = types.ModuleType(name)
        if name == "__main__":
            monkeypatch.setitem(sys.modules, name, module)
        run(module, source)
        return module

    return make


def run(module, source):
    """More lines of a script, as in a notebook."""
    exec(compile(textwrap.dedent(source), f"<{module.__name__}>", "exec"), vars(module))


# ------------------------------------------------------------------ functions by name


@pytest.mark.parametrize("function", [math.factorial, textwrap.dedent, len, operator.add, sent])
def test_a_function_that_can_be_imported_travels_by_name(table, function):
    definition = table.define(function)
    assert function.__name__.encode() in bytes(definition.payload.head)
    assert len(definition.payload.head) < 100
    assert [need.name for need in definition.needs] == ["sys.path"]
    assert pickling.loads(definition.payload) is function


def test_a_function_is_sent_once_to_each_worker(table):
    first, second = Worker(table), Worker(table)
    key = table.define(math.factorial).key
    for worker in (first, second):
        assert worker.call(math.factorial, 5) == 120
        assert worker.news == [key]
        assert worker.call(math.factorial, 6) == 720
        assert worker.news == []


def test_a_function_that_nobody_changed_has_one_definition(table, script):
    module = script("def f(x): return x + 1")
    assert table.define(module.f) is table.define(module.f)
    assert table.define(len) is table.define(len)


def test_each_function_has_a_key_of_its_own(table, script):
    module = script("def f(): pass\ndef g(): pass\nh = lambda: None")
    keys = [table.define(f).key for f in (module.f, module.g, module.h, len, sent)]
    assert len(set(keys)) == 5
    assert table.apply.key == 0 not in keys


# ------------------------------------------------------------------ functions by value


def test_functions_of_a_script_and_lambdas_work(worker, script):
    module = script("def f(x): return x + 1\ng = lambda x: x * 2")
    assert (worker.call(module.f, 1), worker.call(module.g, 4)) == (2, 8)
    assert len(worker.news) == 1
    assert (worker.call(module.f, 2), worker.call(module.g, 5)) == (3, 10)
    assert worker.news == []


def test_a_lambda_of_a_module_that_can_be_imported_works(worker):
    assert worker.call(lambda x: math.factorial(x) + OFFSET, 4) == 29


OFFSET = 5


def test_a_function_that_was_defined_again_is_another_function(worker, script):
    module = script("def f(): return 1")
    assert worker.call(module.f) == 1
    run(module, "def f(): return 2")
    assert worker.call(module.f) == 2


def test_a_function_that_calls_itself_works(worker, script):
    module = script("def f(n): return 1 if n < 2 else n * f(n - 1)")
    assert worker.call(module.f, 5) == 120


def test_functions_that_call_each_other_work(worker, script):
    module = script("""
        def even(n): return True if n == 0 else odd(n - 1)
        def odd(n): return False if n == 0 else even(n - 1)
        """)
    assert worker.call(module.even, 10) is True
    assert worker.call(module.odd, 10) is False


def test_a_function_finds_the_modules_that_its_script_has_imported(worker, script):
    module = script("import math, os.path\ndef f(x): return math.sqrt(x), os.path.join('a', 'b')")
    assert worker.call(module.f, 9) == (3, "a/b")


def test_a_class_of_a_script_works(worker, script):
    module = script("""
        base = 10
        class Adder:
            def add(self, x): return x + base
        def f(x): return Adder().add(x)
        """)
    assert worker.call(module.f, 1) == 11
    module.base = 20
    assert worker.call(module.f, 1) == 21


# ------------------------------------------------------------------ globals


def test_a_global_is_sent_once(worker, script):
    module = script("table = [1, 2, 3]\ndef f(i): return table[i]")
    assert worker.call(module.f, 0) == 1
    assert "table" in worker.news
    assert worker.call(module.f, 1) == 2
    assert worker.news == []


@pytest.mark.parametrize("value", [5, "text", None, [1, [2]], {"k": 1}, {1, 2}, OSError, math.pi])
def test_a_global_that_did_not_change_is_not_sent_again(worker, script, value):
    module = script("def f(): return value\nvalue = None")
    module.value = value
    for expected in (True, False, False):
        assert worker.call(module.f) == value
        assert ("value" in worker.news) == expected


def test_a_global_that_was_bound_to_something_else_is_sent_again(worker, script):
    module = script("value = 1\ndef f(): return value")
    assert worker.call(module.f) == 1
    for value in (2, "x", 1, None):
        module.value = value
        assert worker.call(module.f) == value
        assert worker.news == ["value"]


def test_a_global_that_was_changed_in_place_is_sent_again(worker, script):
    module = script("value = [1]\ndef f(): return value")
    assert worker.call(module.f) == [1]
    module.value.append(2)
    assert worker.call(module.f) == [1, 2]
    assert worker.news == ["value"]


def test_a_change_deep_inside_of_a_global_is_sent(worker, script):
    module = script("value = {'a': [{'b': 1}]}\ndef f(): return value['a'][0]['b']")
    assert worker.call(module.f) == 1
    module.value["a"][0]["b"] = 2
    assert worker.call(module.f) == 2


def test_a_global_bound_to_an_equal_value_is_not_sent_again(worker, script):
    module = script("value = [1, 2]\ndef f(): return value")
    worker.call(module.f)
    module.value = [1, 2]
    assert worker.call(module.f) == [1, 2]
    assert worker.news == []


def test_a_changed_global_reaches_every_worker(table, script):
    module = script("value = 1\ndef f(): return value")
    workers = [Worker(table), Worker(table)]
    assert [worker.call(module.f) for worker in workers] == [1, 1]
    module.value = 2
    assert [worker.call(module.f) for worker in workers] == [2, 2]
    assert [worker.news for worker in workers] == [["value"]] * 2


def test_the_function_itself_is_not_sent_again_when_a_global_changes(table, script):
    module = script("value = 1\ndef f(): return value")
    before = table.define(module.f)
    module.value = 2
    after = table.define(module.f)
    assert before.key == after.key
    assert before is not after


def test_what_a_worker_built_is_not_overwritten_by_what_the_client_never_touched(worker, script):
    """The classic promise: eachWorker(load), then eachElem(look)."""
    module = script("""
        table = None
        def load(n):
            global table
            table = list(range(n))
        def look(i):
            return table[i]
        """)
    worker.call(module.load, 10)
    assert [worker.call(module.look, i) for i in (0, 5, 9)] == [0, 5, 9]
    assert module.table is None


def test_what_a_worker_changed_in_place_is_kept(worker, script):
    module = script("seen = []\ndef f(x): seen.append(x); return seen")
    assert [worker.call(module.f, x)[:] for x in (1, 2)] == [[1], [1, 2]]
    assert module.seen == []


def test_what_the_client_changed_overwrites_what_the_worker_built(worker, script):
    module = script("seen = []\ndef f(x): seen.append(x); return seen")
    worker.call(module.f, 1)
    module.seen.append("client")
    assert worker.call(module.f, 2) == ["client", 2]


def test_a_change_of_one_global_leaves_the_others_alone(worker, script):
    module = script("built = None\nother = 1\ndef f():\n  global built\n  built = built or [other]")
    run(module, "def g(): return built, other")
    worker.call(module.f)
    module.other = 2
    assert worker.call(module.g) == ([1], 2)
    assert worker.news[:1] == ["other"]


def test_functions_of_one_module_share_one_namespace(worker, script):
    module = script("def put(x):\n  global shared\n  shared = x\ndef get(): return shared")
    worker.call(module.put, 7)
    assert worker.call(module.get) == 7


def test_lambdas_and_functions_that_travel_with_a_call_share_it_too(worker, script):
    module = script("""
        count = 0
        def add():
            global count
            count += 1
            return count
        def closure(step):
            def add_more():
                global count
                count += step
                return count
            return add_more
        """)
    assert worker.call(module.add) == 1
    assert worker.call(module.closure(10)) == 11
    assert worker.call(module.add) == 12


def test_two_modules_do_not_share_their_globals(worker, script):
    source = "def put(x):\n  global value\n  value = x\ndef get(): return value\nvalue = 0"
    one, other = script(source, "notebook_one"), script(source, "notebook_two")
    worker.call(one.put, 1)
    worker.call(other.put, 2)
    assert (worker.call(one.get), worker.call(other.get)) == (1, 2)


def test_two_modules_of_the_same_name_do_not_share_their_globals(worker, script):
    source = "def put(x):\n  global value\n  value = x\ndef get(): return value\nvalue = 0"
    one, other = script(source, "cell"), script(source, "cell")
    worker.call(one.put, 1)
    worker.call(other.put, 2)
    assert (worker.call(one.get), worker.call(other.get)) == (1, 2)


def test_two_workers_do_not_share_what_they_build(table, script):
    module = script("value = 0\ndef f():\n  global value\n  value += 1\n  return value")
    one, other = Worker(table), Worker(table)
    assert [one.call(module.f), one.call(module.f), other.call(module.f)] == [1, 2, 1]


def test_main_is_what_functions_of_main_see(worker, script):
    module = script("value = 3\ndef f():\n  import __main__\n  return __main__.value")
    run(module, "def g(): return value")
    assert worker.call(module.g) == 3
    assert worker.call(module.f) == 3


def test_a_worker_does_not_learn_the_file_of_the_script(worker, script):
    module = script("def f(): return globals().get('__file__'), __name__")
    module.__file__ = "/home/user/script.py"
    assert worker.call(module.f) == (None, "__main__")


# ------------------------------------------------------------------ globals of globals


def test_globals_that_are_used_through_another_function_come_along(worker, script):
    module = script("""
        scale = 2
        def inner(x): return x * scale
        def outer(x): return inner(x) + 1
        """)
    assert worker.call(module.outer, 5) == 11
    assert {"inner", "scale"} <= set(worker.news)
    module.scale = 3
    assert worker.call(module.outer, 5) == 16
    assert worker.news == ["scale"]


def test_globals_that_are_used_through_several_functions_come_along(worker, script):
    module = script("""
        data = [1]
        def a(): return data
        def b(): return a()
        def c(): return b()
        def d(): return c()
        """)
    assert worker.call(module.d) == [1]
    module.data.append(2)
    assert worker.call(module.d) == [1, 2]
    assert worker.news == ["data"]


def test_a_helper_that_was_defined_again_is_used(worker, script):
    module = script("def helper(): return 1\ndef f(): return helper()")
    assert worker.call(module.f) == 1
    run(module, "def helper(): return 2")
    assert worker.call(module.f) == 2


def test_a_helper_that_was_defined_again_may_need_other_globals(worker, script):
    module = script("a, b = 1, 2\ndef helper(): return a\ndef f(): return helper()")
    assert worker.call(module.f) == 1
    run(module, "def helper(): return b")
    assert worker.call(module.f) == 2
    module.b = 3
    assert worker.call(module.f) == 3


def test_functions_inside_of_other_globals_bring_theirs(worker, script):
    module = script("""
        scale = 2
        actions = {"scale": lambda x: x * scale}
        def f(x): return actions["scale"](x)
        """)
    assert worker.call(module.f, 4) == 8
    module.scale = 3
    assert worker.call(module.f, 4) == 12


def test_globals_of_another_script_are_found_through_a_helper(worker, script):
    library = script("factor = 10\ndef helper(x): return x * factor", "library")
    module = script("def f(x): return helper(x) + factor\nfactor = 1")
    module.helper = library.helper
    assert worker.call(module.f, 2) == 21
    library.factor = 100
    assert worker.call(module.f, 2) == 201


@pytest.mark.parametrize("value", ["5", "lambda: 5", "[5]"])
def test_a_global_that_is_defined_after_the_first_call_arrives(worker, script, value):
    """In a notebook: the call fails, one defines what is missing, and calls again."""
    module = script("def f(): return later")
    with pytest.raises(NameError):
        worker.call(module.f)
    run(module, f"later = {value}")
    worker.call(module.f)


def test_a_global_of_a_helper_that_is_defined_after_the_first_call_arrives(worker, script):
    module = script("def helper(): return later\ndef f(): return helper()")
    with pytest.raises(NameError):
        worker.call(module.f)
    module.later = 5
    assert worker.call(module.f) == 5


def test_a_name_without_a_value_may_be_defined_by_the_worker(worker, script):
    module = script("def put():\n  global x\n  x = 5\ndef get(): return x")
    with pytest.raises(NameError):
        worker.call(module.get)
    worker.call(module.put)
    assert worker.call(module.get) == 5


def test_a_builtin_is_not_taken_for_a_global(worker, script):
    module = script("def f(x): return len(x), print.__name__")
    assert worker.call(module.f, "ab") == (2, "print")
    assert len(worker.news) == 1


# ------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("through", ["f", "g"])
def test_a_global_that_cannot_be_pickled_is_named(table, script, through):
    module = script("""
        numbers = (n for n in range(3))
        def f(): return next(numbers)
        def g(): return f()
        """)
    with pytest.raises(TypeError) as caught:
        table.define(getattr(module, through))
    [note] = caught.value.__notes__
    assert "'numbers' of __main__" in note
    assert "by an initializer" in note


def test_a_global_that_cannot_be_pickled_is_named_for_a_closure_too(worker, script):
    module = script("""
        numbers = (n for n in range(3))
        def make():
            x = 1
            return lambda: (x, numbers)
        """)
    with pytest.raises(TypeError) as caught:
        worker.call(module.make())
    assert any("'numbers'" in note for note in caught.value.__notes__)


def test_a_function_works_again_when_its_global_can_be_pickled(worker, script):
    module = script("value = (n for n in range(3))\ndef f(): return value")
    with pytest.raises(TypeError):
        worker.call(module.f)
    module.value = 3
    assert worker.call(module.f) == 3


BREAKS = """
    class Bad:
        def __reduce__(self): return broken, ()
    def broken(): raise ArithmeticError("cannot be rebuilt")
    bad, good = Bad(), 1
    def uses_bad(): return bad
    def uses_good(): return good
    def uses_bad_through(): return uses_bad()
    def make():
        x = 1
        return lambda: (x, bad)
"""


@pytest.mark.parametrize("name", ["uses_bad", "uses_bad_through"])
def test_a_global_that_cannot_be_unpickled_fails_the_calls_that_need_it(worker, script, name):
    module = script(BREAKS)
    for _ in range(2):
        with pytest.raises(ArithmeticError, match="cannot be rebuilt"):
            worker.call(getattr(module, name))
    assert worker.call(module.uses_good) == 1


def test_a_global_that_can_be_unpickled_again_fails_nobody(worker, script):
    module = script(BREAKS)
    with pytest.raises(ArithmeticError):
        worker.call(module.uses_bad)
    module.bad = "good again"
    assert worker.call(module.uses_bad) == "good again"


def test_a_global_that_cannot_be_unpickled_fails_the_closures_that_need_it(worker, script):
    module = script(BREAKS)
    with pytest.raises(ArithmeticError, match="cannot be rebuilt"):
        worker.call(module.make())


def test_a_global_that_came_into_use_later_fails_the_calls_that_need_it(worker, script):
    module = script(BREAKS + "\n    def f(): return helper()\n    def helper(): return 1\n")
    assert worker.call(module.f) == 1
    run(module, "def helper(): return bad")
    with pytest.raises(ArithmeticError, match="cannot be rebuilt"):
        worker.call(module.f)


def test_a_global_that_calls_exit_when_unpickled_fails_the_call_only(worker, script):
    module = script(
        "import sys\n"
        "class Bad:\n  def __reduce__(self): return sys.exit, (3,)\n"
        "bad = Bad()\ndef f(): return bad\ndef g(): return 1"
    )
    with pytest.raises(SystemExit):
        worker.call(module.f)
    assert worker.call(module.g) == 1


def test_a_function_that_cannot_be_unpickled_fails_its_own_calls(table):
    learned = Learned()
    learned.learn([(1, (), b"rubbish", []), (2, (), pickling.dumps(len).head, [])])
    for _ in range(2):
        with pytest.raises(pickle.UnpicklingError):
            learned.function(1)
    assert learned.function(2) is len


# ------------------------------------------------------------------ what travels with the call


class Thing:
    def __init__(self, x):
        self.x = x

    def method(self, y):
        return self.x + y

    def __call__(self, y):
        return self.x * y

    @classmethod
    def make(cls, x):
        return cls(x).x

    @staticmethod
    def static(x):
        return -x


def with_list(x, items=[]):  # noqa: B006 - that it is shared is the point
    return x, items


def travelling():
    captured = 5
    return {
        "closure": (lambda x: x + captured, (1,), 6),
        "bound method": (Thing(1).method, (2,), 3),
        "class method": (Thing.make, (4,), 4),
        "partial": (functools.partial(operator.add, 1), (2,), 3),
        "object": (Thing(3), (4,), 12),
        "method of a dict": ({"k": "v"}.get, ("k",), "v"),
        "method of a text": ("a,b".split, (",",), ["a", "b"]),
        "alternative constructor": (dict.fromkeys, (["a"],), {"a": None}),
        "getter": (operator.itemgetter(1), ("ab",), "b"),
    }


@pytest.mark.parametrize("kind", travelling())
def test_what_has_a_state_of_its_own_travels_with_the_call(table, worker, kind):
    function, args, expected = travelling()[kind]
    assert table.define(function) is None
    assert worker.call(function, *args) == expected


def test_a_static_method_is_a_function_like_others(table, worker):
    assert table.define(Thing.static) is not None
    assert worker.call(Thing.static, 3) == -3


def test_a_class_is_called_by_its_name(table, worker):
    assert table.define(textwrap.TextWrapper) is not None
    assert worker.call(textwrap.TextWrapper, 33).width == 33


def test_a_class_of_a_script_travels_with_the_call(table, worker, script):
    module = script("class Pair:\n  def __init__(self, a): self.a = a\n")
    assert table.define(module.Pair) is None
    assert worker.call(module.Pair, 3).a == 3


@pytest.mark.parametrize(
    "source",
    [
        "def f(x=[]): return x",
        "def f(*, x={}): return x",
        "def f(): return 1\nf.attribute = 1",
        "def outer(y):\n  def f(): return y\n  return f\nf = outer(1)",
    ],
)
def test_a_function_that_can_change_by_itself_travels_with_the_call(table, script, source):
    assert table.define(script(source).f) is None


def test_a_default_that_was_changed_in_place_arrives(worker, script):
    module = script("def f(x=[]): return x")
    assert worker.call(module.f) == []
    module.f.__defaults__[0].append(1)
    assert worker.call(module.f) == [1]


def test_the_state_of_an_object_travels_each_time(worker):
    thing = Thing(1)
    assert worker.call(thing.method, 1) == 2
    thing.x = 10
    assert worker.call(thing.method, 1) == 11


def test_globals_of_a_closure_are_sent_once(worker, script):
    module = script("table = list(range(1000))\ndef make(i): return lambda: table[i]")
    assert worker.call(module.make(5)) == 5
    assert worker.news == ["table"]
    assert worker.call(module.make(6)) == 6
    assert worker.news == []
    module.table[6] = "changed"
    assert worker.call(module.make(6)) == "changed"
    assert worker.news == ["table"]


def test_functions_among_the_arguments_bring_their_globals(worker, script):
    module = script("scale = 2\ndef f(x): return x * scale")
    assert worker.call(map_one, module.f, 4) == 8
    module.scale = 3
    assert worker.call(map_one, module.f, 4) == 12


def map_one(function, x):
    return function(x)


# ------------------------------------------------------------------ sys.path


def test_a_worker_searches_modules_where_the_client_does(worker, monkeypatch):
    worker.call(len, "")
    assert worker._path == sys.path
    monkeypatch.syspath_prepend("/somewhere/new")
    worker.call(len, "")
    assert worker._path[0] == "/somewhere/new"
    assert worker._path == sys.path


def test_a_changed_path_is_seen_by_every_function_and_never_taken_back(table, monkeypatch):
    def path_of(function):
        (path,) = [need for need in table.define(function).needs if need.name == "sys.path"]
        return pickling.loads(path.payload)

    assert path_of(len) == path_of(abs) == sys.path
    monkeypatch.syspath_prepend("/somewhere/new")
    for function in (len, abs, len):
        assert path_of(function)[0] == "/somewhere/new"


def test_the_path_is_sent_once(table, worker):
    definition = table.define(len)
    path, function = worker.known.news(definition, ())
    assert (path[1], function[0]) == ("sys.path", definition.key)
    [other] = worker.known.news(table.define(max), ())
    assert other[0] == table.define(max).key


# ------------------------------------------------------------------ many functions


@pytest.fixture
def few(monkeypatch):
    """Both sides remember three functions only."""
    monkeypatch.setattr(functions, "KEPT", 3)


def numbered(script, count):
    return script("\n".join(f"def f{n}(): return {n}" for n in range(count)))


def kept_alike(worker):
    return list(worker.known._functions) == [key for key in worker.learned._functions if key]


@pytest.mark.usefixtures("few")
def test_of_many_functions_both_sides_forget_the_same(worker, script):
    module = numbered(script, 10)
    for _ in range(3):
        for n in (0, 1, 2, 3, 4, 0, 5, 6, 7, 8, 9, 9, 8, 1):
            assert worker.call(getattr(module, f"f{n}")) == n
            assert kept_alike(worker)
            assert len(worker.known._functions) <= 3 + 1  # and the one of this frame


@pytest.mark.usefixtures("few")
def test_what_was_forgotten_is_sent_again(worker, script):
    module = numbered(script, 5)
    for n in range(5):
        worker.call(getattr(module, f"f{n}"))
    assert worker.call(module.f0) == 0
    assert len(worker.news) == 1


@pytest.mark.usefixtures("few")
def test_the_client_remembers_few_functions_too(table, script):
    module = numbered(script, 20)
    for n in range(20):
        table.define(getattr(module, f"f{n}"))
    assert len(table._entries) <= 3


@pytest.mark.usefixtures("few")
def test_globals_are_not_sent_again_because_functions_were_forgotten(worker, script):
    module = numbered(script, 5)
    run(module, "built = 0\ndef build():\n  global built\n  built += 1\n  return built")
    assert worker.call(module.build) == 1
    for n in range(5):
        worker.call(getattr(module, f"f{n}"))
    assert worker.call(module.build) == 2


@pytest.mark.usefixtures("few")
def test_a_frame_may_use_an_old_function_beside_new_ones(worker, script):
    module = numbered(script, 5)
    for n in range(3):
        worker.call(getattr(module, f"f{n}"))
    assert worker.frame((module.f0,), (module.f3,)) == [0, 3]


@pytest.mark.usefixtures("few")
def test_the_function_of_the_last_call_may_be_forgotten_too(table, script):
    module, known = numbered(script, 4), Known(table)
    first, *others = [table.define(getattr(module, f"f{n}")) for n in range(4)]
    for definition in (first, *others, first):
        known.news(definition, ())
    assert known.news(first, ()) == []
    known.forget_old()
    assert [key for key, *_ in known.news(first, ())] == [first.key]


def test_what_a_call_needs_is_sent_once_and_again_when_it_has_changed(table):
    known, (_, needs) = Known(table), table.dumps_call((Thing(1), {}))
    length, size = table.define(len), table.define(abs)
    told = [[name for _, name, *_ in known.news(each, needs)] for each in (length, length, size)]
    assert told == [["sys.path", None], [], [None]]
    sys.path.append("elsewhere")
    try:
        _, needs = table.dumps_call((Thing(1), {}))
    finally:
        sys.path.remove("elsewhere")
    assert [name for _, name, *_ in known.news(size, needs)] == ["sys.path"]
    assert known.news(size, needs) == []


def test_a_worker_that_was_sent_a_shared_value_last_does_not_keep_it(table):
    known, definition = Known(table), table.define(len)
    handle = table.share([1])
    _, needs = table.dumps_call(((handle,), {}))
    assert [name for _, name, *_ in known.news(definition, needs)] == ["sys.path", "2", None]
    assert known.news(definition, needs) == []
    del handle, needs
    gc.collect()
    assert table.forgotten == ["2"]


@pytest.mark.usefixtures("few")
def test_a_frame_may_have_more_functions_than_are_kept(worker, script):
    module = numbered(script, 6)
    assert worker.frame(*[(getattr(module, f"f{n}"),) for n in range(6)]) == list(range(6))


# ------------------------------------------------------------------ several threads


class Crowded:
    """A lock that nobody gets before two want it."""

    def __init__(self):
        self.lock, self.crowd = threading.Lock(), threading.Barrier(2)

    def __enter__(self):
        self.crowd.wait(10)
        self.lock.acquire()

    def __exit__(self, *exc_info):
        self.lock.release()


def test_two_threads_that_define_a_function_at_once_agree(table, script):
    module, found = script("def f(): pass"), []
    table._lock = Crowded()
    threads = [
        threading.Thread(target=lambda: found.append(table.define(module.f)), name=f"definer-{n}")
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    first, second = found
    assert first.key == second.key


def test_a_payload_without_bytes_stands_for_apply(table):
    assert bytes(table.apply.payload.head) == b""
    assert Learned().function(0)(max, 1, 2) == 2
    assert isinstance(table.apply.payload, Payload)
