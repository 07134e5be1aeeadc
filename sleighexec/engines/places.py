"""Where the worker of each rank lives, and what became of the machines.

    first time ──came()──▶ up ──lost()──▶ again after 1, 2, 4 … 30 s ──▶ up, or given up

A host that refuses a login or shows a wrong key is given up at once, one that was never there too:
nothing is tried again that would fail in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sleighexec.errors import HostError, HostKeyError, LoginError, UnsupportedOptionError
from sleighexec.launchers.base import Launcher, RemoteLauncher, is_remote
from sleighexec.resources import Needs, Slots, offer_of, satisfies, shown, slots

MAX_TRIES = 5  # in a row, to have an agent on a host again that had one
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before such a try


class Places:
    """The launchers of all ranks. Used under the server's lock."""

    def __init__(self, launchers: Sequence[Launcher]) -> None:
        self.launchers = list(launchers)  # by rank, of all that there ever were
        self.wanted = set(range(len(launchers)))  # ranks that are to have workers, or may
        self._own = list(launchers)  # those that we start ourselves
        self.given_up: dict[Launcher, HostError] = {}
        self._came: set[Launcher] = set()
        self._tries: dict[Launcher, int] = {}

    def remote(self) -> list[RemoteLauncher]:
        """The launchers for other machines, each once, in the order of ranks."""
        found = dict.fromkeys(self.launchers)
        return [each for each in found if is_remote(each)]

    def host(self, rank: int, local: str) -> str:
        """What the machine of a rank is called, before it has said so itself."""
        launcher = self.launchers[rank]
        return launcher.host if is_remote(launcher) else local

    def ranks(self, launcher: Launcher) -> list[int]:
        """The ranks of one launcher."""
        same = enumerate(self.launchers)
        return [rank for rank, each in same if each is launcher or each == launcher]

    def offer(self, rank: int) -> Mapping[str, int]:
        """What the worker of a rank has."""
        return offer_of(self.launchers[rank])

    def slots(self, rank: int) -> Slots:
        """Which of the things of its launcher these are."""
        return slots(self.offer(rank), self.ranks(self.launchers[rank]).index(rank))

    def fit(self, needs: Needs) -> bool:
        """Whether there may be a worker that has what is needed; nobody knows if there is none."""
        ranks = self.usable()
        return not ranks or any(satisfies(self.offer(rank), needs) for rank in ranks)

    def unfit(self, needs: Needs) -> UnsupportedOptionError:
        """The error of a call for which there is none."""
        offers = dict.fromkeys(shown(self.offer(rank)) for rank in self.usable())
        text = f"no worker has {shown(needs)}: one has {' or '.join(offers)}"
        for error in self.given_up.values():
            text += f"; given up: {error}"
        text += "; ask for less, or say in resources= of a launcher what its workers have"
        return UnsupportedOptionError(text)

    def usable(self, more: Iterable[int] = ()) -> list[int]:
        """The ranks that may have workers now, and of these others."""
        ranks = sorted(self.wanted.union(more))
        if not self.given_up:
            return ranks
        return [rank for rank in ranks if self.launchers[rank] not in self.given_up]

    def resize(self, count: int) -> None:
        """Want so many ranks: the lowest ones that may come, or new ones where our last is.

        Raises:
            UnsupportedOptionError: More are wanted, and we start none ourselves.
        """
        wanted = self.usable()[:count]
        all_there_were = self.usable(range(len(self.launchers)))
        others = [rank for rank in all_there_were if rank not in self.wanted]
        wanted += others[: count - len(wanted)]
        first, missing = len(self.launchers), count - len(wanted)
        own = [each for each in self._own if each not in self.given_up]
        if missing and not own:
            text = f"there are {len(wanted)} workers, on machines that have joined by themselves: "
            text += "for more of them, let more machines join"
            raise UnsupportedOptionError("; given up: ".join((text, *map(str, self._lost()))))
        self.launchers += own[-1:] * missing
        self.wanted = {*wanted, *range(first, len(self.launchers))}

    def _lost(self) -> list[HostError]:
        """Why there are none of ours where they were to be."""
        return [error for each, error in self.given_up.items() if each in self._own]

    def add(self, launcher: Launcher, count: int) -> None:
        """Somebody has come by itself, with so many workers: in ranks of those who have left."""
        free = [r for r in range(len(self.launchers)) if self._is_free(r)][:count]
        for rank in free:
            self.launchers[rank] = launcher
        first = len(self.launchers)
        self.launchers += [launcher] * (count - len(free))
        self.wanted |= {*free, *range(first, len(self.launchers))}
        for gone in self.given_up.keys() - {*self.launchers, *self._own}:
            del self.given_up[gone]

    def _is_free(self, rank: int) -> bool:
        return rank not in self.wanted and self.launchers[rank] in self.given_up

    def left(self, launcher: Launcher, error: HostError) -> None:
        """One that had come by itself is gone, and will not come again."""
        self.given_up[launcher] = error
        self.wanted -= set(self.ranks(launcher))

    def leave_out(self, launcher: Launcher) -> None:
        """Before any worker was started: nobody lives there."""
        self.launchers = [each for each in self.launchers if each != launcher]
        self.wanted = set(range(len(self.launchers)))
        self._own = list(self.launchers)

    def has_come(self, launcher: Launcher) -> bool:
        """Whether it has ever had an agent."""
        return launcher in self._came

    def came(self, launcher: Launcher) -> None:
        """Its agent has answered."""
        self._came.add(launcher)
        self._tries.pop(launcher, None)

    def lost(self, launcher: Launcher, failure: HostError | None) -> bool:
        """Its agent has ended, or did not come; whether it is given up now."""
        if launcher not in self._came:
            final = True
        else:
            self._tries[launcher] = self._tries.get(launcher, 0) + 1
            refused = isinstance(failure, (HostKeyError, LoginError))
            final = refused or self._tries[launcher] > MAX_TRIES
        if final:
            host = launcher.host if is_remote(launcher) else "this machine"
            self.given_up[launcher] = failure or HostError(host, "its agent ended")
        return final

    def pause(self, launcher: Launcher) -> float:
        """Seconds to wait before the next try."""
        tries = self._tries.get(launcher, 0)
        return min(FIRST_PAUSE * 2 ** (tries - 1), LONGEST_PAUSE) if tries else 0.0
