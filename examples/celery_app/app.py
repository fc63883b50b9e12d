"""A Celery app that runs Python in sandboxes, with Redis at REDIS_URL.

celery --workdir examples/celery_app --app app worker     runs tasks
python examples/celery_app/app.py 'print(6 * 7)'          sends one and prints what came of it
"""

from __future__ import annotations

import os
import sys

from celery import Celery

from sandbox_sync import CommandResult
from sandbox_sync.contrib.celery import SandboxTask

redis = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
app = Celery("sandboxes", broker=redis, backend=redis)
app.conf.update(
    # SANDBOX_LOCAL=1: on this machine. Otherwise E2B_API_KEY and its like say where.
    sandbox_local=os.environ.get("SANDBOX_LOCAL") == "1",
    task_soft_time_limit=60,
    task_time_limit=70,
    broker_connection_retry_on_startup=True,
)


@app.task(bind=True, base=SandboxTask, name="run_code")
def run_code(self: SandboxTask, code: str) -> CommandResult:
    """Run code and return what it printed."""
    self.sandbox.files.write("main.py", code)
    return self.sandbox.commands.run("python3 main.py", timeout=30, check=False)


if __name__ == "__main__":
    result = run_code.delay(sys.argv[1]).get(timeout=120)
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)
    sys.exit(result.exit_code)
