"""Turn a knob while tasks run: each of them looks at it in every step."""

from sleighexec import SINGLE, Sleigh


def run():
    """Step by step, at the present speed, until there is none; the speeds that there were."""
    position, speeds = 0, []
    while (speed := SleighUserNws.find("speed")) is not None:  # looks: it stays for the others
        position += speed
        if speeds[-1:] != [speed]:
            speeds.append(speed)
            SleighUserNws.store("noticed", position)
    return speeds


s = Sleigh(workerCount=2)
s.userNws.declare("speed", SINGLE)  # one value: a new one replaces the old one
s.userNws.store("speed", 1)
running = s.eachWorker(run, blocking=False)

for speed in (10, 100, None):
    for _ in range(s.workerCount):
        s.userNws.fetch("noticed")  # each runs at the speed before
    s.userNws.store("speed", speed)

print(running.wait())
s.stop()

# prints: [[1, 10, 100], [1, 10, 100]]
