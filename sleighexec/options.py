"""What may be asked of an executor: each option is checked, and said in the form that is used."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from sleighexec.errors import UnsupportedOptionError
from sleighexec.hints import Any
from sleighexec.launchers.base import Launcher
from sleighexec.resources import Needs
from sleighexec.task import Settings

# A call that may take so much has no limit: it could not be written into a worker's journal.
LONGEST = 100 * 365 * 86400  # seconds
LARGEST = 2**63  # bytes


def check_engine(engine: Any, others: dict[str, Any]) -> None:
    """See that `engine` is one, and that nothing is asked for that it cannot do."""
    for option, value in others.items():
        if value is not None:
            raise UnsupportedOptionError(
                f"{option}= is of the built-in engine; with engine= the cluster has its own ways"
            )
    if isinstance(engine, str):
        if re.fullmatch(r"dask(\+tcp|\+tls)?://.+:\d+/?", engine):
            return
        raise UnsupportedOptionError(
            f'engine= takes "dask://host:8786" or an object of Dask, not {engine!r}'
        )
    if not any(base.__module__.partition(".")[0] == "distributed" for base in type(engine).mro()):
        raise UnsupportedOptionError(
            f"engine= takes a Client or a cluster of Dask, not {type(engine).__name__}"
        )


def dask_engine() -> Any:
    try:
        from sleighexec.engines.dask.engine import DaskEngine
    except ImportError as error:
        raise ImportError(
            'an engine on Dask needs `pip install "sleighexec[dask]"`: ' + str(error)
        ) from error
    return DaskEngine


def on_nodes(nodes: Sequence[str], launcher: Any) -> list[Launcher]:
    """A launcher for each name, which is reached by ssh."""
    if launcher is not None:
        raise ValueError("nodes is short for a list of SSH launchers: give the one or the other")
    if isinstance(nodes, str) or not nodes:
        raise ValueError('nodes is a list of names, such as ["hippo", "user@newt:2222"]')
    from sleighexec.launchers.ssh import SSH

    return [SSH(node) for node in nodes]


def launchers_of(
    launcher: Launcher | Sequence[Launcher] | None, max_workers: int | None
) -> list[Launcher]:
    """The launcher of the worker of each rank."""
    if launcher is None:
        from sleighexec.launchers.local import Local

        launcher = Local()
    places: list[Launcher] = []
    several: Sequence[Any] = [launcher]
    if isinstance(launcher, Sequence) and not isinstance(launcher, str):
        several = launcher
    for each in several:
        if not callable(getattr(each, "launch", None)):
            raise TypeError(
                f"launcher must be a launcher, such as Local() or SSH(name), or a list of them, "
                f"not {each!r}"
            )
        count = getattr(each, "workers", None)
        if count is None:
            count = checked_workers(max_workers)
        places += [each] * checked_int("workers", count, 1)
    if not places and max_workers is not None:
        raise ValueError("with launcher=[] the machines that join say how many workers there are")
    if max_workers is not None:
        del places[checked_workers(max_workers) :]
    return places


def checked_workers(max_workers: int | None) -> int:
    if max_workers is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0)) or 1
        return os.cpu_count() or 1
    return checked_int("max_workers", max_workers, 1)


def settings_of(
    default: Settings,
    retries: int | None,
    timeout: float | None,
    memory_limit: int | str | None,
    priority: int | None = None,
    needs: Needs | None = None,
) -> Settings:
    """The settings, with these in place of those of the default; None: no other."""
    if retries is None:
        retries = default.retries
    timeout = default.timeout if timeout is None else checked_seconds("timeout", timeout)
    limit = (
        default.memory_limit
        if memory_limit is None
        else checked_bytes("memory_limit", memory_limit)
    )
    if timeout is not None and timeout >= LONGEST:
        timeout = None
    if limit is not None and limit >= LARGEST:
        limit = None
    if priority is None:
        priority = default.priority
    elif not isinstance(priority, int) or isinstance(priority, bool):
        raise TypeError(f"priority must be an integer, not {type(priority).__name__}")
    if needs is None:
        needs = default.needs
    return Settings(checked_int("retries", retries, 0), timeout, limit, priority, needs)


def checked_bytes(name: str, value: int | str) -> int:
    """A number of bytes, from a number or from text such as "500 MB" or "2 GiB"."""
    if isinstance(value, str):
        match = re.fullmatch(
            r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([kMGT]?)(i?)B?\s*", value, re.IGNORECASE
        )
        if match is None:
            raise ValueError(f'{name} must be a number of bytes, such as "500 MB", not {value!r}')
        power = " kmgt".index(match[2].lower() or " ")
        value = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    return checked_int(name, value, 1)


def checked_seconds(name: str, value: float) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0, not {value}")
    return value


def checked_int(name: str, value: int, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    if value < least:
        raise ValueError(
            f"{name} must be greater than {least - 1}" if least else f"{name} must be >= 0"
        )
    return value
