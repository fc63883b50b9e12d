"""The SDK's classes have the types of the documented surface. This is checked, not run."""

from __future__ import annotations

import sandbox_sync
from tests.contract import documented_surface as documented


def conforms(
    sandbox: sandbox_sync.Sandbox, watch: sandbox_sync.WatchHandle, handle: sandbox_sync.CommandHandle
) -> None:
    _on_class: documented.SandboxClass = sandbox_sync.Sandbox
    _api: documented.SandboxApi = sandbox_sync.Sandbox
    _sandbox: documented.Sandbox = sandbox
    _files: documented.Filesystem = sandbox.files
    _commands: documented.Commands = sandbox.commands
    _pty: documented.Pty = sandbox.pty
    _watch: documented.WatchHandle = watch
    _handle: documented.CommandHandle = handle
