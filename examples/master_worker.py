"""A master hands out tasks by a variable and collects results by another one."""

from sleighexec import Sleigh


def work():
    """Serve tasks until the poison comes; how many they were."""
    served = 0
    while (task := SleighUserNws.fetch("task")) is not None:
        number, start = task
        SleighUserNws.store("result", (number, steps_to_one(start)))
        served += 1
    SleighUserNws.store("task", None)  # the poison is for the next one too
    return served


def steps_to_one(n):
    """How often one halves an even number, or triples an odd one and adds 1, down to 1."""
    steps = 0
    while n > 1:
        n = 3 * n + 1 if n % 2 else n // 2
        steps += 1
    return steps


s = Sleigh(workerCount=3)
workers = s.eachWorker(work, blocking=False)

starts = [27, 97, 871, 6171, 77031]
for task in enumerate(starts):
    s.userNws.store("task", task)
results = dict(s.userNws.fetch("result") for _ in starts)  # as they come, by number
print([results[number] for number in range(len(starts))])

# Results decide what is to be done next: here, what took longest once more.
longest = max(results, key=results.get)
s.userNws.store("task", (0, starts[longest]))
print(starts[longest], "takes", s.userNws.fetch("result")[1])

s.userNws.store("task", None)
print(sum(workers.wait()), "tasks served")
s.stop()

# prints: [111, 118, 178, 261, 350]
# prints: 77031 takes 350
# prints: 6 tasks served
