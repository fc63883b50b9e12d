"""The way into a sandbox: its commands, files and terminals, over one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sandbox_sync.access import Access
from sandbox_sync.commands import Commands
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.filesystem import Filesystem
from sandbox_sync.pty import Pty
from sandbox_sync.transport.envd import EnvdConnection

if TYPE_CHECKING:
    from typing_extensions import Self


class Inside(NamedTuple):
    """The way into a sandbox and what works through it."""

    access: Access
    envd: EnvdConnection
    files: Filesystem
    commands: Commands
    pty: Pty

    @classmethod
    def reached_with(cls, config: ConnectionConfig, access: Access) -> Self:
        """Make it."""
        envd = EnvdConnection(config, access.sandbox_id, access.domain, access.token, agent=access.agent)
        return cls(access, envd, Filesystem(envd), Commands(envd), Pty(envd))
