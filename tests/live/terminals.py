"""A terminal in a sandbox as somebody sees it who sits in front of it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyte

from sandbox_sync import PtyHandle, PtySize, Sandbox

PROMPT = re.compile(r"[\w-]+@[\w-]+:.*[$#]$")


class _Screen(pyte.Screen):
    def select_graphic_rendition(self, *attributes: int, **private: Any) -> None:
        """Colours; what vi asks the terminal with the same letter is no concern of it."""
        if not private:
            super().select_graphic_rendition(*attributes)


class Terminal:
    """The screen of a terminal; its handle is to be set by who makes it with `show` as `on_data`.

    Attributes:
        handle: The terminal.
        shown: All that it has shown, as it came.
    """

    handle: PtyHandle

    def __init__(self, size: PtySize) -> None:
        self.shown = bytearray()
        self._changed = threading.Condition()
        self._screen = _Screen(size.cols, size.rows)
        self._stream = pyte.ByteStream(self._screen)

    def show(self, data: bytes) -> None:
        """Take what the terminal shows."""
        assert type(data) is bytes
        with self._changed:
            self.shown += data
            self._stream.feed(data)
            self._changed.notify_all()

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, without spaces at their ends."""
        with self._changed:
            return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """What stands on the screen."""
        return "\n".join(self.lines).rstrip("\n")

    @property
    def at_prompt(self) -> bool:
        """Whether the shell waits for a command."""
        return PROMPT.search(self.text) is not None

    def resize(self, size: PtySize) -> None:
        """Make the window larger or smaller."""
        with self._changed:
            self._screen.resize(size.rows, size.cols)
        self.handle.resize(size)

    def type(self, keys: str | bytes) -> None:
        """Press keys."""
        self.handle.send_stdin(keys)

    def until(self, condition: Callable[[], object], within: float = 20.0) -> None:
        """Look at the screen until something is so."""
        with self._changed:
            came = self._changed.wait_for(condition, within)
        assert came, f"it did not come about; the screen shows:\n{self.text}"

    def sees(self, *words: str) -> None:
        """Look at the screen until all of these stand on it."""
        self.until(lambda: all(part in self.text for part in words))

    def run(self, command: str) -> str:
        """Have the shell run a command; what it writes, if that fits on the screen."""
        self.until(lambda: self.at_prompt)
        for line in ("clear", command):
            begin = len(self.shown)
            self.type(f"{line}\n")
            self.until(lambda begin=begin: self.at_prompt and b"\n" in self.shown[begin:])  # type: ignore[misc]
        return "\n".join(self.text.split("\n")[1:-1])


@contextmanager
def terminal(sandbox: Sandbox, rows: int = 24, cols: int = 100, **options: Any) -> Iterator[Terminal]:
    """A terminal with a shell that waits for commands."""
    seen = Terminal(PtySize(rows=rows, cols=cols))
    with sandbox.pty.create(PtySize(rows=rows, cols=cols), seen.show, **options) as seen.handle:
        seen.until(lambda: seen.at_prompt)
        yield seen
