"""Modules that are loaded when something of them is first used.

So `Sandbox` can be imported, named in a class statement or passed to a worker without loading what talks to
servers, which takes most of the time of an import; and what it loads at the first call, it loads as any
import does: once, whichever thread is first.
"""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sandbox_sync.transport import threads

if TYPE_CHECKING:
    from types import ModuleType

# Seconds for which the main thread waits for another to load something, far longer than that takes: the other
# may itself wait for a module in the middle of whose import this call is made.
_PATIENCE = 30.0


class later:
    """Stands for a module, whose name is given in full.

    Type checkers are to see an import in its place: `if TYPE_CHECKING: from package import module`, and in
    the branch that runs `else: module = later("package.module")`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._module: ModuleType | None = None

    def __getattr__(self, attribute: str) -> Any:
        if self._module is None:  # looking it up anew takes longer than a small call may
            self._module = load(self._name)
        return getattr(self._module, attribute)

    def __repr__(self) -> str:
        return f"later({self._name!r})"


def load(name: str) -> ModuleType:
    """Import a module, whole even if Ctrl-C comes meanwhile, or another signal whose handler raises.

    Handlers run in the main thread. What they raise in the middle of an import is there for good in many a
    package: parts of it stay loaded, and the rest cannot be loaded any more. So another thread imports.

    Args:
        name: Its name in full.

    Raises:
        ImportError: It cannot be imported.
    """
    if threading.current_thread() is not threading.main_thread() or _is_loaded(name):
        return import_module(name)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            import_module(name)
        except BaseException as error:  # noqa: BLE001 - raised by who waits
            failures.append(error)

    threads.aside("sandbox-sync-import", work, _PATIENCE, daemon=False)
    if failures:
        raise failures[0]
    return import_module(name)


def _is_loaded(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec is not None and not getattr(spec, "_initializing", False)
