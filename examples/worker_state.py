"""Prepare all workers with eachWorker, use what they keep in eachElem, and replace one of them."""

import os

from sleighexec import Sleigh


def load(size):
    global table
    table = {number: number * number for number in range(size)}
    return len(table)


def look(number):
    return table[number]


with Sleigh(workerCount=3) as s:
    print(s.eachWorker(load, 100, sticky=True))
    print(s.eachElem(look, range(5)))
    print(s.eachElem("table[SleighArgs[0]]", range(5)))  # a string sees the same names

    [lost] = s.eachElem(os._exit, [1])
    print(type(lost.__cause__).__name__)
    print(s.eachWorker("len(table)"))  # the replacement has called load too

# prints: [100, 100, 100]
# prints: [0, 1, 4, 9, 16]
# prints: [0, 1, 4, 9, 16]
# prints: WorkerLost
# prints: [100, 100, 100]
