"""What joins a terminal of gVisor's kernel to the socket that the server has for it."""

from __future__ import annotations

import fcntl
import os
import selectors
import struct
import termios

_CHUNK = 1 << 16
_MOST_WAITING = 1 << 17


class Pump:
    """Passes on what is typed and what is shown, until nobody has the terminal open any more."""

    def __init__(
        self, stream: int, size: tuple[int, int], owner: int, selector: selectors.BaseSelector
    ) -> None:
        """Make a terminal.

        Args:
            stream: A socket to the server; it is taken over.
            size: Columns and rows.
            owner: The user whom the terminal belongs to.
            selector: Attends to both.
        """
        self._stream = stream
        self._selector = selector
        self._master, self.slave = os.openpty()
        self.resize(*size)
        os.fchown(self.slave, owner, 5)
        self._typed = b""
        self._shown = b""
        self._hung_up = False
        for fd in (stream, self._master):
            os.set_blocking(fd, False)
        self._attend()

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def flush(self) -> None:
        """Pass on what has been shown so far, as far as there is room for it."""
        while self._master >= 0 and len(self._shown) < _MOST_WAITING and self._read_master():
            self._write_stream()

    def finish(self) -> None:
        """Pass on the rest, waiting for who reads it: all users of the terminal have ended."""
        self.flush()
        os.set_blocking(self._stream, True)
        while not self._hung_up and (self._shown or (self._master >= 0 and self._read_master())):
            self._write_stream()

    def _serve_master(self) -> None:
        self._read_master()
        self._write_stream()
        self._attend()

    def _serve_stream(self) -> None:
        try:
            data = os.read(self._stream, _CHUNK) if len(self._typed) < _MOST_WAITING else None
        except BlockingIOError:
            data = None
        except OSError:
            data = b""
        if data == b"":
            self._hang_up()
            return
        self._typed += data or b""
        self._write_stream()
        self._write_master()
        self._attend()

    def _write_master(self) -> None:
        if self._typed and self._master >= 0:
            try:
                self._typed = self._typed[os.write(self._master, self._typed) :]
            except BlockingIOError:
                pass
            except OSError:
                self._typed = b""

    def _read_master(self) -> bool:
        self._write_master()
        try:
            data = os.read(self._master, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self._shown += data
        return bool(data)

    def _write_stream(self) -> None:
        if self._shown and not self._hung_up:
            try:
                self._shown = self._shown[os.write(self._stream, self._shown) :]
            except BlockingIOError:
                pass
            except OSError:
                self._hang_up()

    def _hang_up(self) -> None:
        """The server has gone: so has whoever sat at the terminal."""
        if not self._hung_up:
            self._hung_up = True
            for fd in (self._stream, self._master):
                self._watch(fd, 0, self._serve_master)
            os.close(self._master)
            self._master = -1

    def _attend(self) -> None:
        if not self._hung_up:
            shown = selectors.EVENT_READ if len(self._shown) < _MOST_WAITING else 0
            typed = selectors.EVENT_READ if len(self._typed) < _MOST_WAITING else 0
            written = selectors.EVENT_WRITE
            self._watch(self._master, shown | (written if self._typed else 0), self._serve_master)
            self._watch(self._stream, typed | (written if self._shown else 0), self._serve_stream)

    def _watch(self, fd: int, events: int, serve: object) -> None:
        registered = fd in self._selector.get_map()
        if events and registered:
            self._selector.modify(fd, events, serve)
        elif events:
            self._selector.register(fd, events, serve)
        elif registered:
            self._selector.unregister(fd)
