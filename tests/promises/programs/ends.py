"""What is left open keeps no interpreter alive, and is not told of; what fails is.

usage: ends.py hidden
       ends.py handle|watch|with, which starts itself as "ends.py inner …" and looks at how that ends
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from client import report, sandbox

from sandbox_local import LocalServer

variant = sys.argv[-1]


def inner() -> None:
    box = sandbox()
    if variant == "with":
        with box:
            box.commands.run("sleep 30", background=True)
            print(time.monotonic(), flush=True)  # noqa: T201
            raise SystemExit(0)
    left = (
        box.commands.run("sleep 30", background=True) if variant == "handle" else box.files.watch_dir("/tmp")
    )
    print(time.monotonic(), flush=True)  # noqa: T201
    assert left


def hidden() -> None:
    """The sandbox cannot be killed when its block is left by an error: its service has gone."""
    server = LocalServer()
    server.start()
    os.environ.update(server.env)
    try:
        with sandbox():
            server.stop()
            raise KeyError("of the body")
    except Exception as error:  # noqa: BLE001  # which one it is, is what is looked at
        report(type(error) is KeyError, f"{type(error).__name__} was raised")


if sys.argv[1] == "inner":
    inner()
elif variant == "hidden":
    hidden()
else:
    ended = subprocess.run(
        [sys.executable, __file__, "inner", variant], capture_output=True, text=True, timeout=12
    )
    took = time.monotonic() - float(ended.stdout or "-inf")
    said = ended.stderr.strip().rpartition("\n")[2][:80]
    report(took < 1 and not said and ended.returncode == 0, f"ended in {took:.2f} s; {said or 'silent'}")
