"""One worker for each name of a list, started by a launch function of one's own."""

import os

from sleighexec import Sleigh


def launch(machine, **options):
    """The words before the command of the worker for this machine: it learns its name."""
    return ["env", f"NODE={machine}"]


s = Sleigh(nodeList=["hippo", "newt", "python", "rhino"], launch=launch)
print(s.workerCount, s.nodeList)
print(s.eachWorker(os.getenv, "NODE"))  # by rank, and rank i is nodeList[i]
print(s.eachWorker(lambda: (SleighRank, SleighWorkerCount)))

r = s.eachElem(lambda x: x * x * x, range(100))
print(len(r), r[2:5])
s.stop()

# prints: 4 ['hippo', 'newt', 'python', 'rhino']
# prints: ['hippo', 'newt', 'python', 'rhino']
# prints: [(0, 4), (1, 4), (2, 4), (3, 4)]
# prints: 100 [8, 27, 64]
