"""What is written to commands in real sandboxes."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox_sync import (
    CommandTimeoutException,
    InvalidArgumentException,
    NotFoundException,
    Sandbox,
    SandboxException,
)

NOBODY = 999_999


@pytest.mark.documented("Commands.send_stdin")
def test_standard_input_can_be_fed_and_closed(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("cat; echo end", background=True, stdin=True)
    handle.send_stdin("text \u20ac\n")
    handle.send_stdin(b"bytes\n")
    handle.send_stdin("")
    sandbox.commands.send_stdin(handle.pid, "by id\n")
    handle.close_stdin()
    assert handle.wait(timeout=10).stdout == "text \u20ac\nbytes\nby id\nend\n"


def test_closing_twice_is_harmless(sandbox: Sandbox) -> None:
    with sandbox.commands.run("cat; sleep 100", background=True, stdin=True) as handle:
        handle.close_stdin()
        handle.close_stdin()


def test_much_input_comes_out_whole(sandbox: Sandbox) -> None:
    data = os.urandom(3_000_000)
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    handle.send_stdin(data)
    handle.close_stdin()
    handle.wait(timeout=20)
    assert handle.stdout_bytes == data


def test_without_stdin_a_command_reads_the_end_at_once_and_input_is_refused(sandbox: Sandbox) -> None:
    """G13: stdin is /dev/null by default, the signature says so; send_stdin without it is a named error."""
    assert inspect.signature(sandbox.commands.run).parameters["stdin"].default is False
    assert sandbox.commands.run("readlink /proc/self/fd/0; cat; echo end").stdout == "/dev/null\nend\n"
    handle = sandbox.commands.run("sleep 100", background=True)
    needing_stdin: list[Callable[[], None]] = [lambda: handle.send_stdin("x"), handle.close_stdin]
    for refused in needing_stdin:
        with pytest.raises(InvalidArgumentException, match=r"stdin=True") as caught:
            refused()
        assert str(handle.pid) in str(caught.value)
    by_ids: list[Callable[[], None]] = [
        lambda: sandbox.commands.send_stdin(handle.pid, "x"),
        lambda: sandbox.commands.stream_input(handle.pid, ["x"]),
    ]
    for by_id in by_ids:
        with pytest.raises(SandboxException, match="stdin"):
            by_id()
    handle.kill()


@pytest.mark.documented("Commands.send_stdin")
def test_input_to_a_command_that_is_gone_is_not_found(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    handle.close_stdin()
    assert handle.wait(timeout=10).exit_code == 0
    calls: list[Callable[[], object]] = [
        lambda: handle.send_stdin("x"),
        lambda: sandbox.commands.send_stdin(NOBODY, "x"),
        lambda: sandbox.commands.send_stdin(NOBODY, ""),
        lambda: sandbox.commands.close_stdin(NOBODY),
        lambda: sandbox.commands.stream_input(NOBODY, []),
        lambda: sandbox.commands.stream_input(NOBODY, itertools.repeat(b"x" * 100_000)),
        lambda: sandbox.commands.connect(NOBODY),
    ]
    for call in calls:
        with pytest.raises(NotFoundException):
            call()
    assert sandbox.commands.kill(NOBODY) is False


def test_input_is_streamed_as_it_comes(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    output = iter(handle)
    seen = []

    def pieces() -> Iterator[str | bytes]:
        for piece in ("one\n", b"two\n", "\u20ac\n"):
            yield piece
            seen.append(next(output)[0])  # it comes back while the call is still being made

    sandbox.commands.stream_input(handle.pid, pieces())
    assert seen == ["one\n", "two\n", "\u20ac\n"]
    handle.send_stdin("still open\n")
    handle.close_stdin()
    assert handle.wait(timeout=10).stdout == "one\ntwo\n\u20ac\nstill open\n"


def test_streamed_input_of_any_size_arrives_whole(sandbox: Sandbox) -> None:
    block = os.urandom(1_000_003)
    parts = [block[:1], b"", block * 7, block, block[:99]]
    handle = sandbox.commands.run("sha256sum", background=True, stdin=True)
    sandbox.commands.stream_input(handle.pid, iter(parts), timeout=0)
    handle.close_stdin()
    assert handle.wait(timeout=20).stdout.split()[0] == hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize(
    "data", ["text", b"bytes", bytearray(b"x"), memoryview(b"x"), 7, None, ["\udc80"], [7]]
)
def test_what_cannot_be_written_is_refused(sandbox: Sandbox, data: Any) -> None:
    with sandbox.commands.run("cat", background=True, stdin=True) as handle:
        with pytest.raises(InvalidArgumentException):
            sandbox.commands.stream_input(handle.pid, data)
        if isinstance(data, (list, int)):
            with pytest.raises(InvalidArgumentException):
                handle.send_stdin(data[0] if isinstance(data, list) else data)  # type: ignore[arg-type]
        handle.send_stdin("goes on")
        handle.close_stdin()
        assert handle.wait(timeout=10).stdout == "goes on"


def test_an_error_of_the_iterable_surfaces_as_it_is(sandbox: Sandbox) -> None:
    class Broken(Exception):
        pass

    error = Broken("of the caller")

    def pieces() -> Iterator[bytes]:
        yield b"x"
        raise error

    with sandbox.commands.run("cat", background=True, stdin=True) as handle:
        with pytest.raises(Broken) as caught:
            sandbox.commands.stream_input(handle.pid, pieces())
        assert caught.value is error


def test_streaming_input_has_a_timeout_of_its_own(sandbox: Sandbox) -> None:
    """G5: the error names the clock that fired, and its value."""
    assert inspect.signature(sandbox.commands.stream_input).parameters["timeout"].default == 60
    with sandbox.commands.run("sleep 100", background=True, stdin=True) as handle:  # does not read
        before = time.monotonic()
        with pytest.raises(CommandTimeoutException, match="timeout") as caught:
            sandbox.commands.stream_input(handle.pid, itertools.repeat(b"x" * 100_000), timeout=0.5)
        assert 0.45 <= time.monotonic() - before < 1.5
        assert (caught.value.clock, caught.value.limit, caught.value.pid) == ("timeout", 0.5, handle.pid)


def test_a_command_that_ends_ends_the_streaming_of_input(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("head -c 10", background=True, stdin=True)
    with pytest.raises(SandboxException):
        sandbox.commands.stream_input(handle.pid, itertools.repeat(b"x" * 100_000), timeout=20)
    assert handle.wait(timeout=10).stdout == "x" * 10


def test_killing_a_command_frees_who_writes_to_it(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("sleep 100", background=True, stdin=True, check=False)
    threading.Timer(0.3, handle.kill).start()
    before = time.monotonic()
    with pytest.raises(SandboxException):
        handle.send_stdin(b"x" * 1_000_000, request_timeout=20)
    assert time.monotonic() - before < 2
