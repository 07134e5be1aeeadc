"""Pass a token around a ring of workers, each of which adds its rank."""

from sleighexec import Sleigh


def ring(rounds):
    """Take the token and pass it on, so many times; how many ranks it had then."""
    mine = f"token@{SleighRank}"
    neighbour = f"token@{(SleighRank + 1) % SleighWorkerCount}"
    for _ in range(rounds):
        token = SleighUserNws.fetch(mine, timeout=10)  # waits for the worker before us
        token.append(SleighRank)
        SleighUserNws.store(neighbour, token)
    return len(token)


s = Sleigh(workerCount=4)
s.userNws.store("token@0", [])
print(s.eachWorker(ring, 2))
print(s.userNws.fetch("token@0"))
s.stop()

# prints: [5, 6, 7, 8]
# prints: [0, 1, 2, 3, 0, 1, 2, 3]
