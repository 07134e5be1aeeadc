"""What clients may make a space keep: counted exactly, and refused beyond that."""

from __future__ import annotations

from typing import Any

import pytest

from sleighexec import messages as m
from sleighexec.limits import VALUE_BYTES, Account, Limits
from sleighexec.messages import Payload
from sleighexec.space import Space

CLIENT, OTHER = "client", "other"


class House:
    """A space that counts, and one workspace in it."""

    def __init__(self, **limits: Any) -> None:
        self.account = Account(Limits(**limits))
        self.space = Space(account=self.account)
        [(_, _, opened)] = self.space.apply(CLIENT, 1, m.Open("w", own=False), 0.0)
        self.number = opened.workspace
        self.tag = 1

    def ask(self, request: m.Request, client: str = CLIENT) -> Any:
        """The reply to this request, None if it waits."""
        self.tag += 1
        effects = self.space.apply(client, self.tag, request, 0.0)
        return next((reply for _, tag, reply in effects if tag == self.tag), None)

    def store(self, variable: str, size: int = 0, **more: Any) -> Any:
        return self.ask(m.Store(self.number, variable, (Payload(bytes(size)),), **more))

    def fetch(self, *variables: str, client: str = CLIENT, **more: Any) -> Any:
        return self.ask(m.Fetch(self.number, variables, **more), client)


def refused(reply: Any, *words: str) -> None:
    assert type(reply) is m.Failed
    assert reply.reason == "full"
    assert all(word in reply.text for word in words), reply.text


def test_a_store_that_does_not_fit_is_refused_and_stores_nothing():
    house = House(value_bytes=10_000)
    assert house.store("x", 6000) == m.Done()
    refused(house.store("x", 6000), "--max-bytes", "10000")
    assert len(house.space.peek(house.number, "x")) == 1
    assert house.store("y", 1000) == m.Done()


def test_what_is_fetched_makes_room():
    house = House(value_bytes=1000)
    for _ in range(5):
        assert house.store("x", 700) == m.Done()
        refused(house.store("x", 700))
        assert len(house.fetch("x").values) == 1


def test_what_is_on_loan_makes_room_only_when_it_is_settled():
    house = House(value_bytes=1000)
    house.store("x", 700)
    loan = house.fetch("x", lend=True).loan
    refused(house.store("x", 700))
    house.ask(m.Settle(loan, 1))
    assert house.store("x", 700) == m.Done()


def test_there_may_be_so_many_values_variables_and_waiters():
    house = House(values=2, variables=3, waiting=3)
    assert [house.store("x"), house.store("x")] == [m.Done(), m.Done()]
    refused(house.store("x"), "2 values and no more than 2: fetch some, or delete variables")
    assert house.fetch("y", timeout=0) == m.Nothing()
    refused(house.fetch("z", timeout=0), "3 variables and no more than 3: delete variables")
    refused(house.ask(m.Open("another")), "3 variables")
    refused(house.ask(m.Declare(house.number, "z", m.FIFO)), "3 variables")
    assert house.fetch("y", "y") is None
    refused(house.fetch("y", "y"), "and no more than 3: let fewer clients wait at once")
    assert house.fetch("y", client=OTHER) is None
    house.space.disconnect(OTHER)
    house.ask(m.DeleteVariable(house.number, "y"))
    assert house.account.waiting == 0
    assert house.fetch("z", timeout=0) == m.Nothing()


@pytest.mark.parametrize("name", ["x" * 1025, "é" * 513, "\ud800" * 400])
def test_a_name_that_is_too_long_is_refused(name):
    house = House()
    refused(house.store(name), "1024 bytes")
    refused(house.ask(m.Open(name)), "1024 bytes")
    refused(house.fetch("x", name), "1024 bytes")


def kept_when_deleted(house):
    house.store("x", 10)
    house.fetch("x", lend=True)
    house.store("x", 10)
    house.ask(m.DeleteWorkspace("w"))
    house.space.disconnect(CLIENT)


def kept_when_lost_with_its_workspace(house):
    house.store("x", 10)
    house.fetch("x", lend=True, lost_to="lost")
    house.ask(m.DeleteWorkspace("w"))
    house.space.disconnect(CLIENT)


def kept_by_a_log(house):
    for _ in range(5):
        house.store("x", 10, keep=1)
    house.fetch("x")
    house.ask(m.DeleteWorkspace("w"))


def kept_by_a_single(house):
    house.ask(m.Declare(house.number, "x", m.SINGLE))
    house.store("x", 10)
    house.fetch("x", lend=True, client=OTHER)
    house.store("x", 10)
    house.space.disconnect(OTHER)
    house.fetch("x")
    house.ask(m.DeleteWorkspace("w"))


@pytest.mark.parametrize(
    "story",
    [kept_when_deleted, kept_when_lost_with_its_workspace, kept_by_a_log, kept_by_a_single],
)
def test_what_is_gone_is_not_counted(story):
    house = House()
    story(house)
    account = house.account
    counts = account.value_bytes, account.values, account.variables, account.waiting
    assert counts == (0, 0, 0, 0)


def test_a_value_counts_with_what_it_costs_beside_its_bytes():
    house = House()
    house.store("x", 10)
    assert house.account.value_bytes == 10 + VALUE_BYTES
