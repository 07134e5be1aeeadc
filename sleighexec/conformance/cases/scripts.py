"""Whole programs: their `__main__`, Ctrl-C, fork, nested pools, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from sleighexec.conformance.case import PATIENCE, Make, case, case_for, expect, expect_in, wait_for

PROMPTLY = 3.0  # seconds from a Ctrl-C to the end of a program

HEAD = """
import os, sys, time
from sleighexec.conformance.child import maker
make = maker({executor!r}, {options!r})
"""


def start(make: Make, source: str, **more: Any) -> subprocess.Popen[str]:
    """A program in a session of its own, in the folder of the case."""
    head = HEAD.format(executor=make.executor, options=make.options)  # type: ignore[attr-defined]
    Path("program.py").write_text(head + textwrap.dedent(source))
    return subprocess.Popen(
        [sys.executable, "program.py"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    )


def finish(program: subprocess.Popen[str], seconds: float = 2 * PATIENCE) -> tuple[str, str]:
    """What a program printed, and complained of, when it has ended."""
    try:
        return program.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        raise AssertionError(f"the program had not ended after {seconds:g} s") from None


def prints(make: Make, source: str, wanted: str) -> None:
    """The program prints this and nothing else, and ends well."""
    program = start(make, source)
    out, err = finish(program)
    if (out.split(), program.returncode) != (wanted.split(), 0):
        raise AssertionError(f"status {program.returncode}, printed {out!r}\n{err}")


def quietly(make: Make, source: str, wanted: str) -> None:
    """As `prints`, without a word on the standard error."""
    program = start(make, source)
    out, err = finish(program)
    expect((out.split(), program.returncode, err), (wanted.split(), 0, ""))


# ------------------------------------------------------------------ __main__


@case
def a_function_of_a_guarded_script_can_be_called(make: Make) -> None:
    source = """
        def square(x):
            return x * x
        if __name__ == "__main__":
            with make(2) as pool:
                print(*pool.map(square, range(4)))
    """
    prints(make, source, "0 1 4 9")


@case
def a_function_of_a_script_without_a_guard_can_be_called(make: Make) -> None:
    source = """
        def square(x):
            return x * x
        with make(2) as pool:
            print(*pool.map(square, range(4)))
    """
    prints(make, source, "0 1 4 9")


@case
def an_object_of_a_class_of_the_script_comes_back_as_one(make: Make) -> None:
    source = """
        class Point:
            def __init__(self, x):
                self.x = x
        def moved(point):
            return Point(point.x + 1)
        if __name__ == "__main__":
            with make(1) as pool:
                point = pool.submit(moved, Point(1)).result()
                print(type(point) is Point, point.x)
    """
    prints(make, source, "True 2")


@case
def an_initializer_may_set_a_global_of_the_script(make: Make) -> None:
    source = """
        table = None
        def load():
            global table
            table = {"x": 5}
        def look(key):
            return table[key]
        if __name__ == "__main__":
            with make(2, initializer=load) as pool:
                print(*pool.map(look, "xxx"))
    """
    prints(make, source, "5 5 5")


@case
def a_script_from_standard_input_works(make: Make) -> None:
    source = """
        import subprocess
        if __name__ == "__main__" and sys.argv[0] != "-":
            text = open(__file__).read()
            run = subprocess.run([sys.executable, "-"], input=text, text=True, timeout=15)
            sys.exit(run.returncode)
        def square(x):
            return x * x
        if __name__ == "__main__":
            with make(1) as pool:
                print(*pool.map(square, range(4)))
    """
    prints(make, source, "0 1 4 9")


# ------------------------------------------------------------------ the end of a program


@case
def a_program_that_ends_finishes_its_calls(make: Make) -> None:
    source = """
        def say(x):
            time.sleep(0.2)
            print(x, flush=True)
        if __name__ == "__main__":
            pool = make(1)
            for number in range(4):
                pool.submit(say, number)
    """
    quietly(make, source, "0 1 2 3")


@case
def a_program_that_ends_after_shutdown_without_waiting_is_quiet(make: Make) -> None:
    source = """
        def say(x):
            time.sleep(0.2)
            print(x, flush=True)
        if __name__ == "__main__":
            pool = make(2)
            pool.submit(say, "apple")
            pool.shutdown(wait=False)
    """
    quietly(make, source, "apple")


@case
def a_program_that_raises_does_not_hang(make: Make) -> None:
    program = start(
        make,
        """
        if __name__ == "__main__":
            pool = make(2)
            pool.submit(time.sleep, 0.2)
            raise ValueError("enough")
        """,
    )
    _, err = finish(program)
    expect(program.returncode, 1)
    expect_in("ValueError: enough", err)


WAITS = """
    def wait_long():
        open(f"worker-{os.getpid()}", "w").close()
        time.sleep(60)
    if __name__ == "__main__":
        pool = make(2)
        futures = [pool.submit(wait_long) for _ in range(10)]
        open("caller", "w").close()
        ACT
"""


def waiting_program(make: Make, act: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A program with two calls that run and eight that wait; and the pids of its workers."""
    program = start(make, WAITS.replace("ACT", act))

    def pids() -> list[int]:
        return [int(path.name.partition("-")[2]) for path in Path().glob("worker-*")]

    wait_for(lambda: len(pids()) == 2 and Path("caller").exists(), "two calls run")
    return program, pids()


def gone(pids: list[int]) -> bool:
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[0] not in "ZX":
            return False
    return True


@case_for("SIGKILL", "SIGTERM")
def workers_end_when_their_program_is_killed(make: Make, way: str) -> None:
    program, pids = waiting_program(make, "time.sleep(60)")
    try:
        program.send_signal(signal.Signals[way])
        program.wait(PATIENCE)
        wait_for(lambda: gone(pids), "the workers have ended", PATIENCE / 2)
    finally:
        for pid in pids:
            if not gone([pid]):
                os.kill(pid, signal.SIGKILL)
        finish(program)


@case_for("result", "with", "map")
def ctrl_c_ends_a_program_promptly(make: Make, way: str) -> None:
    """The whole group gets the signal, as from a terminal."""
    acts = {
        "result": "futures[0].result()",
        "with": "with pool: futures[0].result()",
        "map": "list(pool.map(time.sleep, [60]))",
    }
    program, pids = waiting_program(make, acts[way])
    wait_for(lambda: _sleeps(program.pid), "the program waits")
    os.killpg(program.pid, signal.SIGINT)
    _, err = finish(program, PROMPTLY)
    expect_in("KeyboardInterrupt", err)
    wait_for(lambda: gone(pids), "the workers have ended", PATIENCE / 2)


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


# ------------------------------------------------------------------ fork and nesting


@case
def a_forked_child_that_submits_does_not_hang_nor_harm_its_parent(make: Make) -> None:
    source = """
        import warnings
        warnings.simplefilter("ignore")
        if __name__ == "__main__":
            with make(2) as pool:
                print(pool.submit(abs, -1).result(10), flush=True)
                child = os.fork()
                if not child:
                    try:
                        pool.submit(abs, -2).result(5)  # either works or says that it does not
                    except RuntimeError:
                        pass
                    except BaseException as error:
                        print("child:", repr(error), flush=True)
                    os._exit(0)
                os.waitpid(child, 0)
                print(pool.submit(abs, -3).result(10), flush=True)
    """
    prints(make, source, "1 3")


@case
def a_forked_child_that_does_nothing_harms_nobody(make: Make) -> None:
    source = """
        import warnings
        warnings.simplefilter("ignore")
        if __name__ == "__main__":
            with make(2) as pool:
                print(pool.submit(abs, -1).result(10), flush=True)
                child = os.fork()
                if not child:
                    sys.exit(0)
                os.waitpid(child, 0)
                print(pool.submit(abs, -3).result(10), flush=True)
    """
    prints(make, source, "1 3")


@case
def a_call_may_use_a_pool_of_its_own(make: Make) -> None:
    source = """
        def inner(x):
            with make(1) as pool:
                return sum(pool.map(abs, [x, -x]))
        if __name__ == "__main__":
            with make(2) as pool:
                print(*pool.map(inner, [1, 2]))
    """
    prints(make, source, "2 4")


@case
def an_executor_as_an_argument_hangs_nobody(make: Make) -> None:
    source = """
        def use(pool):
            return pool.submit(abs, -1).result()
        if __name__ == "__main__":
            with make(1) as pool:
                try:
                    print(pool.submit(use, pool).result(10))
                except Exception as error:
                    print("1" if not isinstance(error, TimeoutError) else error)
    """
    prints(make, source, "1")
