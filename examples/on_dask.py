"""The article's first session on a Dask cluster: one argument more than sleigh_local.py."""

# needs: dask
from distributed import LocalCluster

from sleighexec import Sleigh


def arguments(*given):
    return given


def slow(x):
    SleighUserNws.find("go")  # waits until somebody has stored one
    return x * x


def load():
    global table  # stays in the worker, for later calls
    table = {n: n * n for n in range(100)}


def look(n):
    return table[n]


def main():
    with LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster:
        s = Sleigh(engine=cluster)  # or engine="dask://host:8786"
        print(s.eachWorker("SleighRank"))

        r = s.eachElem(lambda x: x * x * x, range(100))
        print(len(r), r[2:5])

        print(s.eachElem(arguments, [[1, 2, 3], [11, 12, 13]], [99]))
        print(s.eachElem(arguments, [[1, 2, 3]], [99], argPermute=[1, 0]))

        s.eachWorker(load)
        print(s.eachElem(look, [2, 3, 4]))

        p = s.eachElem(slow, range(100), blocking=False)
        print(p.check(), "outstanding")
        s.userNws.store("go", True)
        print(p.wait()[2:5], "and", p.check(), "outstanding")
        s.stop()


if __name__ == "__main__":  # for LocalCluster, whose workers import the script
    main()

# prints: [0, 1, 2]
# prints: 100 [8, 27, 64]
# prints: [(1, 11, 99), (2, 12, 99), (3, 13, 99)]
# prints: [(99, 1), (99, 2), (99, 3)]
# prints: [4, 9, 16]
# prints: 100 outstanding
# prints: [4, 9, 16] and 0 outstanding
