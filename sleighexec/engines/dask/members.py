"""The workers of a Dask cluster by rank. A worker is known by its name: its address changes."""

from __future__ import annotations

import re
import time

from sleighexec.hints import Any
from sleighexec.resources import Needs


class Member:
    """A worker that has a rank: there, or away for a moment while it is started again.

    Attributes:
        address: Where Dask reaches it; "" while it is away.
        told: It knows its rank.
        pinned: What runs or waits on it that is meant for it alone.
        away_since: On the monotonic clock.
    """

    def __init__(self, rank: int, found: dict[str, Any]) -> None:
        self.rank = rank
        self.name: str = found["name"]
        self.pid: int | None = None
        self.python = ""
        self.finished = 0
        self.pinned: Any = None
        self.away_since = 0.0
        self.node = ""  # what its machine calls itself
        self.host: str = found["host"]  # where Dask reaches it
        self.come(found)

    def come(self, found: dict[str, Any]) -> None:
        """It is there, or there again."""
        self.address: str = found["address"]
        self.threads: int = found["threads"]
        self.nanny: bool = found["nanny"]
        self.resources: dict[str, float] = found["resources"]
        self.pid, self.python, self.told = None, "", False

    @property
    def killable(self) -> bool:
        """Whether ending it harms one task only, and somebody starts it again."""
        return self.nanny and self.threads == 1


class Members:
    """All of them. Changed by one thread, read by any."""

    def __init__(self) -> None:
        self.by_rank: dict[int, Member] = {}
        self._by_name: dict[str, Member] = {}
        self._by_address: dict[str, Member] = {}  # also of those that were there once

    def __len__(self) -> int:
        return len(self.by_rank)

    def present(self) -> list[Member]:
        """Those that are there, by rank."""
        return [m for m in self.all() if m.address]

    def all(self) -> list[Member]:
        """By rank."""
        return sorted(self.by_rank.values(), key=lambda m: m.rank)

    def slots(self) -> int:
        """How many calls they run at once."""
        return sum(m.threads for m in self.present())

    def capacity(self, needs: Needs) -> int:
        """How many calls that need this they run at once."""
        return sum(
            int(min(member.resources.get(name, 0) // count for name, count in needs))
            for member in self.present()
        )

    def at(self, address: str) -> Member | None:
        """Who is, or was, at this address."""
        return self._by_address.get(address)

    def come(self, found: list[dict[str, Any]]) -> None:
        """These are there."""
        for each in sorted(found, key=lambda each: _natural(each["name"])):
            member = self._by_name.get(each["name"])
            if member is None:
                rank = next(rank for rank in range(len(self) + 1) if rank not in self.by_rank)
                member = Member(rank, each)
                self.by_rank = {**self.by_rank, rank: member}  # for those who read it now
                self._by_name[member.name] = member
            elif member.address != each["address"]:
                member.come(each)
            self._by_address[each["address"]] = member

    def leave(self, address: str, *, back: bool) -> Member | None:
        """Who was there has gone; `back`: to be started again."""
        member = self._by_address.get(address)
        if member is None or member.address != address:
            return None
        member.address, member.pid = "", None
        member.away_since = time.monotonic()
        if not back:
            self.drop(member)
        return member

    def drop(self, member: Member) -> None:
        """It does not come back: who comes next may have its rank."""
        self._by_name.pop(member.name, None)
        self.by_rank = {r: m for r, m in self.by_rank.items() if m is not member}

    def forget(self, address: str) -> None:
        """Nobody will ask for this address any more."""
        self._by_address.pop(address, None)


def _natural(name: str) -> list[Any]:
    """So that worker 10 comes after worker 2."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", name) if p]
