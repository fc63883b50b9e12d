"""Whether this program's sockets are those of gevent or eventlet; neither is ever imported to find out."""

from __future__ import annotations

import sys


def gevent_patched() -> bool:
    """Whether gevent has replaced the sockets of this program."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


def eventlet_patched() -> bool:
    """Whether eventlet has replaced the sockets of this program."""
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and bool(patcher.is_monkey_patched("socket"))
