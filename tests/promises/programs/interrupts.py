"""A signal is felt while a call blocks.

usage: interrupts.py run|wait|alarm|left|timeout|term|hup
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

from client import report, sandbox, sdk

variant = sys.argv[1]
box = sandbox()
sent = 0.0


def interrupt() -> None:
    global sent
    sent = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)


def alarm(*_: Any) -> None:
    raise KeyboardInterrupt


def host() -> None:
    """A handler of the program's own runs while the call goes on, which ends as if there had been none."""
    ran: list[float] = []
    number = signal.SIGTERM if variant == "term" else signal.SIGHUP
    signal.signal(number, lambda *_: ran.append(time.monotonic()))

    def send() -> None:
        global sent
        sent = time.monotonic()
        os.kill(os.getpid(), number)

    threading.Timer(0.5, send).start()
    answer = box.commands.run("sleep 3; echo whole").stdout
    took = ran[0] - sent
    report(
        took < 0.2 and answer == "whole\n", f"ran after {took:.2f} s; the call ended with {answer.strip()!r}"
    )


def felt() -> None:
    took = time.monotonic() - sent
    report(took < 0.2, f"felt after {took:.2f} s")


if variant in ("term", "hup"):
    host()
handle = box.commands.run("sleep 4", background=True) if variant == "wait" else None
try:
    if variant == "alarm":
        signal.signal(signal.SIGALRM, alarm)
        sent = time.monotonic() + 0.5
        signal.setitimer(signal.ITIMER_REAL, 0.5)
    else:
        threading.Timer(0.5, interrupt).start()
    if handle is not None:
        handle.wait()
    elif variant == "timeout":
        try:
            box.commands.run("sleep 5", timeout=1)
        except sdk.TimeoutException:
            time.sleep(0.2)
    else:
        box.commands.run("sleep 30" if variant == "left" else "sleep 4")
    report(False, "never raised")
except KeyboardInterrupt:
    if variant == "timeout":
        report(True, "raised")
    if variant != "left":
        felt()
    end = time.monotonic() + 1
    while (left := box.commands.list()) and time.monotonic() < end:
        time.sleep(0.02)
    report(not left, f"{len(left)} commands left")
