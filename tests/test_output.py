"""What tasks print and log: in `future.output`, in streams or logging of the caller; no harm."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from sleighexec import SleighExecutor, WorkerLost
from sleighexec.output import KEPT_TEXT, MAX_LINE, CallText, cut
from tests.conftest import PATIENCE, wait_for


def say(*texts: str) -> int:
    for text in texts:
        print(text)
    return len(texts)


def complain(text: str) -> None:
    print("on the way")
    print(text, file=sys.stderr)
    raise ValueError(text)


def say_and_die(text: str) -> None:
    print(text, end="")  # never flushed
    os.kill(os.getpid(), signal.SIGKILL)


def log(name: str, level: int, message: str, *args: Any, **options: Any) -> None:
    logging.getLogger(name).log(level, message, *args, **options)


def log_failure() -> None:
    try:
        raise ValueError("what went wrong")
    except ValueError:
        logging.exception("it failed")


def write(descriptor: int, piece: bytes, count: int) -> int:
    """As C code does."""
    return sum(os.write(descriptor, piece) for _ in range(count))


# ------------------------------------------------------------------ future.output


def test_the_output_of_a_call_is_in_its_future(executor: SleighExecutor) -> None:
    futures = [executor.submit(say, *[f"call {n}"] * (n % 3)) for n in range(100)]
    assert [future.result(PATIENCE) for future in futures] == [n % 3 for n in range(100)]
    expected = [f"call {n}\n" * (n % 3) for n in range(100)]
    assert [future.output for future in futures] == expected


def test_calls_that_travel_together_keep_their_output_apart(executor: SleighExecutor) -> None:
    def echo(text: str) -> str:
        print(text, end="")
        return text

    texts = [f"call {n}" if n % 2 else "" for n in range(40)]
    pending = executor.eachElem(echo, [texts], chunkSize=10, blocking=False)
    futures = list(pending.as_completed())
    assert sorted(future.output for future in futures) == sorted(texts)
    assert all(future.output == future.result() for future in futures)


def test_output_of_a_call_that_fails_is_kept(executor: SleighExecutor) -> None:
    future = executor.submit(complain, "no")
    assert isinstance(future.exception(PATIENCE), ValueError)
    assert future.output == "on the way\nno\n"


@pytest.mark.parametrize("size", [100_000, 200_000, 5_000_000])
def test_output_comes_with_a_result_of_any_size(executor: SleighExecutor, size: int) -> None:
    def make(kind: Any) -> Any:
        print(kind.__name__)
        return kind(size)

    futures = [executor.submit(make, kind) for kind in (bytes, bytearray, bytes)]
    assert [len(future.result(PATIENCE)) for future in futures] == [size] * 3
    assert [future.output for future in futures] == ["bytes\n", "bytearray\n", "bytes\n"]


def test_only_the_end_of_long_output_is_kept(executor: SleighExecutor) -> None:
    lines = [f"line {n} äöü" for n in range(20_000)]
    future = executor.submit(say, *lines)
    future.result(PATIENCE)
    whole = "".join(f"{line}\n" for line in lines)
    assert whole.endswith(future.output)
    assert KEPT_TEXT - 4 < len(future.output.encode()) <= KEPT_TEXT
    assert executor.submit(say, "short").result(PATIENCE) == 1


@pytest.mark.parametrize("sizes", [(1, KEPT_TEXT - 1), (KEPT_TEXT, 1), (5, 3 * KEPT_TEXT, 7)])
def test_the_text_of_a_call_is_the_end_of_all_that_was_added(sizes: tuple[int, ...]) -> None:
    text, whole = CallText(bytearray(CallText.LENGTH + 3), 3), ""
    for number, size in enumerate(sizes):
        piece = str(number) * size
        text.add(piece)
        whole += piece
        assert text.read().decode() == whole[-KEPT_TEXT:]
    text.clear()
    assert text.read() == b""


def test_there_is_no_output_before_the_end_and_none_of_a_cancelled_call() -> None:
    def talk() -> None:
        print("I am at it")
        current_worker().workspace.fetch("stop")

    from sleighexec import current_worker

    with SleighExecutor(1) as executor:
        first, second = executor.submit(talk), executor.submit(say, "never")
        ride = executor.workspace.server.openWs("sleigh_ride")
        wait_for(lambda: "output@" in ride.listVars(), "the line comes")
        assert first.output == ""
        assert second.cancel()
        executor.workspace.store("stop", 1)
        first.result(PATIENCE)
        assert (first.output, second.output) == ("I am at it\n", "")


def test_the_initializer_does_not_print_for_a_call() -> None:
    with SleighExecutor(1, initializer=say, initargs=("prepared",)) as executor:
        future = executor.submit(abs, -1)
        assert future.result(PATIENCE) == 1
        assert future.output == ""


def test_what_a_call_printed_before_its_worker_died_is_known(executor: SleighExecutor) -> None:
    future = executor.submit(say_and_die, "last words")
    with pytest.raises(WorkerLost, match="what the call printed:\nlast words") as caught:
        future.result(PATIENCE)
    assert caught.value.output == future.output == "last words"


def test_output_is_that_of_the_last_attempt(executor: SleighExecutor) -> None:
    def die_once() -> str:
        if executor_state.fetchTry("died") is None:
            executor_state.store("died", 1)
            say_and_die("first")
        return "alive"

    executor_state = executor.workspace
    future = executor.options(retries=1).submit(die_once)
    assert future.result(PATIENCE) == "alive"
    assert future.output == ""


# ------------------------------------------------------------------ where it goes


def test_output_is_passed_on_unless_it_is_captured(capfd: Any) -> None:
    with SleighExecutor(1, output="capture") as executor:
        future = executor.submit(say, "quiet")
        future.result(PATIENCE)
        executor.submit(write, 1, b"from C\n", 1).result(PATIENCE)
        ride = executor.workspace.server.openWs("sleigh_ride")
        assert ride.fetch("output@0", timeout=PATIENCE) == "quiet"
    assert future.output == "quiet\n"
    assert capfd.readouterr() == ("", "")


def test_the_report_of_a_crash_has_what_was_captured() -> None:
    with SleighExecutor(1, output="capture") as executor:
        executor.submit(write, 1, b"from C\n", 1).result(PATIENCE)
        error = executor.submit(say_and_die, "last words").exception(PATIENCE)
        assert isinstance(error, WorkerLost)
        assert "from C" in error.stderr


def test_output_can_be_logged(caplog: Any, capfd: Any) -> None:
    caplog.set_level(logging.INFO)
    with SleighExecutor(1, output="log", capture_output=False) as executor:
        executor.submit(say, "one", "two %d").result(PATIENCE)
    records = [record for record in caplog.records if record.name == "sleighexec.output"]
    found = [(r.levelname, r.getMessage(), r.sleigh_worker) for r in records]
    assert found == [("INFO", "one", 0), ("INFO", "two %d", 0)]
    assert capfd.readouterr() == ("", "")


def test_a_function_gets_each_line() -> None:
    lines: list[tuple[int, str]] = []
    with SleighExecutor(2, output=lambda rank, line: lines.append((rank, line))) as executor:
        executor.eachWorker(say, *["a", "b"])
        executor.submit(say, *map(str, range(3000))).result(PATIENCE)
    assert sorted(lines[:4]) == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert [line for _, line in lines[4:]] == list(map(str, range(3000)))


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_function_that_fails_harms_nothing(caplog: Any, error: type[BaseException]) -> None:
    def fail(rank: int, line: str) -> None:
        raise error("not mine")

    with SleighExecutor(1, output=fail) as executor:
        assert executor.submit(say, "one", "two").result(PATIENCE) == 2
    assert [record.exc_info[1].args for record in caplog.records] == [("not mine",)] * 2


def test_output_is_checked() -> None:
    with pytest.raises(ValueError, match=r"output must be .* not 'nowhere'"):
        SleighExecutor(1, output="nowhere")


# ------------------------------------------------------------------ logging


def test_records_arrive_in_the_tree_of_the_caller(caplog: Any, capfd: Any) -> None:
    caplog.set_level(logging.INFO)
    with SleighExecutor(1) as executor:
        executor.submit(log, "a.b", logging.INFO, "%d of %s", 1, "two").result(PATIENCE)
        [record] = caplog.records
        assert (record.name, record.levelname) == ("a.b", "INFO")
        assert record.getMessage() == "1 of two"
        assert record.process == executor.workers()[0].pid
        assert (record.sleigh_worker, record.processName) == (0, "SleighWorker-0")
        assert record.funcName == "log"
    assert capfd.readouterr() == ("", "")


def test_records_carry_nothing_but_plain_values(executor: SleighExecutor, caplog: Any) -> None:
    class Strange:
        def __repr__(self) -> str:
            return "<strange>"

    extra = {"strange": Strange(), "number": 1}
    executor.submit(log, "a", logging.ERROR, "%s", Strange(), extra=extra).result(PATIENCE)
    executor.submit(log_failure).result(PATIENCE)
    first, second = caplog.records
    assert (first.getMessage(), first.strange, first.number) == ("<strange>", "<strange>", 1)
    assert second.exc_info is None
    assert "ValueError: what went wrong" in logging.Formatter().format(second)


def test_a_worker_logs_at_the_levels_of_the_caller(caplog: Any, monkeypatch: Any) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(logging.getLogger("quiet.one"), "level", logging.ERROR)
    with SleighExecutor(1) as executor:
        for name in ("loud", "quiet.one"):
            for level in (logging.DEBUG, logging.INFO, logging.ERROR):
                executor.submit(log, name, level, "x").result(PATIENCE)
        found = [(record.name, record.levelname) for record in caplog.records]
        assert found == [("loud", "INFO"), ("loud", "ERROR"), ("quiet.one", "ERROR")]


def test_what_was_logged_before_a_crash_arrives(executor: SleighExecutor, caplog: Any) -> None:
    def warn_and_die() -> None:
        logging.getLogger("before").warning("watch out")
        os.kill(os.getpid(), signal.SIGKILL)

    assert isinstance(executor.submit(warn_and_die).exception(PATIENCE), WorkerLost)
    assert [record.getMessage() for record in caplog.records] == ["watch out"]


def test_an_initializer_that_fails_is_logged_here(caplog: Any) -> None:
    with SleighExecutor(1, initializer=complain, initargs=("no",)) as executor:
        executor.submit(abs, -1).exception(PATIENCE)
    [record] = caplog.records
    assert (record.name, record.getMessage()) == ("concurrent.futures", "Exception in initializer:")
    assert "ValueError: no" in record.exc_text


def test_a_handler_that_fails_keeps_no_record_from_others(caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    seen: list[str] = []

    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())
            raise SystemExit

    logger, handler = logging.getLogger("failing"), Failing()
    logger.addHandler(handler)
    try:
        with SleighExecutor(1) as executor:
            executor.submit(log_all, "failing", ["one", "two", "three"]).result(PATIENCE)
    finally:
        logger.removeHandler(handler)
    assert seen == ["one", "two", "three"]


def log_all(name: str, messages: list[str]) -> None:
    for message in messages:
        logging.getLogger(name).info(message)


def test_logging_can_be_left_alone(caplog: Any, capfd: Any) -> None:
    with SleighExecutor(1, capture_logging=False) as executor:
        executor.submit(log, "a", logging.ERROR, "to stderr").result(PATIENCE)
    assert caplog.records == []
    assert capfd.readouterr().err == "to stderr\n"


def test_a_record_that_cannot_be_formatted_costs_itself_only(
    executor: SleighExecutor, caplog: Any, capfd: Any
) -> None:
    future = executor.submit(log, "a", logging.ERROR, "%d", "no number")
    assert future.exception(PATIENCE) is None
    assert "Logging error" in future.output
    assert caplog.records == []


# ------------------------------------------------------------------ nothing does harm


def test_binary_output_harms_nothing(executor: SleighExecutor, capfdbinary: Any) -> None:
    junk = bytes(range(256)) * 100

    def spit() -> int:
        sys.stdout.buffer.write(junk)
        sys.stdout.flush()
        return os.write(2, junk)

    assert executor.submit(spit).result(PATIENCE) == len(junk)
    assert executor.submit(say, "\x00 fine").result(PATIENCE) == 1
    assert capfdbinary.readouterr().out.count(junk) == 1


def test_output_of_forked_processes_harms_nothing(caplog: Any, capfd: Any) -> None:
    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            for number in range(1000):
                print(number)
            logging.getLogger("child").warning("from the child")
            sys.stdout.flush()
            os._exit(7)
        print("parent")
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    with SleighExecutor(1) as executor:
        future = executor.submit(fork)
        assert future.result(PATIENCE) == 7
        assert future.output == "parent\n"
    out, err = capfd.readouterr()
    assert "999\n" in out
    assert err == "from the child\n"
    assert caplog.records == []


def test_a_very_long_line_comes_in_pieces() -> None:
    lines: list[str] = []
    text = "0123456789" * 3_000_000
    with SleighExecutor(1, output=lambda _, line: lines.append(line)) as executor:
        future = executor.submit(print, text)
        future.result(PATIENCE)
    assert future.output == f"{text}\n"[-KEPT_TEXT:]
    assert "".join(lines) == text
    assert max(map(len, lines)) == MAX_LINE


@pytest.mark.parametrize("character", ["\U0001f600", "\x00", "\\"])
def test_lines_of_any_script_come_into_the_workspace(character: str) -> None:
    with SleighExecutor(1, output="capture") as executor:
        executor.submit(say, *[character * 300] * 500).result(PATIENCE)
        ride = executor.workspace.server.openWs("sleigh_ride")
        wait_for(lambda: ride.listVars(format="dict")["output@0"][1] == 500, "all are there")
        assert ride.fetch("output@0") == character * 300


def test_text_is_cut_into_pieces() -> None:
    assert cut("") == [""]
    assert cut("x" * MAX_LINE) == ["x" * MAX_LINE]
    assert cut("x" * MAX_LINE + "y") == ["x" * MAX_LINE, "y"]


FLOOD = """
import os, sys
from sleighexec import SleighExecutor

def memory(pid):
    text = open(f"/proc/{pid}/status").read()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024

def flood(descriptor, count):
    os.write(descriptor, b"x")
    piece = bytes(range(256)) * 4096
    return sum(os.write(descriptor, piece) for _ in range(count))

def shout(count):
    for _ in range(count):
        print("y" * 1000)

with SleighExecutor(1, output=OUTPUT) as executor:
    executor.submit(shout, 10).result()
    agent = executor.submit(os.getppid).result()
    before = memory(agent), memory("self")
    assert executor.submit(flood, 1, 1024).result() == 1024**3
    assert executor.submit(flood, 2, 256).result() == 256 * 1024**2
    executor.submit(shout, 20_000).result()
    growth = [memory(agent) - before[0], memory("self") - before[1]]
    assert max(growth) < 32 * 1024**2, growth
"""


@pytest.mark.once
@pytest.mark.parametrize("output", ["'pass'", "'capture'", "lambda rank, line: None"])
def test_endless_output_takes_no_memory(output: str) -> None:
    script = FLOOD.replace("OUTPUT", output)
    with open(os.devnull, "w") as null:
        run = subprocess.run(
            [sys.executable, "-c", script],
            stdout=null,
            stderr=subprocess.PIPE,
            timeout=100,
            check=False,
        )
    assert run.returncode == 0, run.stderr[-3000:]
