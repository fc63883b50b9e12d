"""One process from its start to its end: its output read and handed out, its input, its signals."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import NamedTuple

from sandbox_sync_rpc.process_pb2 import ProcessConfig, ProcessEvent

from sandbox_local.envd.fanout import Fanout
from sandbox_local.envd.input import Input
from sandbox_local.isolation.base import Exit, Process

_EVENT_SIZE = {"stdout": 32 << 10, "stderr": 32 << 10, "pty": 16 << 10}
_READ = 256 << 10  # bytes taken from one stream before the others get their turn
_REST = 1 << 20  # bytes taken at most from a stream that is not waited for: no pipe holds more


class Data(NamedTuple):
    """A piece of output: `stream` is "stdout", "stderr" or "pty"."""

    stream: str
    chunk: bytes


Event = Data | ProcessEvent.EndEvent


class Running:
    """A process that runs, or has exited while another holds its output open.

    Attributes:
        process: The process in the box.
        config: As it was asked for, until it ends.
        tag: The name that the client gave it, or None.
        input: Its standard input or terminal; None when that is /dev/null.
        output: Hands out its events; the last is its end.
        ended: Resolves with the end event; cancelled when the box ends first.
    """

    def __init__(self, process: Process, config: ProcessConfig, tag: str | None, *, keep: int = 0) -> None:
        """Take a process over, with its descriptors. Nothing is read before `begin`.

        Args:
            process: The process in the box.
            config: As it was asked for.
            tag: The name that the client gave it, or None.
            keep: Bytes of its first output to keep for those who ask for it again.
        """
        self.process = process
        self.config = config
        self.tag = tag
        self.output: Fanout[Event] = Fanout(self._pause, self._resume, keep)
        self.ended: asyncio.Future[ProcessEvent.EndEvent] = asyncio.get_running_loop().create_future()
        streams = {"stdout": process.stdout, "stderr": process.stderr, "pty": process.pty}
        self._streams = {name: fd for name, fd in streams.items() if fd is not None}
        # The terminal is one descriptor for both directions; each has its own to close.
        fd = process.stdin if process.pty is None else os.dup(process.pty)
        self.input = None if fd is None else Input(fd)
        self._reading = False
        self._waits_for_output = True

    @property
    def has_terminal(self) -> bool:
        return self.process.pty is not None

    def begin(self) -> None:
        """Begin to read, and to wait for the end."""
        self._resume()
        self.process.exit.add_done_callback(lambda _: self._settle())

    async def terminate(self) -> None:
        """Send SIGTERM to the process itself and stop waiting for its output."""
        self._waits_for_output = False
        await self.process.signal(signal.SIGTERM)
        self._settle()

    async def kill(self) -> None:
        """End the process with all its descendants and stop waiting for its output."""
        self._waits_for_output = False
        await self.process.kill_tree()
        self._settle()

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of the terminal; the process is told by SIGWINCH."""
        self.process.resize(columns & 0xFFFF, rows & 0xFFFF)

    def abandon(self, error: BaseException) -> None:
        """End every reader with an exception, because the box has gone."""
        if not self.ended.done():
            self.ended.cancel()
            self._close(error)

    def _settle(self) -> None:
        """End when the process has exited and, unless nobody waits for that, its output too."""
        exited = self.process.exit
        if self.ended.done() or not exited.done():
            return
        error = exited.exception()
        if error is not None:
            self.abandon(error)
            return
        if self._streams and self._waits_for_output:
            return
        for name in list(self._streams):
            self._read(name, _REST)
        end = end_event(exited.result())
        self.ended.set_result(end)
        self._close(end)

    def _close(self, last: Event | BaseException) -> None:
        for name in list(self._streams):
            self._close_stream(name)
        if self.input is not None:
            self.input.close()
        self.config = ProcessConfig()  # it may be large, and what has ended is kept for a while
        self.output.finish(last)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            for fd in self._streams.values():
                asyncio.get_running_loop().remove_reader(fd)

    def _resume(self) -> None:
        if not self._reading:
            self._reading = True
            for name, fd in self._streams.items():
                asyncio.get_running_loop().add_reader(fd, self._readable, name)

    def _readable(self, name: str) -> None:
        if self._read(name, _READ):
            self._close_stream(name)
            self._settle()

    def _read(self, name: str, limit: int) -> bool:
        """Publish what a stream has, up to a limit in bytes; True when it has ended."""
        while limit > 0:
            try:
                chunk = os.read(self._streams[name], _EVENT_SIZE[name])
            except BlockingIOError:
                return False
            except OSError:
                return True  # EIO: nobody has the terminal open any more
            if not chunk:
                return True
            limit -= len(chunk)
            self.output.publish(Data(name, chunk), len(chunk))
        return False

    def _close_stream(self, name: str) -> None:
        fd = self._streams.pop(name)
        if self._reading:
            asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)


def end_event(how: Exit) -> ProcessEvent.EndEvent:
    """The end event of a process that ended so, in the words of Go's os.ProcessState."""
    if how.signal is None:
        code = how.code or 0
        status = f"exit status {code}"
        return ProcessEvent.EndEvent(
            exit_code=code, exited=True, status=status, error=status if code else None
        )
    try:
        name = (signal.strsignal(how.signal) or "").lower()
    except ValueError:
        name = ""
    status = f"signal: {name or how.signal}" + (" (core dumped)" if how.core_dumped else "")
    return ProcessEvent.EndEvent(exit_code=-1, exited=False, status=status, error=status)
