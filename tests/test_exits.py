"""What the end of an interpreter, and that of a worker, wait for and what they refuse."""

from __future__ import annotations

import pytest

from tests.test_faults import run_script

PATIENCE = 60  # seconds after which a program hangs
TOO_LATE = "RuntimeError: cannot schedule new futures after interpreter shutdown"

AT_EXIT = """
    import atexit
    from sleighexec import SleighExecutor

    def late():
        with SleighExecutor(1) as executor:
            for use in (
                lambda: executor.submit(abs, -1),
                lambda: executor.submit(lambda: 1),
                lambda: list(executor.map(abs, [-1])),
                lambda: executor.eachElem(abs, [-1]),
                lambda: executor.eachWorker(abs, -1),
            ):
                try:
                    print(use())
                except BaseException as error:
                    print(f"{{type(error).__name__}}: {{error}}")

    atexit.register(late)
    {before}
"""


@pytest.mark.parametrize("before", ["", "SleighExecutor(1).submit(abs, -1).result()"])
def test_an_executor_that_an_atexit_handler_makes_takes_nothing(before: str) -> None:
    with run_script(AT_EXIT.format(before=before)) as program:
        printed, complaints = program.communicate(timeout=PATIENCE)
    assert printed.splitlines() == [TOO_LATE] * 5
    assert (complaints, program.returncode) == ("", 0)
