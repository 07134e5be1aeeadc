"""Use a workspace in fourteen ways, each a few lines long."""

import io
import os

from sleighexec import FIFO, LIFO, MULTI, SINGLE, SleighExecutor, current_worker


def greet():
    workspace = current_worker().workspace
    name = workspace.fetch("name")  # waits until there is one
    workspace.store("greeting", f"hello {name}")


def talk_to_a_task(executor):
    workspace = executor.workspace
    executor.submit(greet)
    workspace.store("name", "newt")
    print(workspace.fetch("greeting"))


def serve_jobs():
    workspace = current_worker().workspace
    while (job := workspace.fetch("job")) is not None:
        workspace.store("answer", -job)


def queue(executor):
    workspace = executor.workspace
    servers = [executor.submit(serve_jobs) for _ in range(2)]
    for job in range(4):
        workspace.store("job", job)
    print(sorted(workspace.fetch("answer") for _ in range(4)))
    for _ in servers:
        workspace.store("job", None)  # one for each task: the end
    for server in servers:
        server.result()


def count_until_told():
    workspace = current_worker().workspace
    count = 0
    while not workspace.findTry("stop", False):
        count += 1
    return count


def flag(executor):
    workspace = executor.workspace
    counting = executor.submit(count_until_told)
    workspace.store("stop", True)
    print("counted:", counting.result() >= 0)


def parameter(executor):
    workspace = executor.workspace
    workspace.declare("level", SINGLE)
    workspace.store("level", 1)
    workspace.store("level", 2)  # replaces the 1
    print(workspace.find("level"), workspace.find("level"))


def limit_the_wait(executor):
    workspace = executor.workspace
    try:
        workspace.fetch("nobody stores this", timeout=0.1)
    except TimeoutError as error:
        print(error)
    print(workspace.fetchTry("nobody stores this", "nothing"))


def order(executor):
    workspace = executor.workspace
    for mode in (FIFO, LIFO, MULTI):
        workspace.declare(mode, mode)
        for value in (1, 2, 3):
            workspace.store(mode, value)
        values = [workspace.fetch(mode) for _ in range(3)]
        print(mode, sorted(values) if mode == MULTI else values)


def wait_for_the_gate():
    return current_worker().workspace.find("gate")  # looks: the value stays for the others


def gate(executor):
    waiting = [executor.submit(wait_for_the_gate) for _ in range(2)]
    executor.workspace.store("gate", "open")
    print([task.result() for task in waiting])


def look_around(executor):
    workspace = executor.workspace
    workspace.deleteVar("stop")  # with its value
    for name, (_, values, fetchers, _, mode) in workspace.listVars(format="dict").items():
        if values or fetchers:
            print(f"{name}: {values} values, {fetchers} waiting, {mode}")


def store_apart(name):
    current_worker().workspace.server.useWs(name).store("number", 42)


def second_workspace(executor):
    server = executor.workspace.server
    apart = server.openWs("apart")
    executor.submit(store_apart, "apart").result()
    print(apart.fetch("number"))
    server.deleteWs("apart")


def square_numbers():
    workspace = current_worker().workspace
    for number in workspace.ifetch("number"):  # waits, until the variable is deleted
        workspace.store("square", number**2)


def stream(executor):
    workspace = executor.workspace
    task = executor.submit(square_numbers)
    for number in range(4):
        workspace.store("number", number)
    print([workspace.fetch("square") for _ in range(4)])
    workspace.deleteVar("number")
    task.result()


def log(executor):
    workspace = executor.workspace
    for step in range(100):
        workspace.store("log", f"step {step}", keep=3)
    print(list(workspace.ifindTry("log")))


def die_with_a_parcel():
    current_worker().workspace.borrow("parcel")
    os._exit(1)


def loan(executor):
    workspace = executor.workspace
    workspace.store("parcel", "precious")
    print(type(executor.submit(die_with_a_parcel).exception()).__name__)
    with workspace.borrow("parcel") as parcel:  # settled at the end of the block
        print(parcel.value)


def text(executor):
    workspace = executor.workspace
    with workspace.makefile("notes", "w") as file:
        print("one", 2, file=file)
        file.write("three\n")
    for line in workspace.makefile("notes"):
        print(line, end="")


def binary_file(executor):
    workspace = executor.workspace
    with open(__file__, "rb") as source:
        while workspace.storeFile("pieces", source, n=1000):
            pass
    copy = io.BytesIO()
    while workspace.fetchTryFile("pieces", copy):
        pass
    print("copied:", len(copy.getvalue()) == os.path.getsize(__file__))


if __name__ == "__main__":
    with SleighExecutor(2) as executor:
        talk_to_a_task(executor)
        queue(executor)
        flag(executor)
        parameter(executor)
        limit_the_wait(executor)
        order(executor)
        gate(executor)
        look_around(executor)
        second_workspace(executor)
        stream(executor)
        log(executor)
        loan(executor)
        text(executor)
        binary_file(executor)

# prints: hello newt
# prints: [-3, -2, -1, 0]
# prints: counted: True
# prints: 2 2
# prints: no value came into 'nobody stores this' of 'sleigh_user' within 0.1 s
# prints: nothing
# prints: fifo [1, 2, 3]
# prints: lifo [3, 2, 1]
# prints: multi [1, 2, 3]
# prints: ['open', 'open']
# prints: gate: 1 values, 0 waiting, fifo
# prints: level: 1 values, 0 waiting, single
# prints: 42
# prints: [0, 1, 4, 9]
# prints: ['step 97', 'step 98', 'step 99']
# prints: WorkerLost
# prints: precious
# prints: one 2
# prints: three
# prints: copied: True
