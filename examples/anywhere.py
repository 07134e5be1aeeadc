"""One program for this machine, for others by ssh, for jobs of Slurm: its argument says where.

python anywhere.py                   two workers on this machine
python anywhere.py ssh:hippo,newt    two workers on each of these
python anywhere.py slurm             two workers in a job
"""

import sys

from sleighexec import SSH, Local, SleighExecutor, Slurm, current_worker


def places(argument="local"):
    if argument.startswith("ssh:"):
        return [SSH(name, workers=2) for name in argument.removeprefix("ssh:").split(",")]
    return Slurm(2) if argument == "slurm" else Local(2)


def load():
    global table  # stays in the worker, for later calls
    table = {n: n * n for n in range(1000)}


def look(n):
    current_worker().workspace.store("seen", n)
    return table[n]


with SleighExecutor(launcher=places(*sys.argv[1:])) as executor:
    executor.eachWorker(load)
    print(sum(executor.map(look, range(1000))))
    print(executor.eachElem(pow, [[1, 2, 3], [3, 2, 1]]))
    print(sum(executor.workspace.ifetchTry("seen")))
    print(executor.submit(lambda: len(table)).result())

# prints: 332833500
# prints: [1, 4, 3]
# prints: 499500
# prints: 1000
