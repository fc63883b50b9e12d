"""What the tests of commands in real sandboxes share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sandbox_sync import Sandbox


def until(condition: Callable[[], object], within: float = 10.0) -> None:
    """Wait for something that has no event to wait for."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def sleeping(sandbox: Sandbox, *marks: str) -> bool:
    """Whether a `sleep` of one of these marks runs anywhere in the sandbox, listed or not."""
    found = sandbox.commands.run(
        f"grep -alsE '^sleep.({'|'.join(marks)})' /proc/[0-9]*/cmdline", check=False, user="root"
    )
    return found.exit_code == 0


def threads(beginning: str = "sandbox-sync-") -> list[str]:
    """The threads of this process that the SDK has started and that have not ended."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(beginning)]
