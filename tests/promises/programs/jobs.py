"""Jobs that are killed, and jobs that have no time left.

usage: jobs.py killed|late, of which the first starts itself as "jobs.py inner"
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from client import OURS, Sandbox, report, sandbox, sdk

LONGEST = 8.0


def is_there(sandbox_id: str) -> bool:
    try:
        Sandbox.get_info(sandbox_id)
    except Exception:  # noqa: BLE001  # each SDK has a class of its own
        return False
    return True


def inner() -> None:
    box = sandbox(timeout=None, lease=3) if OURS else sandbox()
    print(box.sandbox_id, flush=True)  # noqa: T201
    os.kill(os.getpid(), signal.SIGKILL)


def killed() -> None:
    job = subprocess.run([sys.executable, __file__, "inner"], stdout=subprocess.PIPE, text=True, timeout=10)
    sandbox_id = job.stdout.strip()
    assert job.returncode == -signal.SIGKILL
    assert is_there(sandbox_id)
    began = time.monotonic()
    while (left := is_there(sandbox_id)) and time.monotonic() - began < LONGEST:
        time.sleep(0.05)
    took = time.monotonic() - began
    if left:
        Sandbox.kill(sandbox_id)
    report(not left, f"still there after {took:.0f} s" if left else f"gone after {took:.1f} s")


def late() -> None:
    if not hasattr(sdk, "deadline"):
        report(False, "has no such thing")
    box = sandbox()
    handle = box.commands.run("sleep 30", background=True, timeout=0)
    waits: list[Any] = [lambda: box.commands.run("sleep 30"), handle.wait, lambda: list(handle)]
    took = []
    for wait in waits:
        began = time.monotonic()
        try:
            with sdk.deadline(0.5):
                box.files.exists("/tmp")
                wait()
        except sdk.DeadlineExceededException:
            took.append(time.monotonic() - began)
    report(
        len(took) == len(waits) and max(took) < 1.5, f"{len(took)} ended, the last after {max(took):.1f} s"
    )


{"inner": inner, "killed": killed, "late": late}[sys.argv[1]]()
