"""Send a value to and fro between two workers; the time, which differs, goes to standard error."""

import sys
import time

from sleighexec import Sleigh


def play(count):
    """Rank 0 serves and rank 1 returns, each time a number higher; the last one, and the time."""
    started, ball = time.perf_counter(), 0
    for _ in range(count):
        if SleighRank == 0:
            SleighUserNws.store("ping", ball + 1)
            ball = SleighUserNws.fetch("pong", timeout=10)
        else:
            ball = SleighUserNws.fetch("ping", timeout=10)
            SleighUserNws.store("pong", ball + 1)
    return ball, time.perf_counter() - started


COUNT = 200

s = Sleigh(workerCount=2)
[(ball, seconds), _] = s.eachWorker(play, COUNT)  # all workers at once, each exactly once
print(f"{ball} throws")
print(f"{seconds / ball * 1e6:.0f} microseconds each", file=sys.stderr)
s.stop()

# prints: 400 throws
