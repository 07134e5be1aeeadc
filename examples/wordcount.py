"""Count the words of many text files, first one after the other and then with the executor.

    python wordcount.py [--all] [FOLDER]

Without a folder it reads Python's standard library without what was installed into it. It reads
the files of the folder and of the folders directly in it, so that it is done in a few seconds;
`--all` goes down to the last one. Times and progress, which differ from run to run, go to
standard error.
"""

import argparse
import re
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

from sleighexec import SleighExecutor

WORD = re.compile(r"[^\W\d_]+")
SUFFIXES = (".py", ".txt", ".rst")
INSTALLED = {"site-packages", "dist-packages"}
PART_BYTES = 250_000  # of files in one task: its counts are added up where they were made


def count_words(paths):
    """How often each word occurs in some files."""
    counts = Counter()
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        counts.update(WORD.findall(text.lower()))
    return counts


def find_files(folder, everything):
    """The text files of a folder and of the next one down, or of all below it."""
    paths = folder.rglob("*") if everything else [*folder.glob("*"), *folder.glob("*/*")]
    return sorted(
        path
        for path in paths
        if path.suffix in SUFFIXES
        and path.is_file()
        and INSTALLED.isdisjoint(path.relative_to(folder).parts)
    )


def cut(paths):
    """Rows of files that are about equally long."""
    parts, size = [[]], 0
    for path in paths:
        if size > PART_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(path)
        size += path.stat().st_size
    return parts


def count_all(map_function, parts, label):
    """The words of all files, with a progress line and the time it took."""
    started, total = time.perf_counter(), Counter()
    for done, counts in enumerate(map_function(count_words, parts), start=1):
        total.update(counts)
        if sys.stderr.isatty():
            print(f"\r{label}: part {done} of {len(parts)}", end="", file=sys.stderr, flush=True)
    start = "\r" if sys.stderr.isatty() else ""
    seconds = time.perf_counter() - started
    print(f"{start}{label}: {len(parts)} parts in {seconds:.2f} s", file=sys.stderr)
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=sysconfig.get_path("stdlib"))
    parser.add_argument("--all", action="store_true", help="read all folders below")
    options = parser.parse_args()

    parts = cut(find_files(options.folder, options.all))
    serial = count_all(map, parts, "one by one")
    with SleighExecutor() as executor:
        parallel = count_all(executor.map, parts, "executor")
    assert parallel == serial
    common = ", ".join(f"{word} {count}" for word, count in serial.most_common(5))
    print(f"{serial.total()} words, {len(serial)} different; {common}", file=sys.stderr)
    print("both ways count the same words")


if __name__ == "__main__":
    main()

# prints: both ways count the same words
