"""Starting programs on gVisor's kernel, which needs no filter before it and lacks some of Linux's calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sandbox_local.isolation.inside import spawn
from sandbox_local.isolation.inside.spawn import Spawner
from sandbox_local.isolation.inside.standing import Standing
from sandbox_local.isolation.inside.tags import Tag
from sandbox_local.isolation.users import User


class Mark(Tag):
    """The tag of programs that are told by their supervisor, which is its name."""

    def put_on(self) -> None:
        """See `Tag`; being its descendant is enough."""

    def close(self) -> None:
        """See `Tag`; there is nothing to close."""


class SentrySpawner(Spawner):
    """A `Spawner`."""

    def __init__(self, processes: int, data_bytes: int) -> None:
        """Get ready; for the arguments see `Spawner`."""
        self._standing = _NoStanding()
        self._limits = spawn.limits(processes, data_bytes)

    def _keep_streams_only(self) -> None:
        """See `Spawner`; all others are close-on-exec from the start."""

    def _assume(self, user: User) -> None:
        spawn.become(user)


class _NoStanding(Standing):
    """The host's kernel sees but one process, which is gVisor itself."""

    def __init__(self) -> None:
        """Open nothing."""

    @contextlib.contextmanager
    def of_commands(self) -> Iterator[None]:
        """See `Standing`."""
        yield

    def fall_in(self) -> None:
        """See `Standing`."""
