"""Every rule of the space by an example. The space is pure: each test says what time it is."""

from __future__ import annotations

import itertools

import pytest

from sleighexec import space
from sleighexec.messages import (
    FIFO,
    LIFO,
    MODES,
    MULTI,
    SINGLE,
    UNKNOWN,
    Abandon,
    Declare,
    DeleteVariable,
    DeleteWorkspace,
    Done,
    Failed,
    Fetch,
    Find,
    GiveBack,
    ListVariables,
    ListWorkspaces,
    MakeTemporary,
    Nothing,
    Open,
    Opened,
    Settle,
    Store,
    Values,
)
from sleighexec.space import Space


class House:
    """A space with one workspace, and the few words that the tests say to it."""

    def __init__(self, **how) -> None:
        self.space = Space(**how)
        self.tags = itertools.count(1)
        self.now = 0.0
        self.number = self.open("ws", own=False)

    def ask(self, client, request):
        """Everything that a request causes; its tag is in `last`."""
        self.last = next(self.tags)
        return self.space.apply(client, self.last, request, self.now)

    def reply(self, client, request):
        """The one reply to a request that answers nobody else."""
        [(who, tag, reply)] = self.ask(client, request)
        assert (who, tag) == (client, self.last)
        return reply

    def open(self, name, client="opener", **how) -> int:
        reply = self.reply(client, Open(name, **how))
        assert isinstance(reply, Opened)
        return reply.workspace

    def declare(self, mode, name="x"):
        return self.reply("declarer", Declare(self.number, name, mode))

    def store(self, *values, name="x", client="storer"):
        """Store; the replies that others get, as (client, values or what else came)."""
        done, *others = self.ask(client, Store(self.number, name, values))
        assert done == (client, self.last, Done())
        return [
            (who, reply.values[:] if isinstance(reply, Values) else reply)
            for who, _, reply in others
        ]

    def fetch(self, client, *names, **how):
        """Take what is there now: a list; [] when there is nothing."""
        reply = self.reply(client, Fetch(self.number, names or ("x",), timeout=0, **how))
        return [] if reply == Nothing() else list(reply.values)

    def borrow(self, client, *names, count=1, **how):
        """Take on loan what is there now: the number of the loan."""
        request = Fetch(self.number, names or ("x",), count, 0, True, **how)
        reply = self.reply(client, request)
        assert reply.loan
        return reply.loan

    def find(self, client="finder", *names, **how):
        reply = self.reply(client, Find(self.number, names or ("x",), timeout=0, **how))
        return [] if reply == Nothing() else list(reply.values)

    def wait(self, client, *names, verb=Fetch, **how) -> int:
        """A request that must wait; its tag."""
        assert self.ask(client, verb(self.number, names or ("x",), **how)) == []
        return self.last

    def values(self, name="x"):
        return self.space.peek(self.number, name)

    def lines(self):
        """Everybody who stands in any line, with the name of the variable."""
        variables = self.space.workspace(self.number).variables.values()
        return [(v.name, w.client) for v in variables for w in (*v.finders, *v.fetchers)]


@pytest.fixture
def house():
    return House()


def answers(effects):
    """(client, values) of effects that are all values."""
    return [(client, list(reply.values)) for client, _, reply in effects]


# ------------------------------------------------------------------ modes


def test_a_fifo_gives_the_oldest_value_first(house):
    house.declare(FIFO)
    house.store(1, 2, 3)
    assert [house.fetch("a") for _ in range(4)] == [[1], [2], [3], []]


def test_a_lifo_gives_the_newest_value_first(house):
    house.declare(LIFO)
    house.store(1, 2)
    house.store(3)
    assert [house.fetch("a") for _ in range(4)] == [[3], [2], [1], []]


def test_a_find_in_a_lifo_shows_what_a_fetch_would_take(house):
    house.declare(LIFO)
    house.store(1, 2, 3)
    assert house.find() == [3] == house.fetch("a")


def test_a_multi_gives_the_value_that_was_drawn():
    draws = iter([2, 0, 0])
    house = House(choose=lambda n: next(draws))
    house.declare(MULTI)
    house.store("a", "b", "c")
    assert [house.fetch("x") for _ in range(3)] == [["c"], ["a"], ["b"]]


def test_a_multi_draws_among_the_values_that_are_there():
    asked = []
    house = House(choose=lambda n: asked.append(n) or n - 1)
    house.declare(MULTI)
    house.store(1, 2, 3)
    house.fetch("a")
    house.fetch("a")
    assert asked == [3, 2]


def test_a_single_keeps_the_last_value_only(house):
    house.declare(SINGLE)
    house.store(1)
    house.store(2, 3)
    assert house.values() == [3]
    assert house.fetch("a") == [3]
    assert house.fetch("a") == []


def test_each_value_of_one_store_to_a_single_reaches_a_fetcher_that_waits(house):
    house.declare(SINGLE)
    house.wait("a")
    house.wait("b")
    assert house.store(1, 2, 3) == [("a", [1]), ("b", [2])]
    assert house.values() == [3]


def test_a_waiting_fetcher_of_a_lifo_gets_the_first_value_that_comes(house):
    house.declare(LIFO)
    house.wait("a")
    assert house.store(1, 2) == [("a", [1])]


def test_an_undeclared_variable_becomes_a_fifo_when_something_is_stored(house):
    house.store(1)
    listing = house.reply("a", ListVariables(house.number))
    assert listing.rows == [["x", 1, 0, 0, FIFO]]


def test_a_variable_that_was_only_read_has_no_mode_and_can_be_declared(house):
    assert house.fetch("a") == []
    assert house.reply("a", ListVariables(house.number)).rows == [["x", 0, 0, 0, UNKNOWN]]
    assert house.declare(LIFO) == Done()


def test_declaring_the_same_mode_again_is_fine(house):
    assert house.declare(SINGLE) == Done() == house.declare(SINGLE)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != FIFO])
def test_a_mode_never_changes(house, mode):
    house.store(1)
    reply = house.declare(mode)
    assert isinstance(reply, Failed)
    assert reply.reason == "mode"
    assert house.values() == [1]


@pytest.mark.parametrize("mode", ["", "stack", UNKNOWN, None, 3])
def test_an_unknown_mode_is_refused(house, mode):
    assert house.declare(mode).reason == "mode"


def test_variables_do_not_share_values(house):
    house.store(1, name="x")
    house.store(2, name="y")
    assert house.fetch("a", "y") == [2]
    assert house.fetch("a", "x") == [1]


def test_the_same_name_in_two_workspaces_is_two_variables(house):
    other = house.open("other")
    house.store(1)
    assert house.reply("a", Fetch(other, ("x",), timeout=0)) == Nothing()


# ------------------------------------------------------------------ who is served


def test_fetchers_are_served_in_the_order_they_came(house):
    for client in "abc":
        house.wait(client)
    assert house.store(1, 2) == [("a", [1]), ("b", [2])]
    assert house.store(3) == [("c", [3])]


@pytest.mark.parametrize("mode", [FIFO, LIFO, MULTI, SINGLE])
def test_all_finders_are_served_before_the_first_fetcher(house, mode):
    house.declare(mode)
    house.wait("taker")
    house.wait("p", verb=Find)
    house.wait("q", verb=Find)
    assert house.store(1) == [("p", (1,)), ("q", (1,)), ("taker", [1])]
    assert house.values() == []


def test_a_find_takes_nothing(house):
    house.store(1)
    assert [house.find() for _ in range(3)] == [[1]] * 3
    assert house.values() == [1]


def test_a_value_that_is_there_is_given_at_once_although_nobody_waited(house):
    house.store(1)
    assert house.ask("a", Fetch(house.number, ("x",))) == [
        ("a", house.last, Values([1], 0, "x", house.space.workspace(1).variables["x"].number, 0))
    ]


def test_one_client_may_wait_with_several_requests(house):
    first = house.wait("a")
    second = house.wait("a")
    effects = house.ask("s", Store(house.number, "x", (1, 2)))[1:]
    assert [(tag, list(reply.values)) for _, tag, reply in effects] == [(first, [1]), (second, [2])]


def test_a_fetch_from_several_variables_tries_them_in_the_order_of_its_names(house):
    house.store("later", name="x")
    house.store("first", name="mailbox")
    assert house.fetch("w", "mailbox", "x") == ["first"]
    assert house.fetch("w", "mailbox", "x") == ["later"]


def test_the_reply_says_from_which_variable_it_came(house):
    house.store(1, name="y")
    assert house.reply("a", Fetch(house.number, ("x", "y"), timeout=0)).variable == "y"


def test_a_fetch_takes_from_one_variable_only(house):
    house.store(1, name="x")
    house.store(2, name="y")
    assert house.fetch("a", "x", "y", count=5) == [1]


@pytest.mark.parametrize("name", ["x", "y"])
def test_a_fetch_waits_in_several_variables_and_leaves_all_when_served(house, name):
    house.wait("a", "x", "y")
    assert house.lines() == [("x", "a"), ("y", "a")]
    assert house.store(1, name=name) == [("a", [1])]
    assert house.lines() == []


def test_a_fetch_that_names_a_variable_twice_gets_one_value(house):
    house.wait("a", "x", "x")
    assert house.store(1, 2) == [("a", [1])]
    assert house.values() == [2]
    assert house.lines() == []


def test_a_blocked_find_of_several_variables_is_answered_by_the_first_store(house):
    house.wait("a", "x", "y", verb=Find)
    assert house.store(1, name="y") == [("a", (1,))]
    assert house.lines() == []


# ------------------------------------------------------------------ many at once


def test_a_fetch_of_many_takes_what_is_there_and_no_more_than_asked(house):
    house.store(*range(5))
    assert house.fetch("a", count=3) == [0, 1, 2]
    assert house.fetch("a", count=3) == [3, 4]


def test_a_fetch_of_many_does_not_wait_for_all_of_them(house):
    house.wait("a", count=10)
    assert house.store(1, 2) == [("a", [1, 2])]


def test_a_fetch_of_many_leaves_a_fair_share_to_those_who_wait(house):
    for client in "abc":
        house.wait(client, count=100)
    assert house.store(*range(9)) == [("a", [0, 1, 2]), ("b", [3, 4, 5]), ("c", [6, 7, 8])]


def test_a_fetch_of_many_leaves_a_fair_share_to_those_who_hold_loans(house):
    house.store(*range(9))
    house.borrow("other")  # comes back for more
    assert house.fetch("a", count=100) == [1, 2, 3, 4]


def test_a_fair_share_is_one_value_at_least(house):
    for client in "abc":
        house.wait(client, count=100)
    assert house.store(1, 2) == [("a", [1]), ("b", [2])]


def test_a_settled_loan_does_not_count_in_the_fair_share(house):
    house.store(*range(9))
    house.space.settle(house.borrow("other"), 1)
    assert house.fetch("a", count=100) == list(range(1, 9))


def test_a_fetch_of_many_from_a_lifo_takes_the_newest_first(house):
    house.declare(LIFO)
    house.store(1, 2, 3)
    assert house.fetch("a", count=2) == [3, 2]


# ------------------------------------------------------------------ time


def test_a_fetch_that_times_out_takes_nothing(house):
    tag = house.wait("a", timeout=5)
    assert house.space.tick(5.0) == [("a", tag, Nothing())]
    assert house.store(1) == []
    assert house.values() == [1]


def test_nothing_times_out_before_its_time(house):
    house.wait("a", timeout=5)
    assert house.space.tick(4.999) == []
    assert house.store(1) == [("a", [1])]


def test_requests_time_out_in_the_order_of_their_deadlines(house):
    late = house.wait("a", timeout=9)
    soon = house.wait("b", verb=Find, timeout=3)
    house.wait("c", timeout=99)
    assert house.space.tick(50.0) == [("b", soon, Nothing()), ("a", late, Nothing())]


def test_a_timeout_counts_from_the_time_of_the_request(house):
    house.now = 100.0
    house.wait("a", timeout=5)
    assert house.space.next_deadline() == 105.0


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.5])
@pytest.mark.parametrize("verb", [Fetch, Find])
def test_a_request_without_patience_is_answered_at_once(house, verb, timeout):
    assert house.reply("a", verb(house.number, ("x",), timeout=timeout)) == Nothing()
    assert house.lines() == []


def test_nobody_who_waits_for_ever_makes_a_deadline(house):
    house.wait("a")
    assert house.space.next_deadline() is None
    assert house.space.tick(1e12) == []


def test_the_next_deadline_is_that_of_somebody_who_still_waits(house):
    house.wait("a", timeout=1)
    house.wait("b", timeout=2)
    house.store(1)
    assert house.space.next_deadline() == 2
    house.store(2)
    assert house.space.next_deadline() is None


def test_a_request_is_answered_once_although_its_deadline_comes_later(house):
    house.wait("a", timeout=5)
    house.store(1)
    assert house.space.tick(10.0) == []


def test_a_request_that_timed_out_stands_in_no_line(house):
    house.wait("a", "x", "y", timeout=1)
    house.wait("b", "y", verb=Find, timeout=1)
    house.space.tick(1.0)
    assert house.lines() == []
    assert house.space.next_deadline() is None


def test_timeouts_at_a_variable_that_nobody_fills_leave_nothing_behind(house):
    for second in range(100):
        house.now = float(second)
        house.wait("a", "never", timeout=0.5)
        house.wait("b", "never", verb=Find, timeout=0.5)
        assert len(house.space.tick(second + 0.5)) == 2
    variable = house.space.workspace(house.number).variables["never"]
    assert (len(variable.fetchers), len(variable.finders)) == (0, 0)
    assert not house.space.deadlines
    assert not any(member.waiters for member in house.space._members.values())


def test_answered_requests_with_far_deadlines_do_not_pile_up(house):
    house.wait("first", "other", timeout=1e6)  # so that the dead ones are not at the front
    for _ in range(2000):
        house.wait("a", timeout=2e6)
        house.store(1)
    assert len(house.space.deadlines) < 1000


def test_a_timeout_that_is_not_a_number_does_not_stop_the_clock_for_others(house):
    house.ask("bad", Fetch(house.number, ("y",), timeout=float("nan")))
    tag = house.wait("good", timeout=5)
    house.ask("bad", Fetch(house.number, ("y",), timeout=float("nan")))
    assert ("good", tag, Nothing()) in house.space.tick(6.0)


# ------------------------------------------------------------------ abandon


def test_an_abandoned_request_is_answered_with_nothing_and_takes_nothing(house):
    waiting = house.wait("a", "x", "y")
    effects = house.ask("a", Abandon(waiting))
    assert effects == [("a", waiting, Nothing()), ("a", house.last, Done())]
    assert house.lines() == []
    assert house.store(1) == []


def test_abandoning_what_is_answered_already_changes_nothing(house):
    waiting = house.wait("a")
    house.store(1)
    assert house.reply("a", Abandon(waiting)) == Done()


def test_nobody_can_abandon_the_request_of_another(house):
    waiting = house.wait("a")
    assert house.reply("b", Abandon(waiting)) == Done()
    assert house.store(1) == [("a", [1])]


def test_a_tag_that_is_used_twice_at_once_costs_nobody_a_value(house):
    house.space.apply("a", 7, Fetch(house.number, ("x",)), 0.0)
    house.space.apply("a", 7, Fetch(house.number, ("x",)), 0.0)
    house.space.disconnect("a")
    assert house.store(1) == []
    assert house.values() == [1]


# ------------------------------------------------------------------ deletion


def test_a_deleted_variable_is_gone_with_its_values(house):
    house.store(1)
    assert house.reply("a", DeleteVariable(house.number, "x")) == Done()
    assert house.values() == []
    assert house.reply("a", ListVariables(house.number)).rows == []


def test_deleting_a_variable_that_is_not_there_fails(house):
    assert house.reply("a", DeleteVariable(house.number, "x")).reason == "variable"


def test_deleting_a_variable_wakes_everybody_who_waits_there(house):
    finder = house.wait("f", verb=Find)
    fetcher = house.wait("a", "x", "y")
    done, *others = house.ask("d", DeleteVariable(house.number, "x"))
    assert done == ("d", house.last, Done())
    assert [(who, tag, reply.reason) for who, tag, reply in others] == [
        ("f", finder, "deleted"),
        ("a", fetcher, "deleted"),
    ]
    assert house.lines() == []
    assert house.store(1, name="y") == []


def test_deleting_a_variable_tells_a_fetcher_that_named_it_twice_once(house):
    house.wait("a", "x", "x")
    assert len(house.ask("d", DeleteVariable(house.number, "x"))) == 2


def test_a_variable_that_was_deleted_may_be_made_again_with_another_mode(house):
    house.store(1)
    house.reply("a", DeleteVariable(house.number, "x"))
    assert house.declare(LIFO) == Done()


def test_deleting_a_workspace_wakes_everybody_who_waits_in_it(house):
    house.wait("a", "x")
    house.wait("b", "y", verb=Find)
    effects = house.ask("d", DeleteWorkspace("ws"))
    assert effects[0] == ("d", house.last, Done())
    assert [(who, reply.reason) for who, _, reply in effects[1:]] == [
        ("a", "deleted"),
        ("b", "deleted"),
    ]


def test_deleting_a_workspace_that_is_not_there_fails(house):
    assert house.reply("a", DeleteWorkspace("no such")).reason == "workspace"


@pytest.mark.parametrize(
    "request_in",
    [
        lambda number: Store(number, "x", (1,)),
        lambda number: Fetch(number, ("x",)),
        lambda number: Find(number, ("x",)),
        lambda number: Declare(number, "x", FIFO),
        lambda number: DeleteVariable(number, "x"),
        lambda number: ListVariables(number),
    ],
)
def test_a_workspace_that_was_deleted_and_made_again_is_another_one(house, request_in):
    house.store("old")
    house.reply("d", DeleteWorkspace("ws"))
    again = house.open("ws")
    assert again != house.number
    assert house.reply("a", request_in(house.number)).reason == "workspace"
    assert house.space.peek(again, "x") == []


def test_a_loan_from_a_deleted_variable_does_not_come_back_into_its_namesake(house):
    house.store("old")
    house.borrow("a")
    house.reply("d", DeleteVariable(house.number, "x"))
    house.store("new")
    assert house.space.disconnect("a") == []
    assert house.values() == ["new"]


def test_a_loan_from_a_deleted_workspace_ends_quietly(house):
    house.store(1, 2)
    loan = house.borrow("a", count=2)
    house.reply("d", DeleteWorkspace("ws"))
    assert house.ask("a", GiveBack(loan, 1)) == [("a", house.last, Done())]
    assert house.space.disconnect("a") == []


# ------------------------------------------------------------------ owners


def test_a_workspace_goes_with_its_owner(house):
    number = house.open("mine", "owner")
    house.ask("a", Fetch(number, ("x",)))
    [(who, _, reply)] = house.space.disconnect("owner")
    assert (who, reply.reason) == ("a", "deleted")
    assert house.reply("a", Open("mine", create=False)).reason == "workspace"


def test_a_persistent_workspace_stays_when_its_owner_goes(house):
    number = house.open("mine", "owner", persistent=True)
    house.reply("owner", Store(number, "x", (1,)))
    assert house.space.disconnect("owner") == []
    assert house.open("mine", "other", create=False) == number
    assert house.space.peek(number, "x") == [1]


def test_who_opens_a_workspace_later_does_not_own_it(house):
    number = house.open("mine", "owner")
    assert house.open("mine", "guest", persistent=True) == number
    house.space.disconnect("guest")
    assert house.open("mine", "other", own=False, create=False) == number
    house.space.disconnect("owner")
    assert house.reply("other", Open("mine", create=False)).reason == "workspace"


def test_a_workspace_that_was_only_used_has_no_owner_until_somebody_opens_it(house):
    number = house.open("mine", "user", own=False)
    house.space.disconnect("user")
    assert house.open("mine", "owner") == number
    house.space.disconnect("owner")
    assert house.reply("user", Open("mine", create=False)).reason == "workspace"


def test_a_workspace_that_is_not_there_is_not_made_unless_asked(house):
    assert house.reply("a", Open("other", create=False)).reason == "workspace"
    names = [row[0] for row in house.reply("a", ListWorkspaces()).rows]
    assert names == ["ws"]


def test_the_owner_can_make_his_workspace_persistent_later(house):
    house.open("mine", "owner")
    house.open("mine", "owner", persistent=True)
    house.space.disconnect("owner")
    assert isinstance(house.reply("a", Open("mine", create=False)), Opened)


def test_what_an_owner_borrowed_from_another_workspace_comes_back_when_he_goes(house):
    house.open("mine", "owner")
    house.store(1)
    house.borrow("owner")
    house.space.disconnect("owner")
    assert house.values() == [1]


# ------------------------------------------------------------------ listings


def test_the_listing_of_variables_counts_values_and_waiters(house):
    house.store(1, 2, name="b")
    house.declare(SINGLE, "a")
    house.wait("f", "c")
    house.wait("f", "c")
    house.wait("f", "c", verb=Find)
    assert house.reply("l", ListVariables(house.number)).rows == [
        ["a", 0, 0, 0, SINGLE],
        ["b", 2, 0, 0, FIFO],
        ["c", 0, 2, 1, UNKNOWN],
    ]


def test_a_lent_value_is_not_in_the_listing(house):
    house.store(1, 2)
    house.borrow("a")
    assert house.reply("l", ListVariables(house.number)).rows == [["x", 1, 0, 0, FIFO]]


def test_the_listing_of_workspaces_says_whose_they_are(house):
    house.open("kept", "me", persistent=True, owner="me@home")
    house.open("mine", "me", owner="me@home")
    house.store(1)
    assert house.reply("me", ListWorkspaces()).rows == [
        ["kept", True, "me@home", True, []],
        ["mine", True, "me@home", False, []],
        ["ws", False, "", False, ["x"]],
    ]
    assert [row[1] for row in house.reply("you", ListWorkspaces()).rows] == [False] * 3


# ------------------------------------------------------------------ temporary workspaces


def test_temporary_workspaces_have_new_names_from_their_template(house):
    first = house.reply("a", MakeTemporary("__pyws__%d"))
    second = house.reply("a", MakeTemporary("t%03d", "_abc"))
    assert (first.name, second.name) == ("__pyws__1", "t002_abc")
    assert first.workspace != second.workspace


def test_a_temporary_workspace_is_not_owned_by_its_maker(house):
    made = house.reply("a", MakeTemporary("t%d"))
    house.space.disconnect("a")
    assert isinstance(house.reply("b", Open(made.name, create=False)), Opened)


@pytest.mark.parametrize("template", ["none", "%d%d", "%q", "%(x)d", "%"])
def test_a_template_must_take_one_number(house, template):
    assert house.reply("a", MakeTemporary(template)).reason == "template"


# ------------------------------------------------------------------ loans


def test_a_settled_value_does_not_come_back(house):
    house.store(1)
    loan = house.borrow("a")
    assert house.reply("a", Settle(loan, 1)) == Done()
    assert house.space.disconnect("a") == []
    assert house.values() == []


def test_settling_gives_the_first_values_and_keeps_the_others_on_loan(house):
    house.store(1, 2, 3)
    loan = house.borrow("a", count=3)
    assert house.space.settle(loan, 2) == [1, 2]
    assert list(house.space.loan(loan).values) == [3]
    house.space.disconnect("a")
    assert house.values() == [3]


def test_a_loan_that_is_settled_entirely_is_over(house):
    house.store(1)
    loan = house.borrow("a")
    house.space.settle(loan, 1)
    assert house.space.loan(loan) is None
    assert list(house.space.loans("a")) == []
    assert house.space.settle(loan, 1) == []


def test_settling_more_than_there_is_settles_what_there_is(house):
    house.store(1, 2)
    assert house.space.settle(house.borrow("a", count=2), 99) == [1, 2]


def test_giving_back_returns_the_last_values_first_in_line_in_their_order(house):
    house.store(1, 2, 3, 4, 5)
    loan = house.borrow("a", count=4)
    assert house.reply("a", GiveBack(loan, 2)) == Done()
    assert house.values() == [3, 4, 5]
    assert list(house.space.loan(loan).values) == [1, 2]


def test_giving_back_serves_who_waits(house):
    house.store(1, 2)
    loan = house.borrow("a", count=2)
    tag = house.wait("b")
    effects = house.ask("a", GiveBack(loan, 1))
    assert effects[0] == ("a", house.last, Done())
    [(who, its, reply)] = effects[1:]
    assert (who, its, list(reply.values)) == ("b", tag, [2])


def test_giving_back_more_than_there_is_gives_back_what_there_is(house):
    house.store(1, 2)
    loan = house.borrow("a", count=2)
    house.space.give_back(loan, 99)
    assert house.values() == [1, 2]
    assert house.space.loan(loan) is None


def test_settling_or_giving_back_an_unknown_loan_does_nothing(house):
    assert house.reply("a", Settle(12345, 1)) == Done()
    assert house.reply("a", GiveBack(12345, 1)) == Done()


def test_settling_and_giving_back_share_a_loan_between_them(house):
    house.store(1, 2, 3)
    loan = house.borrow("a", count=3)
    house.space.give_back(loan, 1)
    assert house.space.settle(loan, 3) == [1, 2]
    assert house.values() == [3]
    assert house.space.loan(loan) is None


def test_a_fetch_without_lending_is_no_loan(house):
    house.store(1)
    assert house.fetch("a") == [1]
    assert house.space.disconnect("a") == []
    assert house.values() == []


def test_the_loans_of_a_vanished_client_are_first_in_line_in_the_old_order(house):
    house.store(*range(1, 8))
    house.borrow("a", count=2)
    house.borrow("b")
    house.borrow("a", count=2)
    house.space.disconnect("a")
    assert house.values() == [1, 2, 4, 5, 6, 7]
    assert list(house.space.loans("a")) == []


def test_the_loans_of_a_vanished_client_are_on_top_of_a_lifo_again(house):
    house.declare(LIFO)
    house.store(1, 2, 3)
    house.borrow("a", count=2)
    house.space.disconnect("a")
    assert house.fetch("b", count=3) == [3, 2, 1]


def test_what_a_vanished_client_held_goes_to_who_waits(house):
    house.store(1)
    house.borrow("a")
    tag = house.wait("b")
    [(who, its, reply)] = house.space.disconnect("a")
    assert (who, its, list(reply.values)) == ("b", tag, [1])
    assert house.values() == []


def test_who_waits_gets_the_oldest_of_what_a_vanished_client_held(house):
    house.store(1, 2)
    house.borrow("a")
    house.borrow("a")
    tags = [house.wait("b"), house.wait("c")]
    effects = house.space.disconnect("a")
    assert [(who, its, list(reply.values)) for who, its, reply in effects] == [
        ("b", tags[0], [1]),
        ("c", tags[1], [2]),
    ]


def test_what_a_vanished_client_held_never_goes_to_itself(house):
    house.store(1)
    house.borrow("a")
    house.wait("a")
    assert house.space.disconnect("a") == []
    assert house.values() == [1]


def test_who_is_served_is_not_looked_for_among_all_others(house, monkeypatch):
    compared = []
    monkeypatch.setattr(space._Waiter, "__eq__", lambda *both: compared.append(both), raising=False)
    monkeypatch.setattr(space._Waiter, "__hash__", object.__hash__, raising=False)
    for client in range(300):
        house.wait(client, "x", "y", verb=Find)
        house.wait(client, "x", "y")
    house.store(*range(300))
    assert house.lines() == []
    assert len(compared) < 100


def test_the_waiters_of_a_vanished_client_leave_every_line(house):
    house.wait("a", "x", "y", timeout=5)
    house.wait("a", "y", verb=Find)
    assert house.space.disconnect("a") == []
    assert house.lines() == []
    assert house.space.next_deadline() is None
    assert house.store(1) == []
    assert house.values() == [1]


def test_a_client_may_vanish_twice_or_without_having_been_there(house):
    house.wait("a")
    house.space.disconnect("a")
    assert house.space.disconnect("a") == []
    assert house.space.disconnect("nobody") == []


def test_a_client_that_comes_back_starts_anew(house):
    house.store(1)
    loan = house.borrow("a")
    house.space.disconnect("a")
    assert house.fetch("a") == [1]
    assert house.space.settle(loan, 1) == []


def test_a_returned_loan_of_a_single_gives_way_to_a_newer_value(house):
    house.declare(SINGLE)
    house.store("old")
    house.borrow("a")
    house.store("new")
    house.space.disconnect("a")
    assert house.values() == ["new"]


def test_a_returned_loan_of_a_single_is_there_again_when_nothing_newer_is(house):
    house.declare(SINGLE)
    house.store(1)
    house.borrow("a")
    house.space.disconnect("a")
    assert house.values() == [1]


# ------------------------------------------------------------------ lost_to


def test_what_was_lent_with_lost_to_goes_there_when_the_client_vanishes(house):
    house.store(1, 2, 3)
    house.borrow("a", count=2, lost_to="lost")
    house.space.disconnect("a")
    assert (house.values(), house.values("lost")) == ([3], [1, 2])


def test_somebody_who_waits_at_lost_to_gets_what_was_lost(house):
    house.store(1)
    house.borrow("a", lost_to="lost")
    house.wait("watcher", "lost")
    assert answers(house.space.disconnect("a")) == [("watcher", [1])]


def test_of_a_lost_loan_only_what_had_begun_goes_to_lost_to(house):
    house.store(1, 2, 3, 4)
    house.borrow("a", count=3, lost_to="lost")
    house.space.disconnect("a", begun=1)
    assert (house.values(), house.values("lost")) == ([2, 3, 4], [1])


def test_what_had_begun_counts_over_all_loans_oldest_first(house):
    house.store(*range(1, 7))
    house.borrow("a", count=2, lost_to="lost")
    house.borrow("a", count=2, lost_to="lost")
    house.space.disconnect("a", begun=3)
    assert (house.values(), house.values("lost")) == ([4, 5, 6], [1, 2, 3])


@pytest.mark.parametrize("begun", [0, 1, 2, 99])
def test_begun_may_be_none_of_them_or_more_than_there_are(house, begun):
    house.store(1, 2)
    house.borrow("a", count=2, lost_to="lost")
    house.space.disconnect("a", begun=begun)
    assert (house.values("lost"), house.values()) == ([1, 2][:begun], [1, 2][begun:])


def test_a_loan_without_lost_to_goes_back_although_it_had_begun(house):
    house.store(1, 2)
    house.borrow("a", count=2)
    house.space.disconnect("a", begun=1)
    assert house.values() == [1, 2]


def test_giving_back_ignores_lost_to(house):
    house.store(1)
    house.space.give_back(house.borrow("a", lost_to="lost"), 1)
    assert (house.values(), house.values("lost")) == ([1], [])


def test_an_empty_loss_makes_no_variable(house):
    house.store(1)
    house.borrow("a", lost_to="lost")
    house.space.disconnect("a", begun=0)
    assert "lost" not in house.space.workspace(house.number).variables


# ------------------------------------------------------------------ keep


def keep(house, count, *values):
    return house.ask("storer", Store(house.number, "x", values, count))


@pytest.mark.parametrize("mode", MODES)
def test_at_most_as_many_values_stay_as_the_store_says(house, mode):
    house.declare(mode)
    house.store(1, 2, 3)
    keep(house, 2, 4)
    assert house.values() == ([4] if mode == SINGLE else [3, 4])


def test_a_store_that_does_not_say_keeps_all(house):
    keep(house, 1, 1)
    house.store(2)
    assert house.values() == [1, 2]


def test_who_waits_is_served_before_anything_goes(house):
    house.wait("a")
    house.wait("b", verb=Find)
    effects = keep(house, 1, 1, 2, 3)
    assert answers(effects[1:]) == [("b", [1]), ("a", [1])]
    assert house.values() == [3]


def test_what_went_is_counted_so_that_iterators_go_on(house):
    house.store(1, 2)
    walker = Iterator(house)
    assert walker.next() == 1
    keep(house, 2, 3, 4)
    assert [walker.next() for _ in range(3)] == [3, 4, Nothing()]


def test_of_what_came_back_the_first_in_line_goes_first(house):
    house.store(1, 2, 3)
    first, second = house.borrow("a"), house.borrow("a")
    house.space.give_back(first, 1)
    house.space.give_back(second, 1)
    keep(house, 3, 4)
    assert house.values() == [1, 3, 4]
    keep(house, 2, 5)
    assert house.reply("a", Fetch(house.number, ("x",), timeout=0)).index == 3


def test_a_lent_value_does_not_count_until_it_comes_back(house):
    house.store(1, 2)
    loan = house.borrow("a")
    keep(house, 2, 3)
    assert house.values() == [2, 3]
    house.space.give_back(loan, 1)
    assert house.values() == [1, 2, 3]


@pytest.mark.parametrize("count", [0, -1])
def test_keeping_nothing_is_refused(house, count):
    [(_, _, reply)] = keep(house, count, 1)
    assert reply.reason == "request"
    assert house.values() == []


# ------------------------------------------------------------------ put_first


def test_put_first_is_first_in_line_in_its_order(house):
    house.store(3)
    variable = house.space.variable(house.space.workspace(house.number), "x")
    assert house.space.put_first(variable, [1, 2]) == []
    assert house.values() == [1, 2, 3]


def test_put_first_serves_who_waits(house):
    house.wait("a")
    variable = house.space.variable(house.space.workspace(house.number), "x")
    assert answers(house.space.put_first(variable, [1, 2])) == [("a", [1])]
    assert house.values() == [2]


def test_a_find_sees_what_was_put_first(house):
    variable = house.space.variable(house.space.workspace(house.number), "x")
    house.space.put_first(variable, [1])
    assert house.find() == [1]


# ------------------------------------------------------------------ iterators


class Iterator:
    """What a client does to walk over the values of a variable."""

    def __init__(self, house, verb=Find, client="walker"):
        self.house, self.verb, self.client, self.after = house, verb, client, (0, -1)

    def next(self):
        request = self.verb(self.house.number, ("x",), timeout=0, after=self.after)
        reply = self.house.reply(self.client, request)
        if not isinstance(reply, Values):
            return reply
        self.after = reply.variable_id, reply.index
        return reply.values[0]


def test_a_find_iterator_sees_each_value_once_in_order(house):
    house.store(1, 2, 3)
    walker = Iterator(house)
    assert [walker.next() for _ in range(4)] == [1, 2, 3, Nothing()]
    house.store(4)
    assert [walker.next() for _ in range(2)] == [4, Nothing()]
    assert house.values() == [1, 2, 3, 4]


def test_two_iterators_do_not_disturb_each_other(house):
    house.store(1, 2)
    first, second = Iterator(house, client="p"), Iterator(house, client="q")
    assert [first.next(), second.next(), first.next(), second.next()] == [1, 1, 2, 2]


def test_a_find_iterator_goes_on_behind_what_others_have_fetched(house):
    house.store(1, 2, 3, 4)
    walker = Iterator(house)
    assert walker.next() == 1
    house.fetch("a", count=3)
    assert [walker.next(), walker.next()] == [4, Nothing()]


def test_a_fetch_iterator_takes_each_value(house):
    house.store(1, 2)
    walker = Iterator(house, Fetch)
    assert [walker.next() for _ in range(3)] == [1, 2, Nothing()]
    assert house.values() == []


def test_an_iterator_that_has_seen_all_waits_for_the_next_value(house):
    house.store(1)
    walker = Iterator(house)
    walker.next()
    house.wait("walker", verb=Find, after=walker.after)
    assert house.store(2) == [("walker", (2,))]
    assert house.values() == [1, 2]


def test_an_iterator_that_waits_does_not_hold_up_those_behind_it(house):
    house.store(1, 2)
    house.wait("ahead", verb=Find, after=(house.space.workspace(1).variables["x"].number, 2))
    house.wait("fetcher", "y")
    house.fetch("a", count=2)
    house.wait("plain", verb=Find)
    assert house.store(3) == [("plain", (3,))]
    assert house.lines() == [("x", "ahead"), ("y", "fetcher")]


def test_an_iterator_over_a_single_sees_the_present_value_and_each_later_one_once(house):
    house.declare(SINGLE)
    house.store(1)
    house.store(2)
    walker = Iterator(house)
    assert [walker.next(), walker.next()] == [2, Nothing()]
    house.store(3)
    house.store(4)
    assert [walker.next(), walker.next()] == [4, Nothing()]


def test_an_iterator_does_not_see_twice_what_went_out_on_loan_and_came_back(house):
    house.store(1, 2)
    walker = Iterator(house)
    assert [walker.next(), walker.next()] == [1, 2]
    house.borrow("a", count=2)
    house.space.disconnect("a")
    assert walker.next() == Nothing()
    house.store(3)
    assert walker.next() == 3


def test_a_find_iterator_sees_each_value_once_whatever_order_loans_come_back_in(house):
    house.store(1, 2, 3)
    start, middle = Iterator(house), Iterator(house)
    assert middle.next() == 1
    first, second = house.borrow("a"), house.borrow("b")
    house.space.give_back(first, 1)
    house.space.give_back(second, 1)
    assert house.values() == [2, 1, 3]
    assert [start.next() for _ in range(4)] == [1, 2, 3, Nothing()]
    assert [middle.next() for _ in range(3)] == [2, 3, Nothing()]


def test_what_comes_back_after_others_were_fetched_is_new_only_to_who_has_not_seen_it(house):
    house.store(1, 2, 3)
    start, middle = Iterator(house), Iterator(house)
    assert middle.next() == 1
    loan = house.borrow("a")
    assert house.fetch("b") == [2]
    house.space.give_back(loan, 1)
    assert [start.next() for _ in range(3)] == [1, 3, Nothing()]
    assert [middle.next() for _ in range(2)] == [3, Nothing()]


@pytest.mark.parametrize("end", ["settled", "lost"])
def test_what_comes_back_from_the_rest_of_a_loan_is_known_by_its_index(house, end):
    house.store(1, 2, 3, 4)
    walker = Iterator(house)
    assert [walker.next(), walker.next()] == [1, 2]
    loan = house.borrow("a", count=3, lost_to="lost")
    assert house.fetch("b") == [4]
    if end == "settled":
        house.space.settle(loan, 1)
        house.space.give_back(loan, 2)
    else:
        house.space.disconnect("a", begun=1)
    assert house.values() == [2, 3]
    assert [walker.next(), walker.next()] == [3, Nothing()]


def test_a_find_iterator_that_waits_gets_what_comes_back_if_it_is_new_to_it(house):
    house.store(1)
    loan = house.borrow("a")
    house.wait("new", verb=Find, after=(0, -1))
    house.wait("old", verb=Find, after=(0, 0))
    assert answers(house.space.give_back(loan, 1)) == [("new", [1])]


def test_a_fetch_iterator_gets_what_comes_back_although_it_has_taken_later_values(house):
    house.store(1, 2)
    loan = house.borrow("a")
    walker = Iterator(house, Fetch)
    assert [walker.next(), walker.next()] == [2, Nothing()]
    house.space.give_back(loan, 1)
    assert walker.next() == 1
    house.wait("walker", after=walker.after)
    house.wait("b", after=walker.after)
    assert house.store(3, 4) == [("walker", [3]), ("b", [4])]


def test_a_fetch_iterator_notices_that_its_variable_was_deleted(house):
    house.store(1)
    walker = Iterator(house, Fetch)
    walker.next()
    house.reply("d", DeleteVariable(house.number, "x"))
    house.store(2)
    assert walker.next().reason == "deleted"
    assert house.values() == [2]


def test_a_fetch_of_many_takes_what_was_stored_one_after_the_other(house):
    house.store(*range(8))
    loan = house.borrow("a", count=2)
    assert house.fetch("b", count=2) == [2, 3]
    house.space.give_back(loan, 2)
    assert house.fetch("b", count=8) == [0, 1]
    assert house.fetch("b", count=8) == [4, 5, 6, 7]


@pytest.mark.parametrize("mode", [LIFO, MULTI])
def test_only_fifo_and_single_have_an_order_to_iterate_in(house, mode):
    house.declare(mode)
    house.store(1)
    assert Iterator(house).next().reason == "order"


def test_an_iterator_notices_that_its_variable_was_deleted_and_made_again(house):
    house.store(1, 2)
    walker = Iterator(house)
    walker.next()
    house.reply("d", DeleteVariable(house.number, "x"))
    house.store(3)
    assert walker.next().reason == "deleted"


# ------------------------------------------------------------------ positions


def test_the_index_of_a_value_counts_what_was_stored_before_it(house):
    house.store("a", "b", "c")
    house.fetch("w")
    assert house.reply("w", Fetch(house.number, ("x",), timeout=0)).index == 1
    assert house.reply("w", Find(house.number, ("x",), timeout=0)).index == 2


def multi_with_a_loan_from_the_middle():
    """Three values; the last and the middle one were lent and came back; nothing else is left."""
    draws = iter([2, 1, 2, 1])
    house = House(choose=lambda n: next(draws, 0))
    house.declare(MULTI)
    house.store("a", "b", "c")
    house.borrow("w")
    house.borrow("w")
    house.space.disconnect("w")
    house.fetch("other")
    house.fetch("other")
    return house


def test_a_find_in_a_multi_sees_a_value_that_came_back(house):
    house = multi_with_a_loan_from_the_middle()
    [value] = house.values()
    assert house.find() == [value]


def test_an_index_is_never_negative(house):
    house = multi_with_a_loan_from_the_middle()
    assert house.reply("w", Fetch(house.number, ("x",), timeout=0)).index >= 0


# ------------------------------------------------------------------ the rest


def test_an_unknown_request_is_refused(house):
    assert house.reply("a", Done()).reason == "request"
    assert house.reply("a", "what?").reason == "request"


@pytest.mark.parametrize("count", [0, 1])
def test_storing_nothing_serves_nobody(house, count):
    if count:
        house.wait("a")
    assert house.store() == []
    assert len(house.lines()) == count


def test_values_are_opaque(house):
    class Value:
        def __eq__(self, other):
            raise AssertionError("nobody may compare values")

        __hash__ = None
        __bool__ = __len__ = __iter__ = __eq__

    value = Value()
    house.store(value)
    [taken] = house.space.apply("a", 1, Fetch(house.number, ("x",), 1, 0, True), 0.0)
    assert taken[2].values[0] is value
    house.space.disconnect("a")
    assert house.values()[0] is value
