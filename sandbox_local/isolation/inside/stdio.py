"""The pipes and terminals between a command and the server."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
from collections.abc import Iterable

from sandbox_local.isolation.users import User

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_TTY_GROUP = 5


class Streams:
    """Both ends of a command's standard streams.

    Attributes:
        theirs: The command's standard input, output and error.
        ours: The server's ends: output, error and, if it is a pipe, input; or a terminal's master.
    """

    def __init__(self) -> None:
        self.theirs: list[int] = []
        self.ours: list[int] = []

    def close(self) -> None:
        """Close all ends here."""
        close_all(self.theirs)
        close_all(self.ours)


class Devices:
    """What streams are made with, opened before anyone in the box could put something else in its place."""

    def __init__(self) -> None:
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for standard in range(3):
            os.dup2(self._null, standard)  # so far the host's
        self._terminals = os.open("/dev/pts", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def pipes(self, user: User, *, stdin: bool) -> Streams:
        """Pipes that belong to a user, who may thus open /dev/stdout.

        Raises:
            OSError: There are no more descriptors.
        """
        streams = Streams()
        try:
            streams.theirs.append(os.dup(self._null))
            for _ in ("stdout", "stderr"):
                reader, writer = os.pipe()
                streams.ours.append(reader)
                streams.theirs.append(writer)
            if stdin:
                os.close(streams.theirs[0])
                streams.theirs[0], writer = os.pipe()
                streams.ours.append(writer)
            for fd in streams.theirs[0 if stdin else 1 :]:
                _give(fd, user.uid, user.gid)
        except BaseException:
            streams.close()
            raise
        return streams

    def terminal(self, user: User, columns: int, rows: int) -> Streams:
        """A terminal that belongs to a user.

        Raises:
            OSError: There are no more descriptors or terminals.
        """
        flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        streams = Streams()
        try:
            master = os.open("ptmx", flags, dir_fd=self._terminals)
            streams.ours.append(master)
            fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)
            streams.theirs += [slave, os.dup(slave), os.dup(slave)]
            _give(slave, user.uid, _TTY_GROUP)
        except BaseException:
            streams.close()
            raise
        return streams


def _give(fd: int, uid: int, gid: int) -> None:
    try:
        os.fchown(fd, uid, gid)
    except OSError as error:
        if error.errno != errno.EINVAL:  # in a box that has one identity only, all is its own
            raise


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)
