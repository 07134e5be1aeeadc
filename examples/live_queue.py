"""Workers serve a queue of jobs while the caller turns a knob that they all look at."""

from sleighexec import FIFO, SINGLE, SleighExecutor, current_worker

WORKERS = 2


def serve():
    """Scale jobs by the present factor until there are no more; how many were served."""
    workspace = current_worker().workspace
    served = 0
    while (job := workspace.fetch("job")) is not None:
        factor = workspace.find("factor")  # looks: the value stays for everybody
        workspace.store("result", (job, factor * job))
        served += 1
    return served


def ask(workspace, jobs):
    """The results of some jobs, as a dict; they come in any order."""
    for job in jobs:
        workspace.store("job", job)
    return dict(sorted(workspace.fetch("result") for _ in jobs))


def main():
    with SleighExecutor(WORKERS) as executor:
        workspace = executor.workspace
        workspace.declare("job", FIFO)  # a queue: each job goes to one worker
        workspace.declare("factor", SINGLE)  # one value: a new one replaces the old one
        workspace.store("factor", 10)
        servers = [executor.submit(serve) for _ in range(WORKERS)]

        print("factor 10:", ask(workspace, range(1, 6)))
        workspace.store("factor", 100)
        print("factor 100:", ask(workspace, range(1, 6)))

        for _ in servers:
            workspace.store("job", None)  # one for each worker: there are no more jobs
        print("jobs served:", sum(server.result() for server in servers))


if __name__ == "__main__":
    main()

# prints: factor 10: {1: 10, 2: 20, 3: 30, 4: 40, 5: 50}
# prints: factor 100: {1: 100, 2: 200, 3: 300, 4: 400, 5: 500}
# prints: jobs served: 10
