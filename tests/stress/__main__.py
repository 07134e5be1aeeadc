"""`python -m tests.stress [--seconds N] [--seed S] [--planted]`."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sleighexec import WorkspaceServer, standalone
from tests.stress.chaos import Chaos
from tests.stress.leaks import nothing_is_left
from tests.stress.linear import UndecidedError
from tests.stress.planted import SPACES, WORKERS, Planting
from tests.stress.traffic import Round, serve_in_turn

CHAOS_SECONDS = 5.0  # of one run
LONGEST = 300.0  # seconds without an end of a run, after which all stacks are shown


def workspace_round(seed: str, folder: Path, url: str) -> str:
    """One round of traffic, checked; what happened, in words."""
    serve_in_turn(url, seed)
    history = Round(url, seed, folder).play(threads=4, processes=3)
    history.check()
    every = list(history)
    return f"{len(every)} operations, {sum(not each.whole for each in every)} of them cut short"


def executor_round(seed: str, folder: Path) -> str:
    """One run of chaos, checked; what happened, in words."""
    folder.mkdir()
    chaos = Chaos(seed, folder / "ran")
    chaos.run(CHAOS_SECONDS)
    ended = Counter(chaos.results.values())
    return f"{dict(chaos.kills)}; calls that may run once: {dict(ended)}"


def run(seconds: float, seed: str, folder: Path) -> None:
    """Rounds of both kinds, in turns, until the time is over."""
    end, number, undecided = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        number += 1
        name = f"{seed}/{number}"
        bind = ("unix", "127.0.0.1:0")[number % 2]
        with nothing_is_left(), WorkspaceServer(bind) as server:
            try:
                said = workspace_round(name, folder / f"{number}", server.url)
            except UndecidedError as error:  # no proof of anything
                undecided, said = undecided + 1, f"undecided: {error}"
        print(f"{name} workspace: {said}", flush=True)
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        print(f"{name} executor: {executor_round(name, folder / f'{number}x')}", flush=True)
    print(f"seed {seed}: {number} rounds, {undecided} histories undecided, nothing wrong")


def finds(work: Callable[[str], object], seed: str, tries: int) -> str:
    """What the checks say of a planted bug; empty: they say nothing."""
    for number in range(tries):
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        try:
            work(f"{seed}/{number}")
        except UndecidedError:
            continue
        except Exception as error:
            first = (str(error) or type(error).__name__).splitlines()[0]
            return f"{first[:100]} (try {number + 1})"
    return ""


def run_planted(seed: str, folder: Path, tries: int = 8) -> list[str]:
    """Each planted bug in turn; the names of those that were not found."""
    missed = []
    for space in SPACES:
        standalone.Space = space  # type: ignore[misc]
        with WorkspaceServer("unix") as server:
            said = finds(
                lambda name, space=space, url=server.url: workspace_round(  # type: ignore[misc]
                    name, folder / f"{space.__name__}{name.replace('/', '-')}", url
                ),
                seed,
                tries,
            )
        print(f"{space.__name__}: {said or 'NOT FOUND'}", flush=True)
        missed += [] if said else [space.__name__]
    for number, (what, statements) in enumerate(WORKERS.items()):

        def chaos(name: str, number: int = number, statements: str = statements) -> None:
            path = folder / f"{number}{name.replace('/', '-')}"
            launcher = Planting(statements, workers=3)
            Chaos(name, path, agents=False, launcher=launcher, patience=10).run(CHAOS_SECONDS)

        said = finds(chaos, seed, tries)
        print(f"{what}: {said or 'NOT FOUND'}", flush=True)
        missed += [] if said else [what]
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", default=str(random.randrange(10**6)))
    parser.add_argument("--planted", action="store_true", help="plant bugs, and find them")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "run").mkdir(mode=0o700)
        os.environ["SLEIGHEXEC_RUN_DIR"] = str(folder / "run")
        if options.planted:
            missed = run_planted(options.seed, folder)
            raise SystemExit(f"not found: {', '.join(missed)}" if missed else 0)
        (folder / options.seed).mkdir()
        run(options.seconds, options.seed, folder / options.seed)


if __name__ == "__main__":
    main()
