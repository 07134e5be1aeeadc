"""Estimate pi by throwing darts, with a seed for each element: the result is always the same."""

from random import Random

from sleighexec import Sleigh

DARTS = 20_000  # for each element
SEEDS = range(20)


def hits(seed, darts):
    """How many darts hit the quarter of a circle."""
    throw = Random(seed).random  # of its own: which worker it is and what ran before is all one
    return sum(throw() ** 2 + throw() ** 2 < 1 for _ in range(darts))


for count in (1, 3):
    s = Sleigh(workerCount=count)
    found = sum(s.eachElem(hits, SEEDS, DARTS))
    print(f"{count} workers: pi is about {4 * found / (DARTS * len(SEEDS)):.4f}")
    s.stop()

# prints: 1 workers: pi is about 3.1433
# prints: 3 workers: pi is about 3.1433
