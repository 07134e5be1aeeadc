"""The space beside a model too simple to be wrong, and spaces that are broken on purpose.

The model keeps lists: of the values of each variable, of those who wait, of the loans that are out.
After every step both must have said the same to the same clients, in the same order, and each
value that was ever stored must be in exactly one place: a variable, a loan, or gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sleighexec.limits import Account, Limits
from sleighexec.messages import (
    FIFO,
    LIFO,
    SINGLE,
    Abandon,
    Declare,
    DeleteVariable,
    Done,
    Failed,
    Fetch,
    Find,
    GiveBack,
    Nothing,
    Open,
    Settle,
    Store,
    Values,
)
from sleighexec.space import Space
from tests.planted_bugs import PLANTED

pytestmark = pytest.mark.once

MODES = {"queue": FIFO, "stack": LIFO, "slot": SINGLE, "lost": FIFO}
CLIENTS = st.sampled_from("abc")
NAMES = st.sampled_from(list(MODES))
SEVERAL_NAMES = st.lists(NAMES, min_size=1, max_size=2, unique=True).map(tuple)
COUNTS = st.sampled_from([1, 1, 2, 5])
TIMEOUTS = st.sampled_from([0, 0, 1, 3, None])
KEEPS = st.sampled_from([None, None, None, 1, 3])
INDICES = st.integers(0, 20)


@dataclass(eq=False)
class Place:
    """A variable: its values, the one that FIFO takes next at the front.

    Which values an iterator has seen is said by their indices: the order in which they were stored.
    """

    name: str
    mode: str
    values: list = field(default_factory=list)
    index: dict = field(default_factory=dict)  # of each value that was ever stored
    stored: int = 0
    deleted: bool = False

    def new_to(self, request):
        """The values that a request may be answered with."""
        if type(request) is Fetch or request.after is None:
            return self.values
        return [value for value in self.values if self.index[value] > request.after[1]]


@dataclass(eq=False)
class Debt:
    """A loan: its values, oldest first. Its number is known when the space has replied."""

    client: str
    place: Place
    values: list
    lost_to: str | None
    number: int = 0


@dataclass(eq=False)
class Waiting:
    client: str
    tag: int
    request: Fetch | Find
    deadline: float | None


class Counting(Account):
    """Counts values; those of the model have no bytes."""

    def stored(self, values):
        self.values += len(list(values))

    def admit(self, values):
        self.stored(values)
        return ""

    def gone(self, values):
        self.values -= len(list(values))

    def refusal(self, names, waiting=0):
        return ""


class SpaceModel(RuleBasedStateMachine):
    """Same rules, no cleverness."""

    space_class = Space

    def __init__(self):
        super().__init__()
        self.account = Counting(Limits())
        self.space = self.space_class(account=self.account)
        self.now, self.tag = 0.0, 0
        [(_, _, opened)] = self.space.apply("opener", 0, Open("ws", own=False), 0.0)
        self.number = opened.workspace
        self.places = {}
        self.waiting: list[Waiting] = []  # as they came
        self.debts: list[Debt] = []  # oldest first
        self.count, self.gone = 0, []
        self.said = []  # by the model, in this step: (client, tag, what, more)
        for name in MODES:
            self.declare(name)

    def declare(self, name):
        self.places[name] = Place(name, MODES[name])
        [(_, _, reply)] = self.space.apply("opener", 0, Declare(self.number, name, MODES[name]), 0)
        assert reply == Done()

    # ------------------------------------------------------------------ the model

    def say(self, client, tag, what, **more):
        self.said.append((client, tag, what, more))

    def say_values(self, client, tag, place, values, debt=None):
        index = None if place.mode == LIFO else place.index[values[0]]
        self.say(client, tag, Values, values=list(values), debt=debt, index=index)

    def take(self, client, tag, request, place):
        """Answer a fetch or find that is next, from a place that has something for it."""
        values = place.values
        if type(request) is Find and request.after is not None:
            value = min(place.new_to(request), key=place.index.__getitem__)
            return self.say_values(client, tag, place, [value])
        if type(request) is Find:
            return self.say_values(client, tag, place, [values[-1 if place.mode == LIFO else 0]])
        count = 1
        if request.count > 1:
            others = sum(d.place is place for d in self.debts)
            others += sum(place.name in w.request.variables for w in self.fetchers())
            count = max(1, min(request.count, len(values) // (1 + others)))
            if place.mode != LIFO:  # a loan is of values that were stored one after the other
                first = place.index[values[0]]
                gaps = [n for n in range(count) if place.index[values[n]] != first + n]
                count = min(gaps, default=count)
        if place.mode == LIFO:
            taken = [values.pop() for _ in range(count)]
        else:
            taken = [values.pop(0) for _ in range(count)]
        if not request.lend:
            self.gone += taken
            return self.say_values(client, tag, place, taken)
        debt = Debt(client, place, list(taken), request.lost_to)
        self.debts.append(debt)
        return self.say_values(client, tag, place, taken, debt)

    def fetchers(self):
        return [waiting for waiting in self.waiting if type(waiting.request) is Fetch]

    def serve(self, place):
        finders = [waiting for waiting in self.waiting if type(waiting.request) is Find]
        for waiting in finders + self.fetchers():
            if place.name in waiting.request.variables and place.new_to(waiting.request):
                self.waiting.remove(waiting)
                self.take(waiting.client, waiting.tag, waiting.request, place)

    def put(self, place, values):
        for value in values:
            place.index[value] = place.stored
            place.stored += 1
        together = [values] if place.mode == FIFO else [[value] for value in values]
        for some in together:
            if place.mode == SINGLE:
                self.gone += place.values
                place.values.clear()
            place.values += some
            self.serve(place)

    def put_back(self, place, values, serve=True):
        if place.deleted or (place.mode == SINGLE and place.values):
            self.gone += values
            return
        if place.mode == LIFO:
            place.values += values[::-1]
        else:
            place.values[:0] = values
        if serve:
            self.serve(place)

    # ------------------------------------------------------------------ both

    def ask(self, client, request):
        self.tag += 1
        return self.space.apply(client, self.tag, request, self.now)

    def compare(self, effects):
        """What the space said is what the model said; the loans in it get their numbers."""
        said, self.said = self.said, []
        assert [(client, tag, type(reply)) for client, tag, reply in effects] == [
            (client, tag, what) for client, tag, what, _ in said
        ]
        for (_, _, reply), (_, _, what, more) in zip(effects, said, strict=True):
            if what is Values:
                assert list(reply.values) == more["values"]
                assert bool(reply.loan) == (more["debt"] is not None)
                assert more["index"] in (None, reply.index)
                if more["debt"] is not None:
                    more["debt"].number = reply.loan
            if what is Failed:
                assert reply.reason == more["reason"]

    @rule(client=CLIENTS, name=NAMES, count=st.sampled_from([1, 1, 2, 6]), keep=KEEPS)
    def store(self, client, name, count, keep):
        values = list(range(self.count, self.count + count))
        self.count += count
        effects = self.ask(client, Store(self.number, name, values, keep))
        self.say(client, self.tag, Done)
        place = self.places[name]
        self.put(place, values)
        if keep is not None:
            self.gone += place.values[:-keep]
            place.values = place.values[-keep:]
        self.compare(effects)

    @rule(client=CLIENTS, name=NAMES)
    def store_many(self, client, name):
        self.store(client, name, 6, None)

    @rule(client=CLIENTS, names=SEVERAL_NAMES, count=COUNTS, timeout=TIMEOUTS)
    def fetch(self, client, names, count, timeout):
        self.request(client, Fetch(self.number, names, count, timeout))

    @rule(
        verb=st.sampled_from([Find, Find, Fetch]),
        client=CLIENTS,
        name=NAMES,
        behind=st.integers(0, 6),
        timeout=TIMEOUTS,
    )
    def iterate(self, verb, client, name, behind, timeout):
        """Ask as an iterator does that has seen all values but for the last few."""
        seen = max(self.places[name].stored - 1 - behind, -1)
        request = verb(self.number, (name,), timeout=timeout, after=(0, seen))
        if self.places[name].mode != LIFO:
            return self.request(client, request)
        effects = self.ask(client, request)
        self.say(client, self.tag, Failed, reason="order")
        return self.compare(effects)

    @rule(
        client=CLIENTS,
        names=SEVERAL_NAMES,
        count=COUNTS,
        timeout=TIMEOUTS,
        lost_to=st.sampled_from([None, None, "lost"]),
    )
    def borrow(self, client, names, count, timeout, lost_to):
        self.request(client, Fetch(self.number, names, count, timeout, True, lost_to))

    @rule(client=CLIENTS, names=SEVERAL_NAMES, timeout=TIMEOUTS)
    def find(self, client, names, timeout):
        self.request(client, Find(self.number, names, timeout))

    def request(self, client, request):
        effects = self.ask(client, request)
        full = [self.places[n] for n in request.variables if self.places[n].new_to(request)]
        if full:
            self.take(client, self.tag, request, full[0])
        elif request.timeout == 0:
            self.say(client, self.tag, Nothing)
        else:
            deadline = None if request.timeout is None else self.now + request.timeout
            self.waiting.append(Waiting(client, self.tag, request, deadline))
        self.compare(effects)

    @precondition(lambda self: self.debts)
    @rule(index=INDICES, count=COUNTS)
    def settle(self, index, count):
        debt = self.debts[index % len(self.debts)]
        effects = self.ask(debt.client, Settle(debt.number, count))
        self.say(debt.client, self.tag, Done)
        self.gone += debt.values[:count]
        debt.values = debt.values[count:]
        self.debts = [debt for debt in self.debts if debt.values]
        self.compare(effects)

    @precondition(lambda self: self.debts)
    @rule(index=INDICES, count=COUNTS)
    def give_back(self, index, count):
        debt = self.debts[index % len(self.debts)]
        effects = self.ask(debt.client, GiveBack(debt.number, count))
        self.say(debt.client, self.tag, Done)
        returned, debt.values = debt.values[-count:], debt.values[:-count]
        self.debts = [debt for debt in self.debts if debt.values]
        self.put_back(debt.place, returned)
        self.compare(effects)

    @precondition(lambda self: self.waiting)
    @rule(index=INDICES)
    def abandon(self, index):
        waiting = self.waiting.pop(index % len(self.waiting))
        effects = self.ask(waiting.client, Abandon(waiting.tag))
        self.say(waiting.client, waiting.tag, Nothing)
        self.say(waiting.client, self.tag, Done)
        self.compare(effects)

    @precondition(lambda self: any(w.deadline is not None for w in self.waiting))
    @rule(seconds=st.sampled_from([0.25, 1, 2]))
    def tick(self, seconds):
        self.now += seconds
        late = [w for w in self.waiting if w.deadline is not None and w.deadline <= self.now]
        for waiting in sorted(late, key=lambda w: (w.deadline, w.tag)):
            self.waiting.remove(waiting)
            self.say(waiting.client, waiting.tag, Nothing)
        self.compare(self.space.tick(self.now))

    @precondition(lambda self: self.debts or self.waiting)
    @rule(index=INDICES, begun=st.sampled_from([None, 0, 1, 3]))
    def vanish(self, index, begun):
        """One of those who have borrowed something or wait for it."""
        them = [*self.debts, *self.waiting]
        client = them[index % len(them)].client
        effects = self.space.disconnect(client, begun)
        self.waiting = [waiting for waiting in self.waiting if waiting.client != client]
        debts = [debt for debt in self.debts if debt.client == client]
        self.debts = [debt for debt in self.debts if debt.client != client]
        lost = []
        for debt in debts:
            if debt.lost_to is not None:
                count = len(debt.values) if begun is None else min(begun, len(debt.values))
                lost.append(debt.values[:count])
                debt.values = debt.values[count:]
                begun = None if begun is None else begun - count
        for debt in reversed(debts):
            self.put_back(debt.place, debt.values, serve=False)
        for place in dict.fromkeys(debt.place for debt in debts):
            if not place.deleted:
                self.serve(place)
        for values in lost:
            self.put(self.places["lost"], values)
        self.compare(effects)

    @precondition(lambda self: self.tag % 2 == 0)  # else little comes together
    @rule(client=CLIENTS, name=NAMES)
    def delete_variable(self, client, name):
        effects = self.ask(client, DeleteVariable(self.number, name))
        self.say(client, self.tag, Done)
        place = self.places[name]
        place.deleted = True
        self.gone += place.values
        for verb in (Find, Fetch):
            for waiting in list(self.waiting):
                if type(waiting.request) is verb and name in waiting.request.variables:
                    self.waiting.remove(waiting)
                    self.say(waiting.client, waiting.tag, Failed, reason="deleted")
        self.compare(effects)
        self.declare(name)

    # ------------------------------------------------------------------ always

    @invariant()
    def the_same_values_in_the_same_order(self):
        for name, place in self.places.items():
            assert self.space.peek(self.number, name) == place.values

    @invariant()
    def the_same_loans(self):
        for client in "abc":
            assert [(loan.number, list(loan.values)) for loan in self.space.loans(client)] == [
                (debt.number, debt.values) for debt in self.debts if debt.client == client
            ]

    @invariant()
    def each_value_in_exactly_one_place(self):
        inside = [v for name in MODES for v in self.space.peek(self.number, name)]
        lent = [v for client in "abc" for loan in self.space.loans(client) for v in loan.values]
        assert sorted(inside + lent + self.gone) == list(range(self.count))

    @invariant()
    def what_is_kept_is_counted(self):
        assert self.account.values == self.count - len(self.gone)
        assert self.account.variables == 1 + len(self.places)
        assert self.account.waiting == sum(len(w.request.variables) for w in self.waiting)

    @invariant()
    def nobody_waits_in_line_who_is_not_waiting(self):
        variables = self.space.workspace(self.number).variables
        for name in MODES:
            for verb, line in (
                (Find, variables[name].finders),
                (Fetch, variables[name].fetchers),
            ):
                assert [waiter.tag for waiter in line] == [
                    waiting.tag
                    for waiting in self.waiting
                    if type(waiting.request) is verb and name in waiting.request.variables
                ]

    @invariant()
    def the_next_deadline_is_that_of_somebody_who_waits(self):
        deadlines = [w.deadline for w in self.waiting if w.deadline is not None]
        assert self.space.next_deadline() == min(deadlines, default=None)


TestSpaceModel = SpaceModel.TestCase
TestSpaceModel.settings = settings(max_examples=100, stateful_step_count=40)


@pytest.mark.parametrize("broken", PLANTED, ids=lambda cls: cls.__name__)
def test_a_planted_bug_is_found(broken):
    class Planted(SpaceModel):
        space_class = broken

    found = settings(
        max_examples=3000,
        stateful_step_count=40,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # that there is one is enough: no shrinking
        report_multiple_bugs=False,
        print_blob=False,
    )
    with pytest.raises(AssertionError):  # nothing else: a health check would prove nothing
        run_state_machine_as_test(Planted, settings=found)
