"""A program of NetWorkSpaces in its present form: what has changed in it is marked."""

from sleighexec.nws.client import SINGLE  # was nws.client
from sleighexec.nws.sleigh import Sleigh, SleighTaskException  # was nws.sleigh


def invert(x):
    return 1 / x


def listen():
    return SleighUserNws.find("news")


s = Sleigh(workerCount=3)  # no server has to be started before
print(s.settings["workerCount"])  # was s.options["workerCount"]

print(s.eachWorker("SleighRank"))  # by rank: was in any order
results = s.eachElem(invert, [[4, 0]])
for result in results:
    if isinstance(result, SleighTaskException):
        result = type(result.__cause__).__name__  # new: the exception itself
    print(result)

pending = s.eachWorker(listen, blocking=False)
print(pending.done())  # was pending.done
s.userNws.declare("news", SINGLE)
s.userNws.store("news", "it works")
print(pending.wait())
s.stop()

# prints: 3
# prints: [0, 1, 2]
# prints: 0.25
# prints: ZeroDivisionError
# prints: False
# prints: ['it works', 'it works', 'it works']
