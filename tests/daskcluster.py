"""A Dask cluster in processes of its own: this file as a program, and how a test starts it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SETTLE_SECONDS = 25.0  # then a worker that is missing is taken for lost

# A cluster that has nothing to do takes a fifth of a processor else, all the time that tests run.
QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
}


class DaskCluster:
    """A scheduler and its workers. They end with us, whatever becomes of us."""

    def __init__(self, workers: int = 2, threads: int = 1, **options: object) -> None:
        self.workers = workers
        order = json.dumps({"n_workers": workers, "threads_per_worker": threads, **options})
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.daskcluster", order],
            cwd=ROOT,
            env=QUIET | os.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,  # Dask tells of every worker that a test kills
            text=True,
        )
        self.url = self._answer().replace("tcp://", "dask://")

    def scale(self, count: int) -> None:
        """Have so many workers; returns when they are there, or gone."""
        self._ask(f"scale {count}")
        self.workers = count

    def settle(self) -> None:
        """Wait until all workers are there, and their nannies ready to start them again.

        A nanny does not start a worker again that dies before it has seen it come: then another
        one takes its place.
        """
        self._ask("settle")

    def adapt(self, least: int, most: int) -> None:
        """Have as many as there is work for."""
        self._ask(f"adapt {least} {most}")

    def close(self) -> None:
        """End all of it."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=60)
        self.log.close()

    def kill(self) -> None:
        """End the scheduler without a word."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, order: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        assert self._answer() == "done"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("cluster: "):  # workers print here as well
                return line.removeprefix("cluster: ").strip()
        raise RuntimeError(f"the Dask cluster ended: {self.told()}")

    def told(self) -> str:
        """The last that it has logged."""
        self.log.seek(0)
        return self.log.read()[-5000:]


@contextlib.contextmanager
def dask_cluster(workers: int = 2, threads: int = 1, **options: object) -> Iterator[DaskCluster]:
    """A cluster for one test."""
    cluster = DaskCluster(workers, threads, **options)
    try:
        yield cluster
    finally:
        cluster.close()


def main() -> None:
    from distributed import Client, LocalCluster

    options = json.loads(sys.argv[1])
    with (
        LocalCluster(
            processes=True, dashboard_address=None, worker_dashboard_address=None, **options
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        print(f"cluster: {cluster.scheduler_address}", flush=True)
        for line in sys.stdin:
            order, *numbers = line.split()
            if order == "scale":
                cluster.scale(int(numbers[0]))
                if int(numbers[0]):
                    client.wait_for_workers(int(numbers[0]))
            elif order == "settle":
                settle(cluster, options["n_workers"])
            else:
                cluster.adapt(minimum=int(numbers[0]), maximum=int(numbers[1]), interval="100ms")
            print("cluster: done", flush=True)


def settle(cluster: Any, count: int) -> None:
    """See `DaskCluster.settle`."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        ready = [nanny for nanny in cluster.workers.values() if nanny.status.name == "running"]
        if len(ready) == count == len(cluster.scheduler.workers):
            return
        if time.monotonic() > deadline:
            cluster.scale(0)
            while cluster.scheduler.workers or cluster.workers:
                time.sleep(0.05)
            cluster.scale(count)
            deadline = time.monotonic() + SETTLE_SECONDS
        time.sleep(0.05)


if __name__ == "__main__":
    main()
