"""The process of one case: takes an order, runs the case, writes its answer to a file."""

from __future__ import annotations

import concurrent.futures
import faulthandler
import functools
import importlib
import json
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from sleighexec.conformance.case import CASES, Make, NotOffered


def maker(executor: str, options: dict[str, Any]) -> Make:
    """Makes executors of a class that is named "module:Class".

    Attributes of what is returned: `executor` and `options`, for scripts that make it once more.
    """
    module, _, name = executor.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    make = functools.partial(_make, found, options)
    make.__dict__.update(executor=executor, options=options)
    return make


def _make(kind: Any, options: dict[str, Any], max_workers: int, **more: Any) -> Any:
    return kind(max_workers=max_workers, **{**options, **more})


def main(order: str) -> int:
    faulthandler.enable()  # a hang is ended by SIGABRT, and shows where it was
    # A shell has its background jobs ignore Ctrl-C, and so would all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    group, name, executor, options, answer = json.loads(order)
    importlib.import_module(f"sleighexec.conformance.cases.{group}")
    [case] = [case for case in CASES if (case.group, case.name) == (group, name)]
    try:
        case.run(maker(executor, options))
    except NotOffered as reason:
        verdict = "skip", str(reason)
    except concurrent.futures.TimeoutError:
        verdict = "hang", traceback.format_exc()
    except BaseException:
        verdict = "fail", traceback.format_exc()
    else:
        verdict = "pass", ""
    Path(answer).write_text(json.dumps(verdict))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
