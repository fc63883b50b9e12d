"""Whether this program's sockets are those of gevent or eventlet; neither is ever imported to find out."""

from __future__ import annotations

import logging
import sys

_told = False


def gevent_patched() -> bool:
    """Whether gevent has replaced the sockets of this program."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


def eventlet_patched() -> bool:
    """Whether eventlet has replaced the sockets of this program."""
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and bool(patcher.is_monkey_patched("socket"))


def grpc_is_usable(logger: logging.Logger) -> bool:
    """False under eventlet, which grpcio does not support: its calls never return there.

    Args:
        logger: Is told, once in a process, that Connect takes its place.
    """
    global _told
    if not eventlet_patched():
        return True
    if not _told:
        _told = True
        logger.warning('grpcio does not work under eventlet; transport="connect" is used instead of "grpc"')
    return False
