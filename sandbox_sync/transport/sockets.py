"""Sockets that keep to a deadline.

A plain socket's timeout starts anew with each read, so a server that drips a byte now and then is never too
slow for it. The sockets here are given a `TimeLimit` and measure all they do against it.
"""

from __future__ import annotations

import math
import os
import select
import socket
import ssl
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sandbox_sync.deadlines import Deadline
from sandbox_sync.transport import forks, threads
from sandbox_sync.transport.signals import look_after

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")

# Seconds by which the kernel's timeout may be off before it is worth a system call to set it again.
_SLACK = 0.02

# Bytes that the kernel sends of a file before the time is looked at again.
_AT_ONCE = 8 << 20

# More seconds than any program lives, and fewer than the system's calls can be given.
_LONGEST = 1e9


class TimeLimit:
    """A deadline and the longest silence, which together say how long an operation may take.

    Args:
        deadline: When everything has to be done.
        silence: Seconds for which the other side may be silent; None for any time.

    Attributes:
        deadline: As given.
        silence: As given.
    """

    __slots__ = ("deadline", "silence")

    def __init__(self, deadline: Deadline, silence: float | None = None) -> None:
        self.deadline = deadline
        self.silence = silence

    def left(self) -> float | None:
        """Seconds that an operation which begins now may take; None for any time."""
        remaining = self.deadline.remaining()
        if remaining is None or (self.silence is not None and self.silence < remaining):
            remaining = self.silence
        return None if remaining is None else min(remaining, _LONGEST)


def time_limit(deadline: Deadline, silence: float | None = None) -> TimeLimit | None:
    """What these bounds come to: None when there are none."""
    return None if silence is None and deadline.is_never else TimeLimit(deadline, silence)


class DeadlineSocket(socket.socket):
    """A socket whose operations end at a deadline, all of them together."""

    # A default of the class, because the ssl module makes its sockets without calling __init__.
    _limit: TimeLimit | None = None

    def bound(self, limit: TimeLimit | None) -> None:
        """Set what bounds all operations from now on, in place of what did before."""
        self._limit = limit
        if limit is None:
            super().settimeout(None)

    def settimeout(self, value: float | None) -> None:
        """Set seconds for all operations together, as libraries do."""
        self._limit = TimeLimit(Deadline.after(value)) if value else None
        super().settimeout(value)

    def _left(self) -> float | None:
        """Seconds that an operation which begins now may take; None for any time.

        Raises:
            TimeoutError: There are none.
        """
        left = None if self._limit is None else self._limit.left()
        if left is not None and left <= 0:
            raise TimeoutError("timed out")
        return left

    def begin(self) -> None:
        """Give the operation that follows the time that is left.

        Raises:
            TimeoutError: None is.
        """
        self._allow(self._left())

    def _allow(self, left: float | None) -> None:
        """Let the operation that follows take so long."""
        now = self.gettimeout()
        if now != left and (now is None or left is None or abs(left - now) > _SLACK):
            super().settimeout(left)

    def _read(self, read: Callable[[], T]) -> T:
        """Read when there is something to read."""
        left, look = self._left(), look_after()
        if look is not None:
            ends = None if left is None else time.monotonic() + left
            while left is None or left > look:
                self._allow(look)
                try:
                    return read()
                except TimeoutError:
                    left = None if ends is None else max(ends - time.monotonic(), 0.001)
        self._allow(left)
        return read()

    # Further arguments are passed on as they come: those of the sockets that gevent puts in place are others.

    def recv_into(self, buffer: Buffer, *options: Any, **named: Any) -> int:
        return self._read(partial(super().recv_into, buffer, *options, **named))

    def recv(self, buflen: int = 1024, *options: Any, **named: Any) -> bytes:
        return self._read(partial(super().recv, buflen, *options, **named))

    def send(self, data: Buffer, *options: Any, **named: Any) -> int:
        self.begin()
        return super().send(data, *options, **named)

    def sendall(self, data: Buffer, *options: Any, **named: Any) -> None:
        self.begin()
        super().sendall(data, *options, **named)

    def send_file(self, file: int, start: int, length: int) -> int:
        """Send a part of a file.

        Args:
            file: Its descriptor.
            start: Where the part begins.
            length: How many bytes it has.

        Returns:
            How many were sent: not all if the file ends before, or if the kernel cannot send that file.

        Raises:
            OSError: The connection broke.
        """
        sent = 0
        while sent < length:
            self.begin()
            try:
                count = os.sendfile(self.fileno(), file, start + sent, min(length - sent, _AT_ONCE))
            except BlockingIOError:
                self._wait_for_room()
            except (ConnectionError, TimeoutError):
                raise
            except OSError:
                break
            else:
                if not count:
                    break
                sent += count
        return sent

    def _wait_for_room(self) -> None:
        left = self._left()
        poll = select.poll()
        poll.register(self, select.POLLOUT)
        if not poll.poll(None if left is None else math.ceil(left * 1000)):
            raise TimeoutError("timed out")

    def own(self) -> None:
        """Note that this is the socket of a connection: a child that is forked later closes its copy."""
        _owned.add(self)

    def interrupt(self) -> None:
        """End the connection now, whatever other threads do with it."""
        try:
            # Not SSLSocket's own, which takes the encryption away from under a thread that is reading.
            socket.socket.shutdown(self, socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already

    def is_quiet(self) -> bool:
        """Whether it is open at both ends, and nothing has arrived."""
        try:
            if not hasattr(select, "poll"):  # as where eventlet has replaced what there is
                return not select.select([self], [], [], 0)[0]
            poll = select.poll()
            poll.register(self, select.POLLIN)
            return not poll.poll(0)
        except (OSError, ValueError):
            return False  # it has been closed at this end


class DeadlineSSLSocket(DeadlineSocket, ssl.SSLSocket):
    """The same over TLS; to be an SSLContext's `sslsocket_class`."""

    def do_handshake(self, *options: Any, **named: Any) -> None:
        self.own()  # before it waits for the server: the plain socket that it was made of is none any more
        super().do_handshake(*options, **named)

    def is_quiet(self) -> bool:
        return super().is_quiet() and not self.pending()  # of what has arrived, some may be unpacked already


def dial(host: str, port: int, limit: TimeLimit | None) -> DeadlineSocket:
    """Connect to the first of a host's addresses that answers.

    Args:
        host: Name or address. Names under .localhost are this machine, whatever the resolver says (RFC 6761).
        port: TCP port.
        limit: What bounds all addresses together, each of which gets a fair share; and then the socket.

    Raises:
        OSError: No address answered; socket.gaierror if there is none.
    """
    name = "localhost" if host.endswith(".localhost") else host
    try:
        addresses = _addresses(name, port, limit)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, f"not a host name: {host!r}") from error
    failure = OSError(f"no address for {host!r}")
    for position, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = DeadlineSocket(family, kind, protocol)
        sock.own()
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            left = None if limit is None else limit.left()
            sock.settimeout(None if left is None else max(left, 0.001) / (len(addresses) - position))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            sock.bound(limit)
            return sock
    raise failure


def _addresses(name: str, port: int, limit: TimeLimit | None) -> list[tuple[Any, ...]]:
    """What getaddrinfo() says, for which a thread waits: it heeds neither deadlines nor Ctrl-C.

    Raises:
        TimeoutError: It did not say anything in time. The thread ends when the resolver gives up.
    """
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 - raised by who waits
            answer.append(error)

    if name == "localhost" or _is_address(name):
        ask()  # takes no time
    else:
        threads.aside("sandbox-sync-resolver", ask, None if limit is None else limit.left())
    if not answer:
        raise TimeoutError(f"the name {name!r} was not resolved in time")
    if isinstance(answer[0], Exception):
        raise answer[0]
    found: list[tuple[Any, ...]] = answer[0]
    return found


def _is_address(name: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, name)
        except (OSError, ValueError):
            continue
        return True
    return False


_owned: weakref.WeakSet[DeadlineSocket] = weakref.WeakSet()


def _leave_parents_sockets() -> None:
    """In a forked child: close the copies of the parent's sockets, so that they end when the parent says so.

    detach() needs no lock, unlike the pools that hold the sockets: the parent's threads may have held theirs.
    """
    for sock in list(_owned):
        descriptor = sock.detach()
        if descriptor >= 0:
            os.close(descriptor)
    _owned.clear()


forks.in_child(_leave_parents_sockets)
