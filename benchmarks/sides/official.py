"""The official SDK, the package `e2b` as it is installed, with its blocking half."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

# Read at the import. By default it stops for ever, and says nothing, when it has begun about 200 commands.
os.environ["E2B_MAX_CONNECTIONS"] = "2000"

from e2b import Sandbox, SandboxQuery

from sides import watching
from sides.place import Place, Sizes
from sides.sdk import LISTED, Sdk
from sides.usage import Sample


class Official(Sdk):
    """Its blocking half tells of changes when it is asked.

    Args:
        pause: Seconds between two questions.
    """

    def __init__(self, place: Place, sizes: Sizes, pause: float = 0.0) -> None:
        super().__init__(Sandbox, {}, place, sizes)
        self._pause = pause

    def ready_watch(self) -> None:
        self.sandbox.commands.run(watching.prepare())

    def watch(self) -> Sample:
        delays = watching.Delays(self.sizes.changes)
        handle = self.sandbox.files.watch_dir(watching.DIRECTORY)
        try:
            self.sandbox.commands.run(watching.changes(self.sizes.changes))
            until = time.monotonic() + 60
            while not delays.all_told([event.name for event in handle.get_new_events()]):
                assert time.monotonic() < until
                time.sleep(self._pause)
        finally:
            handle.stop()
        return {"seconds": delays.seconds}

    def _listed(self) -> Iterator[Any]:
        pages = Sandbox.list(query=SandboxQuery(metadata=LISTED), limit=100, **self.options)
        while pages.has_next:
            yield from pages.next_items()
