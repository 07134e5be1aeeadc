"""Square numbers in worker processes."""

from sleighexec import SleighExecutor


def square(x):
    return x * x


if __name__ == "__main__":
    with SleighExecutor() as executor:
        print(executor.submit(square, 12).result())
        print(list(executor.map(square, range(5))))

# prints: 144
# prints: [0, 1, 4, 9, 16]
