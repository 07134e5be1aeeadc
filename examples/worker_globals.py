"""Build a table once in each worker and use it in later tasks, by a global variable."""

from sleighexec import SleighExecutor

table = None
factor = 2


def load():
    global table
    table = {number: number * number for number in range(100)}


def look(number):
    return factor * table[number]


if __name__ == "__main__":
    with SleighExecutor(2, initializer=load) as executor:
        print(list(executor.map(look, range(5))))  # the workers' table, the caller's factor
        factor = 10  # changed here, so it travels with the next call
        print(list(executor.map(look, range(5))))
    print(table)  # nobody built one here

# prints: [0, 2, 8, 18, 32]
# prints: [0, 10, 40, 90, 160]
# prints: None
