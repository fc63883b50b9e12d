"""The server's end of a socket to the zygote, an agent or a file worker: calls, answers and events."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sandbox_local.isolation import wire
from sandbox_local.isolation.errors import NoAnswer, restore

Answer = tuple[wire.Message, list[int]]

PATIENCE = 30.0
"""Seconds within which whoever does not have much to do answers; a few milliseconds, usually."""

_TURN = 64
"""Reads before everything else gets its turn: who never stops talking must not stop the server."""


class Channel:
    """Asks whoever is at the other end, which is not trusted, and tells what it says on its own."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_event: Callable[[wire.Message], None],
        on_end: Callable[[], None],
        gone: Callable[[], Exception],
        patient: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take over a socket, in a running event loop.

        Args:
            sock: The socket.
            on_event: Called with each message that answers no call.
            on_end: Called once when the other end has closed, or said what can't be understood.
            gone: Makes the error of calls that can't be answered any more.
            patient: Whether a call whose time is over gets the same time again.
        """
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._on_end = on_end
        self._gone = gone
        self._patient = patient
        self._decoder = wire.Decoder()
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Answer]] = {}
        self._unsent: deque[tuple[memoryview, list[int]]] = deque()
        self._open = True
        self._loop.add_reader(sock.fileno(), self._read)

    def number(self) -> int:
        """A number for a call that is to be known before it is made."""
        return next(self._numbers)

    @property
    def is_open(self) -> bool:
        """Whether calls can be made."""
        return self._open

    async def call(
        self,
        op: str,
        args: dict[str, Any],
        fds: Sequence[int] = (),
        *,
        number: int | None = None,
        seconds: float = PATIENCE,
    ) -> Answer:
        """Have something done.

        Args:
            op: What.
            args: Its arguments.
            fds: Descriptors to pass; the caller keeps its own.
            number: From `number`, if need be.
            seconds: How long to wait for the answer.

        Returns:
            The answer, and descriptors that belong to the caller.

        Raises:
            ValueError: The message is too large.
            NoAnswer: None came in time.
            wire.DescriptorsLost: It was done, but its descriptors found no room in this process.
            Exception: What the other end says went wrong, or what `gone` makes.
        """
        if not self._open:
            raise self._gone()
        number = number or self.number()
        frame = wire.encode({"id": number, "op": op, "args": args}, len(fds))
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._calls[number] = answer
        timer = self._loop.call_later(seconds, self._expire, number, seconds)
        try:
            self._send(memoryview(frame), fds)
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and not answer.exception():
                _close_all(answer.result()[1])  # it came in the same moment
            raise
        finally:
            timer.cancel()
            self._calls.pop(number, None)

    def tell(self, message: wire.Message) -> None:
        """Send a message that needs no answer."""
        self._send(memoryview(wire.encode(message, 0)), ())

    def close(self) -> None:
        """Close the socket; calls under way fail."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._decoder.close()
        for _, fds in self._unsent:
            _close_all(fds)
        self._unsent.clear()
        self._sock.close()
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(self._gone())

    def _end(self) -> None:
        self.close()
        self._on_end()

    def _send(self, frame: memoryview, fds: Sequence[int]) -> None:
        if self._unsent:
            self._unsent.append((frame, [os.dup(fd) for fd in fds]))
            return
        try:
            sent = self._sock.sendmsg([frame], wire.ancillary(fds))
        except BlockingIOError:
            self._unsent.append((frame, [os.dup(fd) for fd in fds]))
        except OSError:
            self._end()
            return
        else:
            if sent < len(frame):
                self._unsent.append((frame[sent:], []))
        if self._unsent:
            self._loop.add_writer(self._sock.fileno(), self._flush)

    def _flush(self) -> None:
        while self._unsent:
            frame, fds = self._unsent[0]
            try:
                sent = self._sock.sendmsg([frame], wire.ancillary(fds))
            except BlockingIOError:
                return
            except OSError:
                self._end()
                return
            _close_all(fds)
            if sent < len(frame):
                self._unsent[0] = (frame[sent:], [])
            else:
                self._unsent.popleft()
        self._loop.remove_writer(self._sock.fileno())

    def _read(self) -> None:
        try:
            for _ in range(_TURN):
                if not self._open:
                    return
                try:
                    frame = self._decoder.read(self._sock)
                except wire.DescriptorsLost as lost:
                    self._take_lost(lost)
                else:
                    if frame is not None:
                        self._take(*frame)
        except BlockingIOError:
            pass
        except (EOFError, OSError, wire.WireError):
            self._end()

    def _take(self, message: wire.Message, fds: list[int]) -> None:
        if "event" in message:
            _close_all(fds)
            try:
                self._on_event(message)
            except (LookupError, TypeError, asyncio.InvalidStateError):
                self._end()  # nonsense
            return
        number = message.get("id")
        answer = self._calls.get(number) if isinstance(number, int) else None
        if answer is None or answer.done():
            _close_all(fds)
        elif isinstance(message.get("ok"), dict):
            answer.set_result((message["ok"], fds))
        else:
            _close_all(fds)
            answer.set_exception(restore(message.get("error")))

    def _take_lost(self, lost: wire.DescriptorsLost) -> None:
        number = lost.message.get("id")
        answer = self._calls.get(number) if isinstance(number, int) else None
        if answer is not None and not answer.done():
            answer.set_exception(lost)

    def _expire(self, number: int, seconds: float) -> None:
        answer = self._calls.get(number)
        if answer is None or answer.done():
            return
        if self._patient():
            self._loop.call_later(seconds, self._expire, number, seconds)
        else:
            answer.set_exception(NoAnswer(seconds))


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
