"""The tuple space as a pure state machine: requests in, replies out.

Laws: 1. A stored value is in exactly one place: a variable, a loan, or gone.
      2. Finders are all served before the first fetcher; fetchers in the order they came.
      3. A loan ends by being settled, given back, or by its holder vanishing: then the value goes
         to the variable that the borrower named, or back where it came from, first in line.
      4. Values are opaque; nothing here unpickles.
      5. Nothing here reads a clock or draws a random number; `now` and `choose` are given.

    client ──apply(client, tag, request, now)──▶ Space ──▶ [(client, tag, reply), …]

A request is answered at once, or waits in its variable until a store, a deletion or its deadline
answers it; so one request may cause replies to several clients. `client` is anything hashable and
`tag` is the client's own number for its request.

Semantics follow the NetWorkSpaces user guide (variables, modes, find and fetch); loans are ours,
see docs/explanation/space.md.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence

from sleighexec.hints import TYPE_CHECKING
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
    Listing,
    ListVariables,
    ListWorkspaces,
    MakeTemporary,
    Nothing,
    Open,
    Opened,
    Reply,
    Request,
    Settle,
    Store,
    Value,
    Values,
)

if TYPE_CHECKING:
    from sleighexec.limits import Account

DEFAULT = "__default"  # the workspace that everybody has who names none

Client = Hashable
Effects = list[tuple[Client, int, Reply]]


class Loan:
    """Values in the hands of a client, oldest first; their indices count up from `index`."""

    __slots__ = ("client", "index", "lost_to", "number", "values", "variable")

    def __init__(
        self,
        number: int,
        client: Client,
        variable: Variable,
        values: deque[Value],
        index: int,
        lost_to: str | None,
    ) -> None:
        self.number, self.client, self.variable = number, client, variable
        self.values, self.index, self.lost_to = values, index, lost_to


class _Waiter:
    """A fetch or find that stands in the lines of one or several variables."""

    __slots__ = ("client", "lines", "request", "tag", "waiting")

    def __init__(self, client: Client, tag: int, request: Fetch | Find) -> None:
        self.client, self.tag, self.request = client, tag, request
        self.lines: list[Line] = []
        self.waiting = True


Line = OrderedDict[_Waiter, None]  # who waits, in order; each can leave it from anywhere


class Variable:
    """One named place: its values, and who waits for more.

    Every store to a FIFO or SINGLE counts up, and so gives each value an index for life, by which
    an iterator can say what it has seen. `early` are the indices of those values at the front that
    came back out of turn; those behind them count up from `first`.
    """

    def __init__(self, name: str, number: int, workspace: Workspace) -> None:
        self.name, self.number, self.workspace = name, number, workspace
        self.mode = UNKNOWN
        self.values: deque[Value] = deque()
        self.first = 0
        self.early: deque[int] = deque()
        self.fetchers: Line = OrderedDict()
        self.finders: Line = OrderedDict()
        self.lent = 0  # loans that are out
        self.deleted = False

    def with_lent(self, lent: Sequence[Value]) -> list[Value]:
        """All its values as they stand when those on loan, oldest loan first, have come back."""
        if self.mode == LIFO:
            return [*self.values, *reversed(lent)]
        return [*lent, *self.values]


class Workspace:
    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.owner: Client | None = None
        self.owner_text = ""
        self.persistent = self.deleted = False
        self.variables: dict[str, Variable] = {}


class _Member:
    """What the space knows of a client: what it waits for and what it holds."""

    def __init__(self) -> None:
        self.waiters: dict[int, _Waiter] = {}
        self.loans: dict[int, Loan] = {}


class Space:
    """Workspaces full of variables full of values, and everybody who waits for them.

    Args:
        choose: `choose(n)` draws an index below n for MULTI variables.
        account: Keeps count of what clients make the space keep, and refuses too much of it; by
            default nobody counts. All values are payloads then.
    """

    def __init__(
        self,
        choose: Callable[[int], int] = lambda n: 0,
        account: Account | None = None,
    ) -> None:
        self._choose = choose
        self._account = account
        self._by_name: dict[str, Workspace] = {}
        self._by_number: dict[int, Workspace] = {}
        self._members: dict[Client, _Member] = {}
        self._loans: dict[int, Loan] = {}
        self.deadlines: list[tuple[float, int, _Waiter]] = []
        self._compact_at = 64
        self._numbers = itertools.count(1)  # workspaces, variables and loans
        self._made = 0  # temporary workspaces so far

    # ------------------------------------------------------------------ requests

    def apply(self, client: Client, tag: int, request: Request, now: float) -> Effects:
        """Do what a client asks for; the replies that this causes, to anybody, in order."""
        try:
            handle = _HANDLERS[type(request)]
        except KeyError:
            return [(client, tag, Failed("request", f"unknown request {request!r}"))]
        return handle(self, client, tag, request, now)

    def _open(self, client: Client, tag: int, request: Open, now: float) -> Effects:
        workspace = self._by_name.get(request.name)
        if workspace is None:
            if not request.create:
                return [(client, tag, _no_workspace(request.name))]
            if self._account is not None:
                if refusal := self._account.refusal((request.name,)):
                    return [(client, tag, Failed("full", refusal))]
                self._account.variables += 1
            workspace = Workspace(request.name, next(self._numbers))
            self._by_name[workspace.name] = workspace
            self._by_number[workspace.number] = workspace
            if workspace.name == DEFAULT:
                workspace.owner_text = "[system]"  # nobody's client: it stays
        if request.own and workspace.owner is None and not workspace.owner_text:
            workspace.owner, workspace.owner_text = client, request.owner or "somebody"
            self._member(client)
        if request.own and workspace.owner == client and request.persistent:
            workspace.persistent = True
        return [(client, tag, Opened(workspace.number, workspace.name))]

    def _store(self, client: Client, tag: int, request: Store, now: float) -> Effects:
        workspace = self._by_number.get(request.workspace)
        if workspace is None:
            return [(client, tag, _no_workspace(request.workspace))]
        if request.keep is not None and request.keep < 1:
            return [(client, tag, Failed("request", f"keep is at least 1, not {request.keep}"))]
        variable = workspace.variables.get(request.variable)
        if self._account is not None:
            if variable is None and (refusal := self._refusal(workspace, (request.variable,))):
                return [(client, tag, refusal)]
            if text := self._account.admit(request.values):
                return [(client, tag, Failed("full", text))]
        if variable is None:
            variable = self.variable(workspace, request.variable)
        effects = self.put(variable, request.values)
        if request.keep is not None and len(variable.values) > request.keep:
            self._drop_oldest(variable, len(variable.values) - request.keep)
        return [(client, tag, _DONE), *effects]

    def _fetch(self, client: Client, tag: int, request: Fetch | Find, now: float) -> Effects:
        workspace = self._by_number.get(request.workspace)
        if workspace is None:
            return [(client, tag, _no_workspace(request.workspace))]
        found = [workspace.variables.get(name) for name in request.variables]
        if None in found and (refusal := self._refusal(workspace, request.variables)):
            return [(client, tag, refusal)]
        variables = [
            variable or self.variable(workspace, name)
            for variable, name in zip(found, request.variables)
        ]
        for variable in variables:
            if request.after is not None and (failure := _no_order(variable, request.after[0])):
                return [(client, tag, failure)]
            if variable.values:
                reply = self._take(client, request, variable)
                if reply is not None:
                    return [(client, tag, reply)]
        if request.timeout is not None and not request.timeout > 0:  # NaN is no time either
            return [(client, tag, _NOTHING)]
        waiters = self._member(client).waiters
        if tag in waiters:
            return [(client, tag, Failed("request", f"request {tag} waits already"))]
        if self._account is not None:
            if refusal := self._refusal(workspace, (), waiting=len(variables)):
                return [(client, tag, refusal)]
            self._account.waiting += len(variables)
        waiter = waiters[tag] = _Waiter(client, tag, request)
        for variable in variables:
            line = variable.finders if type(request) is Find else variable.fetchers
            line[waiter] = None
            waiter.lines.append(line)
        if request.timeout is not None:
            self._compact_deadlines()
            entry = (now + request.timeout, next(self._numbers), waiter)
            heapq.heappush(self.deadlines, entry)
        return []

    def _settle(self, client: Client, tag: int, request: Settle, now: float) -> Effects:
        self.settle(request.loan, request.count)
        return [(client, tag, _DONE)]

    def _give_back(self, client: Client, tag: int, request: GiveBack, now: float) -> Effects:
        return [(client, tag, _DONE), *self.give_back(request.loan, request.count)]

    def _abandon(self, client: Client, tag: int, request: Abandon, now: float) -> Effects:
        waiter = self._member(client).waiters.get(request.waiting)
        if waiter is not None:
            self._leave(waiter)
            return [(client, request.waiting, _NOTHING), (client, tag, _DONE)]
        return [(client, tag, _DONE)]

    def _declare(self, client: Client, tag: int, request: Declare, now: float) -> Effects:
        workspace = self._by_number.get(request.workspace)
        if workspace is None:
            return [(client, tag, _no_workspace(request.workspace))]
        if request.mode not in MODES:
            return [(client, tag, Failed("mode", f"{request.mode!r} is not one of {MODES}"))]
        if refusal := self._refusal(workspace, (request.variable,)):
            return [(client, tag, refusal)]
        variable = self.variable(workspace, request.variable)
        if variable.mode not in (UNKNOWN, request.mode):
            text = f"{variable.name} is {variable.mode} already, not {request.mode}"
            return [(client, tag, Failed("mode", text))]
        variable.mode = request.mode
        return [(client, tag, _DONE)]

    def _delete_variable(
        self, client: Client, tag: int, request: DeleteVariable, now: float
    ) -> Effects:
        workspace = self._by_number.get(request.workspace)
        if workspace is None:
            return [(client, tag, _no_workspace(request.workspace))]
        variable = workspace.variables.pop(request.variable, None)
        if variable is None:
            text = f"there is no variable {request.variable!r} in workspace {workspace.name!r}"
            return [(client, tag, Failed("variable", text))]
        return [(client, tag, _DONE), *self._drop(variable)]

    def _delete_workspace(
        self, client: Client, tag: int, request: DeleteWorkspace, now: float
    ) -> Effects:
        workspace = self._by_name.get(request.name)
        if workspace is None:
            return [(client, tag, _no_workspace(request.name))]
        return [(client, tag, _DONE), *self._purge(workspace)]

    def _list_variables(
        self, client: Client, tag: int, request: ListVariables, now: float
    ) -> Effects:
        workspace = self._by_number.get(request.workspace)
        if workspace is None:
            return [(client, tag, _no_workspace(request.workspace))]
        rows = [
            [v.name, len(v.values), len(v.fetchers), len(v.finders), v.mode]
            for _, v in sorted(workspace.variables.items())
        ]
        return [(client, tag, Listing.of(rows))]

    def _list_workspaces(
        self, client: Client, tag: int, request: ListWorkspaces, now: float
    ) -> Effects:
        rows = [
            [w.name, w.owner == client, w.owner_text, w.persistent, sorted(w.variables)]
            for _, w in sorted(self._by_name.items())
        ]
        return [(client, tag, Listing.of(rows))]

    def _make_temporary(
        self, client: Client, tag: int, request: MakeTemporary, now: float
    ) -> Effects:
        self._made += 1
        try:
            name = request.template % self._made
        except (TypeError, ValueError) as error:
            text = f"template {request.template!r} does not take one number: {error}"
            return [(client, tag, Failed("template", text))]
        opening = Open(f"{name}{request.suffix}", own=False)
        return self._open(client, tag, opening, now)

    # ------------------------------------------------------------------ events

    def tick(self, now: float) -> Effects:
        """Answer every request whose deadline has passed."""
        effects: Effects = []
        while self.deadlines and self.deadlines[0][0] <= now:
            _, _, waiter = heapq.heappop(self.deadlines)
            if waiter.waiting:
                self._leave(waiter)
                effects.append((waiter.client, waiter.tag, _NOTHING))
        return effects

    def next_deadline(self) -> float | None:
        """When `tick` has something to do next, on the clock that `now` comes from."""
        while self.deadlines and not self.deadlines[0][2].waiting:
            heapq.heappop(self.deadlines)
        return self.deadlines[0][0] if self.deadlines else None

    def _compact_deadlines(self) -> None:
        """Drop the deadlines of requests that were answered, before they make up the most."""
        if len(self.deadlines) >= self._compact_at:
            self.deadlines = [entry for entry in self.deadlines if entry[2].waiting]
            heapq.heapify(self.deadlines)
            self._compact_at = 64 + 2 * len(self.deadlines)

    def disconnect(self, client: Client, begun: int | None = None) -> Effects:
        """A client vanished: its waiters leave, its loans go back, what it owned is deleted.

        Args:
            begun: Of the values on loan to it, oldest first, how many go to the `lost_to` that
                was named when they were lent; the others go back where they came from. None: all.
        """
        member = self._members.pop(client, None)
        if member is None:
            return []
        effects: Effects = []
        for waiter in member.waiters.values():
            self._out_of_line(waiter)
        lost: list[tuple[Loan, list[Value]]] = []
        for loan in member.loans.values():
            del self._loans[loan.number]
            loan.variable.lent -= 1
            if loan.lost_to is not None:
                count = len(loan.values) if begun is None else min(begun, len(loan.values))
                lost.append((loan, [loan.values.popleft() for _ in range(count)]))
                loan.index += count
                begun = None if begun is None else begun - count
        for loan in reversed(member.loans.values()):  # the oldest loan is first in line again
            self._put_back(loan.variable, loan.values, loan.index)
        # Only now: who waits gets the oldest of them, not the newest.
        for variable in dict.fromkeys(loan.variable for loan in member.loans.values()):
            effects += self._serve(variable)
        for loan, values in lost:
            if values and loan.lost_to is not None:
                workspace = loan.variable.workspace
                if workspace.deleted:
                    self._forget(values)
                else:
                    effects += self.put(self.variable(workspace, loan.lost_to), values)
        for workspace in [w for w in self._by_name.values() if w.owner == client]:
            workspace.owner = None
            if not workspace.persistent:
                effects += self._purge(workspace)
        return effects

    # ------------------------------------------------------------------ what the parts are made of

    def workspace(self, number: int) -> Workspace:
        """The workspace with this number, for callers in the same process."""
        return self._by_number[number]

    def owner(self, name: str) -> Client | None:
        """Who owns the workspace of this name; None: nobody, or there is none."""
        workspace = self._by_name.get(name)
        return None if workspace is None else workspace.owner

    def named(self, name: str) -> Workspace | None:
        """The workspace of this name."""
        return self._by_name.get(name)

    def persistent(self) -> list[Workspace]:
        """The workspaces that stay when their owner leaves."""
        return [each for each in self._by_name.values() if each.persistent]

    def lent_values(self) -> dict[Variable, list[Value]]:
        """The values that are on loan, by where they came from, in the order of their loans."""
        lent: dict[Variable, list[Value]] = {}
        for loan in self._loans.values():
            lent.setdefault(loan.variable, []).extend(loan.values)
        return lent

    def counts(self) -> dict[str, int]:
        """How much there is of what."""
        variables = [v for each in self._by_name.values() for v in each.variables.values()]
        return {
            "workspaces": len(self._by_name),
            "variables": len(variables),
            "values": sum(len(variable.values) for variable in variables),
            "blocked": sum(len(v.fetchers) + len(v.finders) for v in variables),
            "on_loan": len(self._loans),
        }

    def variable(self, workspace: Workspace, name: str) -> Variable:
        """The variable of this name, made when it is not there yet."""
        variable = workspace.variables.get(name)
        if variable is None:
            variable = Variable(name, next(self._numbers), workspace)
            workspace.variables[name] = variable
            if self._account is not None:
                self._account.variables += 1
        return variable

    def put(self, variable: Variable, values: Sequence[Value]) -> Effects:
        """Store values, in order, and serve who waited for them."""
        if variable.mode == UNKNOWN:
            variable.mode = FIFO
        if not variable.fetchers and not variable.finders and variable.mode != SINGLE:
            variable.values.extend(values)
            return []
        if variable.mode == FIFO:
            variable.values.extend(values)
            return self._serve(variable)
        effects: Effects = []
        for value in values:  # the other modes do not keep order: one store after the other
            if variable.mode == SINGLE:
                self._drop_oldest(variable, len(variable.values))
            variable.values.append(value)
            effects += self._serve(variable)
        return effects

    def settle(self, number: int, count: int) -> list[Value]:
        """End the loan of its first `count` values; gives them to the caller one last time."""
        loan = self._loans.get(number)
        if loan is None:
            return []
        if count < len(loan.values):
            settled = [loan.values.popleft() for _ in range(count)]
            loan.index += count
        else:
            settled, loan.values = [*loan.values], deque()
            self._end(loan)
        if self._account is not None:
            self._account.gone(settled)
        return settled

    def give_back(self, number: int, count: int) -> Effects:
        """Put the last `count` values of a loan back, first in line."""
        loan = self._loans.get(number)
        if loan is None:
            return []
        returned = [loan.values.pop() for _ in range(min(count, len(loan.values)))]
        if not loan.values:
            self._end(loan)
        return self._return(loan.variable, returned[::-1], loan.index + len(loan.values))

    def put_first(self, variable: Variable, values: Sequence[Value], index: int = 0) -> Effects:
        """Put values at the front of the line, in order; `index` is that of the first one."""
        if variable.mode == UNKNOWN:
            variable.mode = FIFO
        if self._account is not None:
            self._account.stored(values)
        return self._return(variable, values, index)

    def loans(self, client: Client) -> Iterable[Loan]:
        """What a client holds, oldest first."""
        member = self._members.get(client)
        return member.loans.values() if member is not None else ()

    def loan(self, number: int) -> Loan | None:
        return self._loans.get(number)

    def peek(self, workspace: int, name: str) -> list[Value]:
        """The values of a variable, in the order a FIFO fetch would take them."""
        variable = self._by_number[workspace].variables.get(name)
        return list(variable.values) if variable is not None else []

    def _take(self, client: Client, request: Fetch | Find, variable: Variable) -> Values | None:
        """What `variable` has for this request now; None: nothing that is wanted."""
        if type(request) is Find:
            if request.after is None:
                position = self._position(variable)
            else:
                position = self._after(variable, request.after[1])
                if position >= len(variable.values):
                    return None
            index = self._index(variable, position)
            return Values((variable.values[position],), 0, variable.name, variable.number, index)
        assert type(request) is Fetch  # what is there is new to it: `after` is no limit here
        values, count = variable.values, request.count
        if count != 1:
            # Nobody takes more than a fair share: others wait, or will come back for more.
            others = len(variable.fetchers) + variable.lent
            count = max(1, min(count, len(values) // (1 + others)))
            if variable.early:
                count = self._run(variable, count)
        if variable.mode == FIFO and not variable.early:  # nearly always: a row from the front
            index = variable.first
            taken = [values.popleft()] if count == 1 else [values.popleft() for _ in range(count)]
            variable.first += count
        else:
            index = self._index(variable, 0)
            taken = [self._pop(variable) for _ in range(count)]
        if not request.lend:
            self._forget(taken)
            return Values(taken, 0, variable.name, variable.number, index)
        number = next(self._numbers)
        loan = Loan(number, client, variable, deque(taken), index, request.lost_to)
        member = self._members.get(client) or self._member(client)
        self._loans[number] = member.loans[number] = loan
        variable.lent += 1
        return Values(taken, number, variable.name, variable.number, index)

    def _pop(self, variable: Variable) -> Value:
        """Take the value that the mode says is next."""
        position = self._position(variable) if variable.mode != FIFO else 0
        value = variable.values[position]
        del variable.values[position]
        self._count_on(variable)
        return value

    def _position(self, variable: Variable) -> int:
        """Where the value is that the mode says is next."""
        if variable.mode == LIFO:
            return len(variable.values) - 1
        if variable.mode == MULTI:
            return self._choose(len(variable.values))
        return 0

    def _index(self, variable: Variable, position: int) -> int:
        """The index of the value at a position."""
        early = variable.early
        return early[position] if position < len(early) else variable.first + position - len(early)

    def _after(self, variable: Variable, seen: int) -> int:
        """The position of the next value for who has seen all up to the index `seen`."""
        early = [(index, n) for n, index in enumerate(variable.early) if index > seen]
        if early:
            return min(early)[1]
        return len(variable.early) + max(seen + 1 - variable.first, 0)

    def _run(self, variable: Variable, most: int) -> int:
        """How many values at the front, of at most so many, have indices that count up by one."""
        first = self._index(variable, 0)
        return next((n for n in range(1, most) if self._index(variable, n) != first + n), most)

    def _drop_oldest(self, variable: Variable, count: int) -> None:
        """Forget values at the front."""
        for _ in range(count):
            self._forget((variable.values.popleft(),))
            self._count_on(variable)

    def _count_on(self, variable: Variable) -> None:
        """The value at the front has left, and its index with it."""
        if variable.early:
            variable.early.popleft()
        elif variable.mode in (FIFO, SINGLE):  # the others have no order to count
            variable.first += 1

    def _serve(self, variable: Variable) -> Effects:
        """Hand what is there to who waits: all finders first, then fetchers as they came."""
        effects: Effects = []
        for line in (variable.finders, variable.fetchers):
            passed_over = []  # iterators that have seen all of this
            while line and variable.values:
                waiter, _ = line.popitem(last=False)
                reply = self._take(waiter.client, waiter.request, variable)
                if reply is None:
                    passed_over.append(waiter)
                else:
                    self._leave(waiter)
                    effects.append((waiter.client, waiter.tag, reply))
            for waiter in reversed(passed_over):
                line[waiter] = None
                line.move_to_end(waiter, last=False)
        return effects

    def _return(self, variable: Variable, values: Iterable[Value], index: int) -> Effects:
        """Values go back where they came from, and to who waits there."""
        self._put_back(variable, values, index)
        return self._serve(variable)

    def _put_back(self, variable: Variable, values: Iterable[Value], index: int) -> None:
        """Values go back where they came from, first in line, with their old indices."""
        values = list(values)
        # In a SINGLE a newer value may have taken its place.
        if variable.deleted or (variable.mode == SINGLE and variable.values):
            self._forget(values)
            return
        if not values:
            return
        if variable.mode == LIFO:
            variable.values.extend(reversed(values))
        else:
            variable.values.extendleft(reversed(values))
            end = index + len(values)
            if end == variable.first and not variable.early:
                variable.first = index
            elif variable.mode != MULTI:
                variable.early.extendleft(range(end - 1, index - 1, -1))

    def _end(self, loan: Loan) -> None:
        """Nothing of it is left."""
        del self._loans[loan.number], self._members[loan.client].loans[loan.number]
        loan.variable.lent -= 1

    def _forget(self, values: Sequence[Value]) -> None:
        """These values have left the space."""
        if self._account is not None:
            self._account.gone(values)

    def _refusal(
        self, workspace: Workspace, names: Sequence[str], waiting: int = 0
    ) -> Failed | None:
        """Why there is no room for what a request needs; None if there is, or nobody counts."""
        new = [name for name in names if name not in workspace.variables]
        if self._account is None or not (new or waiting):
            return None
        text = self._account.refusal(new, waiting)
        return Failed("full", text) if text else None

    def _leave(self, waiter: _Waiter) -> None:
        self._members[waiter.client].waiters.pop(waiter.tag, None)
        self._out_of_line(waiter)

    def _out_of_line(self, waiter: _Waiter) -> None:
        waiter.waiting = False
        for line in waiter.lines:
            line.pop(waiter, None)
        if self._account is not None:
            self._account.waiting -= len(waiter.lines)

    def _member(self, client: Client) -> _Member:
        member = self._members.get(client)
        if member is None:
            member = self._members[client] = _Member()
        return member

    def _drop(self, variable: Variable) -> Effects:
        """Delete a variable: its values are gone and its waiters are told."""
        variable.deleted = True
        self._forget(variable.values)
        variable.values.clear()
        if self._account is not None:
            self._account.variables -= 1
        effects: Effects = []
        for waiter in [*variable.finders, *variable.fetchers]:
            self._leave(waiter)
            reply = Failed("deleted", f"{variable.name} was deleted while somebody waited")
            effects.append((waiter.client, waiter.tag, reply))
        return effects

    def _purge(self, workspace: Workspace) -> Effects:
        del self._by_name[workspace.name]
        del self._by_number[workspace.number]
        workspace.deleted = True
        if self._account is not None:
            self._account.variables -= 1
        effects: Effects = []
        for variable in workspace.variables.values():
            effects += self._drop(variable)
        return effects


_DONE = Done()
_NOTHING = Nothing()


def _no_order(variable: Variable, number: int) -> Failed | None:
    """Why an iterator over the variable of that number cannot go on with this one."""
    if number not in (0, variable.number):
        return Failed("deleted", f"{variable.name} was deleted")
    if variable.mode in (LIFO, MULTI):
        text = f"{variable.name} is {variable.mode}: only fifo and single have an order"
        return Failed("order", text)
    return None


def _no_workspace(which: str | int) -> Failed:
    name = f"workspace {which!r}" if isinstance(which, str) else "workspace (it was deleted)"
    return Failed("workspace", f"there is no {name}; open it first")


_HANDLERS: dict[type, Callable[..., Effects]] = {
    Open: Space._open,
    Store: Space._store,
    Fetch: Space._fetch,
    Find: Space._fetch,
    Settle: Space._settle,
    GiveBack: Space._give_back,
    Abandon: Space._abandon,
    Declare: Space._declare,
    DeleteVariable: Space._delete_variable,
    DeleteWorkspace: Space._delete_workspace,
    ListVariables: Space._list_variables,
    ListWorkspaces: Space._list_workspaces,
    MakeTemporary: Space._make_temporary,
}
