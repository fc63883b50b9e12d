"""Tasks in the processes of a Celery worker answer, after the worker's parent has made the same calls.

usage: celery_prefork.py same|new

The broker is a directory: what is tried is the worker's fork, which is the same with every broker.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_init
from client import Sandbox, report, sandbox

PROCESSES = 2

variant = sys.argv[1]
directory = Path(os.environ.get("BROKER_DIRECTORY") or tempfile.mkdtemp(prefix="celery-"))
queue = {name: str(directory) for name in ("data_folder_in", "data_folder_out", "control_folder")}
app = Celery("celery_prefork", broker="filesystem://", backend=f"file://{directory}")
app.conf.update(
    broker_transport_options={**queue, "polling_interval": 0.05},
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
)
box: Any = None


@worker_init.connect
def use(**_: object) -> None:
    """Make calls of both kinds in the worker's parent."""
    global box
    box = sandbox()
    Sandbox.get_info(box.sandbox_id)
    box.commands.run("true")


@app.task(name="answer", time_limit=20)
def answer() -> str:
    """Use the parent's sandbox or a new one."""
    if variant == "same":
        return str(box.commands.run("echo child").stdout)
    with sandbox() as other:
        return str(other.commands.run("echo child").stdout)


def main() -> None:
    """Start the worker and send it tasks."""
    options = ["--pool", "prefork", "--concurrency", str(PROCESSES), "--loglevel", "ERROR"]
    quick = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    worker = subprocess.Popen(
        [sys.executable, __file__, variant, "worker", *options, *quick],
        env={**os.environ, "BROKER_DIRECTORY": str(directory)},
        stdout=sys.stderr,
    )
    try:
        app.control.ping  # noqa: B018
        sent = [answer.delay() for _ in range(2 * PROCESSES)]
        begun = time.monotonic()
        answers = [result.get(timeout=20, interval=0.05) for result in sent]
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was seen
        report(False, f"{type(error).__name__}: {error}"[:100])
    finally:
        worker.kill()
        worker.wait()
    report(answers == ["child\n"] * len(sent), f"{len(sent)} tasks in {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    if sys.argv[2:]:
        app.start(sys.argv[2:])
    else:
        main()
