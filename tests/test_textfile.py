"""The contract of makefile: a variable as a file of text."""

from __future__ import annotations

import csv
import io

import pytest

from sleighexec import FIFO, LIFO, MULTI, SINGLE, NetWorkSpace, NwsServer, errors


def values(ws: NetWorkSpace) -> list[object]:
    return list(ws.ifindTry("x"))


def fill(ws: NetWorkSpace, *texts: object) -> None:
    for text in texts:
        ws.store("x", text)


# ------------------------------------------------------------------ writing


def test_each_written_line_is_a_value_with_its_newline(ws: NetWorkSpace) -> None:
    with ws.makefile("x", "w") as file:
        assert file.write("one\ntwo\n") == 8
        assert values(ws) == ["one\n", "two\n"]
        file.writelines(["three\n", "\n"])
    assert values(ws) == ["one\n", "two\n", "three\n", "\n"]


def test_text_without_a_newline_waits_for_it(ws: NetWorkSpace) -> None:
    file = ws.makefile("x", "w")
    file.write("on")
    file.write("e")
    assert values(ws) == []
    file.write("\ntwo")
    assert values(ws) == ["one\n"]
    file.close()
    assert values(ws) == ["one\n", "two"]


def test_flush_stores_a_part_of_a_line_and_readers_glue_it_together(ws: NetWorkSpace) -> None:
    with ws.makefile("x", "w") as file:
        file.flush()
        file.write("on")
        file.flush()
        assert values(ws) == ["on"]
        file.flush()
        file.write("e\ntwo\n")
    assert values(ws) == ["on", "e\n", "two\n"]
    assert ws.makefile("x").readlines() == ["one\n", "two\n"]


def test_w_begins_anew_and_a_goes_on(ws: NetWorkSpace) -> None:
    fill(ws, "old\n")
    with ws.makefile("x", "a") as file:
        file.write("more\n")
    assert values(ws) == ["old\n", "more\n"]
    with ws.makefile("x", "w") as file:
        assert values(ws) == []
        file.write("new\n")
    assert values(ws) == ["new\n"]


def test_a_file_that_nobody_closes_stores_its_last_line_when_it_goes(ws: NetWorkSpace) -> None:
    file = ws.makefile("x", "w")
    file.write("last")
    del file
    assert values(ws) == ["last"]


def test_what_could_not_be_stored_is_stored_later(ws: NetWorkSpace) -> None:
    failures = iter([OSError("no way")])
    file = ws.makefile("x", "w")
    store = ws.store

    def fail_once(name: str, text: object) -> None:
        if text == "two\n":
            for failure in failures:
                raise failure
        store(name, text)

    ws.store = fail_once  # type: ignore[method-assign, assignment]
    with pytest.raises(OSError, match="no way"):
        file.write("one\ntwo\nthree\n")
    file.write("")
    assert values(ws) == ["one\n", "two\n", "three\n"]


def test_programs_that_write_text_can_write_to_a_variable(ws: NetWorkSpace) -> None:
    with ws.makefile("x", "w") as file:
        print("a", 1, file=file)
        csv.writer(file, lineterminator="\n").writerows([(1, 2), (3, 4)])
    assert values(ws) == ["a 1\n", "1,2\n", "3,4\n"]
    rows = csv.reader(ws.makefile("x"))
    assert list(rows) == [["a 1"], ["1", "2"], ["3", "4"]]


# ------------------------------------------------------------------ reading


def test_reading_takes_nothing_and_does_not_wait(ws: NetWorkSpace) -> None:
    fill(ws, "one\n", "two\n")
    assert ws.makefile("x").read() == "one\ntwo\n"
    assert ws.makefile("x").read() == "one\ntwo\n"
    assert ws.makefile("y").read() == ""


def test_read_gives_so_many_characters(ws: NetWorkSpace) -> None:
    fill(ws, "ä€", "cd", "ef")
    file = ws.makefile("x")
    assert [file.read(3), file.read(0), file.read(1), file.read(9), file.read(9)] == [
        "ä€c",
        "",
        "d",
        "ef",
        "",
    ]
    assert ws.makefile("x").read(None) == "ä€cdef"


def test_no_more_values_are_looked_at_than_it_takes(ws: NetWorkSpace) -> None:
    fill(ws, "ab", "c\n", 1)
    file = ws.makefile("x")
    assert [file.read(1), file.read(2), file.readline()] == ["a", "bc", "\n"]


def test_readline_gives_a_line_however_it_was_stored(ws: NetWorkSpace) -> None:
    fill(ws, "a", "", "b\nc\n\nd", "e\n", "f")
    file = ws.makefile("x")
    lines = [file.readline() for _ in range(6)]
    assert lines == ["ab\n", "c\n", "\n", "de\n", "f", ""]


def test_readline_with_a_size_gives_no_more_than_that(ws: NetWorkSpace) -> None:
    fill(ws, "abc\n", "d\n")
    file = ws.makefile("x")
    got = [file.readline(size) for size in (2, 0, 9, -1)]
    assert got == ["ab", "", "c\n", "d\n"]


def test_all_ways_to_read_lines_give_the_same(ws: NetWorkSpace) -> None:
    fill(ws, "a\n", "b", "c\nd\n", "e")
    lines = ["a\n", "bc\n", "d\n", "e"]
    assert ws.makefile("x").readlines() == lines
    assert list(ws.makefile("x")) == lines
    assert ws.makefile("x").readlines(3) == lines[:2]
    file = ws.makefile("x")
    assert [next(file), file.read(1), file.readline(), *file] == ["a\n", "b", "c\n", *lines[2:]]


def test_the_end_is_final_for_this_file(ws: NetWorkSpace) -> None:
    fill(ws, "one\n")
    file = ws.makefile("x")
    assert file.read() == "one\n"
    fill(ws, "late\n")
    assert (file.read(), file.readline(), list(file)) == ("", "", [])
    assert ws.makefile("x").read() == "one\nlate\n"


def test_a_deleted_variable_is_the_end(ws: NetWorkSpace) -> None:
    fill(ws, "one\n", "two\n")
    file = ws.makefile("x")
    assert file.readline() == "one\n"
    ws.deleteVar("x")
    assert file.read() == ""


@pytest.mark.parametrize("value", [1, b"bytes\n", None])
def test_what_is_no_text_cannot_be_read_but_loses_nothing_else(
    ws: NetWorkSpace, value: object
) -> None:
    fill(ws, "before", value, " behind\n")
    file = ws.makefile("x")
    assert file.read(0) == ""
    with pytest.raises(ValueError, match=type(value).__name__):
        file.readline()
    assert file.readline() == "before behind\n"


# ------------------------------------------------------------------ opening and closing


@pytest.mark.parametrize("mode", ["rb", "wb", "ab", "r+", "x", "", None])
def test_another_mode_is_refused(ws: NetWorkSpace, mode: str) -> None:
    with pytest.raises(ValueError, match="mode"):
        ws.makefile("x", mode)
    assert ws.listVars() == ""


@pytest.mark.parametrize("mode", ["r", "w", "a"])
def test_opening_declares_a_fifo(ws: NetWorkSpace, mode: str) -> None:
    file = ws.makefile("x", mode)
    assert ws.listVars() == f"x\t0\t0\t0\t{FIFO}"
    assert (file.name, file.mode, file.closed, file.isatty()) == ("x", mode, False, False)
    assert repr(file).startswith(f"<open nws file 'x', mode {mode!r} at 0x")
    file.close()
    assert repr(file).startswith("<closed nws file")


@pytest.mark.parametrize("variable", [LIFO, MULTI, SINGLE])
def test_only_a_fifo_can_be_a_file_but_w_makes_it_one(ws: NetWorkSpace, variable: str) -> None:
    ws.declare("x", variable)
    for mode in ("r", "a"):
        with pytest.raises(errors.ModeError):
            ws.makefile("x", mode)
    with ws.makefile("x", "w"):
        assert ws.listVars().endswith(FIFO)


def test_closing_twice_is_allowed_and_all_else_is_an_error(ws: NetWorkSpace) -> None:
    for mode in ("r", "w"):
        file = ws.makefile("x", mode)
        file.close()
        file.close()
        assert file.closed
        for use in (file.read, file.readline, file.readlines, file.flush, file.__enter__):
            with pytest.raises(ValueError, match="closed"):
                use()
        with pytest.raises(ValueError, match="closed"):
            file.write("x")
        with pytest.raises(ValueError, match="closed"):
            file.writelines(["x"])
        with pytest.raises(ValueError, match="closed"):
            next(file)


def test_a_file_is_read_or_written_not_both(ws: NetWorkSpace) -> None:
    reading, writing = ws.makefile("x"), ws.makefile("x", "a")
    assert (reading.readable(), reading.writable()) == (True, False)
    assert (writing.readable(), writing.writable()) == (False, True)
    for wrong in (lambda: reading.write("x"), lambda: reading.writelines(["x"])):
        with pytest.raises(ValueError, match="mode 'r'"):
            wrong()
    for use in (writing.read, writing.readline, writing.readlines, writing.__next__):
        with pytest.raises(ValueError, match="mode 'a'"):
            use()
    for use in (reading.fileno, reading.tell, lambda: reading.seek(0)):
        with pytest.raises(io.UnsupportedOperation):
            use()
    reading.flush()


def test_only_text_can_be_written(ws: NetWorkSpace) -> None:
    with ws.makefile("x", "w") as file:
        for data in (b"bytes\n", 1, None):
            with pytest.raises(TypeError, match="takes a str"):
                file.write(data)  # type: ignore[arg-type]
    assert values(ws) == []


def test_closing_after_the_server_has_gone_says_that_text_is_lost(
    server: NwsServer, ws: NetWorkSpace
) -> None:
    file = ws.makefile("x", "w")
    file.write("unfinished")
    server.close()
    with pytest.raises(errors.ConnectionLostError):
        file.close()
    assert file.closed
