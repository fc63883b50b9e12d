"""A child of os.fork works at once, and its parent goes on.

usage: forks.py same|new
"""

from __future__ import annotations

import sys
import time

from client import Sandbox, forked, report, sandbox

variant = sys.argv[1]
box = sandbox()
Sandbox.get_info(box.sandbox_id)
box.commands.run("true")


def same() -> bool:
    box.files.write("/tmp/child", "x")
    return bool(box.commands.run("echo child").stdout == "child\n")


def new() -> bool:
    with sandbox() as other:
        return bool(other.commands.run("echo child").stdout == "child\n")


started = time.monotonic()
problem = forked(same if variant == "same" else new)
took = time.monotonic() - started
if problem:
    report(False, problem)
answer = box.commands.run("echo parent").stdout
report(answer == "parent\n", f"child done in {took:.2f} s")
