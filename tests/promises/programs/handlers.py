"""The SDK installs no signal handler, of Python or below it, and takes none away.

usage: handlers.py
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path


def handlers() -> dict[str, object]:
    """What is called at each signal, and what the kernel knows of it."""
    status = Path("/proc/self/status").read_text().splitlines()
    found: dict[str, object] = {line[:6]: line for line in status if line.startswith(("SigIgn", "SigCgt"))}
    for number in signal.valid_signals():
        found[signal.strsignal(number) or str(number)] = signal.getsignal(number)
    return found


def alarm(*_: object) -> None:
    """The program's own."""


for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, alarm)
# The C library takes two signals for itself when it starts the first thread.
first = threading.Thread(target=handlers)
first.start()
first.join()
before = handlers()

from client import report, sandbox  # noqa: E402

with sandbox() as box:
    box.commands.run("true")
    box.files.write("/tmp/x", "x")
    watch = box.files.watch_dir("/tmp")
    handle = box.commands.run("sleep 30", background=True)
    during = handlers()
    handle.kill()
    watch.stop()

changed = {name for name in before if not before[name] == during[name] == handlers()[name]}
report(not changed, f"changed: {', '.join(sorted(changed))}" if changed else "all as before")
