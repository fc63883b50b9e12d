"""A web server whose app uses the SDK.

usage: webs.py SERVER answers|hundred|stop|timeout, with one of the servers of servers.py
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from client import Sandbox, report
from hundred import report_best
from servers import START_SECONDS, WORKERS, Answer, Server, others, serving

# Requests that are under way at the same time.
AT_ONCE = 4
# How long an answer may take that takes some hundredths of a second on an idle machine.
QUICK = 5.0

kind, part = sys.argv[1:]


def first(server: Server) -> str:
    """Wait until a worker answers; the id of the sandbox that was made at the import."""
    answer = told(server, lambda: server.ask("/id", seconds=START_SECONDS))
    return answer.text


def told(server: Server, asking: Callable[[], Answer]) -> Answer:
    """An answer, or the end of the program."""
    try:
        answer = asking()
    except OSError as error:
        report(False, f"no answer: {error or type(error).__name__}{said(server)}")
    if answer.status != 200:
        report(False, f"status {answer.status}{said(server)}")
    return answer


def said(server: Server) -> str:
    """The error that the log ends in, for the table; all of it goes to stderr."""
    print(server.log, file=sys.stderr)  # noqa: T201
    errors = [line for line in server.log.splitlines() if "Exception" in line or "Error" in line]
    return f"; {errors[-1].strip()[:80]}" if errors else ""


def answers(server: Server) -> None:
    """Requests to all workers, which run commands in the sandbox that they may share and in new ones."""
    first(server)
    numbers = count()

    def ask(_: int) -> tuple[Answer, bool]:
        number = next(numbers)
        path = ("/same", "/new", "/same", "/background")[number % 4]
        answer = server.ask(path, f"echo {path} {number}", QUICK)
        return answer, answer.text == f"{path} {number}\n"

    seen: list[Answer] = []
    workers: set[int] = set()
    end = time.monotonic() + 2 * QUICK
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while len(workers) < WORKERS and time.monotonic() < end:
            try:
                for answer, right in pool.map(ask, range(16)):
                    if not right:
                        report(False, f"status {answer.status}, and not the caller's answer{said(server)}")
                    seen.append(answer)
            except OSError as error:
                pool.shutdown(cancel_futures=True)
                report(False, f"no answer: {error or type(error).__name__}{said(server)}")
            workers = {answer.worker for answer in seen}
    slowest = max(answer.seconds for answer in seen)
    report(
        len(workers) >= WORKERS,
        f"{len(seen)} answers of {len(workers)} workers, each its caller's, in at most {slowest:.2f} s",
    )


def hundred(server: Server) -> None:
    """A hundred requests at once, each with a command of a second."""
    first(server)
    with ThreadPoolExecutor(100) as pool:

        def answers() -> int:
            asked = [pool.submit(server.ask, "/same", f"sleep 1; echo {n}", 15) for n in range(100)]
            try:
                return sum(job.result().text == f"{n}\n" for n, job in enumerate(asked))
            except OSError as error:
                pool.shutdown(wait=False, cancel_futures=True)
                report(False, f"no answer: {error or type(error).__name__}{said(server)}")

        report_best(answers)


def commands(box: str) -> list[str]:
    """What runs in a sandbox, without what the app has begun in the background."""
    found = [" ".join(info.args) for info in Sandbox.connect(box).commands.list()]
    return [line for line in found if "sleep 50" not in line]


def until(condition: Callable[[], object], seconds: float = QUICK) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def stop(server: Server) -> None:
    """SIGTERM to the first process while a request is under way: that is answered, and nothing is left."""
    box = first(server)
    got: list[str] = []
    under_way = threading.Thread(
        target=lambda: got.append(server.ask("/same", "sleep 1; echo answered", 15).text), daemon=True
    )
    under_way.start()
    if not until(lambda: commands(box)):
        report(False, f"the request's command never ran{said(server)}")
    took = server.stop(signal.SIGTERM, 10)
    if took is None:
        report(False, f"still there after 10 s{said(server)}")
    under_way.join(QUICK)
    until(lambda: not others(), 1)
    left, running, code = others(), commands(box), server.process.returncode
    silent = "Traceback" not in server.log and "Exception" not in server.log
    report(
        got == ["answered\n"] and not left and not running and not code and silent,
        f"ended with {code} after {took:.1f} s, the request {'' if got else 'not '}answered, "
        f"{len(left)} processes and {len(running)} commands left{'' if silent else said(server)}",
    )


def timeout(server: Server) -> None:
    """A request that takes longer than workers may: its worker ends, another takes its place."""
    box = first(server)
    try:
        server.ask("/same", "sleep 40", 15)
    except OSError:
        pass  # the worker has ended under it
    begin = time.monotonic()
    answer = told(server, lambda: server.ask("/same", "echo next", QUICK))
    took = time.monotonic() - begin
    gone = until(lambda: not commands(box))
    report(
        answer.text == "next\n" and gone,
        f"next answer after {took:.2f} s; the command {'has ended' if gone else 'still runs'}",
    )


PARTS = {"answers": answers, "hundred": hundred, "stop": stop, "timeout": timeout}
with serving(kind, *(["--timeout", "2"] if part == "timeout" else [])) as running:
    PARTS[part](running)
