"""Big things that many calls need, scattered: Dask carries them once to each worker."""

from __future__ import annotations

import pickle

from sleighexec.engines.dask.batch import BIG, Item, as_news
from sleighexec.engines.dask.cluster import Cluster
from sleighexec.functions import FunctionTable
from sleighexec.hints import Any
from sleighexec.payload import SHARED


class Constants:
    """What was scattered and may be needed again."""

    def __init__(self, cluster: Cluster, functions: FunctionTable) -> None:
        self._cluster, self._functions = cluster, functions
        self._forgot = 0  # of functions.forgotten
        self._scattered: dict[Any, tuple[int, Any]] = {}  # by place or key: version, Dask Future

    def news(self, needed: list[Any]) -> tuple[list[Item], list[Any]]:
        """What calls need, as it travels; and what is to be an argument of the Dask task."""
        self._forget()
        news: list[Item] = []
        arguments: list[Any] = []
        for each in needed:
            if each.payload.size_bytes < BIG:
                news.append(as_news(each))
                continue
            news.append(as_news(each, len(arguments)))
            arguments.append(self._future(each))
        return news, arguments

    def clear(self) -> None:
        """Some of it was lost with workers: scatter it again when it is needed."""
        self._scattered.clear()

    def _future(self, each: Any) -> Any:
        place: Any = (each.namespace, each.name) if hasattr(each, "version") else each.key
        version = getattr(each, "version", 0)
        known = self._scattered.get(place)
        if known is None or known[0] != version:
            data = pickle.dumps(as_news(each)[3], 5)
            known = version, self._cluster.scatter(data, broadcast=True)
            self._scattered[place] = known
        return known[1]

    def _forget(self) -> None:
        forgotten = self._functions.forgotten
        while self._forgot < len(forgotten):
            self._scattered.pop((SHARED, forgotten[self._forgot]), None)
            self._forgot += 1
