"""Whether grpcio can be used in this process, and if not, why; Connect takes its place then.

It is asked at every call, for a fork or a patch may come after the first. Nothing of grpcio is loaded here.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import NamedTuple

from sandbox_sync.errors import ForkedWithActiveStreamException, SandboxException
from sandbox_sync.transport import forks
from sandbox_sync.transport.green import eventlet_patched


class Obstacle(NamedTuple):
    """Why gRPC cannot be used in this process.

    Attributes:
        why: The reason, in words.
        remedy: What to do where Connect cannot take its place.
        error: The error for that case.
        level: How loudly it is logged that Connect takes its place.
    """

    why: str
    remedy: str
    error: type[SandboxException]
    level: int = logging.WARNING


_EVENTLET = Obstacle(
    "grpcio does not work under eventlet", "use a server that speaks Connect", SandboxException
)
_ENDING = Obstacle(
    "gRPC needs threads, which Python starts no more while a program ends",
    "use a server that speaks Connect, or make the calls before",
    SandboxException,
    logging.INFO,  # the last calls of a program are no reason to change it
)

_fork: Obstacle | None = None
_told_in = 0  # the process that has logged it; a fork is another one


def forked_badly(why: str) -> None:
    """Note that this process was forked at a moment, or with a setting, that gRPC does not survive."""
    global _fork
    _fork = Obstacle(
        why,
        "fork before the first call over gRPC or while none is in progress, or start processes with "
        'multiprocessing\'s "spawn" or "forkserver"',
        ForkedWithActiveStreamException,
    )


def obstacle() -> Obstacle | None:
    """What keeps this process from using gRPC; None if nothing does."""
    forks.check()
    if eventlet_patched():
        return _EVENTLET
    return _ENDING if _is_ending() else _fork


def _is_ending() -> bool:
    """Whether a function of atexit runs here, in a Python that lets those start no thread."""
    main = threading.main_thread()
    return sys.version_info >= (3, 12) and threading.current_thread() is main and not main.is_alive()


def grpc_is_usable(logger: logging.Logger) -> bool:
    """Whether nothing keeps this process from using gRPC.

    Args:
        logger: Is told otherwise, once in a process, and that Connect takes its place.
    """
    global _told_in
    found = obstacle()
    if found is None:
        return True
    if _told_in != os.getpid():
        _told_in = os.getpid()
        logger.log(found.level, '%s; transport="connect" is used instead of "grpc"', found.why)
    return False
