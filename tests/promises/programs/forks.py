"""Children work at once, whatever their parent has used before, and harm nothing of it.

usage: forks.py rest|run|background|watch|pty       what the parent has used; its child is one of os.fork
       forks.py fork|forkserver|spawn|executor      how the child is made
       forks.py stream|with|exit|calls|streaming|sockets
"""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import os
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from client import OURS, Sandbox, forked, report, sandbox, sdk

TIMES = 20
COUNT = "for n in $(seq 200); do echo $n; sleep 0.01; done"
COUNTED = "".join(f"{n}\n" for n in range(1, 201))


def used(box: Any, kind: str) -> object:
    """Do something in the parent; the result is what stays open."""
    Sandbox.get_info(box.sandbox_id)
    if kind == "background":
        return box.commands.run("sleep 30", background=True)
    if kind == "watch":
        return box.files.watch_dir("/tmp", **({"on_event": print} if OURS else {}))  # theirs takes none
    if kind == "pty":
        return box.pty.create(size=sdk.PtySize(rows=24, cols=80))
    return None if kind == "rest" else box.commands.run("true")


def works(box: Any) -> bool:
    box.files.write("/tmp/child", "x")
    return bool(box.commands.run("echo child").stdout == "child\n")


def works_with_both(box: Any) -> bool:
    with sandbox() as new:
        return works(box) and works(new)


def main_of_process(box: Any) -> None:
    raise SystemExit(0 if works(box) else 2)


def process(box: Any, method: str) -> str:
    context: Any = multiprocessing.get_context(method)
    child = context.Process(target=main_of_process, args=(box,))
    child.start()
    child.join(10)
    if child.exitcode is None:
        child.kill()
        return "child hung (10 s)"
    return f"child ended with {child.exitcode}" if child.exitcode else ""


def executor(box: Any) -> str:
    pool = concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork"))
    jobs = [pool.submit(works, box) for _ in range(4)]
    late = concurrent.futures.wait(jobs, 8).not_done
    for worker in multiprocessing.active_children() if late else ():
        worker.kill()
    return "workers hung (8 s)" if late else "" if all(job.result() for job in jobs) else "wrong answers"


def stream(box: Any) -> str:
    """The parent's output comes whole, though children use the sandbox and exit."""
    output = box.commands.run(COUNT, background=True)
    for _ in range(3):
        if problem := forked(lambda: works(box)):
            return problem
    return "" if output.wait().stdout == COUNTED else "the parent's output was not whole"


def leaves_with(box: Any) -> str:
    """An exception takes a child out of a `with` that its parent has entered."""
    with box:
        child = os.fork()
        if child == 0:
            sys.exit(0)
        os.waitpid(child, 0)
        return "" if works(box) else "wrong answers"


def leaves(box: Any) -> str:
    """Children end in all ways that there are, with a command of the parent's in the background."""
    output = box.commands.run(COUNT, background=True)
    for ending in (sys.exit, os._exit, gc.collect):
        child = os.fork()
        if child == 0:
            if ending is gc.collect:
                del output, box
                gc.collect()
                raise SystemExit
            ending(0)
        if os.waitpid(child, 0)[1]:
            return f"{ending.__name__}: child did not end well"
    return "" if output.wait().stdout == COUNTED and box.is_running() else "the parent's command has ended"


def again(box: Any) -> str:
    """Fork many times; what befell the first child that did not end well."""
    for number in range(1, TIMES + 1):
        if problem := forked(lambda: works(box)):
            return f"{problem}, number {number} of {TIMES}"
    return ""


def calls(box: Any) -> str:
    """Fork while a thread is inside a call."""
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            box.commands.list()

    threading.Thread(target=call, daemon=True).start()
    try:
        return again(box)
    finally:
        over.set()


def streaming(box: Any) -> str:
    """Fork while output streams."""
    output = box.commands.run("while sleep 0.01; do date; done", background=True)
    problem = again(box)
    return problem or ("" if output.kill() else "the parent's command has ended")


def sockets_of_parent(box: Any) -> str:
    """None of the sockets that a child uses, or has, is one of its parent's."""
    held = box.commands.run("sleep 30", background=True)
    mine = open_sockets()
    assert mine
    return forked(lambda: held is not None and works(box) and not mine & open_sockets())


def open_sockets() -> set[str]:
    names = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            names.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return {name for name in names if name.startswith("socket:")}


PROGRAMS = {
    "executor": executor,
    "stream": stream,
    "with": leaves_with,
    "exit": leaves,
    "calls": calls,
    "streaming": streaming,
    "sockets": sockets_of_parent,
}

if __name__ == "__main__":
    variant = sys.argv[1]
    box = sandbox()
    kept = used(box, variant)
    started = time.monotonic()
    if variant in PROGRAMS:
        problem = PROGRAMS[variant](box)
    elif variant in ("fork", "forkserver", "spawn"):
        problem = process(box, variant)
    else:
        problem = forked(lambda: works_with_both(box))
    took = time.monotonic() - started
    if not problem and variant != "with" and box.commands.run("echo parent").stdout != "parent\n":
        problem = "the parent's call failed"
    report(not problem, problem or f"done in {took:.2f} s")
