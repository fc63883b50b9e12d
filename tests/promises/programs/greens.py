"""A program patched by gevent or eventlet: a hundred commands of a second do not wait for each other.

usage: greens.py gevent|eventlet
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

spawn: Callable[..., Any]
if sys.argv[1] == "gevent":
    from gevent import monkey, spawn

    monkey.patch_all()
else:
    warnings.simplefilter("ignore")  # of its being deprecated
    import eventlet

    spawn = eventlet.spawn
    eventlet.monkey_patch()

from client import sandbox  # noqa: E402
from hundred import report_best  # noqa: E402

box = sandbox()


def answers() -> int:
    """How many of a hundred got their own answer."""
    jobs = [spawn(box.commands.run, f"sleep 1; echo {n}", timeout=30) for n in range(100)]
    got = [job.get() if sys.argv[1] == "gevent" else job.wait() for job in jobs]
    return sum(result.stdout == f"{n}\n" for n, result in enumerate(got))


report_best(answers)
