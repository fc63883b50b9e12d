"""A hundred commands of a second at once: one after the other they would take a hundred seconds."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from client import report

MOST = 2.0
ROUNDS = 3
# A command through an SDK is a request, an answer and a process: at most so many times the work of a process
# alone. It counts where the machine has so much else to do that even that takes its time.
WORK = 8

# What they take with no SDK and no sandbox: a second, and what the machine needs for so many processes.
BARE = """
import subprocess, time
begin = time.monotonic()
started = [subprocess.Popen(["/bin/bash", "-c", "sleep 1"]) for _ in range(100)]
for process in started:
    process.wait()
print(time.monotonic() - begin)
"""


def report_best(right_answers: Callable[[], int]) -> NoReturn:
    """Report the best of some rounds, each of which tells how many got their own answers."""
    rounds: list[float] = []
    # Other work on the machine may slow a round down.
    while len(rounds) < ROUNDS and MOST <= min(rounds, default=9) < 20:
        begin = time.monotonic()
        right = right_answers()
        rounds.append(time.monotonic() - begin)
        if right < 100:
            report(False, f"{right} of 100 got their own answers")
    best = min(rounds)
    if best < MOST:
        report(True, f"{best:.1f} s")
    done = subprocess.run(
        [sys.executable, "-c", BARE], capture_output=True, text=True, timeout=20, check=True
    )
    bare = float(done.stdout)
    report(best < 1 + WORK * (bare - 1), f"{best:.1f} s, where the machine takes {bare:.1f} s without an SDK")
