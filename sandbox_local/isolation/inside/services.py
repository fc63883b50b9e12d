"""What the first process of a box does for the server beside running commands: files and ports."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable

from sandbox_local.isolation import syscalls
from sandbox_local.isolation.files import worker as file_worker


def connect(host: str, port: int) -> int:
    """A descriptor of a connection to an address as this network namespace sees it, maybe still under way.

    Raises:
        OSError: It failed at once.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    number = sock.connect_ex((host, port))
    fd = sock.detach()
    if number not in (0, errno.EINPROGRESS):
        os.close(fd)
        raise OSError(number, os.strerror(number))
    return fd  # whoever gets it will see how it goes on


def start_file_worker(confine: Callable[[], None], root: str = "/") -> tuple[int, int]:
    """Fork the process that does file operations.

    Args:
        confine: Called by it before it does anything.
        root: The directory that is its root.

    Returns:
        Its process id, and a descriptor of the socket that it serves.

    Raises:
        OSError: The box may have no more processes or descriptors.
    """
    servers, workers = socket.socketpair()
    with servers, workers:
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                os.setpgid(0, 0)
                syscalls.close_all_but(workers.fileno())
                os.chroot(root)
                os.chdir("/")
                confine()
                file_worker.serve(workers)
            finally:
                os._exit(0)
        return pid, servers.detach()
