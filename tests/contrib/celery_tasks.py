"""Tasks that tests send to a worker, beside those of the example."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import current_app, shared_task
from celery.exceptions import SoftTimeLimitExceeded

from sandbox_sync import Sandbox
from sandbox_sync.contrib.celery import SandboxTask

current_app.conf.update(
    sandbox_lease=3,
    result_serializer=os.environ.get("RESULT_SERIALIZER", "json"),
    accept_content=["json", "pickle"],
)

if os.environ.get("USE_IN_PARENT"):
    with Sandbox.create() as box:
        box.commands.run("true")
        Sandbox.list().next_items()


@shared_task(bind=True, base=SandboxTask, name="meet")
def meet(self: SandboxTask, party: str, size: int) -> str:
    """Stay until so many tasks have been here at the same time, each with a sandbox."""
    mine = self.sandbox.sandbox_id
    Path(party, mine).touch()
    while len(os.listdir(party)) < size:
        time.sleep(0.05)
    assert mine == self.sandbox.sandbox_id
    return mine


@shared_task(bind=True, base=SandboxTask, name="models")
def models(self: SandboxTask) -> dict[str, Any]:
    """What the SDK gives."""
    box = self.sandbox
    box.commands.run("sleep 100", background=True)
    return {
        "written": box.files.write("/tmp/file", "x"),
        "entries": box.files.list("/tmp"),
        "info": box.get_info(),
        "processes": box.commands.list(),
        "result": box.commands.run("echo out; echo err >&2; exit 3", check=False),
    }


@shared_task(bind=True, base=SandboxTask, name="fail")
def fail(self: SandboxTask) -> None:
    """End with an exception of the SDK."""
    self.sandbox.commands.run("echo why >&2; exit 3")


@shared_task(bind=True, base=SandboxTask, name="again")
def again(self: SandboxTask, seen: list[str]) -> list[str]:
    """Be retried once."""
    seen.append(self.sandbox.sandbox_id)
    if self.request.retries == 0:
        raise self.retry(args=(seen,), countdown=0)
    return seen


@shared_task(bind=True, base=SandboxTask, name="hang")
def hang(self: SandboxTask) -> None:
    """Run for as long as it may."""
    self.sandbox.commands.run("sleep 1000", timeout=0)


@shared_task(bind=True, base=SandboxTask, name="feel")
def feel(self: SandboxTask) -> float:
    """How long a call that the soft time limit ends takes."""
    box, begun = self.sandbox, time.monotonic()
    try:
        box.commands.run("sleep 1000", timeout=0)
    except SoftTimeLimitExceeded:
        return time.monotonic() - begun
    raise AssertionError("it was not ended")


@shared_task(bind=True, base=SandboxTask, name="persist")
def persist(self: SandboxTask) -> None:
    """Run on whatever the soft time limit says."""
    try:
        self.sandbox.commands.run("sleep 1000", timeout=0)
    except SoftTimeLimitExceeded:
        self.sandbox.commands.run("sleep 1000", timeout=0)


@shared_task(bind=True, base=SandboxTask, name="linger")
def linger(self: SandboxTask, seconds: float) -> str:
    """Take so long."""
    return self.sandbox.commands.run(f"sleep {seconds}; echo done").stdout
