"""What travels between a space and its clients: requests, replies, and the values in them.

A request has a `tag`, the client's own number for it; its reply carries the same tag. Workspaces
are named by the number that `Opened` gave: a workspace that was deleted and made again is another.
"""

from __future__ import annotations

from collections.abc import Sequence

from sleighexec.hints import Any

FIFO, LIFO, MULTI, SINGLE = "fifo", "lifo", "multi", "single"
UNKNOWN = "unknown"  # the mode of a variable that was only read so far
MODES = (FIFO, LIFO, MULTI, SINGLE)

DEFAULT_PORT = 8765  # of a workspace server, as NetWorkSpaces had it

PICKLE, TEXT, BYTES = 0, 1, 2  # how the bytes of a payload are to be read

REQUIRED: Any = object()  # stands where a field has no usual value

Value = Any  # a Payload, or in one process any object: the space does not look


class Payload:
    """An object as bytes: a head, and the big buffers that it refers to, kept apart.

    `kind` says how to read the head.
    """

    __slots__ = ("buffers", "head", "kind")

    def __init__(
        self,
        head: bytes | bytearray | memoryview,
        buffers: Sequence[Any] = (),
        kind: int = PICKLE,
    ) -> None:
        self.head, self.buffers, self.kind = head, buffers, kind

    @property
    def size_bytes(self) -> int:
        if not self.buffers:
            return len(self.head)
        return len(self.head) + sum([memoryview(buffer).nbytes for buffer in self.buffers])


def bytes_of(payloads: Sequence[Payload]) -> int:
    """The bytes of all of them together."""
    return sum([len(each.head) if not each.buffers else each.size_bytes for each in payloads])


# Messages are no dataclasses: to make these thirty would take as long as to start the interpreter.
# They are not frozen, only treated so; those that are made for each task have slots.


class Message:
    """One message. Its fields are the parameters of `__init__`."""

    __slots__ = ()
    NO_NUMBER = 0  # what travels where it has no number for it

    def __init__(self) -> None:
        pass

    @classmethod
    def fields(cls) -> dict[str, tuple[str, Any]]:
        """For each field its annotation, as text, and its usual value or REQUIRED."""
        init: Any = cls.__init__
        kinds = {name: kind for name, kind in init.__annotations__.items() if name != "return"}
        usual = init.__defaults__ or ()
        usual = (REQUIRED,) * (len(kinds) - len(usual)) + usual
        return dict(zip(kinds, zip(kinds.values(), usual)))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.fields())

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.fields())
        return f"{type(self).__name__}({fields})"


class Open(Message):
    """Open a workspace by name; own it (and clean it up on leaving) if nobody does."""

    def __init__(
        self,
        name: str,
        own: bool = True,
        persistent: bool = False,
        create: bool = True,
        owner: str = "",  # how listings name the owner
    ) -> None:
        self.name, self.own, self.persistent = name, own, persistent
        self.create, self.owner = create, owner


class Store(Message):
    """Put values into a variable, in order; then at most `keep` stay, and the oldest go."""

    __slots__ = ("keep", "values", "variable", "workspace")

    def __init__(
        self,
        workspace: int,
        variable: str,
        values: Sequence[Value],
        keep: int | None = None,
    ) -> None:
        self.workspace, self.variable = workspace, variable
        self.values, self.keep = values, keep


class Fetch(Message):
    """Take up to `count` values from the first of `variables` that has one."""

    __slots__ = ("after", "count", "lend", "lost_to", "timeout", "variables", "workspace")

    def __init__(
        self,
        workspace: int,
        variables: tuple[str, ...],
        count: int = 1,
        timeout: float | None = None,  # seconds; 0 tries once, None waits for ever
        lend: bool = False,  # on loan: comes back if the client vanishes
        lost_to: str | None = None,  # …into this variable instead of its own
        after: tuple[int, int] | None = None,  # iterators: (variable id, index) seen last
    ) -> None:
        self.workspace, self.variables, self.count = workspace, variables, count
        self.timeout, self.lend = timeout, lend
        self.lost_to, self.after = lost_to, after


class Find(Message):
    """Look at the value that a fetch would take, without taking it."""

    __slots__ = ("after", "timeout", "variables", "workspace")

    def __init__(
        self,
        workspace: int,
        variables: tuple[str, ...],
        timeout: float | None = None,
        after: tuple[int, int] | None = None,
    ) -> None:
        self.workspace, self.variables = workspace, variables
        self.timeout, self.after = timeout, after


class Settle(Message):
    """The first `count` values of a loan are done with."""

    __slots__ = ("count", "loan")

    def __init__(self, loan: int, count: int) -> None:
        self.loan, self.count = loan, count


class GiveBack(Message):
    """The last `count` values of a loan go back where they came from, first in line."""

    __slots__ = ("count", "loan")

    def __init__(self, loan: int, count: int) -> None:
        self.loan, self.count = loan, count


class Identify(Message):
    """The name of this client, of which the server is to remember the stores."""

    def __init__(self, client: str) -> None:
        self.client = client


class Again(Message):
    """The store that comes with the tag `store` is another try of one, of `client` with `tag`."""

    def __init__(self, client: str, tag: int, store: int) -> None:
        self.client, self.tag, self.store = client, tag, store


class Abandon(Message):
    """The client does not wait for the reply to its request `waiting` any more."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting


class Declare(Message):
    def __init__(self, workspace: int, variable: str, mode: str) -> None:
        self.workspace, self.variable, self.mode = workspace, variable, mode


class DeleteVariable(Message):
    def __init__(self, workspace: int, variable: str) -> None:
        self.workspace, self.variable = workspace, variable


class DeleteWorkspace(Message):
    def __init__(self, name: str) -> None:
        self.name = name


class ListVariables(Message):
    def __init__(self, workspace: int) -> None:
        self.workspace = workspace


class ListWorkspaces(Message):
    pass


class MakeTemporary(Message):
    """Create an unowned workspace with a new name made from `template` % number."""

    def __init__(self, template: str, suffix: str = "") -> None:
        self.template, self.suffix = template, suffix


class Status(Message):
    """Say how the server is; the reply is one value of JSON."""


Request = (
    Open
    | Store
    | Fetch
    | Find
    | Settle
    | GiveBack
    | Abandon
    | Declare
    | DeleteVariable
    | DeleteWorkspace
    | ListVariables
    | ListWorkspaces
    | MakeTemporary
    | Status
)


class Done(Message):
    """It is done."""


class Opened(Message):
    def __init__(self, workspace: int, name: str) -> None:
        self.workspace, self.name = workspace, name


class Values(Message):
    """The values asked for; `index` is the position of the first one in its variable."""

    __slots__ = ("index", "loan", "values", "variable", "variable_id")

    def __init__(
        self,
        values: Sequence[Value],
        loan: int = 0,
        variable: str = "",
        variable_id: int = 0,
        index: int = 0,
    ) -> None:
        self.values, self.loan, self.variable = values, loan, variable
        self.variable_id, self.index = variable_id, index


class Nothing(Message):
    """There was no value, or none came in time. Nothing was taken."""


class Failed(Message):
    """The space says no: `reason` is one of the keys of `sleighexec.access.ERRORS`."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason, self.text = reason, text


# The answer to another try of a store if nobody knows what became of the first one.
FORGOTTEN = Failed(
    "request",
    "whether this was stored is not known here: it was at another server, or another run of this "
    "one, or long ago; look into the variable, and store it without again= if it is not there",
)


class Listing(Message):
    """Rows, as one value of JSON: there may be more than the head of a frame has room for."""

    def __init__(self, values: Sequence[Value]) -> None:
        self.values = values

    @classmethod
    def of(cls, rows: list[list[Any]]) -> Listing:
        """That of these rows."""
        import json  # most list nothing

        return cls((Payload(json.dumps(rows).encode()),))

    @property
    def rows(self) -> list[list[Any]]:
        """The rows, each a list."""
        import json

        rows: list[list[Any]] = json.loads(bytes(self.values[0].head))
        return rows


Reply = Done | Opened | Values | Nothing | Failed | Listing


# ------------------------------------------------------------------ between a worker and its engine


class Join(Message):
    """A worker is there and wants to work."""

    def __init__(
        self,
        pid: int,
        host: str,
        system: str,  # "posix", as in os.name
        python: str,  # version
        memory: bool = False,  # it can have segments (see segments.py) of ours
    ) -> None:
        self.pid, self.host = pid, host
        self.system, self.python = system, python
        self.memory = memory


class Welcome(Message):
    """Your rank, how many workers there may be, and how to prepare."""

    def __init__(
        self,
        rank: int,
        count: int,
        values: Sequence[Payload] = (),
    ) -> None:
        self.rank, self.count, self.values = rank, count, values


class Ask(Message):
    """Up to `count` calls are wanted: when there are any; or `ahead` of need, or else Nothing."""

    __slots__ = ("ahead", "count")

    def __init__(self, count: int, ahead: int = 0) -> None:
        self.count, self.ahead = count, ahead


class Calls(Message):
    """Calls to be run, as `engines.workers.WorkerLink.pack` puts them; `more` wait behind them."""

    __slots__ = ("loan", "more", "values")

    def __init__(self, values: Sequence[Payload] = (), loan: int = 0, more: int = 0) -> None:
        self.values, self.loan, self.more = values, loan, more


class Return(Message):
    """The present call is a long one, and others are to have the last `count` calls of a loan.

    What else has not begun is theirs as soon as they have nothing to do.
    """

    def __init__(self, loan: int, count: int) -> None:
        self.loan, self.count = loan, count


class Results(Message):
    """Outcomes of calls, in the order in which they were lent (records, see runs.py).

    Who has nothing left to run asks for up to `count` calls under the tag `ask`; 0: not yet.
    """

    __slots__ = ("ask", "count", "values")

    def __init__(self, values: Sequence[Payload] = (), ask: int = 0, count: int = 0) -> None:
        self.values, self.ask, self.count = values, ask, count


class Report(Message):
    """What tasks have printed and logged: a list of lines and of records (see records.py)."""

    def __init__(self, values: Sequence[Payload] = ()) -> None:
        self.values = values


class SetupFailed(Message):
    """The initializer raised this."""

    def __init__(self, values: Sequence[Payload] = ()) -> None:
        self.values = values


class Revoked(Message):
    """To a worker that was halted: what it has not begun of the loans up to this one is others'.

    Attributes:
        begun: The number of the last call that is still its own.
        halt: Which of its halts this is about.
    """

    def __init__(self, loan: int, begun: int, halt: int) -> None:
        self.loan, self.begun, self.halt = loan, begun, halt


class Need(Message):
    """A worker on another machine lacks this module; the reply has its source, or says why not."""

    def __init__(self, module: str) -> None:
        self.module = module


class Offer(Message):
    """To a peer that may be on this machine: where the sender's shared memory is, for trying."""

    def __init__(self, owner: int, descriptor: int, nonce: str) -> None:
        self.owner, self.descriptor, self.nonce = owner, descriptor, nonce


class Accept(Message):
    """The peer sees it: big buffers may travel there, both ways."""


class Lease(Message):
    """A peer wants a segment for a buffer of so many bytes; the reply: a Leased, or Nothing."""

    def __init__(self, size: int) -> None:
        self.size = size


class Leased(Message):
    """Where it is: a `segments.Place`."""

    def __init__(self, place: tuple[int, ...]) -> None:
        self.place = place


class Release(Message):
    """A peer has no buffers any more on the segments of these numbers."""

    def __init__(
        self,
        sound: tuple[int, ...],
        spoilt: tuple[int, ...] = (),  # a fork of it may still look at these
    ) -> None:
        self.sound, self.spoilt = sound, spoilt


class Leave(Message):
    """To a worker: end when the present task is done."""


# ------------------------------------------------------------------ between an agent and its client


class Start(Message):
    """Start worker `worker`; its connection is the descriptor that comes along."""

    def __init__(
        self,
        worker: int,
        # JSON: cwd; environ: what differs from the agent's, None for what is gone; and what
        # `engines.agents.AgentLink.start_worker` says.
        setup: str,
    ) -> None:
        self.worker, self.setup = worker, setup


class Started(Message):
    def __init__(self, worker: int, pid: int) -> None:
        self.worker, self.pid = worker, pid


class Signal(Message):
    """Send a signal to a worker, or to all (worker 0)."""

    def __init__(self, worker: int, signal: int) -> None:
        self.worker, self.signal = worker, signal


class KillCall(Message):
    """Kill a worker if it runs its call number `call` right now, else leave it alone."""

    def __init__(self, worker: int, call: int) -> None:
        self.worker, self.call = worker, call


class Watch(Message):
    """Calls with limits are on their way: look after workers each so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Exited(Message):
    """A worker ended: how, what it had begun, and what it had ready.

    Its values are the records of results, and what the call that it ran had printed, as bytes.

    Attributes:
        reason: "" if nobody ended it; "killed" if KillCall did; "timeout" or "memory" if its call
            was beyond that limit; "oom" if the kernel killed it since memory ran out.
        peak: Bytes it had resident at most; 0: not known.
    """

    def __init__(
        self,
        worker: int,
        status: int,  # the exit status, or minus the signal
        begun: int,  # calls
        loan: int,  # to which the last of these belonged
        reason: str,
        peak: int,
        stderr: str,
        values: Sequence[Payload] = (),
    ) -> None:
        self.worker, self.status = worker, status
        self.begun, self.loan = begun, loan
        self.reason, self.peak = reason, peak
        self.stderr, self.values = stderr, values


class Recall(Message):
    """A worker is to begin no more of what it has: say by a Halted what it has begun."""

    def __init__(self, worker: int) -> None:
        self.worker = worker


class Halted(Message):
    """A worker stands still for long, or calls were recalled: what it has begun (see `Exited`).

    It waits for a `Revoked` with the number of this halt before it begins another one. The value
    is the records of results that stand ready, without those that it has not written to an end.

    Attributes:
        still: Whether it stands still: then it is to get nothing until it has `Moved`.
    """

    def __init__(
        self,
        worker: int,
        begun: int,
        loan: int,
        halt: int,
        still: bool,
        values: Sequence[Payload] = (),
    ) -> None:
        self.worker, self.begun, self.loan = worker, begun, loan
        self.halt, self.still, self.values = halt, still, values


class Moved(Message):
    """A worker that stood still has been continued."""

    def __init__(self, worker: int) -> None:
        self.worker = worker


class Attach(Message):
    """From now on constants come over the descriptor that comes along, as the next three do."""


class Keep(Message):
    """Keep these bytes for your workers, under a number of the client's. The answer: a Kept."""

    def __init__(self, number: int, values: Sequence[Payload] = ()) -> None:
        self.number, self.values = number, values


class Kept(Message):
    """Where a constant lies: a `segments.Place`, or nothing if there was no room for it.

    The client passes it on to workers that wait for it; with the constant, if it lies nowhere.
    """

    def __init__(self, number: int, place: tuple[int, ...], values: Sequence[Payload] = ()) -> None:
        self.number, self.place, self.values = number, place, values


class Forget(Message):
    """The constants of these numbers are not needed any more."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self.numbers = numbers


class Leaving(Message):
    """From an agent: its workers are to leave after their present calls, and it with them."""


class StopAgent(Message):
    """End when the last worker has ended."""
