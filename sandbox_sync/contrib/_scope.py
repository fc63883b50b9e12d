"""The sandbox of one request or task, and the output that is streamed from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from sandbox_sync.ambient import CLEAN_UP_SECONDS, cleaning_up
from sandbox_sync.contrib._settings import Settings
from sandbox_sync.errors import InvalidArgumentException, SandboxException
from sandbox_sync.handles import CommandHandle
from sandbox_sync.sandbox import Sandbox


class Scope:
    """What a request or task has of sandboxes: one, made when it is asked for, until `end`.

    It may be used from any thread.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()  # re-entrant: a signal handler may ask as well
        self._sandbox: Sandbox | None = None
        self._streamed: list[CommandHandle] = []
        self._ended = False

    def sandbox(self) -> Sandbox:
        """The sandbox.

        Raises:
            InvalidArgumentException: The request or task has ended.
            SandboxException: It could not be made.
        """
        with self._lock:
            if self._ended:
                raise InvalidArgumentException("The request or task that this sandbox was for has ended")
            if self._sandbox is None:
                self._sandbox = Sandbox.create(**self._settings.options)
            return self._sandbox

    def stream(self, command: str, timeout: float | None, options: dict[str, Any]) -> Iterator[str]:
        """Start a command, and iterate over its stdout and stderr as they arrive.

        Raises:
            SandboxException: It could not be started; or, from the iterator, its end was not seen.
        """
        handle = self.sandbox().commands.run(
            command, background=True, timeout=timeout, check=False, retain_output=False, **options
        )
        self._streamed.append(handle)
        return _texts(handle)

    def end(self) -> None:
        """Kill the sandbox, if one was made, and all that runs in it. Doing so again changes nothing."""
        with self._lock:
            sandbox, self._sandbox, self._ended = self._sandbox, None, True
        if sandbox is None:
            return
        try:
            with cleaning_up():
                sandbox.kill(CLEAN_UP_SECONDS)
        except SandboxException as error:
            # The lease or the lifetime ends it. What the request or task has come to is not changed by that.
            sandbox.connection_config.log.warning("sandbox %s was not killed: %s", sandbox.sandbox_id, error)
        finally:
            for handle in self._streamed:
                handle.disconnect()


def _texts(handle: CommandHandle) -> Iterator[str]:
    for stdout, stderr, _ in handle:
        yield stdout or stderr or ""
