"""The processes of a sandbox by their ids: which there are, and the end of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox_sync_rpc import process_pb2

from sandbox_sync._arguments import message
from sandbox_sync.errors import InvalidArgumentException, NotFoundException

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox_sync.transport.envd import EnvdConnection


def selector(pid: int) -> process_pb2.ProcessSelector:
    """The process of this id.

    Raises:
        InvalidArgumentException: It cannot be one.
    """
    if not isinstance(pid, int):  # None would select no process at all
        raise InvalidArgumentException(f"pid has to be a whole number; got {pid!r}")
    return message(process_pb2.ProcessSelector, pid=pid)


def running(envd: EnvdConnection, request_timeout: float | None) -> Sequence[process_pb2.ProcessInfo]:
    """The processes that run and were started by clients.

    Raises:
        SandboxException: The request failed.
    """
    request = process_pb2.ListRequest()
    return envd.unary(envd.process.List, request, request_timeout=request_timeout).processes


def kill(envd: EnvdConnection, pid: int, request_timeout: float | None) -> bool:
    """Kill a process; False if none of that id runs.

    Raises:
        SandboxException: The request failed.
    """
    request = process_pb2.SendSignalRequest(process=selector(pid), signal=process_pb2.SIGNAL_SIGKILL)
    try:
        envd.unary(envd.process.SendSignal, request, request_timeout=request_timeout)
    except NotFoundException:
        return False
    return True
