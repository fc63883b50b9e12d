"""Watches of real sandboxes that cannot be, that end by themselves, and that are ended."""

from __future__ import annotations

import logging
import os
import threading
import time
from itertools import islice
from typing import Any

import pytest

from sandbox_sync import (
    AuthenticationException,
    CommandTimeoutException,
    ConnectionException,
    FileNotFoundException,
    FilesystemEvent,
    InvalidArgumentException,
    RateLimitException,
    Sandbox,
    SandboxException,
    SandboxNotRunningException,
    WatchHandle,
)
from tests.live.command_tools import threads, until

MOST_WATCHES = 64


@pytest.mark.documented("Filesystem.watch_dir")
def test_what_cannot_be_watched_is_a_named_error(sandbox: Sandbox) -> None:
    sandbox.files.write("file", "x")
    calls: list[str] = []

    def on_exit(error: Exception | None) -> None:
        calls.append("on_exit")

    with pytest.raises(InvalidArgumentException, match="ot a directory") as refused:
        sandbox.files.watch_dir("file", print, on_exit)
    assert refused.value.sandbox_id == sandbox.sandbox_id
    with pytest.raises(FileNotFoundException, match="missing"):
        sandbox.files.watch_dir("no/missing", print, on_exit)
    with pytest.raises(AuthenticationException, match="nobody_of_that_name"):
        sandbox.files.watch_dir(".", print, on_exit, user="nobody_of_that_name")
    absurd: list[dict[str, Any]] = [
        {"path": ""},
        {"path": "a\0b"},
        {"path": 5},
        {"path": "~other/x"},
        {"path": ".", "timeout": -1},
        {"path": ".", "timeout": "soon"},
        {"path": ".", "request_timeout": -1},
        {"path": ".", "recursive": "yes"},
    ]
    for arguments in absurd:
        with pytest.raises(InvalidArgumentException):
            sandbox.files.watch_dir(on_exit=on_exit, **arguments)
    assert calls == [], "no watch was begun that could end"
    assert "sandbox-sync-watch" not in threads()


def test_the_limit_of_watches_is_an_error_and_leaves_the_others_alone(sandbox: Sandbox) -> None:
    handles = [sandbox.files.watch_dir(".") for _ in range(MOST_WATCHES)]
    with pytest.raises(RateLimitException, match="stop watching another first") as caught:
        sandbox.files.watch_dir(".")
    assert caught.value.sandbox_id == sandbox.sandbox_id
    sandbox.commands.run("mkdir d")
    for handle in handles:
        assert [event.name for event in handle.poll(timeout=10)] == ["d"]
    handles.pop().stop()
    until(lambda: watch_again(sandbox, handles))
    for handle in handles:
        handle.stop()


def watch_again(sandbox: Sandbox, handles: list[WatchHandle]) -> bool:
    try:
        handles.append(sandbox.files.watch_dir("."))
    except RateLimitException:
        return False
    return True


@pytest.mark.documented("Filesystem.watch_dir")
def test_at_its_timeout_a_watch_ends_with_an_error(sandbox: Sandbox) -> None:
    exits: list[Exception | None] = []
    begin = time.monotonic()
    told: list[FilesystemEvent] = []
    called_back = sandbox.files.watch_dir(".", told.append, exits.append, timeout=1)
    asked = sandbox.files.watch_dir(".", timeout=1)
    sandbox.commands.run("mkdir d")
    for _ in range(2):
        with pytest.raises(CommandTimeoutException, match=r"watch of '\.' has ended") as caught:
            called_back.wait()
    assert 0.95 < time.monotonic() - begin < 10, "neither before its time nor by a clock of another name"
    assert (caught.value.clock, caught.value.limit) == ("timeout", 1)
    until(lambda: exits)
    assert exits == [caught.value]
    assert [event.name for event in told] == ["d"]
    with pytest.raises(CommandTimeoutException):
        asked.wait(10)
    assert [event.name for event in asked.poll()] == ["d"], "what had happened before is not lost"
    for ask in (asked.get_new_events, asked.poll, lambda: list(asked), lambda: list(asked.events(5))):
        with pytest.raises(CommandTimeoutException):
            ask()
    assert "ended" in repr(asked)
    called_back.stop()
    with pytest.raises(CommandTimeoutException):
        called_back.wait()
    assert len(exits) == 1
    until(lambda: "sandbox-sync-watch" not in threads())


@pytest.mark.documented("Filesystem.watch_dir")
def test_timeout_zero_is_no_limit(sandbox: Sandbox) -> None:
    with sandbox.files.watch_dir(".", timeout=0) as zero, sandbox.files.watch_dir(".", timeout=None) as none:
        with pytest.raises(CommandTimeoutException, match=r"still being watched .*wait\(timeout=1.5\)"):
            zero.wait(timeout=1.5)
        sandbox.commands.run("mkdir d")
        assert [event.name for event in zero.poll(timeout=5)] == ["d"]
        assert [event.name for event in none.poll(timeout=5)] == ["d"]


def test_when_the_sandbox_is_killed_everybody_is_told(sandbox: Sandbox) -> None:
    exits: list[Exception | None] = []
    called_back = sandbox.files.watch_dir(".", print, exits.append, timeout=0)
    asked = sandbox.files.watch_dir(".", timeout=0)
    failures: list[SandboxException] = []

    def expect(wait: Any) -> None:
        with pytest.raises(SandboxNotRunningException) as caught:
            wait()
        failures.append(caught.value)

    waits = (called_back.wait, asked.poll, lambda: list(asked), asked.wait)
    waiting = [threading.Thread(target=expect, args=(wait,)) for wait in waits]
    for thread in waiting:
        thread.start()
    begin = time.monotonic()
    sandbox.kill()
    for thread in waiting:
        thread.join(10)
    assert len(failures) == 4
    assert time.monotonic() - begin < 5
    assert {error.sandbox_id for error in failures} == {sandbox.sandbox_id}
    until(lambda: exits)
    assert [type(error) for error in exits] == [SandboxNotRunningException]
    with pytest.raises(SandboxNotRunningException):
        sandbox.files.watch_dir(".")


@pytest.mark.parametrize("kind", [KeyError, SystemExit, KeyboardInterrupt, CommandTimeoutException])
def test_an_error_of_the_callback_ends_the_watch_and_is_told(
    sandbox: Sandbox, kind: type[BaseException]
) -> None:
    raised = kind("events were lost: overflow")  # words that mean something only when the service says them
    calls: list[FilesystemEvent] = []
    exits: list[Exception | None] = []

    def on_event(event: FilesystemEvent) -> None:
        calls.append(event)
        raise raised

    handle = sandbox.files.watch_dir(".", on_event, exits.append, timeout=0)
    sandbox.commands.run("mkdir a b c")
    for _ in range(2):
        with pytest.raises(kind) as caught:
            handle.wait(timeout=10)
        assert caught.value is raised
        assert caught.traceback[-1].name == "on_event"
    depth = len(caught.traceback)
    with pytest.raises(kind) as caught:
        handle.wait(timeout=10)
    assert len(caught.traceback) == depth, "it does not grow"
    until(lambda: exits)
    assert exits == [raised]
    assert [event.name for event in calls] == ["a"]
    assert raised.args == ("events were lost: overflow",)


def test_errors_that_nobody_would_see_are_logged(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "sandbox_sync")

    def fail(_: object) -> None:
        raise KeyError("of the callback")

    def stop_and_fail(_: object) -> None:
        late.stop()
        raise KeyError("after the stop")

    sandbox.files.watch_dir(".", fail, timeout=0)
    exits = sandbox.files.watch_dir(".", print, fail, timeout=0)
    exits.stop()
    until(lambda: "on_exit of the watched directory '.' raised" in caplog.text)
    late = sandbox.files.watch_dir(".", stop_and_fail, timeout=0)
    sandbox.commands.run("mkdir d")
    late.wait(timeout=5)
    until(lambda: "'.' is no longer watched: 'of the callback'" in caplog.text)
    until(lambda: "on_event raised after the watch was stopped" in caplog.text)
    assert "after the stop" in caplog.text
    until(lambda: "sandbox-sync-watch" not in threads())


def test_a_callback_may_not_wait_for_its_own_watch(sandbox: Sandbox) -> None:
    handle = sandbox.files.watch_dir(".", lambda _: handle.wait(), timeout=0)
    sandbox.commands.run("mkdir d")
    with pytest.raises(SandboxException, match="called in a callback"):
        handle.wait(timeout=10)


def test_a_watcher_that_is_killed_in_the_sandbox_is_an_error(sandbox: Sandbox) -> None:
    with sandbox.files.watch_dir(".", timeout=0) as handle:
        sandbox.commands.run("kill -9 $(pgrep -x sandbox | tail -1)", user="root", check=False)
        with pytest.raises(SandboxException, match="watcher") as caught:
            handle.poll(timeout=10)
        assert caught.value.sandbox_id == sandbox.sandbox_id
    assert sandbox.is_running()
    with sandbox.files.watch_dir(".") as handle:
        sandbox.commands.run("mkdir d")
        assert [event.name for event in handle.poll(timeout=10)] == ["d"]


def test_a_forked_child_is_told_and_the_parent_not_disturbed(sandbox: Sandbox, transport: str) -> None:
    if transport == "grpc":
        pytest.skip("forking while gRPC streams run is not safe, whatever the handle does")
    with sandbox.files.watch_dir(".", timeout=0) as handle:
        sandbox.commands.run("mkdir before")
        child = os.fork()
        if not child:
            code = 1
            try:
                for ask in (handle.poll, handle.get_new_events, lambda: list(handle), handle.wait):
                    with pytest.raises(ConnectionException, match=r"fork; files\.watch_dir"):
                        ask()
                with handle:
                    handle.stop()
                del handle
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        sandbox.commands.run("mkdir after")
        assert [event.name for event in islice(handle.events(timeout=10), 2)] == ["before", "after"]
        assert handle.poll(timeout=0.1) == []


def test_a_directory_that_is_removed_is_told_so_and_no_error(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("d")
    with sandbox.files.watch_dir("d", timeout=0) as handle:
        sandbox.commands.run("rmdir d")
        assert [(event.type.value, event.name) for event in handle.poll(timeout=10)][-1] == ("remove", ".")
        sandbox.commands.run("mkdir -p d/e")
        assert handle.poll(timeout=0.3) == []
