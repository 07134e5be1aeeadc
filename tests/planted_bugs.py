"""Spaces that are broken on purpose: the model beside the space must notice each of them."""

from __future__ import annotations

from copy import copy

from sleighexec.messages import SINGLE, Fetch, Find
from sleighexec.space import Space


def turn_around(line):
    """The last in line is the first."""
    for waiter in reversed(list(line)):
        line.move_to_end(waiter)


class ServesTheNewestFetcherFirst(Space):
    def _serve(self, variable):
        turn_around(variable.fetchers)
        try:
            return super()._serve(variable)
        finally:
            turn_around(variable.fetchers)


class ServesOneFinderOnly(Space):
    def _serve(self, variable):
        others = list(variable.finders)[1:]
        for waiter in others:
            del variable.finders[waiter]
        effects = super()._serve(variable)
        variable.finders.update(dict.fromkeys(others))
        return effects


class FinderTakesTheValue(Space):
    def _take(self, client, request, variable):
        reply = super()._take(client, request, variable)
        if type(request) is Find and len(variable.values) > 1:
            variable.values.popleft()
        return reply


class ForgetsTheLoansOfTheVanished(Space):
    def disconnect(self, client, begun=None):
        for loan in list(self.loans(client)):
            self.settle(loan.number, len(loan.values))
        return super().disconnect(client, begun)


class ReturnsTheNewestLoanFirst(Space):
    def disconnect(self, client, begun=None):
        member = self._members.get(client)
        if member is not None:
            member.loans = dict(reversed(member.loans.items()))
        return super().disconnect(client, begun)


class IgnoresLostTo(Space):
    def disconnect(self, client, begun=None):
        return super().disconnect(client, begun=0)


class PutsWhatComesBackAtTheEnd(Space):
    def _return(self, variable, values, index):
        return [] if variable.deleted else self.put(variable, list(values))


class GivesBackInTheWrongOrder(Space):
    def _return(self, variable, values, index):
        return super()._return(variable, list(values)[::-1], index)


class CountsWhatComesBackAnew(Space):
    """An iterator sees it twice, or never."""

    def _return(self, variable, values, index):
        return super()._return(variable, values, variable.first - len(values))


class HidesOldValuesFromFetchIterators(Space):
    def _take(self, client, request, variable):
        hides = type(request) is Fetch and request.after is not None
        if hides and self._after(variable, request.after[1]) >= len(variable.values):
            return None
        return super()._take(client, request, variable)


class KeepsTheOldest(Space):
    def _drop_oldest(self, variable, count):
        for _ in range(count):
            variable.values.pop()


class DropsWithoutCounting(Space):
    def _drop_oldest(self, variable, count):
        for _ in range(count):
            variable.values.popleft()


class KeepsBeforeItServes(Space):
    """A value that somebody waits for is dropped."""

    def put(self, variable, values):
        return super().put(variable, list(values)[-3:])


class SettlesOneTooFew(Space):
    def settle(self, number, count):
        return super().settle(number, count - 1)


class LeavesTheTimedOutInLine(Space):
    """A request that was answered with Nothing still takes a value later."""

    def tick(self, now):
        late = [waiter for at, _, waiter in self.deadlines if at <= now and waiter.waiting]
        effects = super().tick(now)
        for waiter in late:
            for line in waiter.lines:
                line[waiter] = None
        return effects


class TimesOutTooLate(Space):
    def tick(self, now):
        return super().tick(now - 0.5)


class ServesTheVanished(Space):
    def disconnect(self, client, begun=None):
        member = self._members.get(client)
        if member is not None:
            member.waiters.clear()
            self._member(client)
        effects = super().disconnect(client, begun)
        self._member(client)
        return effects


class TriesTheNamesBackwards(Space):
    def apply(self, client, tag, request, now):
        if type(request) is Fetch:
            request = copy(request)
            request.variables = request.variables[::-1]
        return super().apply(client, tag, request, now)


class TakesMoreThanAFairShare(Space):
    def _take(self, client, request, variable):
        lent, variable.lent = variable.lent, 0
        try:
            return super()._take(client, request, variable)
        finally:
            variable.lent += lent


class KeepsOldValuesOfASingle(Space):
    def put(self, variable, values):
        if variable.mode == SINGLE:
            variable.values.extend(values)
            return self._serve(variable)
        return super().put(variable, values)


class DeletesWithoutTellingWhoWaits(Space):
    def _drop(self, variable):
        super()._drop(variable)
        return []


class RevivesDeletedVariables(Space):
    """A loan from a deleted variable comes back into its namesake."""

    def _return(self, variable, values, index):
        if variable.deleted:
            variable = self.variable(variable.workspace, variable.name)
        return super()._return(variable, values, index)


PLANTED = [
    cls for cls in list(globals().values()) if isinstance(cls, type) and cls.__module__ == __name__
]
