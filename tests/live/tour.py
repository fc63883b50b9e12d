"""One of everything that a sandbox is used for, over whatever network leads to it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

from sandbox_sync import Sandbox

BLOCK = b"0123456789abcdef" * 4096


def _blocks() -> Iterator[bytes]:
    for _ in range(20):
        yield BLOCK


def _background(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("cat; exit 0", background=True, stdin=True)
    handle.send_stdin("through and back\n")
    assert handle.pid in [process.pid for process in sandbox.commands.list()]
    again = sandbox.commands.connect(handle.pid)
    handle.close_stdin()
    assert handle.wait(timeout=20).stdout == "through and back\n"
    assert again.wait(timeout=20).exit_code == 0


def _kill_command(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("sleep 60", background=True)
    assert sandbox.commands.kill(handle.pid) is True


def _stream(sandbox: Sandbox) -> None:
    first = threading.Event()
    seen: list[str] = []

    def note(text: str) -> None:
        seen.append(text)
        first.set()

    handle = sandbox.commands.run("echo one; read x; echo two", background=True, stdin=True, on_stdout=note)
    assert first.wait(20), "output is held back on its way"
    handle.send_stdin("\n")
    handle.wait(timeout=20)
    assert "".join(seen) == "one\ntwo\n"


def _large_file(sandbox: Sandbox) -> None:
    sandbox.files.write("large", _blocks())
    assert sandbox.files.read("large", format="bytes") == BLOCK * 20
    assert b"".join(sandbox.files.read("large", format="stream")) == BLOCK * 20
    sandbox.files.write("large", io.BytesIO(BLOCK))
    assert sandbox.files.get_info("large").size == len(BLOCK)


ENTRIES: dict[str, Callable[[Sandbox], Any]] = {
    "run": lambda sandbox: sandbox.commands.run("echo hello"),
    "background": _background,
    "kill a command": _kill_command,
    "stream": _stream,
    "write": lambda sandbox: sandbox.files.write("a.txt", "text"),
    "read": lambda sandbox: sandbox.files.read("a.txt"),
    "list files": lambda sandbox: sandbox.files.list("."),
    "large file": _large_file,
    "is running": lambda sandbox: sandbox.is_running(),
}
"""What goes to the sandbox itself; "read" reads what "write" has written."""

CONTROL: dict[str, Callable[[Sandbox], Any]] = {
    "info": lambda sandbox: sandbox.get_info(),
    "set timeout": lambda sandbox: sandbox.set_timeout(300),
    "connect": lambda sandbox: sandbox.connect(),
}
"""What goes to the control plane."""


def take(**options: Any) -> None:
    """Make a sandbox with these options, do everything with it, and end it."""
    sandbox = Sandbox.create(timeout=120, **options)
    try:
        for go in (*CONTROL.values(), *ENTRIES.values()):
            go(sandbox)
        assert sandbox.sandbox_id in [known.sandbox_id for known in Sandbox.list(**options)]
        attached = Sandbox.connect(sandbox.sandbox_id, **options)
        assert attached.files.read("a.txt") == "text"
    finally:
        assert sandbox.kill() is True
    assert sandbox.is_running() is False
