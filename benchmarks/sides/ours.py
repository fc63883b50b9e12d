"""Our SDK."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from sandbox_sync import FilesystemEvent, Sandbox, SandboxQuery
from sides import watching
from sides.place import Place, Sizes
from sides.sdk import LISTED, Sdk
from sides.usage import Sample


class Ours(Sdk):
    """Over one of its transports."""

    def __init__(self, transport: str, place: Place, sizes: Sizes) -> None:
        super().__init__(Sandbox, {"transport": transport}, place, sizes)

    def _unretained(self) -> dict[str, Any]:
        return {"retain_output": False}

    def ready_watch(self) -> None:
        self.sandbox.commands.run(watching.prepare())

    def watch(self) -> Sample:
        delays = watching.Delays(self.sizes.changes)
        over = threading.Event()

        def changed(event: FilesystemEvent) -> None:
            if delays.told(event.name):
                over.set()

        with self.sandbox.files.watch_dir(watching.DIRECTORY, changed, timeout=0):
            self.sandbox.commands.run(watching.changes(self.sizes.changes))
            assert over.wait(60)
        return {"seconds": delays.seconds}

    def _listed(self) -> Iterator[Any]:
        return iter(Sandbox.list(query=SandboxQuery(metadata=LISTED), limit=100, **self.options))
