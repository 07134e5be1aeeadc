"""Chaos with checks: `python -m tests.stress [--seconds N] [--seed S]`, or `tox -e stress`.

    traffic.py   many clients of one workspace, threads and processes, some of which are killed;
                 what each did is recorded as a history
    history.py   nothing lost, nothing twice, nothing from nowhere
    linear.py    is there an order of all operations on a variable that explains every answer?
    chaos.py     an executor under load while its workers and its agent are killed and stopped
    leaks.py     no process, thread or descriptor may be left behind
    planted.py   bugs on purpose, which the checks above must find

A seed gives each client its operations and the nemesis its targets. When they happen is up to the
machine, so a seed narrows a failure down but does not replay it to the letter.
"""
