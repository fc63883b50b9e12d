"""What the SDK gives survives pickle and copy.

usage: pickles.py models|errors|sandbox|worker|failure
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, TimeoutError
from typing import Any

from client import Sandbox, report, sandbox, sdk

variant = sys.argv[-1]


def copies(value: Any) -> Iterator[Any]:
    yield copy.copy(value)
    yield copy.deepcopy(value)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.loads(pickle.dumps(value, protocol))


def run_in(box: Any) -> Any:
    """What a worker process does."""
    return box.commands.run("echo from a worker")


def fail_in(sandbox_id: str) -> None:
    """What a worker process does that fails."""
    Sandbox.connect(sandbox_id).commands.run("echo out; exit 3")


def in_worker(function: Callable[[Any], Any], argument: Any) -> Any:
    """Call it in a process that was not forked from this one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, argument).result(timeout=10)


def look() -> None:
    if variant == "models":
        values = [box.commands.run("true"), Sandbox.get_info(box.sandbox_id), *box.files.list("/")[:1]]
        report(all(repr(c) == repr(v) for v in values for c in copies(v)), "equal after each")
    elif variant == "errors":
        values = []
        calls: list[Callable[[], Any]] = [
            lambda: box.commands.run("exit 3"),
            lambda: box.files.read("/none"),
        ]
        for call in calls:
            try:
                call()
            except Exception as error:  # noqa: BLE001  # which one is not the point
                values.append(error)
        same = all(type(c) is type(v) and str(c) == str(v) for v in values for c in copies(v))
        report(same and len(values) == 2, "same class and text after each")
    elif variant == "worker":
        result = in_worker(run_in, box)
        report(result.stdout == "from a worker\n", f"the worker got {result.stdout!r}")
    elif variant == "failure":
        try:
            in_worker(fail_in, box.sandbox_id)
        except sdk.CommandExitException as error:
            whole = (error.exit_code, error.stdout) == (3, "out\n")
            report(whole, f"exit code {error.exit_code} and {error.stdout!r} arrived")
    else:
        if os.environ["E2B_API_KEY"].encode() in pickle.dumps(box):
            report(False, "the key is in it")
        works = all(c.commands.run("echo x").stdout == "x\n" for c in copies(box))
        report(works, "each copy runs commands; no key in it")


if __name__ == "__main__":
    box = sandbox()
    try:
        look()
    except (TypeError, AttributeError, pickle.PicklingError, BrokenExecutor, TimeoutError) as error:
        report(False, f"{type(error).__name__}: {error}"[:80])
