"""The article's first session: three workers on this machine, called in all the classic ways."""

from socket import gethostname

from sleighexec import Sleigh


def arguments(*given):
    return given


def slow(x):
    SleighUserNws.find("go")  # waits until somebody has stored one
    return x * x


s = Sleigh()
print(s.eachWorker(gethostname) == [gethostname()] * 3)

r = s.eachElem(lambda x: x * x * x, range(100))
print(len(r), r[2:5])

print(s.eachElem(arguments, [[1, 2, 3], [11, 12, 13]], [99]))
print(s.eachElem(arguments, [[1, 2, 3]], [99], argPermute=[1, 0]))

p = s.eachElem(slow, range(100), blocking=False)
print(p.check(), "outstanding")
s.userNws.store("go", True)
print(p.wait()[2:5], "and", p.check(), "outstanding")
s.stop()

# prints: True
# prints: 100 [8, 27, 64]
# prints: [(1, 11, 99), (2, 12, 99), (3, 13, 99)]
# prints: [(99, 1), (99, 2), (99, 3)]
# prints: 100 outstanding
# prints: [4, 9, 16] and 0 outstanding
