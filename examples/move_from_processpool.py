"""Run the same calls on the standard library's executor and on this one."""

import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from sleighexec import SleighExecutor, current_worker


def square(x):
    return x * x


def before():
    with ProcessPoolExecutor(2) as executor:
        return list(executor.map(square, range(5)))


def after():
    with SleighExecutor(2) as executor:
        return list(executor.map(square, range(5)))


def crash():
    with SleighExecutor(2) as executor:
        dies = executor.submit(os._exit, 3)
        lives = executor.submit(square, 7)
        try:
            dies.result()
        except BrokenProcessPool as error:
            print("lost:", type(error).__name__, "exit status", error.exitcode)
        print("not lost:", lives.result())


def dies_once():
    """End the worker if there is a bomb in the workspace; the second try finds none."""
    if current_worker().workspace.fetchTry("bomb"):
        os._exit(3)
    return "done"


def retry():
    with SleighExecutor(2) as executor:
        executor.workspace.store("bomb", True)
        print("tried again:", executor.options(retries=1).submit(dies_once).result())


def connect(name):
    """Keep what later tasks of this worker need in a dict that lives as long as the worker."""
    current_worker().state["connection"] = f"connected to {name}"


def use():
    return current_worker().state["connection"]


def initialize():
    with SleighExecutor(2, initializer=connect, initargs=("the archive",)) as executor:
        print(executor.submit(use).result())


if __name__ == "__main__":
    print("before:", before())
    print("after:", after())
    crash()
    retry()
    initialize()

# prints: before: [0, 1, 4, 9, 16]
# prints: after: [0, 1, 4, 9, 16]
# prints: lost: WorkerLost exit status 3
# prints: not lost: 49
# prints: tried again: done
# prints: connected to the archive
