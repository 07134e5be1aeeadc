"""Batches on their way to Dask, and their outcomes on the way back: several at a time.

Dask computes with graphs. One graph of twenty batches costs its client and its scheduler little
more than one of a single batch, and so does one question for twenty results.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sleighexec.engines.dask import remote

GRAPH_BYTES = 4 * 1024 * 1024  # of messages in one graph: Dask warns of those above 10 MiB
GATHER_SECONDS = 0.01  # that an outcome for which no worker waits may lie until it is fetched

Arrived = list[
    tuple[Any, Any, "BaseException | None"]
]  # of which batch, outcome, or what went wrong


class Order(NamedTuple):
    """A batch as Dask gets it.

    Attributes:
        batch: Whose it is.
        message: Bytes, or the Dask Future of bytes.
        constants: Dask Futures of what was scattered.
        resources: As tuples, so that orders can be compared.
        address: Of the worker that it is meant for; None: of any.
        ahead: Workers have others to run when it has ended.
    """

    key: str
    batch: Any
    message: Any
    constants: Sequence[Any]
    priority: int
    resources: tuple[tuple[str, int], ...]
    address: str | None
    ahead: bool

    @property
    def is_plain(self) -> bool:
        """Whether it may be one of several: it depends on nothing."""
        return type(self.message) is bytes and not self.constants

    def is_like(self, other: Order) -> bool:
        """Whether both can go in one graph."""
        return (
            self.is_plain
            and other.is_plain
            and (self.priority, self.resources, self.address)
            == (other.priority, other.resources, other.address)
        )


class Orders:
    """Hands out orders and fetches their outcomes. Thread-safe."""

    def __init__(self, client: Any, tell: Callable[[Arrived], object]) -> None:
        """`client`: of Dask. `tell` hears of outcomes, in its thread."""
        self._client, self._tell = client, tell
        # These belong to Dask's thread.
        self._tasks: set[Any] = set()
        self._ended: list[tuple[Any, Any]] = []  # not fetched yet: Dask Future, batch
        self._hurries = self._fetching = False

    def submit(self, orders: Sequence[Order]) -> list[Any]:
        """Hand out these; each outcome is fetched as soon as it is there.

        Returns the Dask Futures: they are to be kept, since Dask cancels what nobody holds.
        """
        held: list[Any] = []
        for row in _rows(orders):
            held += self._submit(row)
        # What follows an order holds neither its message nor, once it has ended, its Future.
        whose = [(order.batch, order.ahead) for order in orders]
        self._client.loop.add_callback(self._follow_all, list(held), whose)
        return held

    def _submit(self, row: list[Order]) -> list[Any]:
        first = row[0]
        how: dict[str, Any] = {
            "pure": False,  # else equal calls would be one
            "retries": 0,
            "priority": first.priority,
            "resources": dict(first.resources) or None,
        }
        if first.address is not None:
            how |= {"workers": [first.address], "allow_other_workers": False}
        if len(row) == 1:
            arguments = first.message, *first.constants
            return [self._client.submit(remote.run_batch, *arguments, key=first.key, **how)]
        keys, messages = [order.key for order in row], [order.message for order in row]
        return list(self._client.map(remote.run_batch, messages, key=keys, **how))

    def _follow_all(self, futures: list[Any], whose: list[tuple[Any, bool]]) -> None:
        while futures:
            task = asyncio.ensure_future(self._follow(futures.pop(0), *whose.pop(0)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _follow(self, future: Any, batch: Any, ahead: bool) -> None:
        """Wait for an outcome; it is fetched with those that come at about the same time."""
        with contextlib.suppress(Exception, asyncio.CancelledError):
            await future.exception()  # brings only the word that it is there
        if future.status != "finished":
            await self._fetch_one(future, batch)
            return
        self._ended.append((future, batch))
        self._hurries = self._hurries or not ahead
        del future
        if self._fetching:
            return
        self._fetching = True
        try:
            while self._ended:
                await asyncio.sleep(0 if self._hurries else GATHER_SECONDS)
                await self._fetch()
        finally:
            self._fetching = False

    async def _fetch(self) -> None:
        ended, self._ended, self._hurries = self._ended, [], False
        if len(ended) > 1:
            with contextlib.suppress(Exception, asyncio.CancelledError):
                outcomes = await self._client.gather([future for future, _ in ended])
                self._tell([(batch, each, None) for (_, batch), each in zip(ended, outcomes)])
                return
        # One of them has failed after all, or was lost with its worker: no other waits for it.
        await asyncio.gather(*(self._fetch_one(*each) for each in ended))

    async def _fetch_one(self, future: Any, batch: Any) -> None:
        try:
            outcome = await future
        except BaseException as error:
            self._tell([(batch, None, error)])
        else:
            self._tell([(batch, outcome, None)])


def _rows(orders: Sequence[Order]) -> list[list[Order]]:
    """Orders that follow each other and can go in one graph."""
    rows: list[list[Order]] = []
    size = 0
    for order in orders:
        own = len(order.message) if order.is_plain else 0
        if rows and rows[-1][0].is_like(order) and size + own <= GRAPH_BYTES:
            rows[-1].append(order)
            size += own
        else:
            rows.append([order])
            size = own
    return rows
