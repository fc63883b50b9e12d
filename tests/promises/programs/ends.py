"""What is left open keeps no interpreter alive, and is not told of.

usage: ends.py handle|watch|with, which starts itself as "ends.py inner …" and looks at how that ends
"""

from __future__ import annotations

import subprocess
import sys
import time

from client import report, sandbox

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


if sys.argv[1] == "inner":
    inner()
else:
    ended = subprocess.run(
        [sys.executable, __file__, "inner", variant], capture_output=True, text=True, timeout=12
    )
    took = time.monotonic() - float(ended.stdout or "-inf")
    said = ended.stderr.strip().rpartition("\n")[2][:80]
    report(took < 1 and not said and ended.returncode == 0, f"ended in {took:.2f} s; {said or 'silent'}")
