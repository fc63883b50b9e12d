"""What a promise program knows of the SDK it runs with: the same calls, ours or the official ones.

The program says in its last line whether the promise was kept and what was seen (`report`). The runner gives
the rest by environment: CLIENT, the server's URLs and key, and SANDBOX_SYNC_TRANSPORT for ours.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from typing import Any, NoReturn

NAME = os.environ["CLIENT"]
OURS = NAME != "official"

sdk: Any = importlib.import_module("sandbox_sync" if OURS else "e2b")
Sandbox: Any = sdk.Sandbox


def sandbox(**options: Any) -> Any:
    """A new sandbox, which the server ends soon whatever becomes of the program."""
    return Sandbox.create(**{"timeout": 60, **options})


def report(kept: bool, seen: str) -> NoReturn:
    """Say what was seen, in a few words, and end the program as programs usually end."""
    tell(kept, seen)
    raise SystemExit(0)


def tell(kept: bool, seen: str) -> None:
    """Say what was seen, and go on: for programs whose end is what is looked at."""
    print(json.dumps({"kept": kept, "seen": seen}), flush=True)  # noqa: T201


def forked(work: Callable[[], object], seconds: float = 5.0) -> str:
    """Run `work` in a forked child: "" if it went well, else what happened. A child that hangs is killed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() is not False else 2
        finally:
            os._exit(code)
    return ended(pid, seconds)


def ended(pid: int, seconds: float = 5.0) -> str:
    """How a child ended: "" for well. It is killed if it takes longer."""
    import signal
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            return "" if code == 0 else f"child ended with {code}"
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return f"child hung ({seconds:g} s)"
