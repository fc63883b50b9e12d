"""Tasks in the processes of a Celery worker answer, after the worker's parent has made the same calls.

The broker is a directory: what is tried is the worker's fork, which is the same with every broker.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import TimeoutError as NoAnswer
from celery.signals import worker_init
from client import Sandbox, report, sandbox

PROCESSES = 2
SECONDS = 30

app = Celery("celery_prefork", broker="filesystem://")
box: Any = None


def meet_in(directory: Path) -> None:
    """Send tasks and their results through a directory."""
    queue, results = directory / "queue", directory / "results"
    folders = {f"{name}_folder{end}": str(queue) for name, end in (("data", "_in"), ("data", "_out"))}
    app.conf.update(
        broker_transport_options={**folders, "control_folder": str(directory), "polling_interval": 0.05},
        result_backend=f"file://{results}",
        worker_prefetch_multiplier=1,
    )


@worker_init.connect
def use(**_: object) -> None:
    """Make calls of both kinds in the worker's parent."""
    global box
    box = sandbox()
    Sandbox.get_info(box.sandbox_id)
    box.commands.run("true")


@app.task(name="answer")
def answer() -> str:
    """Use the parent's sandbox, and a new one."""
    first = str(box.commands.run("echo child").stdout)
    with sandbox() as other:
        return first + str(other.commands.run("echo child").stdout)


def send() -> None:
    """Start the worker, send it tasks, and say how they fare."""
    with tempfile.TemporaryDirectory(prefix="celery-") as directory:
        for name in ("queue", "results"):
            Path(directory, name).mkdir()
        meet_in(Path(directory))
        options = ["--pool", "prefork", "--concurrency", str(PROCESSES), "--loglevel", "ERROR"]
        quick = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        worker = subprocess.Popen(
            [sys.executable, __file__, directory, "worker", *options, *quick], stdout=sys.stderr
        )
        try:
            begun = time.monotonic()
            sent = [answer.delay() for _ in range(2 * PROCESSES)]
            answers = [result.get(timeout=SECONDS, interval=0.05) for result in sent]
            took = time.monotonic() - begun
        except NoAnswer:
            report(False, f"a task hung ({SECONDS} s)")
        finally:
            worker.kill()
            worker.wait()
    kept = answers == ["child\n" * 2] * len(sent)
    report(kept, f"{len(sent)} tasks answered {took:.1f} s after the worker's start")


if __name__ == "__main__":
    if sys.argv[1:]:
        meet_in(Path(sys.argv[1]))
        app.start(sys.argv[2:])
    else:
        send()
