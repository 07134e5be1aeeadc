"""Watch how far a map is, by a function of your own; `progress=True` shows a bar instead."""

from sleighexec import SleighExecutor

seen = []


def slow(n):
    return sum(range(n * 1000))


if __name__ == "__main__":
    with SleighExecutor(2, progress=seen.append) as executor:
        total = sum(executor.map(slow, range(200)))
    print(f"at first {seen[0].done} of {seen[0].total}")
    print(f"at last {seen[-1].done} of {seen[-1].total}, {seen[-1].failed} failed")

# prints: at first 0 of 200
# prints: at last 200 of 200, 0 failed
